"""Resample held-out frames, to estimate how much an error would change with other frames.

Held-out frames are a random sample of each broad cluster, so they are resampled within groups of clusters, and every
resample holds as many frames of a group as the held-out set does. Errors of successive frames are correlated because
the groups differ, and hardly within a group: on the bundled salicylic acid (2,000 held-out frames, 100 training
frames) the autocorrelation of squared force errors at the first lag is 0.37, and 0.01 once each group's mean is
taken subtracted (statistical inefficiency 66 and 1.07). Any correlation within groups, such as that of near-identical
frames that are held out together, is kept by resampling blocks of frames in file order.

The intervals refer to the distribution that the data set samples, not to regions that its trajectory never visited.
"""

from collections.abc import Iterator

import numpy as np

from ase_flatten.utils.typing import FloatArray, IntArray

_LEAST_BLOCKS = 5
"""Least number of blocks of a group: fewer say nothing about its spread."""

_CHUNK = 2**18
"""Number of weights that fit into a processor's cache."""

_INSIGNIFICANT = 5
"""Number of small autocorrelations in a row that ends the search for the longest correlated lag."""

_SAME = 1e-9
"""Logarithms of errors with a smaller standard deviation count as equal."""


def block_length(errors: FloatArray, groups: IntArray) -> int:
    """Choose the length of the blocks by the rule of Politis and White (2004, doi:10.1081/ETC-120028836).

    The autocorrelation is that within groups: of logarithms of errors, standardised group by group. On random
    held-out frames of a trajectory it is nearly always nil, and the length is 1.

    Parameters
    ----------
    errors : (n_frames,) array
        Squared errors of frames, in file order.
    groups : (n_frames,) int array
        The group of each frame.
    """
    floor = np.finfo(float).tiny
    order = np.argsort(groups, kind="stable")
    members, values = groups[order], np.log(np.maximum(errors[order], floor))
    counts = np.bincount(members)
    mean = np.bincount(members, weights=values) / np.maximum(counts, 1)
    residuals = values - mean[members]
    n_frames = len(residuals)
    if n_frames < 2 * _INSIGNIFICANT or residuals.std() < _SAME:
        return 1
    n_lags = int(min(np.ceil(np.sqrt(n_frames)) + _INSIGNIFICANT, n_frames - 1))
    covariances = np.array(
        [
            np.sum((residuals[lag:] * residuals[: n_frames - lag])[members[lag:] == members[: n_frames - lag]])
            for lag in range(n_lags + 1)
        ]
    )
    covariances /= n_frames
    small = np.abs(covariances[1:]) < 2 * np.sqrt(np.log10(n_frames) / n_frames) * covariances[0]
    last = next(
        (lag for lag in range(n_lags) if small[lag : lag + _INSIGNIFICANT].all()), int(np.flatnonzero(~small)[-1]) + 1
    ) if not small.all() else 0  # fmt: skip
    lags = np.arange(1, min(2 * last, n_lags) + 1)
    taper = np.clip(2 * (1 - lags / max(2 * last, 1)), 0, 1)  # the flat-top window
    weighted = taper * covariances[lags]
    long_run = covariances[0] + 2 * weighted.sum()
    if long_run <= 0:
        return 1
    slope = 2 * np.sum(lags * weighted)
    length = np.cbrt(1.5 * slope**2 / long_run**2 * n_frames)  # of the circular block bootstrap
    return max(1, round(length))


def resample_counts(
    groups: IntArray, length: int, n_resamples: int, *, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Draw blocks of frames with replacement within each group; yield how often each frame was drawn.

    Parameters
    ----------
    groups : (n_frames,) int array
        The group of each frame, in rising order; within a group, frames are in file order.
    length : int
        Frames of a block, fewer in groups that would have less than five blocks.

    Yields
    ------
    (n, n_frames) arrays
        `n_resamples` rows in all.
    """
    block_of, group_of_block = _cut(groups, length)
    n_blocks = np.bincount(group_of_block)
    starts = np.cumsum(n_blocks) - n_blocks
    start, size = starts[group_of_block], n_blocks[group_of_block]
    step = max(1, _CHUNK // len(groups))
    for first in range(0, n_resamples, step):
        n = min(step, n_resamples - first)
        drawn = start + (rng.random((n, len(size))) * size).astype(np.int64)
        drawn += len(size) * np.arange(n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n * len(size)).reshape(n, len(size))
        yield counts[:, block_of].astype(float) if length > 1 else counts.astype(float)


def _cut(groups: IntArray, length: int) -> tuple[IntArray, IntArray]:
    """Cut groups into blocks; return the block of each frame and the group of each block."""
    sizes = np.bincount(groups)
    lengths = np.maximum(1, np.minimum(length, sizes // _LEAST_BLOCKS))
    place = np.arange(len(groups)) - (np.cumsum(sizes) - sizes)[groups]
    pieces = place // lengths[groups]
    _, block_of = np.unique(groups * (len(groups) + 1) + pieces, return_inverse=True)
    group_of_block = np.empty(block_of.max() + 1, dtype=np.int64)
    group_of_block[block_of] = groups
    return block_of.astype(np.int64), group_of_block
