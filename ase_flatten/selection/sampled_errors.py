"""Errors of clusters from random frames of each, for slow models (Fonseca et al. 2021, section III).

The first round draws the same number of frames from every cluster; each further round draws
more from the clusters whose interval is still too wide to decide on which side of the threshold
they are. Because sampling of a cluster stops once its interval is clear, its mean is slightly biased, on
average by less than its half width. The overall error and the threshold are free of this bias: both come from
the first round alone, whose size does not depend on the errors, and whose population-weighted mean of squared
errors is unbiased.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from ase_flatten.clustering.clusters import Clustering
from ase_flatten.selection.cluster_errors import ClusterErrors, FrameErrors, by_cluster
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray

GROWTH = 1.5
"""Each round brings the undecided clusters to this multiple of their frames."""


ErrorsOf = Callable[[IntArray], FrameErrors]
"""Predict frames, (n,) int array, and compare with the reference."""


@dataclass(frozen=True)
class SubsetRule:
    """How many frames of each cluster are predicted.

    Parameters
    ----------
    n_first : int
        Frames of every cluster in the first round; a smaller cluster is predicted completely.
    confidence : float
        Confidence with which a cluster is assigned to one side of the threshold, over all looks at it together,
        and confidence of its half width.
    resolution : float
        A cluster whose half width is below this fraction of its RMSE is judged by its estimate.
    """

    n_first: int = 20
    confidence: float = 0.95
    resolution: float = 0.05

    def __post_init__(self) -> None:
        if self.n_first < 2:
            raise InputError(f"a subset must begin with at least 2 frames of a cluster, got {self.n_first}")
        for name in ("confidence", "resolution"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"the {name} of a subset must lie between 0 and 1, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Estimate:
    """Errors of the frames that were predicted, and the errors of the clusters estimated from them.

    Parameters
    ----------
    errors : FrameErrors
        In rising order of the frames.
    clusters : ClusterErrors
    energy_offset : float, eV
        What was subtracted from all predicted energies.
    """

    errors: FrameErrors
    clusters: ClusterErrors
    energy_offset: float = 0.0


def estimate_errors(
    errors_of: ErrorsOf,
    clustering: Clustering,
    frames: IntArray,
    *,
    factor: float,
    rule: SubsetRule | None,
    rng: np.random.Generator,
    up_to_a_constant: bool = False,
) -> Estimate:
    """Estimate a model's errors on each cluster, well enough to identify the bad ones.

    Whether the mean squared error of a cluster exceeds that of all frames by `factor` squared is
    decided by Student's interval of the difference, with the correction for a finite population; its
    level is divided by the number of looks that there can be (Bonferroni). Frames are drawn
    without replacement. Where a few frames of a cluster carry most of its error, the interval
    is too narrow until one of them is drawn.

    Parameters
    ----------
    errors_of : callable
        Predicts frames and returns their errors, such as `frame_errors` of a model and a data set.
    frames : int array
        The frames that the errors are about.
    factor : float
        Clusters are bad above this multiple of the overall force RMSE.
    rule : SubsetRule or None
        None predicts all frames.
    up_to_a_constant : bool
        Subtract the mean difference from the predicted energies, since other methods have another zero. As the overall
        error, it comes from the first round alone.
    """
    if rule is None:
        errors = errors_of(frames)
        offset = float(errors.energy.mean()) if up_to_a_constant else 0.0
        errors = _shifted(errors, offset)
        return Estimate(errors, by_cluster(errors, clustering), offset)
    queues = _shuffled(frames, clustering, rng)
    available = np.array([len(queue) for queue in queues])
    drawn = np.minimum(available, rule.n_first)
    errors = errors_of(_between(queues, np.zeros_like(drawn), drawn))
    offset = _mean_energy_error(errors, clustering, available) if up_to_a_constant else 0.0
    errors = _shifted(errors, offset)
    overall = _weighted(by_cluster(errors, clustering), available)
    threshold = factor**2 * overall["overall_rmse"] ** 2
    share = available / available.sum()
    overall_variance = float(np.sum(share**2 * _variances(errors, clustering, available)))
    width = norm.ppf((1 + rule.confidence) / 2) * overall_variance**0.5
    overall["overall_half_width"] = float(_of_root(width, overall["overall_rmse"]))
    # One look at n_first frames, and one after each growth.
    looks = 1 + np.ceil(np.log(np.maximum(available / rule.n_first, 1)) / np.log(GROWTH))
    while True:
        clusters = by_cluster(errors, clustering)
        variances = _variances(errors, clustering, available)
        mse = np.nan_to_num(clusters.rmse) ** 2
        half_width = _quantile(1 - rule.confidence, drawn) * np.sqrt(variances)
        clear = _quantile((1 - rule.confidence) / looks, drawn) * np.sqrt(variances + factor**4 * overall_variance)
        wide = _of_root(half_width, clusters.rmse) > rule.resolution * clusters.rmse
        undecided = (np.abs(mse - threshold) < clear) & wide & (drawn < available)
        if not undecided.any():
            break
        more = np.where(undecided, np.minimum(available, np.ceil(GROWTH * drawn).astype(np.int64)), drawn)
        fresh = _shifted(errors_of(_between(queues, drawn, more)), offset)
        errors, drawn = errors.joined(fresh), more
    clusters = replace(clusters, **overall, half_width=_of_root(half_width, clusters.rmse))
    return Estimate(errors, clusters, offset)


def complete(
    estimate: Estimate, errors_of: ErrorsOf, clustering: Clustering, frames: IntArray, chosen: IntArray
) -> Estimate:
    """Predict all frames of some clusters that an estimate has not predicted yet.

    The errors of these clusters become exact; the overall errors stay as they are, since choosing
    clusters by their errors would bias them.

    Parameters
    ----------
    errors_of : callable
        As in `estimate_errors`.
    frames : int array
        The frames that the estimate is about.
    chosen : int array
        The clusters.
    """
    wanted = frames[np.isin(clustering.labels[frames], chosen)]
    missing = np.setdiff1d(wanted, estimate.errors.frames)
    if not len(missing):
        return estimate
    offset = estimate.energy_offset
    errors = estimate.errors.joined(_shifted(errors_of(missing), offset))
    before = estimate.clusters
    half_width = np.zeros(clustering.n_clusters) if before.half_width is None else before.half_width.copy()
    half_width[chosen] = 0.0
    overall = {name: value for name, value in vars(before).items() if name.startswith("overall_")}
    return Estimate(errors, replace(by_cluster(errors, clustering), **overall, half_width=half_width), offset)


def _shifted(errors: FrameErrors, offset: float) -> FrameErrors:
    return replace(errors, energy=errors.energy - offset)


def _mean_energy_error(errors: FrameErrors, clustering: Clustering, available: IntArray) -> float:
    """Average the errors of energies over each cluster, and over all, by how many frames they are about."""
    labels = clustering.labels[errors.frames]
    weights = (available / np.maximum(np.bincount(labels, minlength=clustering.n_clusters), 1))[labels]
    return float(np.average(errors.energy, weights=weights))


def _shuffled(frames: IntArray, clustering: Clustering, rng: np.random.Generator) -> list[IntArray]:
    """Return the frames of each cluster in random order."""
    order = rng.permutation(frames)
    labels = clustering.labels[order]
    counts = np.bincount(labels, minlength=clustering.n_clusters)
    return np.split(order[np.argsort(labels, kind="stable")], np.cumsum(counts)[:-1])


def _between(queues: list[IntArray], first: IntArray, last: IntArray) -> IntArray:
    """Return the frames that a round draws, in rising order."""
    return np.sort(np.concatenate([queue[a:b] for queue, a, b in zip(queues, first, last, strict=True)]))


def _weighted(clusters: ClusterErrors, available: IntArray) -> dict[str, Any]:
    """Weight the errors of clusters by how many frames they are about."""

    def mean(values: FloatArray) -> float:
        return float(np.sum(np.nan_to_num(values) * available) / available.sum())

    return {
        "overall_rmse": mean(clusters.rmse**2) ** 0.5,
        "overall_mae": mean(clusters.mae),
        "overall_energy_rmse": mean(clusters.energy_rmse**2) ** 0.5,
        "overall_energy_mae": mean(clusters.energy_mae),
    }


def _variances(errors: FrameErrors, clustering: Clustering, available: IntArray) -> FloatArray:
    """Estimate the variance of each cluster's mean squared error, zero if all frames are drawn."""
    labels = clustering.labels[errors.frames]
    drawn = np.maximum(np.bincount(labels, minlength=clustering.n_clusters), 1)
    means = np.bincount(labels, weights=errors.force_mse, minlength=clustering.n_clusters) / drawn
    squares = np.bincount(labels, weights=(errors.force_mse - means[labels]) ** 2, minlength=clustering.n_clusters)
    left = 1 - drawn / np.maximum(available, 1)
    return squares / np.maximum(drawn - 1, 1) / drawn * left


def _of_root(half_width: FloatArray, root: FloatArray | float) -> FloatArray:
    """Turn the half width of a square into that of its root, to first order."""
    return np.divide(half_width, 2 * np.asarray(root), out=np.zeros(np.shape(root)), where=np.asarray(half_width) > 0)


def _quantile(level: float | FloatArray, drawn: IntArray) -> FloatArray:
    """Return Student's factor of an interval that leaves out `level`, half of it on each side."""
    return student.ppf(1 - np.asarray(level) / 2, np.maximum(drawn - 1, 1))
