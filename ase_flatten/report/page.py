"""The report of a run: its figures and one self-contained HTML page."""

import base64
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.claims import BETTER
from ase_flatten.evaluation.conclusions import Format, conclude, format_of, table
from ase_flatten.evaluation.frame_groups import N_LEAST
from ase_flatten.evaluation.held_out import N_WORST, SCHEMES, Curve, Evaluation
from ase_flatten.md import verdict
from ase_flatten.md.analysis.comparison import comparisons
from ase_flatten.md.analysis.verdict import measured
from ase_flatten.md.analysis.verdict import table as md_table
from ase_flatten.md.result_files import read_summary
from ase_flatten.md.results import Comparison, ModelComparison, Summary
from ase_flatten.md.saved_run import summary_files
from ase_flatten.models import convergence_note
from ase_flatten.models.model_folder import CARD, read_card
from ase_flatten.report.accuracy_sentences import accuracy_sentences
from ase_flatten.report.figures import KCAL, plot_comparison, plot_error_curves, plot_learning_curve, plot_outliers
from ase_flatten.report.molecule_drawing import scene, structure_png, superposed, upright
from ase_flatten.report.quarantine_page import quarantine_section, quarantine_sentences
from ase_flatten.selection.cluster_errors import ClusterErrors
from ase_flatten.utils.atomic_files import write_text
from ase_flatten.workflow.run_folder import Run

MD_PICTURES = ("total_energy", "survival", "distances")


def write_report(run: Run, *, units: OutputUnits = KCAL) -> Path:
    """Write RUN/figures and RUN/report.html.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        The run is not finished, a file is damaged, or the folder cannot be written.
    """
    evaluation, structures, n_train = run.evaluation, _worst_structures(run, units), run.evaluation.final[0].n_train
    claims, figures, temperatures = run.claims, run.folder / "figures", _temperatures(run.folder)
    grouped = evaluation.grouped(claims.groups)
    pictures = {
        "outliers": plot_outliers(
            _default_errors(grouped), figures / "outliers", units=units, structure=structures[1]["atoms"],
            worst=f"worst group ({claims.groups.name(claims.worst('default'))})",
            axis="groups of clusters, sorted by error",
        ),
        "error_curves": plot_error_curves(grouped, figures / "error_curves", units=units),
        "comparison": plot_comparison(grouped, claims, figures / "comparison", units=units),
        "learning_curve": plot_learning_curve(grouped, claims, figures / "learning_curve", units=units),
    }  # fmt: skip
    page = _template().render(
        name=run.folder.resolve().name,
        info=run.info,
        settings=_flat(run.info.settings),
        trainer=_trainer(run),
        versions=_flat(run.info.versions),
        units=units,
        few=N_LEAST,
        n_frames=n_train,
        n_heldout=int(evaluation.n_heldout.sum()),
        n_clusters=len(evaluation.populations),
        n_empty=int(np.sum(evaluation.n_heldout == 0)),
        verdict=_error_sentences(run, units, temperatures),
        measures=table(claims, units),
        n_draws=claims.n_draws,
        n_groups=len(claims.groups.members),
        pictures={name: _data_uri(paths[0].read_bytes()) for name, paths in pictures.items()},
        sizes=_sizes(grouped, units),
        clusters=_clusters(evaluation, units),
        structures=structures,
        history=_history(run, units),
        quarantine=quarantine_section(run),
        judged=run.settings.quarantine == "on",
        sampled=bool(run.settings.subset),
        temperatures=temperatures,
    )
    path = run.folder / "report.html"
    write_text(path, page)
    return path


