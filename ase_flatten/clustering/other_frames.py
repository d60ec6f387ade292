"""Frames of another data set in the clusters of this one, such as those of an external test set."""

import numpy as np

from ase_flatten.clustering.assignment import assign, rule_named
from ase_flatten.clustering.clusters import Clustering
from ase_flatten.data.dataset import Dataset
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import IntArray


def labels_of_other_frames(
    clustering: Clustering,
    dataset: Dataset,
    others: Dataset,
    *,
    rng: np.random.Generator,
    assignment: str = "average",
    progress: Progress = SILENT,
) -> IntArray:
    """Assign other frames to clusters: by geometry, then to the cluster of nearest mean energy within it.

    Geometries are assigned as the frames of a large data set are that Ward linkage did not take, by the distances to
    at most as many clustered frames as it took. Clusters stay as they are, and some may get no frame.

    Parameters
    ----------
    dataset : Dataset
        What was clustered.
    others : Dataset
        Other frames of the same molecule, with the same zero of energy.
    assignment : {"average", "ward", "maximum"}
        See `ase_flatten.clustering.assignment`.

    Returns
    -------
    (n_other,) int array
    """
    frames = _frames_to_compare(clustering, rng)
    distances = np.concatenate([dataset.pair_distances[frames], others.pair_distances])
    geometry = assign(
        distances, np.arange(len(frames)), clustering.geometry[frames], np.arange(len(frames), len(distances)),
        rule=rule_named(assignment), progress=progress,
    )  # fmt: skip
    means = np.bincount(clustering.labels, weights=dataset.energies - dataset.energies.mean()) / clustering.populations
    energies = others.energies - dataset.energies.mean()
    labels = np.empty(others.n_frames, dtype=np.int64)
    for group in np.unique(geometry):
        members, clusters = geometry == group, np.unique(clustering.labels[clustering.geometry == group])
        labels[members] = clusters[np.abs(energies[members, None] - means[clusters]).argmin(axis=1)]
    return labels


def _frames_to_compare(clustering: Clustering, rng: np.random.Generator) -> IntArray:
    """Choose frames at random, and the first one of each geometry so that none is missing."""
    n_frames = len(clustering.labels)
    if n_frames <= clustering.n_ward:
        return np.arange(n_frames)
    first = np.unique(clustering.geometry, return_index=True)[1]
    return np.union1d(first, rng.choice(n_frames, clustering.n_ward, replace=False)).astype(np.int64)
