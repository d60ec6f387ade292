"""Splits: frames to train on, frames to choose hyper-parameters with, and held-out frames to measure errors on."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ase_flatten.clustering.clusters import HOLDOUT, Clustering
from ase_flatten.data.stratified_sampling import proportional_counts
from ase_flatten.geometry.pair_distances import near_identical_pairs
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray

MAX_VALIDATION = 1000
_VALIDATION_SHARE = 0.1
_LARGEST_UNIT = 0.01
_MOST_OF_CLUSTER = 0.5


@dataclass(frozen=True, eq=False)
class Splits:
    """Three sets of frames without overlap.

    Parameters
    ----------
    pool : int array
        Frames that a selection may choose for training.
    valid : int array
        Validation frames, with which hyper-parameters are chosen.
    heldout : int array
        Held-out frames, on which errors are reported and which are used for nothing else.
    """

    pool: IntArray
    valid: IntArray
    heldout: IntArray


def split_sizes(n_frames: int, holdout: float) -> tuple[int, int, int]:
    """Return about how many frames `split` gives to the pool, to validation and to the held-out frames.

    Raises
    ------
    InputError
        A share outside (0, 1), or one that leaves nothing to train on.
    """
    if not 0 < holdout < 1:
        raise InputError(f"the share of held-out frames must lie between 0 and 1, got {holdout}")
    n_heldout = round(min(holdout, _MOST_OF_CLUSTER) * n_frames)
    n_valid = min(MAX_VALIDATION, round(_VALIDATION_SHARE * (n_frames - n_heldout)))
    n_pool = n_frames - n_heldout - n_valid
    if not (n_heldout and n_valid and n_pool):
        raise _too_few(n_frames, holdout)
    return n_pool, n_valid, n_heldout


def split(
    clustering: Clustering, descriptors: FloatArray, *, rng: np.random.Generator, holdout: float = HOLDOUT
) -> Splits:
    """Set held-out and validation frames aside, stratified over the broad clusters.

    Near-identical frames stay in the same set. If a trajectory is so dense that they
    form long chains, the chains are cut into pieces of 1 % of the data, in file order.

    Parameters
    ----------
    descriptors : (n_frames, n_pairs) array, Å
    holdout : float
        Share of the frames to hold out.

    Raises
    ------
    InputError
        A share outside (0, 1), or one that leaves nothing to train on.
    """
    split_sizes(clustering.labels.size, holdout)
    labels = clustering.labels
    units = _units(descriptors)
    n_frames = len(labels)
    heldout = _draw(units, labels, np.ones(n_frames, dtype=bool), round(holdout * n_frames), rng)
    n_valid = min(MAX_VALIDATION, round(_VALIDATION_SHARE * np.sum(~heldout)))
    valid = _draw(units, labels, ~heldout, n_valid, rng)
    pool = ~heldout & ~valid
    if not (heldout.any() and valid.any() and pool.any()):
        raise _too_few(n_frames, holdout)
    return Splits(*(np.flatnonzero(mask).astype(np.int64) for mask in (pool, valid, heldout)))


def _too_few(n_frames: int, holdout: float) -> InputError:
    return InputError(
        f"{n_frames} frames are too few to hold out {holdout:.0%}, validate and train; use a larger data set"
    )


def _units(descriptors: FloatArray) -> IntArray:
    """Label the sets of frames that must stay together."""
    n_frames = len(descriptors)
    pairs = near_identical_pairs(descriptors)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_frames, n_frames))
    _, labels = connected_components(graph, directed=False)
    largest = max(1, int(_LARGEST_UNIT * n_frames))
    # A frame's place in its component, in file order, decides which piece it is in.
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    pieces = np.empty(n_frames, dtype=np.int64)
    pieces[order] = (np.arange(n_frames) - starts) // largest
    _, units = np.unique(labels.astype(np.int64) * (n_frames + 1) + pieces, return_inverse=True)
    return units.astype(np.int64)


def _draw(units: IntArray, labels: IntArray, free: np.ndarray, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw whole units of free frames from each cluster: its share, but never more than about half of it."""
    candidates = np.flatnonzero(free)
    _, first, unit_of, sizes = np.unique(units[candidates], return_index=True, return_inverse=True, return_counts=True)
    strata = labels[candidates][first]
    populations = np.bincount(strata, weights=sizes, minlength=labels.max() + 1).astype(np.int64)
    quotas = np.minimum(proportional_counts(populations, n_draws), (_MOST_OF_CLUSTER * populations).astype(np.int64))
    shuffled = rng.permutation(len(sizes))
    shuffled = shuffled[np.argsort(strata[shuffled], kind="stable")]
    running = np.cumsum(sizes[shuffled])
    before = running - sizes[shuffled]
    stratum_start = np.concatenate([[0], np.cumsum(populations)])[strata[shuffled]]
    drawn_units = shuffled[before - stratum_start < quotas[strata[shuffled]]]
    drawn = np.zeros(len(labels), dtype=bool)
    drawn[candidates[np.isin(unit_of, drawn_units)]] = True
    return drawn
