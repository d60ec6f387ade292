"""Stratified samples, which keep the proportions of energies or of clusters."""

import numpy as np

from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray


def proportional_counts(populations: IntArray, total: int) -> IntArray:
    """Distribute `total` draws over strata in proportion to their populations.

    Each stratum gets at least one draw, the larger ones first if `total` does not suffice for all, and none gets more
    than its population.

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
        raise InputError(f"{total} frames were asked for, but only {available} are available; ask for fewer")
    least = np.zeros(len(populations), dtype=np.int64)
    least[np.argsort(-populations, kind="stable")[:total]] = 1
    least = np.minimum(least, populations)
    exact = populations * (total / max(available, 1))
    counts = np.clip(np.floor(exact).astype(np.int64), least, populations)
    while (rest := total - int(counts.sum())) != 0:
        # The strata that are furthest from their share are changed first.
        lag = np.sign(rest) * (exact - counts)
        movable = counts < populations if rest > 0 else counts > least
        order = np.argsort(np.where(movable, -lag, np.inf), kind="stable")
        counts[order[: min(abs(rest), int(movable.sum()))]] += np.sign(rest)
    return counts


def stratified_sample(labels: IntArray, n_draws: int, *, rng: np.random.Generator) -> IntArray:
    """Draw indices in proportion to the populations of their labels.

    Parameters
    ----------
    labels : (n,) int array

    Returns
    -------
    (n_draws,) int array of indices into `labels`, sorted
    """
    shuffled = rng.permutation(len(labels))
    _, strata, populations = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    counts = proportional_counts(populations, n_draws)
    by_stratum = np.split(shuffled[np.argsort(strata, kind="stable")], np.cumsum(populations)[:-1])
    return np.sort(np.concatenate([members[:count] for members, count in zip(by_stratum, counts, strict=True)]))


def energy_bins(energies: FloatArray, n_draws: int) -> IntArray:
    """Bin energies by the rule of Freedman and Diaconis, into at most `n_draws / 2` bins.

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
