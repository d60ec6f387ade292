"""Which frames to add to the training set (Fonseca et al. 2021, sections III and IV.C)."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.selection.cluster_errors import ClusterErrors, FrameErrors
from ase_flatten.selection.fine_cluster_selector import (
    CENTROID,
    LARGEST_ERROR,
    POPULATION,
    RANDOM,
    FineClusterSelector,
)
from ase_flatten.selection.selectors import Candidates, Selector, find_selector
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import IntArray

log = logging.getLogger(__name__)

FROM_FINE_CLUSTERS = {selector.name: selector for selector in (LARGEST_ERROR, POPULATION, CENTROID, RANDOM)}
"""The selectors that `pick` and `share` of a `SelectionRule` stand for."""

Judge = Callable[[IntArray], NDArray[np.bool_]]


@dataclass(frozen=True)
class SelectionRule:
    """Settings of the selection of frames.

    Parameters
    ----------
    factor : float
        Clusters are bad above this multiple of the overall force RMSE.
    n_fine, pick, share
        See `ase_flatten.selection.fine_cluster_selector.FineClusterSelector`.
    select : str, optional
        Name of a selector. Names that `pick` and `share` can express, such as "centroid", are turned into these, so
        that equal rules have equal settings; any other selector takes the place of `pick`, `share` and `n_fine`.

    Raises
    ------
    InputError
        A setting that makes no sense, or two that contradict each other.
    """

    factor: float = 1.1
    n_fine: int | None = None
    pick: str = LARGEST_ERROR.pick
    share: str = LARGEST_ERROR.share
    select: str | None = None

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise InputError(f"the factor above which a cluster is bad must be positive, got {self.factor}")
        unset = FineClusterSelector()
        own = FineClusterSelector(self.pick, self.share, self.n_fine)
        if self.select is None:
            return
        named = FROM_FINE_CLUSTERS.get(self.select)
        for name in ("pick", "share", "n_fine"):
            value = getattr(own, name)
            if value != getattr(unset, name) and (
                named is None or (name != "n_fine" and value != getattr(named, name))
            ):
                raise _contradiction(self.select, name, value)
        if named is not None:
            object.__setattr__(self, "pick", named.pick)
            object.__setattr__(self, "share", named.share)
            object.__setattr__(self, "select", None)

    @property
    def selector(self) -> Selector:
        """The selector; raise InputError if `select` names one that is not installed."""
        if self.select is not None:
            return find_selector(self.select)
        return FineClusterSelector(self.pick, self.share, self.n_fine)

    def changed(
        self,
        *,
        select: str | None = None,
        pick: str | None = None,
        share: str | None = None,
        n_fine: int | None = None,
        factor: float | None = None,
    ) -> "SelectionRule":
        """Return the rule with the settings that are given; raise InputError for two that contradict each other."""
        given = {"pick": pick, "share": share, "n_fine": n_fine, "factor": factor}
        given = {name: value for name, value in given.items() if value is not None}
        base = self
        if select is not None:
            base = SelectionRule(self.factor, select=select)
            for name in given.keys() & {"pick", "share"}:
                if base.select is not None or given[name] != getattr(base, name):
                    raise _contradiction(select, name, given[name])
            if base.select is None:
                base = replace(base, n_fine=self.n_fine)
        elif given.keys() & {"pick", "share"} and self.select is not None:
            base = SelectionRule(self.factor)
        return replace(base, **given)  # type: ignore[arg-type]


def _contradiction(select: str, name: str, value: object) -> InputError:
    named = FROM_FINE_CLUSTERS.get(select)
    why = f"it implies {getattr(named, name)}" if named else "it uses no fine clusters"
    return InputError(
        f"the selector {select} cannot be combined with {name.replace('_', '-')} {value}, since {why}; "
        "give one or the other"
    )


def select(
    candidates: Candidates,
    n_added: int,
    selector: Selector,
    *,
    rng: np.random.Generator,
    contradicted: Judge | None = None,
    progress: Progress = SILENT,
) -> IntArray:
    """Choose the frames of one step.

    Frames whose labels are contradicted are refused, and the selector chooses others in their place.

    Parameters
    ----------
    n_added : int
        How many frames to choose.
    contradicted : callable, optional
        Returns which of the frames that are about to be chosen, (n,) int array, have labels that
        cannot be right, as (n,) bool array; each frame is passed to it once.

    Returns
    -------
    (n_added,) int array of frames, in the order of the selector

    Raises
    ------
    InputError
        Fewer different frames are left than were asked for.
    """
    choose = selector.prepare(candidates, n_added, rng=rng, progress=progress)
    refused, judged = np.zeros((2, len(candidates.frames)), dtype=bool)
    while True:
        rows = choose(refused)
        fresh = np.sort(rows[~judged[rows]])
        if contradicted is None or not len(fresh):
            break
        judged[fresh] = True
        refused[fresh] = contradicted(candidates.frames[fresh])
    if len(np.unique(rows)) < n_added:
        raise InputError(
            f"{n_added} frames were to be added, but only {len(np.unique(rows))} different ones are left to choose "
            "from; ask for fewer steps or a smaller step size"
        )
    return candidates.frames[rows]


def candidates_of(errors: FrameErrors, bad: IntArray, data: PreparedData, train_frames: IntArray) -> Candidates:
    """Collect the frames of the bad clusters.

    Parameters
    ----------
    errors : FrameErrors
        Of all frames of the bad clusters that there are to choose from, in rising order; those of other clusters
        are left out.
    bad : int array
        The bad clusters, see `bad_clusters`.
    train_frames : int array
    """
    rows = np.flatnonzero(np.isin(data.clustering.labels[errors.frames], bad))
    frames, descriptors = errors.frames[rows], data.dataset.pair_distances
    return Candidates(frames, errors.force_mse[rows], descriptors[frames], descriptors[train_frames])


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
