"""What the energies of a run tell: averages, their errors, drift, and whether the run is stable.

Pure functions of the saved arrays. Under a thermostat the total energy of a molecule
is not conserved, it fluctuates about a mean: a run is judged by that mean, its
standard error and its drift, all from block averages (Flyvbjerg and Petersen,
https://doi.org/10.1063/1.457480).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ase_flatten.dataset import FloatArray
from ase_flatten.units import KCAL_PER_MOL

SIGNIFICANT = 3.0
"""A drift is significant beyond this many standard errors."""

TOLERATED_DRIFT = 0.5
"""A drift that adds up to less than this over the run is no matter, kcal/mol (section III B of the paper)."""

TOLERATED_RATIO = 1.0
"""A drift over the run of less than this part of the kinetic energy's standard deviation is no matter (mlipaudit)."""

_LEAST_BLOCKS = 4


def total_energy(potential: FloatArray, kinetic: FloatArray, zero_energy_eV: float) -> FloatArray:
    """Give the total energy in kcal/mol above `zero_energy_eV`, in the shape of the energies in eV."""
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
    """Give the standard error of `running_average`, (n,), from the correlation found in the whole series."""
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

    The blocks are doubled in length. Of the lengths B the smallest with
    B³ > 2 n s², s being the statistical inefficiency that this B gives, is long enough
    (Lee et al., https://doi.org/10.1103/PhysRevE.83.066706); where none is, the largest error counts.

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
        In the series' unit per ps; NaN where there are fewer than `_LEAST_BLOCKS` values.
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


def is_stable(n_failed: int, slope: float, error: float, duration_ps: float) -> bool:
    """Decide whether a run is stable.

    It is, if no replica failed, and the total energy does not drift: the drift is either within
    three standard errors of zero, or adds up to less than 0.5 kcal/mol over the
    whole run, the difference between models that the paper calls none. A run too short
    for a drift to be fitted (slope NaN) is judged by its failures alone.

    Parameters
    ----------
    slope, error : float
        kcal/mol/ps
    """
    if n_failed or np.isnan(slope):
        return n_failed == 0
    return abs(slope) <= SIGNIFICANT * error or abs(slope) * duration_ps < TOLERATED_DRIFT


def conservation(time_ps: FloatArray, potential: FloatArray, kinetic: FloatArray, n_atoms: int) -> dict[str, Any]:
    """Tell how well a run without a thermostat keeps its energy, by the replicas that did not fail.

    Parameters
    ----------
    potential, kinetic : (n, n_replicas) arrays, eV

    Returns
    -------
    dict
        drift and drift_error, of the total energy by `drift`, meV/atom/ps; ratio, what the drift
        adds up to over the run as a part of the standard deviation of the kinetic energy;
        conserved, whether that is below 1, mlipaudit's threshold. None for what cannot be told.
    """
    whole = np.isfinite(potential + kinetic).all(axis=0)
    slope, error = drift(time_ps, (potential + kinetic)[:, whole])
    spread = float(kinetic[:, whole].std(axis=0).mean()) if whole.any() else 0.0
    ratio = abs(slope) * float(time_ps[-1] - time_ps[0]) / spread if spread > 0 else float("nan")
    return {
        "drift": known_or_none(1000 * slope / n_atoms),
        "drift_error": known_or_none(1000 * error / n_atoms),
        "ratio": known_or_none(ratio),
        "conserved": None if np.isnan(ratio) else ratio < TOLERATED_RATIO,
    }


def summarize(
    time_ps: FloatArray,
    potential: FloatArray,
    kinetic: FloatArray,
    *,
    failures: Sequence[dict[str, Any]],
    zero_energy_eV: float,
) -> dict[str, Any]:
    """Summarize a run for ``summary.json``; what cannot be told is None.

    Returns
    -------
    dict
        n_failed; first_failure_ps, of recorded time, 0 for a replica lost in
        equilibration; reasons, a sentence for each failed replica; failures,
        the same as replica, step, time_ps and reason; mean_total_energy,
        kcal/mol, zero at `zero_energy_eV`, over the replicas that did not fail;
        standard_error of it, kcal/mol, by `block_error`; drift and drift_error,
        kcal/mol/ps, by `drift`; stable, by `is_stable`.
    """
    total = total_energy(potential, kinetic, zero_energy_eV)
    whole = total[:, np.isfinite(total).all(axis=0)]
    slope, slope_error = drift(time_ps, whole)
    return {
        "n_failed": len(failures),
        "first_failure_ps": min((max(failure["time_ps"], 0.0) for failure in failures), default=None),
        "reasons": [
            f"replica {failure['replica']} after {failure['time_ps']:.3f} ps: {failure['reason']}"
            for failure in failures
        ],
        "failures": list(failures),
        "mean_total_energy": known_or_none(float(whole.mean()) if whole.size else float("nan")),
        "standard_error": known_or_none(block_error(whole)[0]),
        "drift": known_or_none(slope),
        "drift_error": known_or_none(slope_error),
        "stable": is_stable(len(failures), slope, slope_error, float(time_ps[-1] - time_ps[0])),
    }


def known_or_none(value: float) -> float | None:
    """Give None for NaN, which JSON has not."""
    return None if np.isnan(value) else value


def _cumulative(series: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.cumsum(np.nansum(series, axis=1)), np.cumsum(np.isfinite(series).sum(axis=1))


def _blocks(series: FloatArray, length: int) -> FloatArray:
    """Average over blocks of rows, (n // length, n_replicas); rows left over at the beginning are dropped."""
    n_blocks = len(series) // length
    return series[len(series) - n_blocks * length :].reshape(n_blocks, length, -1).mean(axis=1)
