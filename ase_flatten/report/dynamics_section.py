"""The section of the report on molecular dynamics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase_flatten.md import verdict
from ase_flatten.md.analysis.comparison import comparisons
from ase_flatten.md.analysis.verdict import HEADS, measured
from ase_flatten.md.analysis.verdict import table as md_table
from ase_flatten.md.result_files import read_summary
from ase_flatten.md.results import Comparison, ModelComparison, Summary
from ase_flatten.md.saved_run import summary_files
from ase_flatten.report.pictures import small_data_uri
from ase_flatten.report.sections import Section
from ase_flatten.utils.exceptions import InputError, printable

PICTURES = ("total_energy", "survival", "distances")


def dynamics_section(temperatures: list[dict[str, Any]]) -> Section:
    """Return the section on what `read_temperatures` found."""
    return Section("dynamics.html", {"temperatures": temperatures})


def read_temperatures(folder: Path) -> list[dict[str, Any]]:
    """Read the results of molecular dynamics in a run folder, one entry for each temperature, in rising order."""
    found, read = [], comparisons(folder / "md")
    for at in folder.glob("md/*K"):
        summaries = [read_summary(path) for path in summary_files(at)]
        if summaries:
            found.append(_temperature(at, summaries, read))
    return sorted(found, key=lambda temperature: temperature["temperature_K"])


def _temperature(at: Path, summaries: list[Summary], read: Mapping[float, Comparison]) -> dict[str, Any]:
    """Return what the page shows for one temperature."""
    temperature_K = summaries[0].temperature_K
    compared = read.get(temperature_K)
    return {
        "temperature_K": temperature_K,
        "rows": [
            {
                "model": summary.model,
                "time_ps": f"{summary.n_steps * summary.timestep_fs / 1000:.4g}",
                "equilibration_ps": measured(summary.equilibration_ps, None, 2),
                "total": measured(summary.mean_total_energy, summary.standard_error, 2),
                "cells": dict(zip(HEADS, cells, strict=True)),
                "reasons": summary.reasons,
            }
            for summary, cells in zip(summaries, md_table(summaries), strict=True)
        ],
        "headline": f"At {temperature_K:g} K: "
        + ", ".join(f"{summary.verdict} ({summary.model} model)" for summary in summaries)
        + ".",
        "verdict": verdict(summaries, read),
        "pictures": {name: _figure(at / f"{name}.png") for name in PICTURES if (at / f"{name}.png").is_file()},
        "models": [(name, _in_words(model)) for name, model in (compared.models if compared else {}).items()],
    }


def _figure(path: Path) -> str:
    try:
        return small_data_uri(path.read_bytes())
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on damaged files
        raise InputError(
            f"expected a figure in {path}, could not read it: {printable(error)}; draw it again with: "
            f"ase-flatten md {path.parents[2]}"
        ) from error


def _in_words(model: ModelComparison) -> dict[str, str]:
    """Return the cells of a model in the comparison."""
    words = {
        "survival": f"{model.survival:.2f} ({model.survival_low:.2f} to {model.survival_high:.2f})",
        "samples": "–" if model.n_effective is None else f"{model.n_effective:,.0f}",
        "kinetic": measured(model.kinetic_temperature_K, model.kinetic_temperature_error_K, 0),
        "configurational": measured(model.configurational_temperature_K, model.configurational_temperature_error_K, 0),
    }
    for target in ("data", "reference"):
        errors = model.distances.get(target)
        words[f"distances_{target}"] = measured(errors.pairs.error, errors.pairs.standard_error, 3) if errors else "–"
    true = model.reference_errors
    words["force"] = measured(true.force_rmse if true else None, None, 2)
    words["energy"] = measured(true.energy_rmse if true else None, None, 2)
    return words
