"""Which frames to add to the training set (Fonseca et al. 2021, sections III and IV.C)."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_flatten.clustering.clusters import Clustering, fine_clusters
from ase_flatten.data.stratified_sampling import proportional_counts
from ase_flatten.geometry.pair_distances import NEAR_IDENTICAL, squared_distances
from ase_flatten.selection.cluster_errors import ClusterErrors, FrameErrors
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray

log = logging.getLogger(__name__)


Judge = Callable[[IntArray], NDArray[np.bool_]]


@dataclass(frozen=True)
class SelectionRule:
    """Hold the settings of a selection.

    Parameters
    ----------
    factor : float
        Clusters are bad above this multiple of the overall force RMSE.
    n_fine : int, optional
        Number of fine clusters; twice the frames to add by default, 200 for 100 as in section III.
    pick : {"largest-error", "centroid", "random"}
        Which frame of a fine cluster is taken first.
    share : {"one", "population"}
        Take one frame from each of the worse half of the fine clusters (section III),
        or several, weighted by the clusters' populations (the peptide, section IV.C).
    """

    factor: float = 1.1
    n_fine: int | None = None
    pick: str = "largest-error"
    share: str = "one"

    def __post_init__(self) -> None:
        for name, known in (("pick", PICKS), ("share", SHARES)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.factor <= 0:
            raise InputError(f"the factor above which a cluster is bad must be positive, got {self.factor}")
        if self.n_fine is not None and self.n_fine < 1:
            raise InputError(f"the number of fine clusters must be at least 1, got {self.n_fine}")


@dataclass(frozen=True, eq=False)
class Selection:
    """Hold what a step adds.

    Parameters
    ----------
    frames : (n_added,) int array
        From the worst fine cluster on.
    bad_clusters : int array
        The broad clusters that were merged.
    candidates : (n,) int array
        The frames of the bad clusters that were there to choose from.
    fine_labels : (n,) int array
        The fine cluster of each candidate.
    """

    frames: IntArray
    bad_clusters: IntArray
    candidates: IntArray
    fine_labels: IntArray


def select(
    errors: FrameErrors,
    bad: IntArray,
    clustering: Clustering,
    descriptors: FloatArray,
    train_frames: IntArray,
    n_added: int,
    rule: SelectionRule,
    *,
    rng: np.random.Generator,
    contradicted: Judge | None = None,
    progress: Progress = SILENT,
) -> Selection:
    """Choose the frames of one step.

    The bad clusters are merged and clustered finely by distance alone; the fine
    clusters are ordered by force RMSE, and frames are taken from the worse half.
    No frame is near-identical to another or to a training frame.
    The next frame of its fine cluster takes the place of one whose label is contradicted.

    Parameters
    ----------
    errors : FrameErrors
        Of all frames of the bad clusters that there are to choose from, none of them a training
        frame; those of other clusters are not looked at.
    bad : int array
        The bad clusters, see `bad_clusters`.
    descriptors : (n_frames, n_pairs) array, Å
        Of the whole data set.
    n_added : int
        How many frames to choose.
    contradicted : callable, optional
        Tells which of the frames that are about to be chosen, (n,) int array, have labels that
        cannot be right, as (n,) bool array; it is asked about every frame once.

    Raises
    ------
    InputError
        Fewer different frames are left than were asked for.
    """
    rows = np.flatnonzero(np.isin(clustering.labels[errors.frames], bad))
    candidates = errors.frames[rows]
    n_fine = min(rule.n_fine or 2 * n_added, len(candidates))
    fine = fine_clusters(descriptors[candidates], n_fine, rng=rng, progress=progress)
    mse = errors.force_mse[rows]
    populations = np.bincount(fine)
    order = np.argsort(-np.bincount(fine, weights=mse) / populations, kind="stable")
    queues = PICKS[rule.pick](candidates, fine, mse, descriptors, rng)
    judged = np.empty(0, dtype=np.int64)
    while True:
        frames = _from_worst(queues, order, populations, n_added, rule, descriptors, train_frames)
        fresh = np.setdiff1d(frames, judged)
        if contradicted is None or not len(fresh):
            break
        judged = np.concatenate([judged, fresh])
        refused = fresh[contradicted(fresh)]
        queues = [queue[~np.isin(queue, refused)] for queue in queues]
    if len(frames) < n_added:
        raise InputError(
            f"{n_added} frames were to be added, only {len(frames)} different ones are left to choose from; "
            "ask for fewer steps or a smaller step size"
        )
    return Selection(frames, bad, candidates, fine)


def _from_worst(
    queues: list[IntArray],
    order: IntArray,
    populations: IntArray,
    n_added: int,
    rule: SelectionRule,
    descriptors: FloatArray,
    train_frames: IntArray,
) -> IntArray:
    """Take frames from the worse half of the fine clusters, and from the others only where these have too few."""
    frames = np.empty(0, dtype=np.int64)
    middle = (len(order) + 1) // 2
    for part in (order[:middle], order[middle:]):
        rest = n_added - len(frames)
        quotas = SHARES[rule.share](populations[part], rest)
        known = np.concatenate([train_frames, frames])
        frames = np.concatenate([frames, _take([queues[label] for label in part], quotas, rest, descriptors, known)])
    return frames


def bad_clusters(clusters: ClusterErrors, available: IntArray, n_added: int, factor: float) -> IntArray:
    """Return the clusters above the threshold, and the next worst ones while too few frames are in them.

    Parameters
    ----------
    available : (n_clusters,) int array
        Frames of each cluster that there are to choose from.
    n_added : int
        How many frames are to be chosen.
    factor : float
        Clusters are bad above this multiple of the overall force RMSE.
    """
    bad = list(clusters.above(factor))
    for cluster in clusters.ascending[::-1]:
        # Twice as many, so that the worse half of the fine clusters is a choice.
        if available[bad].sum() >= 2 * n_added:
            break
        if cluster not in bad:
            bad.append(cluster)
    if len(bad) > len(clusters.above(factor)):
        log.info(
            "%d clusters above %.2f times the overall error hold too few frames; %d next worst ones join them",
            len(clusters.above(factor)), factor, len(bad) - len(clusters.above(factor)),
        )  # fmt: skip
    return np.sort(np.asarray(bad, dtype=np.int64))


Pick = Callable[[IntArray, IntArray, FloatArray, FloatArray, np.random.Generator], list[IntArray]]


def _by_largest_error(
    candidates: IntArray, fine: IntArray, mse: FloatArray, descriptors: FloatArray, rng: np.random.Generator
) -> list[IntArray]:
    return _queues(candidates, fine, -mse)


def _by_centroid(
    candidates: IntArray, fine: IntArray, mse: FloatArray, descriptors: FloatArray, rng: np.random.Generator
) -> list[IntArray]:
    vectors = descriptors[candidates]
    centroids = np.zeros((fine.max() + 1, vectors.shape[1]))
    np.add.at(centroids, fine, vectors)
    centroids /= np.bincount(fine)[:, None]
    return _queues(candidates, fine, np.linalg.norm(vectors - centroids[fine], axis=1))


def _at_random(
    candidates: IntArray, fine: IntArray, mse: FloatArray, descriptors: FloatArray, rng: np.random.Generator
) -> list[IntArray]:
    return _queues(candidates, fine, rng.random(len(candidates)))


def _queues(candidates: IntArray, fine: IntArray, rank: FloatArray) -> list[IntArray]:
    """Order the frames of each fine cluster by a rank, the lowest first."""
    order = np.lexsort((rank, fine))
    return np.split(candidates[order], np.cumsum(np.bincount(fine))[:-1])


def _one_each(populations: IntArray, n_added: int) -> IntArray:
    """Share by one frame each."""
    return np.ones(len(populations), dtype=np.int64)


def _by_population(populations: IntArray, n_added: int) -> IntArray:
    """Share in proportion to the populations."""
    return proportional_counts(populations, min(n_added, int(populations.sum())))


PICKS: dict[str, Pick] = {"largest-error": _by_largest_error, "centroid": _by_centroid, "random": _at_random}
SHARES: dict[str, Callable[[IntArray, int], IntArray]] = {"one": _one_each, "population": _by_population}


def _take(
    queues: list[IntArray], quotas: IntArray, n_added: int, descriptors: FloatArray, train_frames: IntArray
) -> IntArray:
    """Take frames from queues by quota, then round by round, skipping near-identical ones."""
    radius = NEAR_IDENTICAL**2 * descriptors.shape[1]
    known = np.empty((len(train_frames) + n_added, descriptors.shape[1]))
    known[: len(train_frames)] = descriptors[train_frames]
    taken: list[int] = []
    waiting = [deque(queue.tolist()) for queue in queues]
    wanted = quotas.tolist()
    while any(waiting) and len(taken) < n_added:
        for queue, want in zip(waiting, wanted, strict=True):
            while want and queue and len(taken) < n_added:
                frame = queue.popleft()
                n_known = len(train_frames) + len(taken)
                new = descriptors[frame : frame + 1]
                if squared_distances(new, known[:n_known]).min(initial=np.inf) < radius:
                    continue
                known[n_known] = new
                taken.append(frame)
                want -= 1
        # What the quotas did not give comes one by one, from the worst cluster on.
        wanted = [1] * len(waiting)
    return np.array(taken, dtype=np.int64)
