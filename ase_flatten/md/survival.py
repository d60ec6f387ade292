"""How many replicas survive, and whether two models differ in that.

A replica that did not fail is right-censored at the end of its run.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from ase_flatten.dataset import FloatArray
from ase_flatten.exceptions import not_installed

CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Survival:
    """Hold a survival curve: steps that begin at the given times.

    Parameters
    ----------
    time_ps, fraction, low, high : (n_times,) arrays
        From time zero to the end; the fraction that survives and its interval of 95 %.
    """

    time_ps: FloatArray
    fraction: FloatArray
    low: FloatArray
    high: FloatArray


def survival(durations_ps: FloatArray, failed: NDArray[np.bool_]) -> Survival:
    """Estimate a survival curve after Kaplan and Meier (https://doi.org/10.1080/01621459.1958.10501452).

    Replicas run equally long, so that nothing is censored before the end and the number that
    survives to any time is binomial: the interval is Clopper and Pearson's exact one
    (https://doi.org/10.1093/biomet/26.4.404). Greenwood's would have no width where none or all failed.

    Parameters
    ----------
    durations_ps : (n_replicas,) array
        Until the failure, or the end of the run.
    failed : (n_replicas,) bool array

    Raises
    ------
    InputError
        The package lifelines is missing.
    """
    fitter = lifelines().KaplanMeierFitter()
    curve = fitter.fit(durations_ps, event_observed=failed).survival_function_
    fraction = curve["KM_estimate"].to_numpy()
    n_replicas = len(durations_ps)
    alive = np.rint(fraction * n_replicas)
    tail = (1 - CONFIDENCE) / 2
    # The limits of the beta distribution at its ends are NaN.
    low = np.where(alive > 0, beta.ppf(tail, np.maximum(alive, 1), n_replicas - alive + 1), 0.0)
    high = np.where(alive < n_replicas, beta.ppf(1 - tail, alive + 1, np.maximum(n_replicas - alive, 1)), 1.0)
    return Survival(curve.index.to_numpy(dtype=np.float64), fraction, low, high)


def log_rank(
    durations_ps: FloatArray, failed: NDArray[np.bool_], other_durations_ps: FloatArray, other_failed: NDArray[np.bool_]
) -> float:
    """Test whether two survival curves differ beyond noise.

    Mantel's log-rank test (Cancer Chemother. Rep. 50, 163, 1966); as large a
    difference arises by chance with the probability that it gives.

    Returns
    -------
    float
        The p-value, 1 where no replica failed.

    Raises
    ------
    InputError
        The package lifelines is missing.
    """
    if not failed.any() and not other_failed.any():
        return 1.0
    test = lifelines("lifelines.statistics").logrank_test
    return float(test(durations_ps, other_durations_ps, failed, other_failed).p_value)


def lifelines(module: str = "lifelines") -> Any:
    """Import the package or one of its modules; raise InputError where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise not_installed("the analysis", "lifelines", extra="md", error=error) from error
