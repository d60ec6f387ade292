import numpy as np
import pytest

from ase_flatten.clustering.clusters import Clustering
from ase_flatten.clustering.splits import split
from ase_flatten.utils.exceptions import InputError


@pytest.fixture
def clustering(rng):
    return Clustering(np.sort(np.concatenate([np.arange(8), rng.choice(8, size=992, p=[0.3] + [0.1] * 7)])))


def test_parts_are_disjoint_complete_and_stratified(clustering, rng):
    splits = split(clustering, rng.random((1000, 6)) * 10, rng=rng)
    together = np.concatenate([splits.pool, splits.valid, splits.heldout])
    assert np.array_equal(np.sort(together), np.arange(1000))
    assert abs(len(splits.heldout) - 200) <= 8
    held = np.bincount(clustering.labels[splits.heldout], minlength=8) / clustering.populations
    assert np.all(np.abs(held - 0.2) < 0.03)


def test_near_identical_frames_stay_on_one_side(clustering, rng):
    descriptors = rng.random((1000, 6)) * 10
    descriptors[1::2] = descriptors[::2] + 1e-4
    splits = split(clustering, descriptors, rng=rng)
    side = np.empty(1000, dtype=int)
    for number, frames in enumerate((splits.pool, splits.valid, splits.heldout)):
        side[frames] = number
    assert np.array_equal(side[::2], side[1::2])


def test_without_keeping_together_the_same_data_leak(clustering, rng, monkeypatch):
    descriptors = rng.random((1000, 6)) * 10
    descriptors[1::2] = descriptors[::2] + 1e-4
    monkeypatch.setattr("ase_flatten.clustering.splits.near_identical_pairs", lambda _: np.empty((0, 2), dtype=int))
    heldout = split(clustering, descriptors, rng=rng).heldout
    assert not np.array_equal(heldout[heldout % 2 == 0] + 1, heldout[heldout % 2 == 1])


def test_a_dense_trajectory_is_cut_into_pieces(rng):
    descriptors = np.cumsum(np.full((1000, 3), 1e-3), axis=0)
    splits = split(Clustering(np.zeros(1000, dtype=int)), descriptors, rng=rng)
    assert 190 <= len(splits.heldout) <= 210 and len(splits.pool) > 600
    # Whole pieces of ten frames: few borders where a held-out frame touches another side.
    assert np.sum(np.diff(splits.heldout) > 1) < 22


def test_single_frames_are_not_held_out(rng):
    labels = np.concatenate([np.zeros(199, dtype=int), [1]])
    assert 199 in split(Clustering(labels), rng.random((200, 3)) * 10, rng=rng).pool


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_senseless_shares_are_refused(clustering, rng, share):
    with pytest.raises(InputError, match="between 0 and 1"):
        split(clustering, rng.random((1000, 6)), rng=rng, holdout=share)


def test_too_few_frames_are_refused(rng):
    with pytest.raises(InputError, match="too few"):
        split(Clustering(np.zeros(3, dtype=int)), rng.random((3, 3)) * 9, rng=rng)
