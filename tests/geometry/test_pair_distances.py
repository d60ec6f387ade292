import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.spatial.transform import Rotation

from ase_flatten.geometry.pair_distances import (
    NEAR_IDENTICAL,
    near_identical_pairs,
    near_identical_to,
    nearest_frames,
    pair_distances,
    pair_permutation,
    squared_distances,
)
from ase_flatten.utils import blocks as blocks_module
from ase_flatten.utils.blocks import BLOCK_BYTES, blocks

coordinates = st.floats(-20, 20, allow_subnormal=False)
frames_of_atoms = st.tuples(st.integers(1, 5), st.integers(2, 6)).flatmap(
    lambda shape: arrays(np.float64, (*shape, 3), elements=coordinates)
)


@st.composite
def crowds(draw, least=2, most=15):
    """Descriptors in a few tight bunches, so that some frames are near-identical and some are not."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_frames, width = draw(st.integers(2, 25)), draw(st.integers(least, most))
    bunches = rng.normal(5, 1, (draw(st.integers(1, 6)), width))
    spread = NEAR_IDENTICAL * draw(st.sampled_from([0.1, 0.7, 3.0]))
    return bunches[rng.integers(len(bunches), size=n_frames)] + rng.normal(0, spread, (n_frames, width))


@given(frames_of_atoms)
def test_pair_distances_are_those_of_scipy_in_the_stated_order(positions):
    found = pair_distances(positions)
    i, j = np.tril_indices(positions.shape[1], -1)
    assert found.shape == (len(positions), len(i))
    for frame, distances in zip(positions, found):
        np.testing.assert_allclose(distances, squareform(pdist(frame))[i, j], rtol=1e-12, atol=1e-12)


@given(frames_of_atoms, st.integers(0, 1000))
def test_pair_distances_do_not_see_how_a_molecule_lies(positions, seed):
    turn = Rotation.random(random_state=seed).as_matrix()
    moved = positions @ turn.T + np.random.default_rng(seed).normal(size=3)
    np.testing.assert_allclose(pair_distances(moved), pair_distances(positions), atol=1e-11)


@given(frames_of_atoms, st.randoms(use_true_random=False))
def test_an_exchange_of_atoms_is_one_of_pairs(positions, random):
    permutation = np.array(random.sample(range(positions.shape[1]), positions.shape[1]))
    exchanged = pair_distances(positions[:, permutation])
    np.testing.assert_allclose(exchanged, pair_distances(positions)[:, pair_permutation(permutation)], atol=1e-12)


def test_pair_distances_are_the_same_in_blocks(monkeypatch, rng):
    positions = rng.normal(size=(50, 5, 3))
    whole = pair_distances(positions)
    monkeypatch.setattr(blocks_module, "BLOCK_BYTES", 1000)
    assert len(list(blocks(50, 8 * 4 * 10))) == 17
    np.testing.assert_array_equal(pair_distances(positions), whole)


@given(st.integers(0, 5000), st.integers(1, 2**30))
def test_blocks_cover_all_rows_once_and_keep_to_the_memory(n_rows, bytes_per_row):
    slices = list(blocks(n_rows, bytes_per_row))
    assert [row for part in slices for row in range(part.start, part.stop)] == list(range(n_rows))
    assert all(
        (part.stop - part.start) * bytes_per_row <= BLOCK_BYTES or part.stop - part.start == 1 for part in slices
    )


@given(
    st.integers(1, 8).flatmap(
        lambda width: st.tuples(
            *(arrays(np.float64, st.tuples(st.integers(1, 7), st.just(width)), elements=coordinates) for _ in range(2))
        )
    )
)
def test_squared_distances_are_those_of_cdist(pair):
    a, b = pair
    found = squared_distances(a, b)
    assert np.all(found >= 0)
    np.testing.assert_allclose(found, cdist(a, b, "sqeuclidean"), rtol=1e-10, atol=1e-10)


def test_squared_distances_keep_single_precision(rng):
    a, b = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    found = squared_distances(a, b)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, cdist(a, b, "sqeuclidean"), rtol=1e-4, atol=1e-5)


@settings(deadline=None)
@given(crowds())
def test_near_identical_pairs_are_those_of_a_search_of_all_pairs(found_in):
    radius = NEAR_IDENTICAL * np.sqrt(found_in.shape[1])
    distances = squareform(pdist(found_in))
    assume(np.abs(distances[np.triu_indices(len(found_in), 1)] - radius).min() > 1e-9)
    expected = {(i, j) for i, j in zip(*np.nonzero(distances < radius)) if i < j}
    pairs = near_identical_pairs(found_in)
    assert pairs.shape == (len(expected), 2)
    assert {tuple(pair) for pair in pairs.tolist()} == expected


def test_near_identical_pairs_find_a_planted_pair_and_its_edge(rng):
    frames = rng.normal(5, 1, (200, 30))
    frames[150] = frames[20] + 0.99 * NEAR_IDENTICAL
    frames[151] = frames[21] + 1.01 * NEAR_IDENTICAL
    np.testing.assert_array_equal(near_identical_pairs(frames), [[20, 150]])
    wider = {tuple(pair) for pair in near_identical_pairs(frames, tolerance=1.02 * NEAR_IDENTICAL).tolist()}
    assert wider == {(20, 150), (21, 151)}


def test_a_single_frame_is_near_no_other():
    frame = np.ones((1, 10))
    assert near_identical_pairs(frame).shape == (0, 2)
    assert nearest_frames(frame)[1] == [np.inf]


def test_near_identical_pairs_are_found_among_frames_that_span_few_dimensions():
    frames = np.zeros((6, 30))
    frames[3:, 0] = [1.0, 2.0, 2.0]
    np.testing.assert_array_equal(sorted(near_identical_pairs(frames).tolist()), [[0, 1], [0, 2], [1, 2], [4, 5]])


@settings(deadline=None)
@given(crowds(most=6))
def test_nearest_frames_are_nearest_where_the_tree_holds_every_dimension(descriptor):
    distances = squareform(pdist(descriptor))
    np.fill_diagonal(distances, np.inf)
    found, lengths = nearest_frames(descriptor)
    # The tree's projection rounds: frames that are equally near to 1e-9 Å may change places.
    np.testing.assert_allclose(lengths, distances.min(axis=1), atol=1e-9)
    np.testing.assert_allclose(lengths, distances[np.arange(len(found)), found], atol=1e-12)


@settings(deadline=None)
@given(crowds(least=10, most=30), st.integers(1, 30))
def test_nearest_frames_are_other_frames_at_their_true_distance(descriptor, candidates):
    distances = squareform(pdist(descriptor))
    np.fill_diagonal(distances, np.inf)
    found, lengths = nearest_frames(descriptor, candidates=candidates)
    assert np.all(found != np.arange(len(descriptor)))
    np.testing.assert_allclose(lengths, distances[np.arange(len(found)), found], rtol=1e-12)
    if candidates >= len(descriptor) - 1:
        np.testing.assert_allclose(lengths, distances.min(axis=1), rtol=1e-12)


@pytest.mark.parametrize("n_copies", [3, 12])
def test_nearest_frames_of_copies_are_other_copies(n_copies, rng):
    originals = rng.normal(5, 1, (10, 20))
    found, lengths = nearest_frames(np.tile(originals, (n_copies, 1)))
    np.testing.assert_allclose(lengths, 0, atol=1e-12)
    np.testing.assert_array_equal(found % 10, np.arange(10 * n_copies) % 10)


@given(crowds(), st.integers(0, 2**32 - 1), st.floats(1e-3, 1))
def test_frames_that_are_near_other_frames(descriptors, seed, tolerance):
    others = np.random.default_rng(seed).permutation(descriptors)[: len(descriptors) // 2]
    lengths = cdist(descriptors, others) / np.sqrt(descriptors.shape[1])
    assume(not np.any(np.abs(lengths - tolerance) < 1e-6))
    found = near_identical_to(descriptors, others, tolerance=tolerance)
    np.testing.assert_array_equal(found, lengths.min(axis=1) < tolerance)
    assert not near_identical_to(descriptors, descriptors[:0]).any()
