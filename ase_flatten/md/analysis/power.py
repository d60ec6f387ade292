"""Failure rates with exact intervals, and the power of a comparison of two of them.

Replicas that fail at a constant rate have exponential lifetimes: the number of failures in their total time follows a
Poisson distribution.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binom, chi2, poisson

from ase_flatten.md.results import Lifetime

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
POWER = 0.8
"""The probability with which a difference should be found."""

MOST_FAILURES = 1000
"""Rates that cannot be told apart by this many failures are treated as equal."""


def lifetime(n_failed: int, lived_ps: float) -> Lifetime:
    """Estimate the mean lifetime of replicas that fail at a constant rate.

    The interval is the exact one of a Poisson count (Garwood, https://doi.org/10.1093/biomet/28.3-4.437). If none
    failed, the bound is one-sided: the rate is below -ln(0.05)/time with 95 % confidence.

    Parameters
    ----------
    n_failed : int
    lived_ps : float
        The total time of all replicas until they failed or the run ended, ps.
    """
    if n_failed == 0:
        return Lifetime(None, float(lived_ps / -np.log(1 - CONFIDENCE)), None)
    tail = (1 - CONFIDENCE) / 2
    most = chi2.ppf(1 - tail, 2 * n_failed + 2) / 2
    least = chi2.ppf(tail, 2 * n_failed) / 2
    return Lifetime(lived_ps / n_failed, float(lived_ps / most), float(lived_ps / least))


def power(rate: float, other_rate: float, lived_ps: float, *, level: float = SIGNIFICANCE) -> float:
    """Compute the probability that two failure rates are told apart.

    By the exact two-sided test of two Poisson counts, conditional on their sum (Przyborowski and Wilenski,
    https://doi.org/10.1093/biomet/31.3-4.313); the log-rank test of exponential lifetimes is about as powerful.

    Parameters
    ----------
    rate, other_rate : float, 1/ps
    lived_ps : float
        The time that all replicas of each model live together, ps.
    level : float
        The probability of a false alarm that is accepted.
    """
    means = np.array([rate, other_rate]) * lived_ps
    most = int(poisson.ppf(1 - 1e-9, means.sum())) + 1
    total = np.arange(most + 1)
    # At most k failures of one model are significant, with 2 P(K <= k) <= level for K of Binomial(total, 1/2).
    k = binom.ppf(level / 2, total, 0.5)
    k = np.where(binom.cdf(k, total, 0.5) > level / 2, k - 1, k)
    share = means[0] / means.sum() if means.sum() > 0 else 0.5
    found = binom.cdf(k, total, share) + binom.cdf(k, total, 1 - share)
    return float(np.sum(poisson.pmf(total, means.sum()) * found))


def time_to_tell_apart(rate: float, other_rate: float, *, level: float = SIGNIFICANCE) -> float | None:
    """Compute the total time of the replicas of each model that is needed for a power of 80 %, ps.

    None for equal rates, and for rates so close that a thousand failures would not suffice.
    """
    mean = (rate + other_rate) / 2
    longest = MOST_FAILURES / (2 * mean) if mean > 0 else 0.0
    if mean == 0 or power(rate, other_rate, longest, level=level) < POWER:
        return None

    def missing(time_ps: float) -> float:
        return power(rate, other_rate, time_ps, level=level) - POWER

    return float(brentq(missing, 1e-3 / mean, longest, rtol=1e-3))


def detectable_lifetime(lived_ps: float, *, level: float = SIGNIFICANCE) -> float:
    """Compute the longest lifetime that can be distinguished from an infinite one with a power of 80 %, ps.

    Parameters
    ----------
    lived_ps : float
        The time that all replicas of each model live together, ps.
    """
    n_failures = brentq(lambda mean: power(mean, 0.0, 1.0, level=level) - POWER, 0.1, 100.0)
    return lived_ps / float(n_failures)
