"""Confidence intervals of quantities taken across groups: the largest error, and how uneven the errors are.

The largest of several estimates is too large on average, since it is selected partly for its noise, and so is their
scatter; resampling adds the noise once more, so that percentiles of a bootstrap miss the true value. Here noise is
added to estimates that are first shrunk towards their mean by the part of their scatter that is noise (DerSimonian and
Laird 1986, doi:10.1016/0197-2456(86)90046-2), which shows by how much noise raises a quantity taken across groups.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from ase_flatten.utils.typing import FloatArray, IntArray


def intervals_of_largest(
    estimates: Sequence[FloatArray], samples: Sequence[FloatArray], n_frames: IntArray, confidence: float
) -> list[FloatArray]:
    """Compute intervals of the largest estimate of each of two models, and of the difference of the two.

    Parameters
    ----------
    estimates : two (n_groups,) arrays
        Logarithms of each group's RMSE.
    samples : two (n_resamples, n_groups) arrays
        The same for paired resamples.
    n_frames : (n_groups,) int array
        Frames of each group; small groups get the wider tails of the t distribution.
    confidence : float

    Returns
    -------
    list of three (2,) arrays
        For the first, the second, and the second minus the first. Each interval contains its estimate.
    """
    tail = (1 - confidence) / 2
    found, excess, raw_excess = [], [], []
    for estimate, sample in zip(estimates, samples, strict=True):
        centres, noise = _centres_and_noise(estimate, sample, n_frames, tail)
        excess.append((centres + noise).max(axis=1) - centres.max())
        raw_excess.append((estimate + noise).max(axis=1) - estimate.max())
        # The interval of the truly worst group ends no higher, whichever group that is.
        highest = (estimate - np.quantile(noise, tail, axis=0)).max()
        found.append(_holding(estimate.max(), [estimate.max() - np.quantile(excess[-1], 1 - tail), highest]))
    difference = estimates[1].max() - estimates[0].max()
    both = [difference - np.quantile(of[1] - of[0], [tail, 1 - tail]) for of in (excess, raw_excess)]
    return [*found, _holding(difference, np.concatenate(both))]


def intervals_of_unevenness(
    estimates: Sequence[FloatArray],
    samples: Sequence[FloatArray],
    n_frames: IntArray,
    shares: FloatArray,
    confidence: float,
) -> list[FloatArray]:
    """Compute intervals of the `unevenness` of each of two models, and of their ratio.

    Parameters are those of `intervals_of_largest`; `shares`, (n_groups,), are the shares of the groups in the data
    set.

    Returns
    -------
    list of three (2,) arrays
        For the first, the second, and the second divided by the first. The last one may end at infinity, if the
        groups of the first model differ by no more than noise.
    """
    tail = (1 - confidence) / 2
    values, plausible = [], []
    for estimate, sample in zip(estimates, samples, strict=True):
        centres, noise = _centres_and_noise(estimate, sample, n_frames, tail)
        values.append(float(unevenness(estimate, n_frames, shares)))
        excess = unevenness(centres + noise, n_frames, shares) - unevenness(centres, n_frames, shares)
        plausible.append(np.maximum(values[-1] - excess, 0.0))
        of_equal_groups = unevenness(estimate @ shares + noise, n_frames, shares)
        if values[-1] <= np.quantile(of_equal_groups, 1 - tail):  # groups that are equal could give as much
            plausible[-1][plausible[-1] <= np.quantile(plausible[-1], tail)] = 0.0
    first, second = plausible
    ratios = np.divide(second, first, out=np.full(len(first), np.inf), where=first > 0)
    ratio = values[1] / values[0] if values[0] > 0 else 1.0
    return [
        _holding(value, np.quantile(some, [tail, 1 - tail], method="nearest"))
        for value, some in zip((*values, ratio), (*plausible, ratios), strict=True)
    ]


def unevenness(log_rmse: FloatArray, n_frames: IntArray, shares: FloatArray) -> FloatArray:
    """Compute the area between the error curve and a flat one, for (..., n_groups) logarithms of the groups' RMSE.

    This is the mean absolute deviation of a group's RMSE from the overall one, weighted by the group's share of the
    data set.
    """
    rmse = np.exp(log_rmse)
    overall = np.sqrt(rmse**2 @ n_frames / n_frames.sum())
    area: FloatArray = np.abs(rmse - overall[..., None]) @ shares
    return area


def _centres_and_noise(
    estimates: FloatArray, samples: FloatArray, n_frames: IntArray, tail: float
) -> tuple[FloatArray, FloatArray]:
    """Return shrunk estimates and the noise of each, that of resamples with tails according to the group's size."""
    n = np.maximum(n_frames, 2)
    wider = np.sqrt(n / (n - 1)) * stats.t.ppf(1 - tail, n - 1) / stats.norm.ppf(1 - tail)
    # Reflected: a small sample more often misses rare large errors than contains too many.
    return _shrunk(estimates, samples.std(axis=0)), (estimates - samples) * wider


def _holding(value: float, ends: Sequence[float] | FloatArray) -> FloatArray:
    """Return the smallest interval that contains the value and the ends."""
    return np.array([min(value, *ends), max(value, *ends)])


def _shrunk(estimates: FloatArray, errors: FloatArray) -> FloatArray:
    """Shrink estimates towards their mean, each by the share of its variance that is noise."""
    if len(estimates) < 2 or not errors.all():
        return estimates
    weights = errors**-2.0
    scatter = np.sum(weights * (estimates - np.average(estimates, weights=weights)) ** 2)
    scale = weights.sum() - np.sum(weights**2) / weights.sum()
    variance = max(0.0, (scatter - (len(estimates) - 1)) / scale)
    mean = np.average(estimates, weights=1 / (errors**2 + variance))
    shrunk: FloatArray = mean + variance / (variance + errors**2) * (estimates - mean)
    return shrunk
