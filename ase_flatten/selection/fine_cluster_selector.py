"""Selection from fine clusters, the worst ones first (Fonseca et al. 2021, sections III and IV.C)."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_flatten.clustering.clusters import fine_clusters
from ase_flatten.data.stratified_sampling import proportional_counts
from ase_flatten.geometry.pair_distances import NEAR_IDENTICAL, squared_distances
from ase_flatten.selection.selectors import Candidates, Choose
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray


@dataclass(frozen=True)
class FineClusterSelector:
    """A selector that takes frames from the worse half of the fine clusters.

    The candidates are clustered finely by distance alone, and the fine clusters ordered by force RMSE. The better
    half is used only if the worse one has too few frames. No frame is near-identical to another or to a training
    frame.

    Parameters
    ----------
    pick : {"largest-error", "centroid", "random"}
        Which frame of a fine cluster is taken first.
    share : {"one", "population"}
        Take one frame from each fine cluster (section III), or several in proportion to its population (the
        peptide, section IV.C).
    n_fine : int, optional
        Number of fine clusters; twice the frames to add by default, 200 for 100 as in section III.

    Raises
    ------
    InputError
        A setting with any other value.
    """

    pick: str = "largest-error"
    share: str = "one"
    n_fine: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("pick", PICKS), ("share", SHARES)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.n_fine is not None and self.n_fine < 1:
            raise InputError(f"the number of fine clusters must be at least 1, got {self.n_fine}")

    @property
    def name(self) -> str:
        """The name on the command line: that of the pick, or "population" for the rule of the peptide."""
        if self.share == "one":
            return self.pick
        return self.share if self.pick == "largest-error" else f"{self.pick}-{self.share}"

    def prepare(self, candidates: Candidates, n_added: int, *, rng: np.random.Generator, progress: Progress) -> Choose:
        """Cluster the candidates finely; see `Selector.prepare`."""
        fine, order = fine_clusters_by_error(candidates, self.n_fine or 2 * n_added, rng=rng, progress=progress)
        populations = np.bincount(fine)
        queues = PICKS[self.pick](candidates, fine, rng)
        middle = (len(order) + 1) // 2

        def choose(refused: NDArray[np.bool_]) -> IntArray:
            rows = np.empty(0, dtype=np.int64)
            for part in (order[:middle], order[middle:]):
                rest = n_added - len(rows)
                quotas = SHARES[self.share](populations[part], rest)
                known = np.concatenate([candidates.train_descriptors, candidates.descriptors[rows]])
                waiting = [queues[label][~refused[queues[label]]] for label in part]
                rows = np.concatenate([rows, _take(waiting, quotas, rest, candidates.descriptors, known)])
            return rows

        return choose


def fine_clusters_by_error(
    candidates: Candidates, n_fine: int, *, rng: np.random.Generator, progress: Progress = SILENT
) -> tuple[IntArray, IntArray]:
    """Split candidates into fine clusters and order these by force RMSE.

    Returns
    -------
    labels : (n,) int array
        The fine cluster of each candidate.
    order : (n_fine,) int array
        The fine clusters, that of the largest RMSE first.
    """
    n_fine = min(n_fine, len(candidates.frames))
    fine = fine_clusters(candidates.descriptors, n_fine, rng=rng, progress=progress)
    order = np.argsort(-np.bincount(fine, weights=candidates.force_mse) / np.bincount(fine), kind="stable")
    return fine, order.astype(np.int64)


Pick = Callable[[Candidates, IntArray, np.random.Generator], list[IntArray]]
"""Order the candidates of each fine cluster, the first one to be taken first; return their rows."""


def _by_largest_error(candidates: Candidates, fine: IntArray, rng: np.random.Generator) -> list[IntArray]:
    return _queues(fine, -candidates.force_mse)


def _by_centroid(candidates: Candidates, fine: IntArray, rng: np.random.Generator) -> list[IntArray]:
    centroids = np.zeros((fine.max() + 1, candidates.descriptors.shape[1]))
    np.add.at(centroids, fine, candidates.descriptors)
    centroids /= np.bincount(fine)[:, None]
    return _queues(fine, np.linalg.norm(candidates.descriptors - centroids[fine], axis=1))


def _at_random(candidates: Candidates, fine: IntArray, rng: np.random.Generator) -> list[IntArray]:
    return _queues(fine, rng.random(len(fine)))


def _queues(fine: IntArray, rank: FloatArray) -> list[IntArray]:
    """Order the rows of each fine cluster by a rank, the lowest first."""
    return np.split(np.lexsort((rank, fine)), np.cumsum(np.bincount(fine))[:-1])


def _one_each(populations: IntArray, n_added: int) -> IntArray:
    return np.ones(len(populations), dtype=np.int64)


def _by_population(populations: IntArray, n_added: int) -> IntArray:
    return proportional_counts(populations, min(n_added, int(populations.sum())))


PICKS: dict[str, Pick] = {"largest-error": _by_largest_error, "centroid": _by_centroid, "random": _at_random}
SHARES: dict[str, Callable[[IntArray, int], IntArray]] = {"one": _one_each, "population": _by_population}

LARGEST_ERROR = FineClusterSelector()
POPULATION = FineClusterSelector(share="population")
CENTROID = FineClusterSelector("centroid")
RANDOM = FineClusterSelector("random")


def _take(
    queues: Sequence[IntArray], quotas: IntArray, n_added: int, descriptors: FloatArray, known_descriptors: FloatArray
) -> IntArray:
    """Take rows from queues by quota, then round by round, skipping frames near-identical to what is known."""
    radius = NEAR_IDENTICAL**2 * descriptors.shape[1]
    known = np.empty((len(known_descriptors) + n_added, descriptors.shape[1]))
    known[: len(known_descriptors)] = known_descriptors
    taken: list[int] = []
    waiting = [deque(queue.tolist()) for queue in queues]
    wanted = quotas.tolist()
    while any(waiting) and len(taken) < n_added:
        for queue, want in zip(waiting, wanted, strict=True):
            while want and queue and len(taken) < n_added:
                row = queue.popleft()
                n_known = len(known_descriptors) + len(taken)
                new = descriptors[row : row + 1]
                if squared_distances(new, known[:n_known]).min(initial=np.inf) < radius:
                    continue
                known[n_known] = new
                taken.append(row)
                want -= 1
        # What the quotas did not give comes one by one, from the worst cluster on.
        wanted = [1] * len(waiting)
    return np.array(taken, dtype=np.int64)
