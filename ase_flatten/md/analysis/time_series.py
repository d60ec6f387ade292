"""Statistics of the energies of a run: equilibration, averages, their errors, and drift.

Pure functions of the saved arrays. Under a thermostat the total energy of a molecule
is not conserved, it fluctuates about a mean: a run is judged (`ase_flatten.md.analysis.stability`) by that mean, its
standard error and its drift, all from block averages (Flyvbjerg and Petersen,
https://doi.org/10.1063/1.457480).
"""

import logging
from importlib import import_module
from typing import Any

import numpy as np
from scipy.stats import t

from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.md.results import Conservation
from ase_flatten.utils.exceptions import not_installed
from ase_flatten.utils.typing import FloatArray

TOLERATED_RATIO = 1.0
"""A drift over the run below this fraction of the kinetic energy's standard deviation is negligible (mlipaudit)."""

LATEST_EQUILIBRATION = 0.5
"""A transient that takes more than this fraction of a run is considered not to have ended."""

_LEAST_BLOCKS = 4
_TRANSIENT_LEVEL = 0.01
_MOST_ORIGINS = 200


def total_energy(potential: FloatArray, kinetic: FloatArray, zero_energy_eV: float) -> FloatArray:
    """Return the total energy in kcal/mol above `zero_energy_eV`, in the shape of the energies in eV."""
    return (potential + kinetic - zero_energy_eV) / KCAL_PER_MOL


def running_average(series: FloatArray) -> FloatArray:
    """Average all that has been recorded up to each time, over time and replicas, skipping NaN.

    Parameters
    ----------
    series : (n, n_replicas) array

    Returns
    -------
    (n,) array, NaN before the first finite value
    """
    total, count = _cumulative(series)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def running_error(series: FloatArray) -> FloatArray:
    """Return the standard error of `running_average`, (n,), from the correlation found in the whole series."""
    finite = series[:, np.isfinite(series).all(axis=0)]
    centre = np.nanmean(series) if np.isfinite(series).any() else 0.0
    total, count = _cumulative(series - centre)
    squared, _ = _cumulative((series - centre) ** 2)
    samples = np.maximum(count, 1)
    variance = np.maximum(squared / samples - (total / samples) ** 2, 0)
    inefficiency = 1.0
    if finite.size > 1 and finite.var() > 0:
        inefficiency = block_error(finite)[0] ** 2 * finite.size / finite.var()
    return np.where(count > 1, np.sqrt(variance * np.minimum(inefficiency, samples) / samples), np.nan)


