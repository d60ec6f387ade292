"""Assignment of frames to clusters of other frames (Fonseca et al. 2021, section II).

The clusters do not change when frames join them, so the order of the frames does not matter.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_flatten.geometry.pair_distances import squared_distances
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray

_TILE_BYTES = 2**24
"""Distances are computed in tiles of this size; larger ones do not fit into the processor's cache."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Frames of each cluster, one cluster after the other.

    Parameters
    ----------
    frames : (n_frames, n_pairs) array, Å
        Relative to their mean, for the accuracy of matrix products.
    centroids : (n_clusters, n_pairs) array, Å
    starts, counts : (n_clusters,) int arrays
        Where each cluster begins in `frames`, and how many it has.
    """

    frames: NDArray[Any]
    centroids: NDArray[Any]
    starts: IntArray
    counts: IntArray

    def single(self) -> "Groups":
        """Return the same in single precision."""
        return replace(self, frames=self.frames.astype(np.float32), centroids=self.centroids.astype(np.float32))


def average(frames: NDArray[Any], groups: Groups) -> NDArray[Any]:
    """Average the distances to the frames of each cluster: the paper's rule."""
    distances = squared_distances(frames, groups.frames)
    np.sqrt(distances, out=distances)
    return np.add.reduceat(distances, groups.starts, axis=1) / groups.counts.astype(distances.dtype)


def maximum(frames: NDArray[Any], groups: Groups) -> NDArray[Any]:
    """Take the distance to the farthest frame of each cluster: the rule of the paper's code."""
    return np.sqrt(np.maximum.reduceat(squared_distances(frames, groups.frames), groups.starts, axis=1))


def ward(frames: NDArray[Any], groups: Groups) -> NDArray[Any]:
    """Take the root of the increase of the sum of squares within each cluster: Ward's own rule."""
    weights = (groups.counts / (groups.counts + 1)).astype(frames.dtype)
    return np.sqrt(squared_distances(frames, groups.centroids) * weights)


Rule = Callable[[NDArray[Any], Groups], NDArray[Any]]
"""Score frames, (n_frames, n_pairs) relative to the mean of the groups' frames: (n_frames, n_clusters), Å."""

ASSIGNMENTS: dict[str, Rule] = {"average": average, "ward": ward, "maximum": maximum}
"""The rules by name: a frame joins the cluster of lowest score."""


def rule_named(assignment: str) -> Rule:
    """Return a rule by its name; raise InputError for an unknown name."""
    if assignment not in ASSIGNMENTS:
        raise InputError(f"assignment must be one of {', '.join(ASSIGNMENTS)}, got {assignment!r}")
    return ASSIGNMENTS[assignment]


def assign(
    descriptors: FloatArray,
    clustered_frames: IntArray,
    labels: IntArray,
    other_frames: IntArray,
    *,
    rule: Rule,
    progress: Progress = SILENT,
) -> IntArray:
    """Assign each of the other frames to the cluster of lowest score.

    Scores are computed in single precision; the frames for which its rounding could
    turn the order of the two best are computed again in double precision.

    Parameters
    ----------
    descriptors : (n_frames, n_pairs) array, Å
    clustered_frames, labels : (n_clustered,) int arrays
        Frames and their clusters, numbered from 0 without gaps.
    other_frames : (n_other,) int array

    Returns
    -------
    (n_other,) int array
    """
    centre = descriptors[clustered_frames].mean(axis=0)
    members = descriptors[clustered_frames[np.argsort(labels, kind="stable")]] - centre
    counts = np.bincount(labels)
    starts = np.cumsum(counts) - counts
    groups = Groups(members, np.add.reduceat(members, starts, axis=0) / counts[:, None], starts, counts)
    single = groups.single()
    # The rounding errors of a product of n_pairs terms add up as the root of n_pairs does.
    rounding = np.finfo(np.float32).eps * np.sqrt(members.shape[1])
    longest = np.linalg.norm(members, axis=1).max()
    n_rows = max(1, _TILE_BYTES // (4 * (len(members) + members.shape[1])))
    found = np.empty(len(other_frames), dtype=np.int64)
    with progress.task("assigning frames", len(other_frames)) as advance:
        for start in range(0, len(other_frames), n_rows):
            block = slice(start, start + n_rows)
            frames = descriptors[other_frames[block]] - centre
            scores = rule(frames.astype(np.float32), single)
            nearest = np.argmin(scores, axis=1)
            best = np.sort(scores, axis=1)[:, :2]
            of_squares = rounding * (np.linalg.norm(frames, axis=1) + longest) ** 2
            # An error e of d² is one of e / 2d of d, and of sqrt(e) at most.
            lengths = np.maximum(best[:, 0], np.sqrt(of_squares) + np.finfo(np.float64).tiny)
            close = best[:, -1] - best[:, 0] <= 2 * of_squares / lengths
            if len(counts) > 1 and close.any():
                nearest[close] = np.argmin(rule(frames[close], groups), axis=1)
            found[block] = nearest
            advance(len(nearest))
    return found
