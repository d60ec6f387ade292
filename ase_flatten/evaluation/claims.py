"""Claims about the held-out errors of a run, each with its uncertainty.

There are two sources of uncertainty. Other held-out frames would give other errors: a bootstrap, paired over the
frames of both models, gives intervals. Another default training set would give another default model: several draws
show how different. A model counts as better, or worse, only if it is so with respect to both, and by at least
`LEAST_DIFFERENCE`: with many held-out frames even a difference that does not matter is beyond their noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ase_flatten.evaluation.bootstrap import block_length, resample_counts
from ase_flatten.evaluation.frame_groups import Groups
from ase_flatten.evaluation.group_intervals import (
    intervals_of_each,
    intervals_of_largest,
    intervals_of_unevenness,
    unevenness,
)
from ase_flatten.evaluation.held_out import SCHEMES, HeldoutErrors
from ase_flatten.evaluation.other_clusterings import OtherClusterings, worst_groups
from ase_flatten.utils.typing import FloatArray, IntArray

CONFIDENCE = 0.95
N_RESAMPLES = 1000
WORST_SHARE = 0.1
"""Share of the frames with the largest errors, for `worst_tenth`."""

MEASURES = ("worst_group", "worst_tenth", "quantile_99", "quantile_90", "median", "overall", "unevenness", "energy")
"""Measures of error that claims are made about; see `Claims`."""

LEAST_DIFFERENCE = 0.02
"""Two models are neither better nor worse if the larger error exceeds the smaller one by less than this share."""

BETTER, WORSE, WITHIN_NOISE = "better", "worse", "within noise"

_TINY = np.finfo(float).tiny


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Claim:
    """One measure of both models, in eV/Å, or in eV for energies.

    Parameters
    ----------
    measure : str
        One of `MEASURES`.
    default, improved : Estimate
        With intervals over held-out frames.
    ratio : Estimate
        Improved divided by default, with the interval of the paired difference of logarithms.
    draws : (n_draws,) array
        The measure for default models on different training sets; the first one is `default`.
    p_draw : float or None
        Probability that another draw of the default training set gives a model at least as good as the
        improved one; None for a single draw.
    """

    measure: str
    default: Estimate
    improved: Estimate
    ratio: Estimate
    draws: FloatArray
    p_draw: float | None

    @property
    def negligible(self) -> bool:
        """Whether the two models differ by less than `LEAST_DIFFERENCE`, whichever is the better one."""
        return 1 / (1 + LEAST_DIFFERENCE) < self.ratio.value < 1 + LEAST_DIFFERENCE

    @property
    def includes_one(self) -> bool:
        """Whether the interval of the ratio includes 1."""
        return self.ratio.low <= 1 <= self.ratio.high

    @property
    def beyond_frames(self) -> str:
        """Verdict with respect to the noise of the held-out frames alone."""
        if self.negligible:
            return WITHIN_NOISE
        if self.ratio.high < 1:
            return BETTER
        return WORSE if self.ratio.low > 1 else WITHIN_NOISE

    @property
    def beyond_draws(self) -> str:
        """Verdict with respect to the default draws alone: outside their range, with a probability of at most 5 %."""
        if self.p_draw is None:
            return WITHIN_NOISE
        if self.p_draw <= 1 - CONFIDENCE and self.improved.value < self.draws.min():
            return BETTER
        return WORSE if self.p_draw >= CONFIDENCE and self.improved.value > self.draws.max() else WITHIN_NOISE

    @property
    def verdict(self) -> str:
        """Whether the improved model is "better", "worse" or "within noise"."""
        if self.p_draw is None or self.beyond_draws == self.beyond_frames:
            return self.beyond_frames
        return WITHIN_NOISE


@dataclass(frozen=True, eq=False)
class Claims:
    """What can be claimed about the held-out errors of a run.

    Parameters
    ----------
    of : mapping of measure to Claim
        ``worst_group``: the largest force RMSE of a group; ``worst_tenth``: the force RMSE over the tenth of the
        frames with the largest errors; ``quantile_99``, ``quantile_90``, ``median``: of the force RMSE of single
        frames; ``overall``: the force RMSE over all frames; ``unevenness``: the mean absolute deviation of a
        group's RMSE from the overall one, weighted by the group's share of the data set, which is the area between
        the error curve and a flat one; ``energy``: the energy RMSE over all frames.
    groups : Groups
        The groups of clusters that errors are compared in.
    group_rmse : mapping of scheme to (n_groups,) array, eV/Å
        Force RMSE of each group.
    group_interval : mapping of scheme to (2, n_groups) array, eV/Å
        Ends of the 95 % interval of each single group.
    draws_group_rmse : (n_draws, n_groups) array, eV/Å
        Force RMSE of each group for each default draw, the default model first.
    block_length : int
        Frames that were resampled together; 1 if errors within groups are uncorrelated.
    n_frames : int
        Held-out frames.
    other_clusterings : OtherClusterings or None
        The worst group under other clusterings; None in runs of few held-out frames, and in those made before it
        was computed.
    """

    of: Mapping[str, Claim]
    groups: Groups
    group_rmse: Mapping[str, FloatArray]
    group_interval: Mapping[str, FloatArray]
    draws_group_rmse: FloatArray
    block_length: int
    n_frames: int
    other_clusterings: OtherClusterings | None = None

    @property
    def n_draws(self) -> int:
        """Number of default training sets of the final size."""
        return len(self.draws_group_rmse)

    def worst(self, scheme: str) -> int:
        """Return the group of largest force RMSE of a model."""
        return int(np.argmax(self.group_rmse[scheme]))


def make_claims(
    errors: HeldoutErrors,
    groups: Groups,
    populations: IntArray,
    *,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
    other_groups: IntArray | None = None,
) -> Claims:
    """Compare the improved model with the default one and with other draws of the default training set.

    Parameters
    ----------
    populations : (n_clusters,) int array
        All frames of each broad cluster.
    n_resamples : int
        Resamples of the held-out frames.
    other_groups : (n_clusterings, n_heldout) int array, optional
        The group of each held-out frame under other clusterings.
    """
    group_of_frame = groups.of_cluster[errors.labels]
    order = np.argsort(group_of_frame, kind="stable")
    shares = np.bincount(groups.of_cluster, weights=populations, minlength=len(groups.members)) / populations.sum()

    def of_model(forces: FloatArray, energies: FloatArray) -> _Measures:
        return _Measures(forces[order] ** 2, energies[order] ** 2, group_of_frame[order], shares)

    models = {scheme: of_model(errors.force_rmse[scheme], errors.energy_error[scheme]) for scheme in SCHEMES}
    others = map(of_model, errors.draws_force_rmse, errors.draws_energy_error)
    length = max(block_length(errors.force_rmse[scheme] ** 2, group_of_frame) for scheme in SCHEMES)
    everything = np.ones((1, len(order)))
    drawn = [model(everything) for model in (models["default"], *others)]
    values = {"default": drawn[0], "improved": models["improved"](everything)}
    parts: dict[str, list[dict[str, FloatArray]]] = {scheme: [] for scheme in SCHEMES}
    for counts in resample_counts(group_of_frame[order], length, n_resamples, rng=rng):
        for scheme, model in models.items():
            parts[scheme].append(model(counts))
    samples = {
        scheme: {name: np.concatenate([part[name] for part in found]) for name in (*MEASURES, "groups")}
        for scheme, found in parts.items()
    }
    of_groups = {
        scheme: intervals_of_each(
            _log(values[scheme]["groups"][0]), _log(samples[scheme]["groups"]), groups.n_heldout, CONFIDENCE
        )
        for scheme in SCHEMES
    }
    return Claims(
        of={name: _claim(name, values, samples, drawn, groups.n_heldout, shares) for name in MEASURES},
        groups=groups,
        group_rmse={scheme: values[scheme]["groups"][0] for scheme in SCHEMES},
        group_interval={scheme: np.exp(ends) for scheme, ends in of_groups.items()},
        draws_group_rmse=np.array([one["groups"][0] for one in drawn]),
        block_length=length,
        n_frames=len(order),
        other_clusterings=None if other_groups is None else worst_groups(errors, other_groups),
    )


class _Measures:
    """All measures of one model, for weighted frames.

    Parameters
    ----------
    force_mse, energy_squared : (n_frames,) arrays
    groups : (n_frames,) int array
        The group of each frame, in rising order.
    shares : (n_groups,) array
    """

    def __init__(self, force_mse: FloatArray, energy_squared: FloatArray, groups: IntArray, shares: FloatArray) -> None:
        self.force_mse, self.energy_squared, self.shares = force_mse, energy_squared, shares
        self.counts = np.bincount(groups)
        self.starts = np.flatnonzero(np.diff(groups, prepend=-1))
        self.rising = np.argsort(force_mse, kind="stable")

    def __call__(self, weights: FloatArray) -> dict[str, FloatArray]:
        """Return each measure, (n,), and the force RMSE of the groups, (n, n_groups), for (n, n_frames) weights."""
        total = weights.sum(axis=1)
        squares = np.add.reduceat(weights * self.force_mse, self.starts, axis=1)
        groups = np.sqrt(squares / np.add.reduceat(weights, self.starts, axis=1))
        overall = np.sqrt(squares.sum(axis=1) / total)
        rising, sorted_weights = self.force_mse[self.rising], weights[:, self.rising]
        so_far = np.cumsum(sorted_weights, axis=1)

        def places(share: float) -> IntArray:
            wanted = share * total - 1e-9
            return np.array([np.searchsorted(row, least) for row, least in zip(so_far, wanted, strict=True)])

        tail = slice(places(1 - WORST_SHARE).min(), None)  # where all of the worst frames are
        worst = np.clip(so_far[:, tail] - (1 - WORST_SHARE) * total[:, None], 0, sorted_weights[:, tail])

        return {
            "groups": groups,
            "worst_group": groups.max(axis=1),
            "worst_tenth": np.sqrt(worst @ rising[tail] / (WORST_SHARE * total)),
            "quantile_99": np.sqrt(rising[places(0.99)]),
            "quantile_90": np.sqrt(rising[places(0.9)]),
            "median": np.sqrt(rising[places(0.5)]),
            "overall": overall,
            "unevenness": unevenness(_log(groups), self.counts, self.shares),
            "energy": np.sqrt(weights @ self.energy_squared / total),
        }


def _claim(
    measure: str,
    values: Mapping[str, Mapping[str, FloatArray]],
    samples: Mapping[str, Mapping[str, FloatArray]],
    drawn: Sequence[Mapping[str, FloatArray]],
    n_heldout: IntArray,
    shares: FloatArray,
) -> Claim:
    """Combine the value of a measure, its resamples and its default draws."""
    default, improved = (float(values[scheme][measure][0]) for scheme in SCHEMES)
    of_groups = [[_log(of[scheme]["groups"]) for scheme in SCHEMES] for of in (values, samples)]
    logs, resampled = [one[0] for one in of_groups[0]], of_groups[1]
    if measure == "worst_group":
        ends = [np.exp(one) for one in intervals_of_largest(logs, resampled, n_heldout, CONFIDENCE)]
    elif measure == "unevenness":
        ends = intervals_of_unevenness(logs, resampled, n_heldout, shares, CONFIDENCE)
    else:
        before, after = (_log(samples[scheme][measure]) for scheme in SCHEMES)
        tail = 50 * (1 - CONFIDENCE)
        ends = [np.exp(np.percentile(one, [tail, 100 - tail])) for one in (before, after, after - before)]
    ratio = float(np.exp(_log(np.array(improved)) - _log(np.array(default))))
    estimates = [
        Estimate(value, float(end[0]), float(end[1]))
        for value, end in zip((default, improved, ratio), ends, strict=True)
    ]
    draws = np.array([one[measure][0] for one in drawn])
    return Claim(measure, estimates[0], estimates[1], estimates[2], draws, probability_of_draw(draws, improved))


def probability_of_draw(draws: FloatArray, value: float) -> float | None:
    """Compute the probability that one more draw has a value of at most `value`.

    The logarithms of errors are assumed to be normally distributed, so that one more of them follows a t
    distribution about their mean with n - 1 degrees of freedom, scaled by the standard deviation times √(1 + 1/n).

    Returns
    -------
    float or None
        None for a single draw.
    """
    if len(draws) < 2:
        return None
    logs, wanted = _log(draws), float(_log(np.array(value)))
    spread = logs.std(ddof=1) * np.sqrt(1 + 1 / len(logs))
    if spread < 1e-12:
        return float(np.sign(wanted - logs.mean()) / 2 + 0.5)
    return float(stats.t.cdf((wanted - logs.mean()) / spread, len(logs) - 1))


def _log(values: FloatArray) -> FloatArray:
    """Compute logarithms; the zeros of a perfect model become the smallest positive number."""
    logs: FloatArray = np.log(np.maximum(values, _TINY))
    return logs