def block_error(series: FloatArray) -> tuple[float, int]:
    """Estimate the standard error of the mean of a correlated series by block averages.

    The length of the blocks is doubled repeatedly. The smallest length B with B³ > 2 n s², where s is the statistical
    inefficiency at this B, is long enough (Lee et al., https://doi.org/10.1103/PhysRevE.83.066706); if none is, the
    largest error is used.

    Parameters
    ----------
    series : (n, n_replicas) array
        Replicas are independent; no NaN.

    Returns
    -------
    error : float
        NaN for fewer than two values.
    length : int
        The length of the blocks.
    """
    n_values = series.size
    if n_values < 2:
        return float("nan"), 1
    errors: list[tuple[float, int]] = []
    length = 1
    while (len(series) // length) * series.shape[1] >= max(2, min(_LEAST_BLOCKS, n_values)):
        means = _blocks(series, length)
        errors.append((float(np.sqrt(means.var(ddof=1) / means.size)), length))
        inefficiency = (errors[-1][0] / errors[0][0]) ** 2 if errors[0][0] > 0 else 1.0
        if length**3 > 2 * n_values * inefficiency**2:
            return errors[-1]
        length *= 2
    return max(errors)


def drift(time_ps: FloatArray, series: FloatArray) -> tuple[float, float]:
    """Fit a common slope to all replicas, each with its own mean, by least squares on block means.

    The error is the larger one of two estimates: from the residuals of the blocks, and
    from the spread of the replicas' slopes where there are three or more.

    Parameters
    ----------
    time_ps : (n,) array
    series : (n, n_replicas) array
        No NaN.

    Returns
    -------
    slope, error : float
        In the series' unit per ps; NaN if there are fewer than `_LEAST_BLOCKS` values.
    """
    if len(series) < _LEAST_BLOCKS or series.shape[1] == 0:
        return float("nan"), float("nan")
    # The length of the blocks is that of the fluctuations alone: a drift would look like a long memory.
    centred = time_ps[:, None] - time_ps.mean()
    fluctuation = series - series.mean(axis=0)
    fluctuation -= centred * np.sum(centred * fluctuation, axis=0) / np.sum(centred**2)
    length = min(block_error(fluctuation)[1], len(series) // _LEAST_BLOCKS)
    times, values = _blocks(centred, length), _blocks(series, length)
    times = times - times.mean()
    values = values - values.mean(axis=0)
    spread = float(np.sum(times**2))
    slopes = (times * values).sum(axis=0) / spread
    slope = float(slopes.mean())
    freedom = values.size - values.shape[1] - 1
    variance = np.sum((values - slope * times) ** 2) / freedom / (spread * len(slopes))
    if len(slopes) >= 3:
        variance = max(variance, slopes.var(ddof=1) / len(slopes))
    return slope, float(np.sqrt(variance))


def mean_error(series: FloatArray) -> float:
    """Return the standard error of the mean of an (n, n_replicas) series without NaN; NaN for fewer than two values.

    The larger one of two estimates: `block_error`, and for three replicas or more the spread of their means. Replicas
    that are each in a conformation of their own for the whole run spread more than their blocks tell.
    """
    error = block_error(series)[0]
    if series.ndim == 2 and series.shape[1] >= 3:
        error = max(error, float(series.mean(axis=0).std(ddof=1) / np.sqrt(series.shape[1])))
    return error


def equilibration(series: FloatArray) -> int:
    """Return how many of the first values of an (n, n_replicas) series without NaN are a transient.

    The average over the replicas is split where the number of uncorrelated values that remain is largest
    (Chodera, https://doi.org/10.1021/acs.jctc.5b00784), in the first half of the run: among the last few values, which
    always look uncorrelated, it would be arbitrary. All replicas begin alike, so that what they have in
    common at the beginning is the transient, and what single ones do later is not. The average is thinned to some
    hundred blocks, for speed. The split of a series that is in equilibrium is arbitrary: it counts only where the
    values before and after it differ, by a t test at 1 % over the replicas (over the uncorrelated values of fewer
    than three replicas).

    Raises
    ------
    InputError
        The package pymbar is missing.
    """
    if len(series) < 4 * _LEAST_BLOCKS or series.shape[1] == 0:
        return 0
    length = -(-len(series) // _MOST_ORIGINS)
    average = _blocks(series, length).mean(axis=1)
    if not average.var() > 0:
        return 0
    origins = range(int(LATEST_EQUILIBRATION * len(average)) + 1)
    inefficiencies = [timeseries().statistical_inefficiency(average[origin:], fast=True) for origin in origins]
    start = int(np.argmax((len(average) - np.array(origins)) / inefficiencies))
    if start == 0:
        return 0
    n_first = start * length + len(series) % length
    if series.shape[1] >= 3:
        changes = series[n_first:].mean(axis=0) - series[:n_first].mean(axis=0)
        error, freedom = changes.std(ddof=1) / np.sqrt(len(changes)), float(len(changes) - 1)
    else:
        # Of the values after the split, which are in equilibrium, the independent ones give the spread of both parts.
        after = average[start:]
        n_after = max(2.0, len(after) / inefficiencies[start])
        error = after.std() * np.sqrt(1 / max(start / inefficiencies[start], 1.0) + 1 / n_after)
        freedom = n_after - 1
    change = series[n_first:].mean() - series[:n_first].mean()
    return n_first if abs(change) > t.ppf(1 - _TRANSIENT_LEVEL / 2, freedom) * error else 0


def conservation(time_ps: FloatArray, potential: FloatArray, kinetic: FloatArray, n_atoms: int) -> Conservation:
    """Measure how well a run without a thermostat conserves its energy, by the replicas that did not fail.

    Parameters
    ----------
    potential, kinetic : (n, n_replicas) arrays, eV
    """
    whole = np.isfinite(potential + kinetic).all(axis=0)
    slope, error = drift(time_ps, (potential + kinetic)[:, whole])
    spread = float(kinetic[:, whole].std(axis=0).mean()) if whole.any() else 0.0
    ratio = abs(slope) * float(time_ps[-1] - time_ps[0]) / spread if spread > 0 else float("nan")
    return Conservation(
        drift=known_or_none(1000 * slope / n_atoms),
        drift_error=known_or_none(1000 * error / n_atoms),
        ratio=known_or_none(ratio),
        conserved=None if np.isnan(ratio) else ratio < TOLERATED_RATIO,
    )


def timeseries() -> Any:
    """Import `timeseries` from pymbar, without the advice that it logs; raise InputError if pymbar is missing."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of all loggers: some packages make those of others log to handlers of their own
    try:
        return import_module("pymbar.timeseries")
    except ImportError as error:
        raise not_installed("the analysis", "pymbar", extra="md", error=error) from error
    finally:
        logging.disable(before)


def known_or_none(value: float) -> float | None:
    """Return None for NaN, which JSON cannot represent."""
    return None if np.isnan(value) else value


def _cumulative(series: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.cumsum(np.nansum(series, axis=1)), np.cumsum(np.isfinite(series).sum(axis=1))


def _blocks(series: FloatArray, length: int) -> FloatArray:
    """Average over blocks of rows, (n // length, n_replicas); rows left over at the beginning are dropped."""
    n_blocks = len(series) // length
    return series[len(series) - n_blocks * length :].reshape(n_blocks, length, -1).mean(axis=1)
