"""What runs of several models say, in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Summary = Mapping[str, Any]
"""The content of a summary.json."""


def verdict(summaries: Sequence[Summary]) -> str:
    """Say, in one sentence for each temperature, which model is stable and whether their energies differ."""
    temperatures = sorted({summary["temperature_K"] for summary in summaries})
    return " ".join(
        _sentence(temperature, [summary for summary in summaries if summary["temperature_K"] == temperature])
        for temperature in temperatures
    )


def _sentence(temperature: float, summaries: Sequence[Summary]) -> str:
    stable = [summary["model"] for summary in summaries if summary["stable"]]
    clauses = []
    if len(stable) == len(summaries) > 1:
        clauses.append(f"{_join(stable)} are {'both' if len(stable) == 2 else 'all'} stable")
    elif stable:
        clauses.append(f"{_join(stable)} {'is' if len(stable) == 1 else 'are'} stable")
    clauses += [f"{summary['model']} is not: {_complaint(summary)}" for summary in summaries if not summary["stable"]]
    clauses += _differences([summary for summary in summaries if summary["stable"]])
    return f"At {temperature:g} K {'; '.join(clauses)}."


def _complaint(summary: Summary) -> str:
    if summary["n_failed"]:
        return (
            f"{summary['n_failed']} of {summary['n_replicas']} replicas failed, the first after "
            f"{summary['first_failure_ps']:.2f} ps ({summary['reasons'][0].split(': ', 1)[1]})"
        )
    return f"its total energy drifts by {summary['drift']:+.3g} ± {summary['drift_error']:.2g} kcal/mol/ps"


def _differences(summaries: Sequence[Summary]) -> list[str]:
    """Compare the mean energies of each model with the last one's: the reference, if it was run."""
    ordered = sorted(summaries, key=lambda summary: summary["model"] == "reference")
    clauses = []
    for summary in ordered[:-1]:
        other = ordered[-1]
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


def _join(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
