"""Samples that keep proportions: of energies, of clusters."""

import numpy as np

from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray


def proportional_counts(populations: IntArray, total: int) -> IntArray:
    """Share `total` draws among strata in proportion to their populations.

    Each stratum gives at least one while `total` lasts, the larger ones first, and none more than it has.

    Parameters
    ----------
    populations : (n_strata,) int array

    Returns
    -------
    (n_strata,) int array with the sum `total`

    Raises
    ------
    InputError
        More draws than members.
    """
    populations = np.asarray(populations, dtype=np.int64)
    available = int(populations.sum())
    if total > available:
        raise InputError(f"{total} frames were asked for, only {available} are there to choose from; ask for fewer")
    least = np.zeros(len(populations), dtype=np.int64)
    least[np.argsort(-populations, kind="stable")[:total]] = 1
    least = np.minimum(least, populations)
    exact = populations * (total / max(available, 1))
    counts = np.clip(np.floor(exact).astype(np.int64), least, populations)
    while (rest := total - int(counts.sum())) != 0:
        # The strata that are furthest from their share give or take first.
        lag = np.sign(rest) * (exact - counts)
        movable = counts < populations if rest > 0 else counts > least
        order = np.argsort(np.where(movable, -lag, np.inf), kind="stable")
        counts[order[: min(abs(rest), int(movable.sum()))]] += np.sign(rest)
    return counts


def stratified_sample(labels: IntArray, n_draws: int, *, rng: np.random.Generator) -> IntArray:
    """Draw from labelled members in proportion to the labels' populations.

    Parameters
    ----------
    labels : (n,) int array

    Returns
    -------
    (n_draws,) int array of places in `labels`, sorted
    """
    shuffled = rng.permutation(len(labels))
    _, strata, populations = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    counts = proportional_counts(populations, n_draws)
    by_stratum = np.split(shuffled[np.argsort(strata, kind="stable")], np.cumsum(populations)[:-1])
    return np.sort(np.concatenate([members[:count] for members, count in zip(by_stratum, counts, strict=True)]))


def energy_bins(energies: FloatArray, n_draws: int) -> IntArray:
    """Bin energies by the rule of Freedman and Diaconis, into `n_draws / 2` bins at most.

    Parameters
    ----------
    energies : (n,) array

    Returns
    -------
    (n,) int array of bins
    """
    spread = np.subtract(*np.percentile(energies, [75, 25]))
    width = 2 * spread / np.cbrt(max(n_draws, 1))
    n_bins = int(np.ceil(np.ptp(energies) / width)) if width > 0 else 1
    n_bins = max(1, min(n_bins, n_draws // 2))
    return np.digitize(energies, np.linspace(energies.min(), energies.max(), n_bins, endpoint=False))
