"""The claims of a run as sentences and as rows of a table."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.claims import BETTER, LEAST_DIFFERENCE, WITHIN_NOISE, WORSE, Claim, Claims, Estimate
from ase_flatten.evaluation.held_out import SCHEMES

Format = Callable[[float | None], str]

NAMES = {
    "worst_group": "force RMSE of the worst group",
    "worst_tenth": "force RMSE of the worst tenth of the frames",
    "quantile_99": "99th percentile of the force RMSE per frame",
    "quantile_90": "90th percentile of the force RMSE per frame",
    "median": "median of the force RMSE per frame",
    "overall": "force RMSE of all frames",
    "unevenness": "unevenness: mean deviation of a group from the overall force RMSE",
    "energy": "energy RMSE of all frames",
}

_HEADLINES = {
    BETTER: "The improved model is better where errors are largest",
    WORSE: "The improved model is worse where errors are largest",
    WITHIN_NOISE: "No difference beyond noise where errors are largest",
}

_NEGLIGIBLE = f"less than {100 * LEAST_DIFFERENCE:.0f} %"

_ENOUGH_DRAWS = 4
"""With fewer default draws, their spread is not known well enough for a difference to lie beyond it."""


def conclude(claims: Claims, n_train: int, units: OutputUnits, *, seed: int) -> list[str]:
    """Return sentences on what was found and how certain it is; the first stands alone, the last say what to do next.

    Parameters
    ----------
    n_train : int
        Training frames of each model.
    seed : int
        Of the run.
    """
    force, energy = formats(claims, units)
    worst, tail = claims.of["worst_group"], claims.of["quantile_99"]
    median, overall, uneven = claims.of["median"], claims.of["overall"], claims.of["unevenness"]
    draws = ""
    if claims.n_draws > 1:
        low, high = force(worst.draws.min()), force(worst.draws.max())
        draws = f" ({low} to {high} over {claims.n_draws} default training sets)"
    sentences = [
        f"{_HEADLINES[worst.verdict]}: {NAMES['worst_group']} {force(worst.default.value)}{draws} → "
        f"{_estimate(worst.improved, force)} {units.force}, ratio {_estimate(worst.ratio, '{:.2f}'.format)}; "
        f"over all held-out frames {force(overall.default.value)} → {_estimate(overall.improved, force)} "
        f"({overall.verdict}).",
        f"The 99th percentile of the force RMSE per frame {moved(tail, force, units.force)}, the RMSE of the worst "
        f"tenth of the frames {moved(claims.of['worst_tenth'], force)}, and the median {moved(median, force)}.",
    ]
    if {median.beyond_frames, tail.beyond_frames} == {BETTER, WORSE}:
        largest, typical = ("smaller", "larger") if tail.beyond_frames == BETTER else ("larger", "smaller")
        sentences.append(f"The largest errors became {largest}, while those of typical frames became {typical}.")
    sentences += [
        f"The worst group is {_where(claims)}.",
        *_other_clusterings(worst, claims),
        f"Averaged over the data set, the force RMSE of a group deviates from the overall one by "
        f"{force(uneven.default.value)} for the default and {force(uneven.improved.value)} {units.force} for the "
        f"improved model ({uneven.verdict}; 0 would be equally accurate everywhere).",
        f"The energy RMSE over all frames {moved(claims.of['energy'], energy, units.energy)}.",
        f"Both models were trained on {n_train:,} frames. Values in brackets are 95 % confidence intervals over "
        f"{claims.n_frames:,} held-out frames that neither model has seen, {_groups(claims)}{_blocks(claims)}.",
        _other_draws(worst, claims),
        f"Single seed ({seed}): variation between seeds was not assessed.",
    ]
    return sentences + _advice(worst, claims)


def table(claims: Claims, units: OutputUnits) -> list[dict[str, Any]]:
    """Return one row for each measure: name, unit, both models, their ratio and the verdict."""
    force, energy = formats(claims, units)
    rows = []
    for measure, claim in claims.of.items():
        write = energy if measure == "energy" else force
        rows.append(
            {
                "name": NAMES[measure],
                "unit": units.energy if measure == "energy" else units.force,
                "default": _estimate(claim.default, write),
                "draws": f"{write(claim.draws.min())} to {write(claim.draws.max())}" if claims.n_draws > 1 else "–",
                "improved": _estimate(claim.improved, write),
                "ratio": _estimate(claim.ratio, "{:.2f}".format),
                "p_draw": "–" if claim.p_draw is None else _probability(claim.p_draw),
                "verdict": claim.verdict,
            }
        )
    return rows


def formats(claims: Claims, units: OutputUnits) -> tuple[Format, Format]:
    """Return formatters of forces and of energies, with three digits of the smaller overall error."""
    overall, energy = claims.of["overall"], claims.of["energy"]
    return (
        format_of(min(overall.default.value, overall.improved.value), units),
        format_of(min(energy.default.value, energy.improved.value), units),
    )


def format_of(smallest: float, units: OutputUnits) -> Format:
    """Return a formatter of errors in eV, in the output units, with three digits of the smallest of them."""
    scale = units.scale
    decimals = int(np.clip(2 - np.floor(np.log10(smallest * scale)), 0, 6)) if smallest > 0 else 2

    def write(value: float | None) -> str:
        return "–" if value is None or not np.isfinite(value) else f"{value * scale:,.{decimals}f}"

    return write


def _estimate(estimate: Estimate, write: Callable[[float], str]) -> str:
    return f"{write(estimate.value)} [{write(estimate.low)}, {write(estimate.high)}]"


def moved(claim: Claim, write: Format, unit: str = "") -> str:
    """Describe how a measure changed, and whether the change is beyond noise."""
    before, after = write(claim.default.value), write(claim.improved.value)
    judged = claim.verdict
    if claim.negligible and not claim.includes_one:
        judged = f"{_NEGLIGIBLE}: {WITHIN_NOISE}"
    elif judged == WITHIN_NOISE != claim.beyond_frames:
        judged = (
            f"not beyond the spread of default draws: {write(claim.draws.min())} to {write(claim.draws.max())}, "
            f"p {_probability(claim.p_draw or 0.0, equal='= ')}"
        )
    if before == after:
        return f"stayed at {after}{unit and ' ' + unit} ({judged})"
    verb = "fell" if claim.improved.value < claim.default.value else "rose"
    return f"{verb} from {before} to {after}{unit and ' ' + unit} ({judged})"


def _where(claims: Claims) -> str:
    places = [claims.worst(scheme) for scheme in SCHEMES]
    named = [f"{claims.groups.name(place)} ({claims.groups.n_heldout[place]} held-out frames)" for place in places]
    if places[0] == places[1]:
        return f"{named[0]} for both models"
    return f"{named[0]} for the default model and {named[1]} for the improved one"


def _groups(claims: Claims) -> str:
    if len(claims.groups.members) == 1:
        return "in one group"
    return f"in {len(claims.groups.members)} groups of at least {claims.groups.n_heldout.min()}"


def _other_clusterings(claim: Claim, claims: Claims) -> list[str]:
    """Return a sentence on whether the claim on the worst group depends on the clustering."""
    others = claims.other_clusterings
    if others is None:
        return []
    low, high = others.ratios.min(), others.ratios.max()
    sentence = (
        f"Under {len(others.ratios)} other clusterings of the held-out frames the ratio of the worst groups is "
        f"{low:.2f} to {high:.2f}, and below 1 in {others.n_better} of them"
    )
    if (claim.verdict == BETTER and high > 1) or (claim.verdict == WORSE and low < 1):
        sentence += ": the claim on the worst group depends on the clustering, and the quantiles do not"
    return [f"{sentence}."]


def _blocks(claims: Claims) -> str:
    if claims.block_length == 1:
        return ""
    return f", resampled in blocks of {claims.block_length} because errors of successive frames are correlated"


def _other_draws(claim: Claim, claims: Claims) -> str:
    if claim.p_draw is None:
        return (
            "Variation between default training sets was not assessed, because only one was drawn; draw more with: "
            f"--resume --default-draws {_ENOUGH_DRAWS}"
        )
    return (
        "The probability that another default training set does as well in its worst group as the improved model is "
        f"{_probability(claim.p_draw)} (t distribution, {claims.n_draws} draws)."
    )


def _probability(value: float, *, equal: str = "") -> str:
    return "< 0.001" if value < 0.001 else f"{equal}{value:.3f}"


def _advice(claim: Claim, claims: Claims) -> list[str]:
    """Return what to do about a claim that is within noise, or worse."""
    if claim.verdict == WORSE:
        return ["Use the default model, or let the training set grow further (--resume with a larger -n)."]
    if claim.verdict != WITHIN_NOISE:
        return []
    if claim.includes_one:
        return [
            "The interval of the ratio includes 1. To decide, run more steps (--resume with a larger -n) or start a "
            "run that holds out more frames (--holdout)."
        ]
    if claim.negligible:
        return [
            f"The worst groups of the two models differ by {_NEGLIGIBLE}, which decides nothing: let the other "
            "measures decide, or let the training set grow further (--resume with a larger -n)."
        ]
    more = f"draw more of them with: --resume --default-draws {max(_ENOUGH_DRAWS, 2 * claims.n_draws)}"
    if claims.n_draws < _ENOUGH_DRAWS:
        return [f"The spread of {claims.n_draws} default training sets is poorly known; {more}"]
    return [f"The difference is not beyond the spread of {claims.n_draws} default training sets. To decide, {more}"]