@cache
def _template() -> Template:
    environment = Environment(loader=PackageLoader("ase_flatten.report"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("report.html")


def verdict_sentences(run: Run, *, units: OutputUnits = KCAL) -> list[str]:
    """Return the conclusions of a run; the first sentence stands alone, those on molecular dynamics come last.

    Raises
    ------
    InputError
        The run is not finished.
    """
    temperatures = _temperatures(run.folder)
    return _error_sentences(run, units, temperatures) + [temperature["verdict"] for temperature in temperatures]


def _error_sentences(run: Run, units: OutputUnits, temperatures: list[dict[str, Any]]) -> list[str]:
    sentences = conclude(run.claims, run.evaluation.final[0].n_train, units, seed=run.settings.seed)
    sentences += accuracy_sentences(run, units)
    for scheme in SCHEMES:
        folder = run.folder / scheme
        if not (folder / CARD).exists():
            continue
        if (note := convergence_note(read_card(folder).hyper_parameters)) is not None:
            sentences.append(f"The {scheme} model is {note}.")
    sentences += quarantine_sentences(run, units)
    if run.claims.of["worst_group"].verdict == BETTER and not temperatures:
        sentences.append(f"Next, compare both models in molecular dynamics with: python -m ase_flatten.md {run.folder}")
    return sentences


def _flatness(curve: Curve) -> float:
    return curve.worst / curve.force_rmse if curve.force_rmse else float("nan")


def _formats(evaluation: Evaluation, units: OutputUnits) -> tuple[Format, Format]:
    """Return formatters of forces and of energies, with three digits of the smallest overall error."""
    forces = min(curve.force_rmse for curve in evaluation.curves)
    energies = min(curve.energy_rmse for curve in evaluation.curves)
    return format_of(forces, units), format_of(energies, units)


def _default_errors(evaluation: Evaluation) -> ClusterErrors:
    """Return the held-out errors of the default model; mean absolute errors were not saved."""
    curve = evaluation.final[0]
    unknown = np.full(len(evaluation.populations), np.nan)
    return ClusterErrors(
        rmse=curve.cluster_force_rmse, mae=unknown, energy_rmse=curve.cluster_energy_rmse, energy_mae=unknown,
        counts=evaluation.n_heldout, populations=evaluation.populations,
        overall_rmse=curve.force_rmse, overall_mae=np.nan,
        overall_energy_rmse=curve.energy_rmse, overall_energy_mae=np.nan,
    )  # fmt: skip


def _sizes(evaluation: Evaluation, units: OutputUnits) -> list[dict[str, Any]]:
    """Return one row for each size, with the errors of each scheme."""
    force, energy = _formats(evaluation, units)
    rows: dict[int, dict[str, Any]] = {}
    for scheme in SCHEMES:
        for curve in evaluation.of(scheme):
            rows.setdefault(curve.n_train, {"n_train": curve.n_train})[scheme] = [
                force(curve.force_rmse),
                force(curve.worst),
                f"{_flatness(curve):.2f}",
                energy(curve.energy_rmse),
            ]
    return [{scheme: ["–"] * 4 for scheme in SCHEMES} | rows[n_train] for n_train in sorted(rows)]


def _clusters(evaluation: Evaluation, units: OutputUnits) -> list[dict[str, Any]]:
    """Return one row for each cluster, worst of the default model first, without held-out frames last."""
    default, improved = evaluation.final
    force, energy = _formats(evaluation, units)
    order = np.argsort(-default.cluster_force_rmse, kind="stable")
    return [
        {
            "cluster": int(cluster),
            "population": int(evaluation.populations[cluster]),
            "n_heldout": int(evaluation.n_heldout[cluster]),
            "force": [force(curve.cluster_force_rmse[cluster]) for curve in evaluation.final],
            "energy": [energy(curve.cluster_energy_rmse[cluster]) for curve in evaluation.final],
            "better": bool(improved.cluster_force_rmse[cluster] < default.cluster_force_rmse[cluster]),
        }
        for cluster in order
    ]


def _worst_structures(run: Run, units: OutputUnits) -> list[dict[str, Any]]:
    """Draw the frame of lowest energy, and the largest cluster of each of the default model's worst groups."""
    groups, reference = run.claims.groups, run.reference
    evaluation, populations = run.evaluation.grouped(groups), run.evaluation.populations
    force, _ = _formats(evaluation, units)
    numbers = reference.molecule.numbers
    lowest = upright(Atoms(numbers, reference.lowest_positions))
    pictures = [_picture(lowest, "lowest energy", "frame of lowest energy, for comparison")]
    for group in _default_errors(evaluation).ascending[::-1][:N_WORST]:
        cluster = max(groups.members[group], key=lambda cluster: populations[cluster])
        energy = (reference.energies[cluster] - reference.molecule.lowest_energy) * units.scale
        rmse = [force(curve.cluster_force_rmse[group]) for curve in evaluation.final]
        words = f"{rmse[0]} → {rmse[1]} {units.force}; {energy:.3g} {units.energy} above the lowest frame"
        atoms = superposed(Atoms(numbers, reference.positions[cluster]), lowest)
        pictures.append(_picture(atoms, groups.name(group), words))
    return pictures


def _picture(atoms: Atoms, title: str, words: str) -> dict[str, Any]:
    image = _data_uri(structure_png(atoms))
    return {"title": title, "words": words, "image": image, "scene": scene(atoms), "atoms": atoms}


def _history(run: Run, units: OutputUnits) -> list[dict[str, Any]]:
    """Return one row for each step; its errors are over the frames left in the pool."""
    rows = []
    for line in run.history:
        rows.append(
            {
                "step": line.step,
                "n_train": len(line.train_frames),
                "n_added": len(line.added_frames),
                "bad_clusters": line.bad_clusters,
                "rmse": [f"{value * units.scale:#.3g}".rstrip(".") for value in (line.overall_rmse, line.worst_rmse)],
                "total": sum(line.seconds.values()),
            }
        )
    return rows


def _temperatures(folder: Path) -> list[dict[str, Any]]:
    """Read the results of molecular dynamics at each temperature."""
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
                "cells": cells[2:],
                "reasons": summary.reasons,
            }
            for summary, cells in zip(summaries, md_table(summaries), strict=True)
        ],
        "verdict": verdict(summaries, read),
        "pictures": {
            name: _data_uri((at / f"{name}.png").read_bytes()) for name in MD_PICTURES if (at / f"{name}.png").is_file()
        },
        "models": [(name, _in_words(model)) for name, model in (compared.models if compared else {}).items()],
    }


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


def _trainer(run: Run) -> dict[str, Any]:
    """Return the settings of the trainer, and the values in the improved model of those that were not set."""
    settings, folder = _flat(run.info.trainer), run.folder / "improved"
    used = read_card(folder).hyper_parameters if (folder / CARD).exists() else {}
    return {
        name: value
        if value is not None
        else "not set"
        if used.get(name) is None
        else f"not set; {used[name]} in the improved model"
        for name, value in settings.items()
    }


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their path."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
