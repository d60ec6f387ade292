"""What runs of several models say, in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ase_flatten.md.analysis import SIGNIFICANT

Summary = Mapping[str, Any]
"""The content of a summary.json."""


Comparison = Mapping[str, Any]
"""The content of a comparison.json."""

_SIGNIFICANCE = 0.05
_OFF = 0.05
"""A temperature that is off by less than this part is not worth a word."""


def verdict(summaries: Sequence[Summary], comparisons: Mapping[float, Comparison] | None = None) -> str:
    """Say, in one sentence for each temperature, which model is stable and whether the models differ.

    Parameters
    ----------
    comparisons : mapping, optional
        By temperature in K, as `ase_flatten.md.compare.comparisons` reads them.
    """
    temperatures = sorted({summary["temperature_K"] for summary in summaries})
    return " ".join(
        _sentence(
            temperature,
            [summary for summary in summaries if summary["temperature_K"] == temperature],
            (comparisons or {}).get(temperature),
        )
        for temperature in temperatures
    )


def _sentence(temperature: float, summaries: Sequence[Summary], comparison: Comparison | None) -> str:
    stable = [summary for summary in summaries if summary["stable"]]
    names = _join([summary["model"] for summary in stable])
    clauses = []
    if len(stable) == len(summaries) > 1:
        clauses.append(f"{names} are {'both' if len(stable) == 2 else 'all'} stable{_evidence(stable)}")
    elif stable:
        clauses.append(f"{names} {'is' if len(stable) == 1 else 'are'} stable{_evidence(stable)}")
    clauses += [f"{summary['model']} is not: {_complaint(summary)}" for summary in summaries if not summary["stable"]]
    clauses += _differences(stable)
    if comparison is not None:
        clauses += _survival(summaries, comparison) + _temperatures(summaries, comparison)
        clauses += _conservation(comparison)
    return f"At {temperature:g} K {'; '.join(clauses)}."


def _evidence(stable: Sequence[Summary]) -> str:
    """Give the numbers behind the stability of models."""
    fitted = [summary for summary in stable if None not in (summary["drift"], summary["drift_error"])]
    counts = sorted({str(summary["n_replicas"]) for summary in stable})
    failed = f"0 of {' and '.join(counts)} replicas{' each' if len(stable) > 1 else ''} failed"
    drifts = _join([_plus_minus(summary["drift"], summary["drift_error"]) for summary in fitted])
    return f" ({failed}{f'; drift {drifts} kcal/mol/ps' if fitted else ''})"


def _complaint(summary: Summary) -> str:
    if summary["n_failed"]:
        return (
            f"{summary['n_failed']} of {summary['n_replicas']} replicas failed, the first after "
            f"{summary['first_failure_ps']:.2f} ps ({summary['reasons'][0].split(': ', 1)[1]})"
        )
    return f"its total energy drifts by {_plus_minus(summary['drift'], summary['drift_error'])} kcal/mol/ps"


def _differences(summaries: Sequence[Summary]) -> list[str]:
    """Compare the mean energies of each model with the last one's, and with the reference's."""
    models = [summary for summary in summaries if summary["model"] != "reference"]
    references = [summary for summary in summaries if summary["model"] == "reference"]
    pairs = [(one, models[-1]) for one in models[:-1]] + [(one, other) for one in models for other in references]
    clauses = []
    for summary, other in pairs:
        if None in (summary["standard_error"], other["standard_error"]):
            continue
        difference = summary["mean_total_energy"] - other["mean_total_energy"]
        noise = math.hypot(summary["standard_error"], other["standard_error"])
        within = "within" if abs(difference) <= 2 * noise else "beyond"
        clauses.append(
            f"the mean energies of {summary['model']} and {other['model']} differ by {abs(difference):.2f} kcal/mol, "
            f"{within} the noise of 2 × {noise:.2f}"
        )
    return clauses


def _conservation(comparison: Comparison) -> list[str]:
    """Say how well models keep their energy without a thermostat, where they were run so."""
    kept = [(name, model["nve"]) for name, model in comparison["models"].items() if model.get("nve")]
    return [
        f"{name} {'conserves' if nve['conserved'] else 'does not conserve'} the energy without a thermostat: it drifts "
        f"by {nve['drift']:+.3g} meV/atom/ps, over the run {nve['ratio']:.2g} times the standard deviation of the "
        "kinetic energy"
        for name, nve in kept
        if nve["conserved"] is not None
    ]


def _survival(summaries: Sequence[Summary], comparison: Comparison) -> list[str]:
    """Say whether the survival of the two models differs beyond noise, where any replica failed."""
    test = comparison["log_rank"]
    if test is None or not any(summary["n_failed"] for summary in summaries if summary["model"] in test["models"]):
        return []
    models = [comparison["models"][name] for name in test["models"]]
    spans = _join(
        [f"{one['survival']:.2f} ({one['survival_low']:.2f} to {one['survival_high']:.2f})" for one in models]
    )
    judged = "differs beyond noise" if test["p_value"] < _SIGNIFICANCE else "does not differ beyond noise"
    return [
        f"the survival of {_join(test['models'])} to {models[0]['duration_ps']:.4g} ps, {spans}, {judged} "
        f"(log-rank p = {test['p_value']:.2g})"
    ]


def _temperatures(summaries: Sequence[Summary], comparison: Comparison) -> list[str]:
    """Name the temperatures that are not the thermostat's."""
    clauses = []
    for summary in summaries:
        if summary.get("settings", {}).get("thermostat") == "none":
            continue
        of = comparison["models"].get(summary["model"], {})
        for kind in ("kinetic", "configurational"):
            mean, error = of.get(f"{kind}_temperature_K"), of.get(f"{kind}_temperature_error_K")
            if mean is None or error is None:
                continue
            off = abs(mean - summary["temperature_K"])
            if off > SIGNIFICANT * error and off > _OFF * summary["temperature_K"]:
                clauses.append(f"the {kind} temperature of {summary['model']} is {mean:.0f} ± {error:.0f} K")
    return clauses


def _plus_minus(value: float, error: float) -> str:
    """Write a value with as many decimals as two digits of its error have."""
    decimals = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 3
    return f"{value:+.{decimals}f} ± {error:.{decimals}f}"


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
