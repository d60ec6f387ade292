"""Clusters of configurational space: broad ones by geometry and energy, fine ones by geometry.

Fonseca et al. 2021, sections II and III: Ward linkage on pair distances, on a subset
of large data sets, and KMeans on the energies within each cluster.
"""

import logging
import math
import warnings
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import psutil
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from ase_flatten.clustering.assignment import Rule, assign, rule_named
from ase_flatten.data.dataset import Dataset
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray

logger = logging.getLogger(__name__)

N_WARD = 20_000
"""Maximum number of frames for Ward linkage; the others are assigned to its clusters."""

SAME_GEOMETRY = 1e-6
"""Frames whose pair distances differ by less (Euclidean, Å) are one configuration."""

SAME_ENERGY = 1e-9
"""Energies that differ by less are equal, eV."""

_MEMORY_SHARE = 0.7
"""Ward linkage uses at most this fraction of the available memory."""

_KMEANS_STARTS = 10

HOLDOUT = 0.2
"""Share of the frames that a run holds out by default."""

_MOST_BY_GEOMETRY, _MOST_BY_ENERGY = 10, 5
_HELDOUT_FOR_ALL = 1000
"""Held-out frames from which on there are as many clusters as in the paper."""


@dataclass(frozen=True, eq=False)
class Clustering:
    """Cluster of every frame, read-only.

    Parameters
    ----------
    labels : (n_frames,) int array
        From 0 to n_clusters - 1, each of which occurs.
    geometry : (n_frames,) int array, optional
        The geometric clusters, before they were split by energy; `labels` by default.
    n_ward : int, optional
        How many frames were clustered by Ward linkage; all of them by default.

    Raises
    ------
    InputError
        Labels that are not integers, or that skip a number.

    Examples
    --------
    >>> from ase_flatten import Clustering
    >>> clusters = Clustering([0, 1, 0, 2, 0])
    >>> clusters.n_clusters, clusters.populations.tolist(), clusters.members(0).tolist()
    (3, [3, 1, 1], [0, 2, 4])
    """

    labels: IntArray
    geometry: IntArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    n_ward: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "geometry", _checked(self.geometry if len(self.geometry) else self.labels))
        object.__setattr__(self, "labels", _checked(self.labels))
        object.__setattr__(self, "n_ward", self.n_ward or len(self.labels))
        if len(self.geometry) != len(self.labels):
            raise InputError(f"geometry must be of {len(self.labels)} frames as labels, found {len(self.geometry)}")

    @cached_property
    def populations(self) -> IntArray:
        """Number of frames of each cluster, (n_clusters,)."""
        populations = np.bincount(self.labels).astype(np.int64)
        populations.flags.writeable = False
        return populations

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return len(self.populations)

    def members(self, cluster: int) -> IntArray:
        """Return the frames of one cluster, in rising order."""
        if not 0 <= cluster < self.n_clusters:
            raise InputError(f"the cluster must be from 0 to {self.n_clusters - 1}, got {cluster}")
        return np.flatnonzero(self.labels == cluster).astype(np.int64)


def cluster(
    dataset: Dataset,
    *,
    rng: np.random.Generator,
    n_geometry: int = 10,
    n_energy: int = 5,
    n_ward: int = N_WARD,
    assignment: str = "average",
    progress: Progress = SILENT,
) -> Clustering:
    """Split a data set into broad clusters: by geometry, then by energy within each (section III).

    Geometric clusters are in order of falling population, and the clusters within each in order of rising energy.
    A geometric cluster that has fewer frames than `n_energy` stays whole.

    Parameters
    ----------
    n_geometry, n_energy : int
        Geometric clusters, and energy clusters within each; `n_clusters_for` says how many suit few data.
    n_ward : int
        Ward linkage takes a random subset of at most this size, smaller where memory is
        short: it needs 8 n² bytes. `Clustering.n_ward` is the size that was used.
    assignment : {"average", "ward", "maximum"}
        How the other frames are assigned to a cluster: see `ase_flatten.clustering.assignment`.

    Raises
    ------
    InputError
        A number of clusters below 1 or above `n_ward`, or an unknown assignment.

    Examples
    --------
    >>> import numpy as np
    >>> from ase_flatten import cluster, read_dataset
    >>> data = read_dataset("examples/data/salicylic_gfn2_500K.npz")
    >>> clusters = cluster(data, rng=np.random.default_rng(0), n_geometry=4, n_energy=2)
    >>> clusters.n_clusters
    8
    """
    if n_energy < 1:
        raise InputError(f"n_energy must be at least 1, got {n_energy}; give 1 not to split by energy")
    _check("n_geometry", n_geometry, n_ward)
    rule = rule_named(assignment)
    geometry, n_ward = _by_geometry(
        dataset.pair_distances, n_geometry, rng=rng, n_ward=n_ward, rule=rule, progress=progress
    )
    labels = np.empty(dataset.n_frames, dtype=np.int64)
    n_clusters = 0
    n_groups = int(geometry.max()) + 1
    with progress.task("clustering by energy", n_groups) as advance:
        for group in range(n_groups):
            frames = np.flatnonzero(geometry == group)
            labels[frames] = n_clusters + _by_energy(dataset.energies[frames], n_energy, group, rng=rng)
            n_clusters = int(labels[frames].max()) + 1
            advance(1)
    logger.debug("%d frames in %d clusters of %d geometries", dataset.n_frames, n_clusters, n_groups)
    return Clustering(labels, geometry, n_ward)


