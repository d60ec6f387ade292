"""Groups of broad clusters, each with enough held-out frames for a claim."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ase_flatten.utils.typing import FloatArray, IntArray

N_LEAST = 20
"""Least number of held-out frames in a group, unless there are fewer in total."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Broad clusters that are judged together.

    Parameters
    ----------
    members : tuple of tuple of int
        The clusters of each group, in rising order.
    n_heldout : (n_groups,) int array
        Held-out frames of each group.
    """

    members: tuple[tuple[int, ...], ...]
    n_heldout: IntArray

    @property
    def of_cluster(self) -> IntArray:
        """The group of each cluster, (n_clusters,)."""
        groups = np.empty(sum(map(len, self.members)), dtype=np.int64)
        for group, clusters in enumerate(self.members):
            groups[list(clusters)] = group
        return groups

    def name(self, group: int) -> str:
        """Return the name of a group in text, such as "clusters 12-14"."""
        return f"cluster{'s' * (len(self.members[group]) > 1)} {self.numbers(group)}"

    def numbers(self, group: int) -> str:
        """Return the numbers of the clusters of a group, such as "12-14", its name on axes."""
        runs: list[list[int]] = []
        for cluster in self.members[group]:
            if runs and cluster == runs[-1][1] + 1:
                runs[-1][1] = cluster
            else:
                runs.append([cluster, cluster])
        return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


def merge_clusters(
    n_heldout: IntArray, geometry: IntArray, centres: FloatArray, populations: IntArray, *, n_least: int = N_LEAST
) -> Groups:
    """Merge broad clusters until each group has at least `n_least` held-out frames.

    Within a geometric cluster, neighbours in energy are merged, the smallest first. A geometric cluster
    that has too few frames as a whole joins the group with the nearest centre. Errors play no role, so that the
    choice of groups does not bias their errors.

    Parameters
    ----------
    n_heldout, populations : (n_clusters,) int arrays
        Number of held-out frames and of all frames in each cluster.
    geometry : (n_clusters,) int array
        The geometric cluster of each broad cluster; within one, clusters are ordered by energy.
    centres : (n_clusters, n_pairs) array, Å
        Pair distances of the representative of each cluster.
    """
    groups: list[list[int]] = []
    for one in np.unique(geometry):
        parts = [[int(cluster)] for cluster in np.flatnonzero(geometry == one)]
        while len(parts) > 1 and (counts := _counts(parts, n_heldout)).min() < n_least:
            smallest = int(counts.argmin())
            beside = [place for place in (smallest - 1, smallest + 1) if 0 <= place < len(parts)]
            first, second = sorted((smallest, beside[int(counts[beside].argmin())]))
            parts[first : second + 1] = [parts[first] + parts[second]]
        groups += parts
    while len(groups) > 1 and (counts := _counts(groups, n_heldout)).min() < n_least:
        small = groups.pop(int(counts.argmin()))
        middle = np.array([_centre(group, centres, populations) for group in groups])
        nearest = np.linalg.norm(middle - _centre(small, centres, populations), axis=1).argmin()
        groups[nearest] = sorted(groups[nearest] + small)
    groups.sort()
    return Groups(tuple(map(tuple, groups)), _counts(groups, n_heldout))


def _counts(groups: Sequence[Sequence[int]], n_heldout: IntArray) -> IntArray:
    return np.array([n_heldout[list(group)].sum() for group in groups], dtype=np.int64)


def _centre(group: Sequence[int], centres: FloatArray, populations: IntArray) -> FloatArray:
    centre: FloatArray = np.average(centres[list(group)], axis=0, weights=populations[list(group)])
    return centre
