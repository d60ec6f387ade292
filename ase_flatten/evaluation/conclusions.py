"""What a run's claims mean, in words and as rows of a table."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ase_flatten.data.units import KCAL_PER_MOL, OutputUnits
from ase_flatten.evaluation.claims import BETTER, WITHIN_NOISE, WORSE, Claim, Claims, Estimate
from ase_flatten.evaluation.held_out import SCHEMES

Format = Callable[[float | None], str]

NAMES = {
    "worst_group": "force RMSE of the worst group",
    "worst_tenth": "force RMSE of the worst tenth of the frames",
    "quantile_99": "99 % quantile of the force RMSE of single frames",
    "quantile_90": "90 % quantile of the force RMSE of single frames",
    "median": "median of the force RMSE of single frames",
    "overall": "force RMSE of all frames",
    "unevenness": "unevenness: area between error curve and flat",
    "energy": "energy RMSE of all frames",
}

_HEADLINES = {
    BETTER: "The improved model is better where errors are largest",
    WORSE: "The improved model is worse where errors are largest",
    WITHIN_NOISE: "No difference beyond noise where errors are largest",
}

_ENOUGH_DRAWS = 4
"""With fewer default draws, their spread is so little known that hardly anything can lie beyond it."""


def conclude(claims: Claims, n_train: int, units: OutputUnits, *, seed: int) -> list[str]:
    """Say what was found and how sure it is; the first sentence stands alone, the last ones say what to do next.

    Parameters
    ----------
    n_train : int
        Training frames of each model.
    seed : int
        Of the run.
    """
    force, energy = formats(claims, units)
    worst, tail = claims.of["worst_group"], claims.of["quantile_99"]
    median, overall = claims.of["median"], claims.of["overall"]
    draws = ""
    if claims.n_draws > 1:
        low, high = force(worst.draws.min()), force(worst.draws.max())
        draws = f" ({low} to {high} over {claims.n_draws} default training sets)"
    sentences = [
        f"{_HEADLINES[worst.verdict]}: {NAMES['worst_group']} {force(worst.default.value)}{draws} → "
        f"{_estimate(worst.improved, force)} {units.force}, ratio {_estimate(worst.ratio, '{:.2f}'.format)}; "
        f"over all held-out frames {force(overall.default.value)} → {_estimate(overall.improved, force)}, "
        f"{overall.verdict}.",
        f"The 99 % quantile of the force RMSE of single frames {_moved(tail, force)}, the RMSE of the worst tenth "
        f"{_moved(claims.of['worst_tenth'], force)}, the median {_moved(median, force)}.",
    ]
    if {median.beyond_frames, tail.beyond_frames} == {BETTER, WORSE}:
        largest, typical = ("smaller", "larger") if tail.beyond_frames == BETTER else ("larger", "smaller")
        sentences.append(f"The largest errors became {largest} while those of typical frames became {typical}.")
    sentences += [
        f"The worst group is {_where(claims)}.",
        *_other_clusterings(worst, claims),
        "On average over the data a group's force RMSE differs from the overall one by "
        f"{force(claims.of['unevenness'].default.value)} with the default and "
        f"{force(claims.of['unevenness'].improved.value)} {units.force} with the improved model "
        f"({claims.of['unevenness'].verdict}; 0 would be equally right everywhere).",
        f"The energy RMSE over all frames, in {units.energy}, {_moved(claims.of['energy'], energy)}.",
        f"Both models were trained on {n_train:,} frames. Brackets are 95 % intervals over {claims.n_frames:,} "
        f"held-out frames that neither has seen, in {len(claims.groups.members)} groups of at least "
        f"{claims.groups.n_heldout.min()}{_blocks(claims)}.",
        _other_draws(worst, claims),
        f"One run (seed {seed}): how much the result depends on the seed was not assessed.",
    ]
    return sentences + _advice(worst, claims)


def table(claims: Claims, units: OutputUnits) -> list[dict[str, Any]]:
    """Build a row a measure: name, unit, both models, their ratio and the verdict."""
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
    """Return writers of forces and of energies: three digits of the smaller overall error, as many for all others."""
    overall, energy = claims.of["overall"], claims.of["energy"]
    return (
        format_of(min(overall.default.value, overall.improved.value), units),
        format_of(min(energy.default.value, energy.improved.value), units),
    )


def format_of(smallest: float, units: OutputUnits) -> Format:
    """Return a writer of numbers in kcal/mol with three digits of the smallest of them."""
    scale = units.scale * KCAL_PER_MOL
    decimals = int(np.clip(2 - np.floor(np.log10(smallest * scale)), 0, 6)) if smallest > 0 else 2

    def write(value: float | None) -> str:
        return "–" if value is None or not np.isfinite(value) else f"{value * scale:,.{decimals}f}"

    return write


def _estimate(estimate: Estimate, write: Callable[[float], str]) -> str:
    return f"{write(estimate.value)} [{write(estimate.low)}, {write(estimate.high)}]"


def _moved(claim: Claim, write: Format) -> str:
    """Write how a measure changed, and whether that is beyond noise."""
    before, after = write(claim.default.value), write(claim.improved.value)
    judged = claim.verdict
    if judged == WITHIN_NOISE != claim.beyond_frames:
        judged = (
            f"not beyond the spread of default draws: {write(claim.draws.min())} to {write(claim.draws.max())}, "
            f"p = {_probability(claim.p_draw or 0.0)}"
        )
    if before == after:
        return f"stayed at {after} ({judged})"
    verb = "fell" if claim.improved.value < claim.default.value else "rose"
    return f"{verb} from {before} to {after} ({judged})"


def _where(claims: Claims) -> str:
    places = [claims.worst(scheme) for scheme in SCHEMES]
    named = [f"{claims.groups.name(place)} ({claims.groups.n_heldout[place]} held-out frames)" for place in places]
    if places[0] == places[1]:
        return f"{named[0]} with both models"
    return f"{named[0]} with the default model and {named[1]} with the improved one"


def _other_clusterings(claim: Claim, claims: Claims) -> list[str]:
    """Say whether the claim on the worst group rests on the clustering."""
    others = claims.other_clusterings
    if others is None:
        return []
    low, high = others.ratios.min(), others.ratios.max()
    sentence = (
        f"Under {len(others.ratios)} other clusterings of the held-out frames the ratio of the worst groups is "
        f"{low:.2f} to {high:.2f}, and the improved model is better in {others.n_better}"
    )
    if (claim.verdict == BETTER and high > 1) or (claim.verdict == WORSE and low < 1):
        sentence += ": the claim on the worst group depends on the clustering, and the quantiles do not"
    return [f"{sentence}."]


def _blocks(claims: Claims) -> str:
    if claims.block_length == 1:
        return ""
    return f", resampled in blocks of {claims.block_length} since errors of successive frames are correlated"


def _other_draws(claim: Claim, claims: Claims) -> str:
    if claim.p_draw is None:
        return "The variation over default training sets was not assessed: there is a single one (--default-draws 4)."
    return (
        "Another default training set would give a worst group as good as the improved model's with probability "
        f"{_probability(claim.p_draw)} (t distribution, {claims.n_draws} draws)."
    )


def _probability(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _advice(claim: Claim, claims: Claims) -> list[str]:
    """Say what would decide a claim that noise leaves open."""
    if claim.verdict != WITHIN_NOISE:
        return []
    if claim.beyond_frames == WITHIN_NOISE:
        return [
            "The interval of the ratio includes 1. To tell more, take more steps (-n with --resume), or begin a run "
            "that holds more frames out (--holdout)."
        ]
    more = f"draw more of them: --resume --default-draws {max(_ENOUGH_DRAWS, 2 * claims.n_draws)}"
    if claims.n_draws < _ENOUGH_DRAWS:
        return [f"From {claims.n_draws} default training sets their spread is hardly known; {more}."]
    return [f"The difference is not beyond the spread of {claims.n_draws} default training sets. To tell more, {more}."]
