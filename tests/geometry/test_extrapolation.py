from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ase_flatten.data.io import read_dataset
from ase_flatten.geometry.bonds import bonded_pairs
from ase_flatten.geometry.extrapolation import QUANTILE, training_region
from ase_flatten.geometry.pair_distances import pair_distances, pair_permutation

EXAMPLE = Path(__file__).parents[2] / "examples" / "data" / "salicylic_gfn2_500K.npz"
IDENTITY = np.arange(16)[None]


@pytest.fixture(scope="module")
def salicylic():
    return read_dataset(EXAMPLE)


@pytest.fixture(scope="module")
def frames(salicylic):
    return np.random.default_rng(0).permutation(salicylic.n_frames)


@pytest.fixture(scope="module")
def region(salicylic, frames):
    return training_region(salicylic.positions[frames[:100]], IDENTITY)


def test_every_stretched_bond_to_hydrogen_lies_outside(salicylic, frames, region):
    """One bond of 120 distances: by 0.5 Å, and by 0.3 Å."""
    numbers, positions = salicylic.numbers, salicylic.positions[frames[:10]]
    bonded = bonded_pairs(numbers, pair_distances(positions).mean(axis=0))
    i, j = np.tril_indices(len(numbers), -1)
    hydrogens = [(a, b) for a, b in zip(i[bonded], j[bonded], strict=True) if numbers[a] == 1]
    assert len(hydrogens) >= 6
    for hydrogen, heavy in hydrogens:
        bond = positions[:, hydrogen] - positions[:, heavy]
        direction = bond / np.linalg.norm(bond, axis=1, keepdims=True)
        values = []
        for stretch in (0.3, 0.5):
            moved = positions.copy()
            moved[:, hydrogen] += stretch * direction
            values.append(region.extrapolation(moved))
            assert all(hydrogen in region.outlying_distance(one).atoms for one in moved)
        assert values[0].min() > 1 and values[1].min() > 3


def test_ordinary_frames_lie_inside(salicylic, frames, region):
    values = region.extrapolation(salicylic.positions[frames[100:2100]])
    assert 0.02 < np.mean(values > 1) < 0.15
    assert np.mean(values > 2) < 0.01


def test_one_means_the_same_for_both_measures(salicylic, frames):
    """The share of left-out training geometries inside, each measured by a region made without it."""
    positions = salicylic.positions[frames[:60]]
    region = training_region(positions, IDENTITY)
    alone, nearest = [], []
    for row in range(len(positions)):
        others = training_region(np.delete(positions, row, axis=0), IDENTITY)
        others = replace(others, spread=region.spread, margin=region.margin, centre=region.centre, reach=region.reach)
        rest = pair_distances(np.delete(positions, row, axis=0))
        distances = pair_distances(positions[row : row + 1])
        nearest.append(np.sqrt(np.mean(((rest - distances) / region.spread) ** 2, axis=1)).min())
        alone.append(others.outlying_distance(positions[row]).extrapolation * region.margin)
    assert np.quantile(nearest, QUANTILE) == pytest.approx(region.reach, rel=1e-4)
    assert np.quantile(alone, QUANTILE) == pytest.approx(region.margin, rel=1e-6)


def test_images_of_training_geometries_lie_inside(salicylic, frames, region):
    exchange = np.arange(16)
    hydrogens = np.flatnonzero(salicylic.numbers == 1)[:2]
    exchange[hydrogens] = hydrogens[::-1]
    positions = salicylic.positions[frames[:100]]
    symmetric = training_region(positions, np.array([np.arange(16), exchange]))
    others = salicylic.positions[frames[100:120]]
    np.testing.assert_allclose(symmetric.extrapolation(others[:, exchange]), symmetric.extrapolation(others), rtol=1e-4)
    assert (
        symmetric.extrapolation(positions[:, exchange]).max() < 1 < region.extrapolation(positions[:, exchange]).min()
    )
    np.testing.assert_array_equal(symmetric.largest[pair_permutation(exchange)], symmetric.largest)


def test_rotation_and_translation_change_nothing(salicylic, frames, region):
    positions = salicylic.positions[frames[200:210]]
    moved = positions @ Rotation.random(rng=1).as_matrix().T + [1.0, -2.0, 3.0]
    np.testing.assert_allclose(region.extrapolation(moved), region.extrapolation(positions), rtol=1e-4)


@pytest.mark.parametrize("n_train", [2, 3, 5, 20])
def test_small_training_sets(salicylic, frames, n_train):
    positions = salicylic.positions[frames[:n_train]]
    region = training_region(positions, IDENTITY)
    assert np.all(region.extrapolation(positions) < 0.01)
    assert region.extrapolation(positions[:1] * 1.5)[0] > 1


def test_one_training_geometry_says_nothing(salicylic):
    assert training_region(salicylic.positions[:1], IDENTITY) is None


def test_equal_training_geometries(salicylic):
    region = training_region(np.repeat(salicylic.positions[:1], 10, axis=0), IDENTITY)
    assert region.extrapolation(salicylic.positions[:1])[0] < 0.01
    assert region.extrapolation(salicylic.positions[5000:5001])[0] > 1


def test_two_atoms():
    lengths = np.random.default_rng(0).normal(0.75, 0.03, 200)
    positions = np.zeros((200, 2, 3))
    positions[:, 1, 0] = lengths
    region = training_region(positions, np.array([[0, 1], [1, 0]]))
    probes = np.zeros((4, 2, 3))
    probes[:, 1, 2] = [0.75, lengths.max() + 0.01, lengths.max() + 0.1, lengths.min() - 0.1]
    assert (region.extrapolation(probes) > 1).tolist() == [False, False, True, True]


def test_geometries_that_flew_apart(salicylic, region):
    positions = salicylic.positions[:3].copy()
    positions[1, 0] = 1e30
    positions[2, 0] = np.nan
    values = region.extrapolation(positions)
    assert values[0] < 1 and values[1] > 1e20 and np.isnan(values[2])
