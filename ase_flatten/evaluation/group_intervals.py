"""Intervals of errors taken across groups: the largest one, and how uneven they are.

The largest of several estimates is too large on average, since it was chosen for its noise too, and so is their
scatter; resampling adds the noise once more, so that percentiles of a bootstrap miss the truth. Here noise is added to
estimates that are first shrunk towards each other by as much as they scatter from noise (DerSimonian and Laird 1986,
doi:10.1016/0197-2456(86)90046-2), which shows by how much the noise raises what is taken across groups. Where it
matters how far they are shrunk, the interval holds both extremes.

A group of 20 frames hardly knows the tails of its own errors. Its noise is therefore that of its own resamples, with
a variance that is partly that of the frames of all groups.

Coverage is measured by `benchmarks/bench_coverage.py`.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from ase_flatten.utils.typing import FloatArray, IntArray

_COMMON_FRAMES = 50
"""The variance of all groups counts as much as this many frames of a group."""


def intervals_of_each(estimates: FloatArray, samples: FloatArray, n_frames: IntArray, confidence: float) -> FloatArray:
    """Compute the interval of each group by itself, (2, n_groups); see `intervals_of_largest`."""
    tail = (1 - confidence) / 2
    _, noise = _centres_and_noise(estimates, samples, n_frames, tail)
    ends: FloatArray = estimates + np.quantile(noise, [tail, 1 - tail], axis=0)
    return ends


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
        Frames of each group.
    confidence : float

    Returns
    -------
    list of three (2,) arrays
        For the first, the second, and the second minus the first. Each interval contains its estimate.
    """
    tail = (1 - confidence) / 2
    found, excess = [], []
    for estimate, sample in zip(estimates, samples, strict=True):
        centres, noise = _centres_and_noise(estimate, sample, n_frames, tail)
        apart, together = ((of + noise).max(axis=1) - of.max() for of in (estimate, centres))
        excess.append((apart, together, together if _equal(estimate, noise.std(axis=0), 1 - tail) else apart))
        # The interval of the truly worst group ends no higher, whichever group that is.
        highest = (estimate - np.quantile(noise, tail, axis=0)).max()
        found.append(_holding(estimate.max(), [estimate.max() - np.quantile(together, 1 - tail), highest]))
    difference = estimates[1].max() - estimates[0].max()
    ends = [difference - np.quantile(after - before, [tail, 1 - tail]) for before, after in zip(*excess, strict=True)]
    return [*found, _holding(difference, np.concatenate(ends))]


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
        Of the first, of the second, and of the second divided by the first. Where a model's groups differ by no
        more than equal ones would, its interval begins at 0, the boundary. A ratio then begins at 0, if it is the
        second model, and ends at infinity, if it is the first: both mean that the model cannot be told from flat.
    """
    tail = (1 - confidence) / 2
    values, likely, least = [], [], []
    for estimate, sample in zip(estimates, samples, strict=True):
        centres, noise = _centres_and_noise(estimate, sample, n_frames, tail)
        values.append(float(unevenness(estimate, n_frames, shares)))
        excess = unevenness(centres + noise, n_frames, shares) - unevenness(centres, n_frames, shares)
        likely.append(np.maximum(values[-1] - excess, 0.0))
        # By the triangle inequality noise adds at most what it makes of equal groups.
        of_equal_groups = unevenness(estimate @ shares + noise, n_frames, shares)
        least.append(np.maximum(values[-1] - of_equal_groups, 0.0))
    ends = [
        np.array([min(np.quantile(some, tail) for some in both), np.quantile(both[0], 1 - tail)])
        for both in zip(likely, least, strict=True)
    ]
    flat = [end[0] == 0 for end in ends]
    pairs = (likely, least)
    lowest = 0.0 if flat[1] else min(_quantile_of_ratio(before, after, tail) for before, after in pairs)
    highest = np.inf if flat[0] else max(_quantile_of_ratio(before, after, 1 - tail) for before, after in pairs)
    ratio = values[1] / values[0] if values[0] > 0 else 1.0
    return [
        _holding(value, end) for value, end in zip((*values, ratio), (*ends, np.array([lowest, highest])), strict=True)
    ]


def _quantile_of_ratio(first: FloatArray, second: FloatArray, share: float) -> float:
    """Return a quantile of second over first, infinite if the first is 0."""
    ratios = np.divide(second, first, out=np.full(len(first), np.inf), where=first > 0)
    return float(np.quantile(ratios, share, method="nearest"))  # no interpolation with infinity


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
    """Shrink estimates towards each other, and return the noise of each group, (n_resamples, n_groups)."""
    n = np.maximum(n_frames, 2)
    of_a_frame = samples.var(axis=0) * n**2 / (n - 1)
    common = np.average(of_a_frame, weights=n)
    errors = np.sqrt((n * of_a_frame + _COMMON_FRAMES * common) / (n + _COMMON_FRAMES) / n)
    wider = stats.t.ppf(1 - tail, n - 1 + _COMMON_FRAMES) / stats.norm.ppf(1 - tail)
    spread = samples.std(axis=0)
    scale = np.divide(errors * wider, spread, out=np.zeros_like(spread), where=spread > 0)
    # Reflected: a small sample misses rare large errors more often than it holds too many.
    return _drawn_together(estimates, errors), (estimates - samples) * scale


def _holding(value: float, ends: Sequence[float] | FloatArray) -> FloatArray:
    """Return the smallest interval that contains the value and the ends."""
    return np.array([min(value, *ends), max(value, *ends)])


def _equal(estimates: FloatArray, errors: FloatArray, confidence: float) -> bool:
    """Return whether the groups may be equal, by Cochran's test."""
    if len(estimates) < 2 or not errors.all():
        return False
    weights = errors**-2.0
    scatter = np.sum(weights * (estimates - np.average(estimates, weights=weights)) ** 2)
    return bool(scatter <= stats.chi2.ppf(confidence, len(estimates) - 1))


def _drawn_together(estimates: FloatArray, errors: FloatArray) -> FloatArray:
    """Shrink estimates towards their mean, each by the part of its variance that is noise."""
    if len(estimates) < 2 or not errors.all():
        return estimates
    weights = errors**-2.0
    scatter = np.sum(weights * (estimates - np.average(estimates, weights=weights)) ** 2)
    scale = weights.sum() - np.sum(weights**2) / weights.sum()
    variance = max(0.0, (scatter - (len(estimates) - 1)) / scale)
    mean = np.average(estimates, weights=1 / (errors**2 + variance))
    shrunk: FloatArray = mean + variance / (variance + errors**2) * (estimates - mean)
    return shrunk
