"""Intervals of the largest of several errors, and of the ratio of two models' largest ones.

The largest of several estimates is too large on average, since it was chosen for its noise too, and resampling it adds
the noise once more: percentiles of a bootstrap miss the truth. Here noise is added to estimates that are first drawn
together by as much as they scatter from noise (DerSimonian and Laird 1986, doi:10.1016/0197-2456(86)90046-2), which
tells by how much their largest exceeds the true one.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from ase_flatten.dataset import FloatArray, IntArray


def intervals_of_largest(
    estimates: Sequence[FloatArray], samples: Sequence[FloatArray], n_frames: IntArray, confidence: float
) -> list[FloatArray]:
    """Compute intervals of the largest of each of two models' estimates, and of the difference of these two.

    Parameters
    ----------
    estimates : two (n_groups,) arrays
        Logarithms of each group's RMSE.
    samples : two (n_resamples, n_groups) arrays
        The same of paired resamples.
    n_frames : (n_groups,) int array
        Frames of each group: small ones get the wider tails of the t distribution.
    confidence : float

    Returns
    -------
    list of three (2,) arrays
        Of the first, of the second, and of the second minus the first. Each holds its estimate.
    """
    tail = (1 - confidence) / 2
    n = np.maximum(n_frames, 2)
    wider = np.sqrt(n / (n - 1)) * stats.t.ppf(1 - tail, n - 1) / stats.norm.ppf(1 - tail)
    largest, excess, highest = [], [], []
    for estimate, sample in zip(estimates, samples, strict=True):
        # Reflected: a small sample misses rare large errors more often than it holds too many.
        noise = (estimate - sample) * wider
        centres = _drawn_together(estimate, sample.std(axis=0))
        largest.append(estimate.max())
        excess.append((centres + noise).max(axis=1) - centres.max())
        # The interval of the truly worst group ends no higher, whichever group that is.
        highest.append((estimate - np.quantile(noise, tail, axis=0)).max())
    found = [
        np.array([top - np.quantile(over, 1 - tail), high])
        for top, over, high in zip(largest, excess, highest, strict=True)
    ]
    difference = largest[1] - largest[0]
    found.append(difference - np.quantile(excess[1] - excess[0], [1 - tail, tail]))
    return [
        np.array([min(low, value), max(high, value)])
        for (low, high), value in zip(found, (*largest, difference), strict=True)
    ]


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
