"""Distributions of distances: histograms with a fixed bin width, and the difference of two of them."""

import numpy as np

from ase_flatten.utils.blocks import blocks
from ase_flatten.utils.typing import FloatArray, IntArray

BIN_WIDTH = 0.02
"""Bin width of the histograms, Å."""

N_BINS = 1000


def count_distances(distances: FloatArray) -> IntArray:
    """Count distances in bins of 0.02 Å up to 20 Å; the last bin includes all larger distances.

    Parameters
    ----------
    distances : (n_frames, n_pairs) array, Å

    Returns
    -------
    (n_bins,) int array
    """
    counts = np.zeros(N_BINS, dtype=np.int64)
    for block in blocks(len(distances), 24 * max(1, distances.shape[1])):
        bins = np.minimum((distances[block] / BIN_WIDTH).astype(np.int64), N_BINS - 1)
        counts += np.bincount(bins.ravel(), minlength=N_BINS)
    return counts


def bin_centres() -> FloatArray:
    """Return the centres of the bins, (n_bins,) in Å."""
    return BIN_WIDTH * (np.arange(N_BINS, dtype=np.float64) + 0.5)


def density(counts: IntArray) -> FloatArray:
    """Return the distribution h(r) of counts, (n_bins,) in 1/Å, normalised to one; zero without counts."""
    return np.asarray(counts / (max(1, int(counts.sum())) * BIN_WIDTH))


def distribution_error(counts: IntArray, reference: IntArray) -> float:
    """Integrate |h(r) - h_ref(r)| over r: 0 for equal distributions, 2 for disjoint ones.

    The error of h(r) in Fu et al. (2023), https://arxiv.org/abs/2210.07237; NaN if one is empty.
    """
    if not counts.any() or not reference.any():
        return float("nan")
    return float(np.sum(np.abs(density(counts) - density(reference))) * BIN_WIDTH)
