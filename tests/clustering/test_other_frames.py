"""Frames of another data set in the clusters of this one."""

import numpy as np
import pytest

from ase_flatten.clustering.clusters import Clustering, cluster
from ase_flatten.clustering.other_frames import labels_of_other_frames
from ase_flatten.data.dataset import Dataset

SHAPES = np.array([1.0, 2.0, 4.0])


@pytest.fixture
def data(rng) -> Dataset:
    """Three atoms in three shapes that are far apart, each at three energies that are far apart, 40 frames of each."""
    shape, level = np.repeat(np.arange(3), 120), np.tile(np.arange(3), 120)
    positions = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])[None] * SHAPES[shape, None, None]
    noise = rng.normal(scale=0.02, size=positions.shape)
    energies = -16_000.0 + 10 * level + 3 * shape + rng.normal(scale=0.1, size=360)
    return Dataset([8, 1, 1], positions + noise, energies, np.zeros_like(positions))


@pytest.mark.parametrize("assignment", ["average", "ward", "maximum"])
@pytest.mark.parametrize("n_ward", [360, 60])
def test_frames_join_the_cluster_of_their_geometry_and_energy(data, rng, assignment, n_ward):
    found = cluster(data, rng=rng, n_geometry=3, n_energy=3, n_ward=n_ward)
    assert found.n_clusters == 9
    turned = data.positions @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + 5.0
    others = Dataset(data.numbers, turned[::7], data.energies[::7] + 0.05, data.forces[::7])
    labels = labels_of_other_frames(found, data, others, rng=rng, assignment=assignment)
    np.testing.assert_array_equal(labels, found.labels[::7])


def test_a_geometry_of_few_frames_is_not_lost_from_the_subset(data, rng):
    rare = np.zeros(360, dtype=int)
    rare[17] = 1
    clusters = Clustering(rare, n_ward=20)
    labels = labels_of_other_frames(clusters, data, data.take(np.array([17])), rng=rng)
    assert labels.tolist() == [1]
