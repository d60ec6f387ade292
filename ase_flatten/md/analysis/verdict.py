"""Verdicts on the runs of several models, in sentences and as a table."""

import math
from collections.abc import Mapping, Sequence

from ase_flatten.md.analysis.power import MOST_FAILURES, SIGNIFICANCE
from ase_flatten.md.analysis.stability import SIGNIFICANT, plus_minus
from ase_flatten.md.results import CANNOT_TELL, STABLE, UNSTABLE, Comparison, Summary

HEADS = ("T, K", "model", "mean potential", "expected", "drift", "failed", "lifetime (95 %)", "verdict")
"""Column heads of the table of runs."""

_OFF = 0.05
"""A temperature that deviates by less than this fraction is not mentioned."""


def verdict(summaries: Sequence[Summary], comparisons: Mapping[float, Comparison] | None = None) -> str:
    """Return sentences on which models are stable at each temperature, which are not or cannot be judged, and why.

    They also say whether the models differ significantly, and if not, how long a run would tell them apart.

    Parameters
    ----------
    comparisons : mapping, optional
        By temperature in K, as `ase_flatten.md.analysis.comparison.comparisons` reads them.
    """
    temperatures = sorted({summary.temperature_K for summary in summaries})
    return " ".join(
        _sentences(
            temperature,
            [summary for summary in summaries if summary.temperature_K == temperature],
            (comparisons or {}).get(temperature),
        )
        for temperature in temperatures
    )


def table(summaries: Sequence[Summary]) -> list[tuple[str, ...]]:
    """Return a row below `HEADS` for each run; energies in kcal/mol, "–" for what is unknown."""
    return [
        (
            f"{summary.temperature_K:g}",
            summary.model,
            measured(summary.mean_potential_energy, summary.potential_error, 2),
            _expected(summary),
            measured(summary.drift, summary.drift_error, 3, sign="+"),
            f"{summary.n_failed} of {summary.n_replicas}",
            _lifetime(summary),
            summary.verdict,
        )
        for summary in summaries
    ]


def measured(value: float | None, error: float | None, decimals: int, *, sign: str = "-") -> str:
    """Format a value and its standard error, as far as they are known; sign as in Python's formats."""
    if value is None:
        return "–"
    return f"{value:{sign}.{decimals}f}" + ("" if error is None else f" ± {error:.{decimals}f}")


def _expected(summary: Summary) -> str:
    expected = summary.expected
    return "–" if expected is None else measured(expected.mean, expected.error, 2)


def _lifetime(summary: Summary) -> str:
    found = summary.lifetime
    if found is None:
        return "–"
    if found.mean_ps is None:
        return f"> {found.low_ps:.2g}"
    return f"{found.mean_ps:.2g} ({found.low_ps:.2g} to {found.high_ps:.2g})"


def _sentences(temperature: float, summaries: Sequence[Summary], comparison: Comparison | None) -> str:
    of = {
        kind: [summary.model for summary in summaries if summary.verdict == kind]
        for kind in (STABLE, UNSTABLE, CANNOT_TELL)
    }
    clauses = [f"{_are(of[kind])} {kind}" for kind in (STABLE, UNSTABLE) if of[kind]]
    if of[CANNOT_TELL]:
        clauses.append(
            f"the run cannot tell whether {_join(of[CANNOT_TELL])} "
            f"{'is' if len(of[CANNOT_TELL]) == 1 else 'are'} stable"
        )
    sentences = [f"At {temperature:g} K {'; '.join(clauses)}."]
    # Verdicts that may need action come first.
    for kind in (UNSTABLE, CANNOT_TELL, STABLE):
        for summary in summaries:
            if summary.verdict == kind:
                why = _why(summary)
                # For a stable model only its survival, its mean energy and a drift beyond noise.
                told = why if kind != STABLE else [*dict.fromkeys([*why[:1], *why[-1:]]), *_tolerated(summary)]
                sentences += [f"{summary.model}: {'; '.join(told)}."] if told else []
    more = _differences(summaries)
    if comparison is not None:
        more += _survival(comparison) + _temperatures(summaries, comparison)
        more += _conservation(comparison)
    return " ".join([*sentences, *(f"{clause[:1].upper()}{clause[1:]}." for clause in more)])


def _are(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} is"
    return f"{_join(names)} are {'both' if len(names) == 2 else 'all'}"


def _why(summary: Summary) -> list[str]:
    """Return the sentences that led to a verdict, with the reason of the first failure."""
    why = list(summary.why)
    if summary.n_failed and summary.reasons and why:
        first = summary.reasons[0].partition(": ")[2]
        why[0] += f"; the first failed after {summary.first_failure_ps or 0:.2f} ps ({first})"
    return why


