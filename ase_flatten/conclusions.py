"""What a run's claims mean, in words and as rows of a table."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ase_flatten.claims import BETTER, WITHIN_NOISE, WORSE, Claim, Claims, Estimate
from ase_flatten.units import KCAL_PER_MOL, OutputUnits

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
    sentences = [
        f"{_HEADLINES[worst.verdict]}: {NAMES['worst_group']} {_numbers(worst, claims, force)} {units.force}, "
        f"{_ratio(worst)}; over all held-out frames {force(overall.default.value)} → {_with_interval(overall, force)}, "
        f"{_judged(overall)}.",
        f"The 99 % quantile of the force RMSE of single frames {_moved(tail, force)}, the worst tenth "
        f"{_moved(claims.of['worst_tenth'], force)}, the median {_moved(median, force)}.",
    ]
    if {median.beyond_frames, tail.beyond_frames} == {BETTER, WORSE}:
        rarely, typical = ("smaller", "larger") if tail.beyond_frames == BETTER else ("larger", "smaller")
        sentences.append(f"Large errors became {rarely} while those of typical frames became {typical}.")
    sentences += [
        f"The worst group is {_where(claims, 'default')} with the default model and {_where(claims, 'improved')} with "
        f"the improved one; groups differ from the overall error by {_moved(claims.of['unevenness'], force, verb=False)} "
        f"{units.force} on average (0 would be equally right everywhere).",
        f"The energy RMSE {_moved(claims.of['energy'], energy)}, in {units.energy}.",
        f"Both models were trained on {n_train:,} frames. Intervals [95 %] are over {claims.n_frames:,} held-out frames "
        f"in {len(claims.groups.members)} groups of at least {claims.groups.n_heldout.min()}; {_draws(worst, claims)}",
        f"One run (seed {seed}): whether improved training does the same with other seeds is another question.",
    ]
    return sentences + _advice(worst, claims)


def table(claims: Claims, units: OutputUnits) -> list[dict[str, Any]]:
    """Give a row a measure: name, unit, both models, their ratio and the verdict."""
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
    """Give writers of forces and of energies: three digits of the smaller overall error, as many for all others."""
    overall, energy = claims.of["overall"], claims.of["energy"]
    return (
        format_of(min(overall.default.value, overall.improved.value), units),
        format_of(min(energy.default.value, energy.improved.value), units),
    )


def format_of(smallest: float, units: OutputUnits) -> Format:
    """Give a writer of numbers in kcal/mol with three digits of the smallest of them."""
    scale = units.scale * KCAL_PER_MOL
    decimals = int(np.clip(2 - np.floor(np.log10(smallest * scale)), 0, 6)) if smallest > 0 else 2

    def write(value: float | None) -> str:
        return "–" if value is None or not np.isfinite(value) else f"{value * scale:,.{decimals}f}"

    return write


def _numbers(claim: Claim, claims: Claims, write: Format) -> str:
    spread = ""
    if claims.n_draws > 1:
        spread = (
            f" ({write(claim.draws.min())} to {write(claim.draws.max())} over {claims.n_draws} default training sets)"
        )
    return f"{write(claim.default.value)}{spread} → {_with_interval(claim, write)}"


def _with_interval(claim: Claim, write: Format) -> str:
    return _estimate(claim.improved, write)


def _estimate(estimate: Estimate, write: Callable[[float], str]) -> str:
    return f"{write(estimate.value)} [{write(estimate.low)}, {write(estimate.high)}]"


def _ratio(claim: Claim) -> str:
    return f"ratio {_estimate(claim.ratio, '{:.2f}'.format)}"


def _judged(claim: Claim) -> str:
    return {BETTER: "better", WORSE: "worse", WITHIN_NOISE: "within noise"}[claim.verdict]


def _moved(claim: Claim, write: Format, *, verb: bool = True) -> str:
    """Write how a measure changed, and whether that is beyond noise."""
    before, after = write(claim.default.value), write(claim.improved.value)
    words = {True: "fell from", False: "rose from"}[claim.improved.value < claim.default.value] if verb else ""
    if verb and before == after:
        return f"stayed at {after} ({_judged(claim)})"
    return f"{words} {before} {'to' if verb else '→'} {after} ({_judged(claim)})".strip()


def _where(claims: Claims, scheme: str) -> str:
    group = claims.worst(scheme)
    return f"{claims.groups.name(group)} ({claims.groups.n_heldout[group]} held-out frames)"


def _draws(claim: Claim, claims: Claims) -> str:
    if claim.p_draw is None:
        return "with a single default training set, the variation over default draws was not assessed."
    return (
        f"another draw of the default training set would be as good in the worst group with probability "
        f"{_probability(claim.p_draw)} (t distribution over {claims.n_draws} draws)."
    )


def _probability(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _advice(claim: Claim, claims: Claims) -> list[str]:
    """Say what would decide a claim that noise leaves open."""
    if claim.verdict != WITHIN_NOISE:
        return []
    if claim.beyond_frames == WITHIN_NOISE:
        return [
            "The interval of the ratio includes 1. To tell more, hold more frames out (--holdout), give more reference "
            "frames, or let the training set grow further (-n, --resume)."
        ]
    if claims.n_draws < _ENOUGH_DRAWS:
        return [
            f"The spread over {claims.n_draws} default training sets is too uncertain to tell; "
            f"draw more of them: --resume --default-draws {2 * _ENOUGH_DRAWS}."
        ]
    return [
        f"The difference lies within the spread of {claims.n_draws} default training sets: another draw might do as well. "
        f"More of them tell more: --resume --default-draws {2 * claims.n_draws}."
    ]