def n_clusters_for(n_heldout: int) -> tuple[int, int]:
    """Return how many clusters by geometry, and by energy within each, suit a number of held-out frames.

    A run uses them by default; the commands ``cluster`` and ``errors`` use `n_clusters_of`.

    These are 10 and 5, as in the paper, for 1,000 held-out frames and more. For fewer, there are about as many clusters
    as leave 20 held-out frames to each on average, since the error of a cluster is known only as well as its held-out
    frames are many; the clusters by energy become fewer with the square root of the frames, and there are at least
    two clusters by geometry.

    Examples
    --------
    >>> from ase_flatten.clustering.clusters import n_clusters_for
    >>> [n_clusters_for(n_heldout) for n_heldout in (100, 400, 2000)]
    [(2, 2), (6, 3), (10, 5)]
    """
    share = min(1.0, n_heldout / _HELDOUT_FOR_ALL)
    n_energy = max(1, round(_MOST_BY_ENERGY * math.sqrt(share)))
    return max(2, int(_MOST_BY_GEOMETRY * _MOST_BY_ENERGY * share) // n_energy), n_energy


def n_clusters_of(n_frames: int) -> tuple[int, int]:
    """Return `n_clusters_for` the `HOLDOUT` of all frames, where nothing is held out."""
    return n_clusters_for(round(HOLDOUT * n_frames))


def fine_clusters(
    descriptors: FloatArray,
    n_clusters: int,
    *,
    rng: np.random.Generator,
    n_ward: int = N_WARD,
    assignment: str = "average",
    progress: Progress = SILENT,
) -> IntArray:
    """Split frames into fine clusters, by geometry alone (section III); raise what `cluster` raises.

    Parameters
    ----------
    descriptors : (n_frames, n_pairs) array, Å
    n_clusters : int
        Fewer are returned where there are fewer different frames.
    n_ward, assignment
        As in `cluster`.

    Returns
    -------
    (n_frames,) int array
        From 0, by falling population.
    """
    _check("n_clusters", n_clusters, n_ward)
    if not len(descriptors):
        raise InputError("fine clusters need at least one frame, found none; give the frames to split")
    rule = rule_named(assignment)
    return _by_geometry(descriptors, n_clusters, rng=rng, n_ward=n_ward, rule=rule, progress=progress)[0]


def representatives(clustering: Clustering, descriptors: FloatArray) -> IntArray:
    """Find the frame nearest to the centroid of each cluster.

    Parameters
    ----------
    descriptors : (n_frames, n_pairs) array, Å

    Returns
    -------
    (n_clusters,) int array of frames
    """
    frames = np.empty(clustering.n_clusters, dtype=np.int64)
    for label in range(clustering.n_clusters):
        members = clustering.members(label)
        deviations = descriptors[members]
        deviations -= deviations.mean(axis=0)
        frames[label] = members[np.argmin(np.einsum("ij,ij->i", deviations, deviations))]
    return frames


def _check(name: str, n_clusters: int, n_ward: int) -> None:
    if n_clusters < 1:
        raise InputError(f"{name} must be at least 1, got {n_clusters}")
    if n_ward < n_clusters:
        raise InputError(f"n_ward must be at least {name}, which is {n_clusters}, got {n_ward}; raise n_ward")


def _by_geometry(
    descriptors: FloatArray, n_clusters: int, *, rng: np.random.Generator, n_ward: int, rule: Rule, progress: Progress
) -> tuple[IntArray, int]:
    """Return the labels, and how many frames Ward linkage took."""
    n_frames = len(descriptors)
    n_ward = _affordable(min(n_ward, n_frames), n_clusters)
    subset = np.arange(n_frames) if n_ward == n_frames else np.sort(rng.choice(n_frames, n_ward, replace=False))
    labels = np.empty(n_frames, dtype=np.int64)
    with progress.task("clustering by geometry", 1) as advance:
        labels[subset] = _ward_labels(descriptors[subset], n_clusters)
        advance(1)
    rest = np.setdiff1d(np.arange(n_frames), subset, assume_unique=True)
    if len(rest):
        logger.debug("%d frames clustered by Ward linkage, %d assigned to their clusters", n_ward, len(rest))
        labels[rest] = assign(descriptors, subset, labels[subset], rest, rule=rule, progress=progress)
    return _by_population(labels), n_ward


def _affordable(n_ward: int, n_clusters: int) -> int:
    # SciPy holds the distances of all pairs twice: 2 * 8 * n (n - 1) / 2 bytes.
    available = psutil.virtual_memory().available
    most = max(math.isqrt(int(_MEMORY_SHARE * available) // 8), n_clusters, 2)
    if most < n_ward:
        logger.warning(
            "Ward linkage of %d frames needs %.1f GB, but %.1f GB are available: it is limited to %d frames",
            *(n_ward, 8e-9 * n_ward**2, 1e-9 * available, most),
        )
    return min(most, n_ward)


def _ward_labels(descriptors: FloatArray, n_clusters: int) -> IntArray:
    n_frames = len(descriptors)
    if n_frames < n_clusters:
        logger.warning("%d frames are too few for %d clusters: each becomes its own cluster", n_frames, n_clusters)
    n_clusters = min(n_clusters, n_frames)
    if n_clusters == 1:
        return np.zeros(n_frames, dtype=np.int64)
    model = AgglomerativeClustering(n_clusters=n_clusters, linkage="ward", compute_distances=True).fit(descriptors)
    n_different = 1 + int(np.sum(model.distances_ > SAME_GEOMETRY))
    if n_different < n_clusters:
        logger.warning(
            "only %d of %d frames differ, which is too few for %d clusters", n_different, n_frames, n_clusters
        )
        return _ward_labels(descriptors, n_different)
    return model.labels_.astype(np.int64)


def _by_energy(energies: FloatArray, n_energy: int, group: int, *, rng: np.random.Generator) -> IntArray:
    """Split one geometric cluster by energy, rising, by KMeans."""
    # The mean of thousands of eV is subtracted first, because products of such energies would lose all digits.
    energies = energies - energies.mean()
    n_different = len(np.unique(np.round(energies / SAME_ENERGY)))
    n_clusters = min(n_energy, n_different) if len(energies) >= n_energy else 1
    if n_clusters < n_energy:
        logger.info(
            "geometric cluster %d has %d frames and %d different energies: split into %d of %d energy clusters",
            *(group, len(energies), n_different, n_clusters, n_energy),
        )
    if n_clusters == 1:
        return np.zeros(len(energies), dtype=np.int64)
    seed = int(rng.integers(2**31))
    kmeans = KMeans(n_clusters, init="k-means++", n_init=_KMEANS_STARTS, random_state=seed)
    # Several threads would add up in varying order, and one is enough in one dimension.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # KMeans may find fewer clusters if energies hardly differ; empty ones are left out below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = kmeans.fit(energies[:, None]).labels_
    _, labels = np.unique(found, return_inverse=True)
    means = np.bincount(labels, weights=energies) / np.bincount(labels)
    return np.argsort(np.argsort(means))[labels].astype(np.int64)


def _by_population(labels: IntArray) -> IntArray:
    """Sort clusters by falling population and, of equal ones, by their first frame."""
    _, first, labels, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -counts))
    return np.argsort(order)[labels].astype(np.int64)


def _checked(labels: IntArray) -> IntArray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels must be one integer per frame, found shape {labels.shape} of {labels.dtype}")
    found = np.unique(labels)
    if found[0] != 0 or found[-1] != len(found) - 1:
        raise InputError(
            f"labels must be 0, 1, 2, ... without a gap, found {len(found)} from {found[0]} to {found[-1]}"
        )
    labels = labels.astype(np.int64)  # a copy
    labels.flags.writeable = False
    return labels