def _tolerated(summary: Summary) -> list[str]:
    """Say that the energy of a stable model drifts, if the table shows a drift beyond noise."""
    drift, error, tolerance = summary.drift, summary.drift_error, summary.drift_tolerance
    if drift is None or error is None or abs(drift) <= 2 * error:
        return []
    within = (
        "" if tolerance is None else f", over the whole run less than the {tolerance:.2g} kcal/mol that are tolerated"
    )
    return [f"its total energy drifts by {plus_minus(drift, error)} kcal/mol/ps, beyond two standard errors{within}"]


def _differences(summaries: Sequence[Summary]) -> list[str]:
    """Compare the mean energy of each model with that of the last one, without those that are unstable."""
    models = [one for one in summaries if one.model != "reference" and one.verdict != UNSTABLE]
    clauses = []
    for summary, other in [(one, models[-1]) for one in models[:-1]]:
        mean, error = summary.mean_total_energy, summary.standard_error
        other_mean, other_error = other.mean_total_energy, other.standard_error
        if mean is None or error is None or other_mean is None or other_error is None:
            continue
        difference, noise = mean - other_mean, math.hypot(error, other_error)
        within = "within" if abs(difference) <= 2 * noise else "beyond"
        clauses.append(
            f"the mean total energies of {summary.model} and {other.model} differ by "
            f"{plus_minus(abs(difference), noise)[1:]} kcal/mol, {within} two standard errors"
        )
    return clauses


def _conservation(comparison: Comparison) -> list[str]:
    """Describe how well the energy is conserved without a thermostat, if models were run without one."""
    kept = [(name, model.nve) for name, model in comparison.models.items() if model.nve is not None]
    return [
        f"without a thermostat, {name} {'conserves' if nve.conserved else 'does not conserve'} the energy: its drift "
        f"is {nve.drift:+.3g} meV/atom/ps, over the whole run {nve.ratio:.2g} times the standard deviation of the "
        "kinetic energy"
        for name, nve in kept
        if nve.conserved is not None and nve.drift is not None and nve.ratio is not None
    ]


def _survival(comparison: Comparison) -> list[str]:
    """Describe whether the survival of the two models differs significantly, and what the runs could have detected."""
    test = comparison.log_rank
    if test is None:
        return []
    models, pair = [comparison.models[name] for name in test.models], _join(test.models)
    lived = [f"{time:.3g}" for time in test.lived_ps]
    if all(one.survival == 1 for one in models):
        if not lived or test.detectable_lifetime_ps is None:
            return []
        return [
            f"no replica of {pair} failed: in a total of {lived[0]} ps of each, a lifetime of "
            f"{test.detectable_lifetime_ps:.2g} ps or less would have been detected with a probability of 80 %, and "
            "rarer failures would go unnoticed"
        ]
    spans = _join([f"{one.survival:.2f} ({one.survival_low:.2f} to {one.survival_high:.2f})" for one in models])
    differs = test.p_value < test.level
    limit = (
        ""
        if test.level == SIGNIFICANCE
        else f", significant below {test.level:.2g} since the runs are tested several times"
    )
    clauses = [
        f"the survival of {pair} to {models[0].duration_ps:.4g} ps, {spans}, "
        f"{'differs' if differs else 'does not differ'} significantly (log-rank p = {test.p_value:.2g}{limit})"
    ]
    if not differs and lived:
        clauses.append(
            f"the failure rates are too close to be told apart by {MOST_FAILURES} failures"
            if test.needed_ps is None
            else f"with these failure rates, a total of about {test.needed_ps:.2g} ps of each model would be needed to "
            f"tell them apart with a probability of 80 %; here it was {_join(lived)} ps"
        )
    return clauses


def _temperatures(summaries: Sequence[Summary], comparison: Comparison) -> list[str]:
    """Describe the temperatures that differ from that of the thermostat."""
    clauses = []
    for summary in summaries:
        found = comparison.models.get(summary.model)
        if found is None or summary.thermostat == "none":
            continue
        for kind, mean, error in (
            ("kinetic", found.kinetic_temperature_K, found.kinetic_temperature_error_K),
            ("configurational", found.configurational_temperature_K, found.configurational_temperature_error_K),
        ):
            if mean is None or error is None:
                continue
            off = abs(mean - summary.temperature_K)
            if off > SIGNIFICANT * error and off > _OFF * summary.temperature_K:
                clauses.append(f"the {kind} temperature of {summary.model} is {mean:.0f} ± {error:.0f} K")
    return clauses


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
