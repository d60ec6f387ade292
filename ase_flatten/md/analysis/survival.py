"""Survival of replicas, and tests of whether two models differ in it.

A replica that did not fail is right-censored at the end of its run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, chi2, permutation_test

from ase_flatten.utils.exceptions import not_installed
from ase_flatten.utils.typing import FloatArray

CONFIDENCE = 0.95

Lifetimes = tuple[FloatArray, NDArray[np.bool_]]
"""How long each replica of a model ran, ps, and whether it failed, (n_replicas,) each."""


@dataclass(frozen=True, eq=False)
class Survival:
    """Survival curve: steps that begin at the given times.

    Parameters
    ----------
    time_ps, fraction, low, high : (n_times,) arrays
        From time zero to the end; the fraction that survives and its 95 % confidence interval.
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
    """Test whether two survival curves differ significantly.

    Mantel's log-rank test (Cancer Chemother. Rep. 50, 163, 1966).

    Returns
    -------
    float
        The p-value, 1 if no replica failed.

    Raises
    ------
    InputError
        The package lifelines is missing.
    """
    if not failed.any() and not other_failed.any():
        return 1.0
    test = lifelines("lifelines.statistics").logrank_test
    return float(test(durations_ps, other_durations_ps, failed, other_failed).p_value)


def stratified_log_rank(strata: Sequence[tuple[Lifetimes, Lifetimes]]) -> float:
    """Test whether two kinds of model differ in survival, over several pairs of models.

    The log-rank test with a stratum for each pair (seed): observed minus expected failures, and their hypergeometric
    variances, are summed over the pairs, so that replicas are compared within a pair only (Mantel and Haenszel,
    https://doi.org/10.1093/jnci/22.4.719; Peto et al., https://doi.org/10.1038/bjc.1977.1). It supports a claim about
    replicas of these particular models; `sign_flip_test` supports one about models in general.

    Parameters
    ----------
    strata : sequence of pairs
        For each seed the lifetimes of the two models.

    Returns
    -------
    float
        The p-value, 1 if no replica failed.
    """
    excess = variance = 0.0
    for one, other in strata:
        durations, failed = (np.concatenate(parts) for parts in zip(one, other, strict=True))
        first = np.arange(len(durations)) < len(one[0])
        for moment in np.unique(durations[failed]):
            at_risk = durations >= moment
            fails = failed & (durations == moment)
            n, n_first, d = at_risk.sum(), (at_risk & first).sum(), fails.sum()
            excess += (fails & first).sum() - d * n_first / n
            if n > 1:
                variance += d * (n_first / n) * (1 - n_first / n) * (n - d) / (n - 1)
    return float(chi2.sf(excess**2 / variance, 1)) if variance > 0 else 1.0


def lived(lifetimes: Lifetimes) -> float:
    """Return the mean time that a replica survived within the run, ps: the area below the survival curve."""
    return float(np.mean(lifetimes[0]))


def sign_flip_test(differences: Sequence[float]) -> float:
    """Test whether paired differences, one for each seed, are centred at zero: a claim about models, not replicas.

    Exact: under the null hypothesis every difference may as well have the other sign (Fisher's randomization test). The
    p-value is the fraction of all 2^n changes of signs whose mean is at least as far from zero; for n seeds it cannot
    be below 2/2^n, 0.25 for three. (Beyond 13 seeds, ten thousand random changes of signs are used.)

    Parameters
    ----------
    differences : sequence of float
        Such as those of `lived` between two models of the same seed.

    Returns
    -------
    float
        The two-sided p-value, 1 for fewer than two seeds.
    """
    found = np.asarray(differences, dtype=np.float64)
    if len(found) < 2:
        return 1.0
    return float(permutation_test((found,), np.mean, permutation_type="samples", n_resamples=10_000, rng=0).pvalue)


def lifelines(module: str = "lifelines") -> Any:
    """Import the package or one of its modules; raise InputError if it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise not_installed("the analysis", "lifelines", extra="md", error=error) from error
