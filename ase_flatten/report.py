"""The report of a run: its figures and one HTML page that needs nothing beside itself."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from jinja2 import Environment, PackageLoader, StrictUndefined

from ase_flatten.errors import ClusterErrors
from ase_flatten.evaluation import N_WORST, SCHEMES, Curve, Evaluation
from ase_flatten.figures import FEW, KCAL, plot_comparison, plot_error_curves, plot_learning_curve, plot_outliers
from ase_flatten.files import write_text
from ase_flatten.md import verdict
from ase_flatten.md.compare import comparisons
from ase_flatten.quarantine_report import quarantine_section, quarantine_sentences
from ase_flatten.run import Run
from ase_flatten.structures import scene, structure_png, superposed, upright
from ase_flatten.units import KCAL_PER_MOL, OutputUnits

Format = Callable[[float | None], str]

MD_PICTURES = ("total_energy", "survival", "distances")

_SAME = 0.005
"""A relative change that is smaller is none."""

_CLEAR = 0.1
"""A cluster whose error changes by more than this part has clearly changed."""

_JUDGEMENT = {
    ("falls", "falls"): "better at its worst and overall",
    ("falls", "stays"): "better at its worst and as good overall",
    ("falls", "rises"): "better at its worst but worse overall",
    ("stays", "falls"): "better overall but no better at its worst",
    ("stays", "stays"): "no better and no worse than the default one",
    ("stays", "rises"): "worse overall and no better at its worst",
    ("rises", "falls"): "worse at its worst though better overall",
    ("rises", "stays"): "worse at its worst and as good overall",
    ("rises", "rises"): "worse than the default one, at its worst and overall",
}
"""What to say of the improved model, by the change of the worst cluster's and of the overall error."""


def write_report(run: Run, *, units: OutputUnits = KCAL) -> Path:
    """Write RUN/figures and RUN/report.html.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        The run is not finished, or its folder cannot be written.
    """
    evaluation, structures = run.evaluation, _worst_structures(run, units)
    errors = _default_errors(evaluation)
    figures = run.folder / "figures"
    pictures = {
        "outliers": plot_outliers(errors, figures / "outliers", units=units, structure=structures[1]["atoms"]),
        "error_curves": plot_error_curves(evaluation, figures / "error_curves", units=units),
        "comparison": plot_comparison(evaluation, figures / "comparison", units=units),
        "learning_curve": plot_learning_curve(evaluation, figures / "learning_curve", units=units),
    }
    environment = Environment(loader=PackageLoader("ase_flatten"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html").render(
        name=run.folder.resolve().name,
        info=run.info,
        settings=_flat(run.info["settings"]),
        trainer=_flat(run.info["trainer"]),
        versions=_flat(run.info["versions"]),
        units=units,
        few=FEW,
        n_frames=evaluation.final[0].n_train,
        n_heldout=int(evaluation.n_heldout.sum()),
        n_clusters=len(evaluation.populations),
        n_empty=int(np.sum(evaluation.n_heldout == 0)),
        verdict=_error_sentences(run, units),
        pictures={name: _data_uri(paths[0].read_bytes()) for name, paths in pictures.items()},
        sizes=_sizes(evaluation, units),
        clusters=_clusters(evaluation, units),
        structures=structures,
        history=_history(run, units),
        quarantine=quarantine_section(run),
        temperatures=_temperatures(run.folder),
    )
    path = run.folder / "report.html"
    write_text(path, page)
    return path


def verdict_sentences(run: Run, *, units: OutputUnits = KCAL) -> list[str]:
    """Say in words what came of a run; the first sentence stands alone, those on molecular dynamics come last.

    Raises
    ------
    InputError
        The run is not finished.
    """
    return _error_sentences(run, units) + [temperature["verdict"] for temperature in _temperatures(run.folder)]


def _error_sentences(run: Run, units: OutputUnits) -> list[str]:
    evaluation = run.evaluation
    default, improved = evaluation.final
    force, energy = _formats(evaluation, units)
    worst, overall = _change(default.worst, improved.worst), _change(default.force_rmse, improved.force_rmse)
    places = [_worst_cluster(curve) for curve in (default, improved)]
    where = f"cluster {places[0]}" + (f", then cluster {places[1]}" if places[0] != places[1] else "")
    higher = improved.cluster_force_rmse - default.cluster_force_rmse
    but = worst == "falls" and np.sum(higher > 0) > np.sum(higher < 0)
    sentences = [
        f"The improved model is {_JUDGEMENT[worst, overall]}: the force RMSE of the worst cluster ({where}) "
        f"{_moves(default.worst, improved.worst, force)} {units.force}{_factor(default.worst, improved.worst)}, "
        f"over all held-out frames it {_moves(default.force_rmse, improved.force_rmse, force)}"
        f"{', yet most clusters get worse' if but else ''}.",
        f"Of {np.sum(evaluation.n_heldout > 0)} clusters {_counted(evaluation, 0.0)}; "
        f"by more than {_CLEAR:.0%}, {_counted(evaluation, _CLEAR)}.",
        f"The worst cluster's error is {_flatness(default):.2f} times the overall one with the default model and "
        f"{_flatness(improved):.2f} times with the improved one (1 would be equally right everywhere).",
        f"The energy RMSE over all held-out frames {_moves(default.energy_rmse, improved.energy_rmse, energy)} "
        f"{units.energy}.",
        f"Both models were trained on {default.n_train:,} frames; the errors are over {evaluation.n_heldout.sum():,} "
        f"held-out frames that neither has seen. One seed ({run.settings.seed}): the spread over seeds is not known.",
    ]
    few = [place for place in dict.fromkeys(places) if evaluation.n_heldout[place] < FEW]
    if few:
        names = " and ".join(f"{place} ({evaluation.n_heldout[place]})" for place in few)
        sentences.append(f"Take the worst cluster with caution: fewer than {FEW} held-out frames in cluster {names}.")
    return sentences + quarantine_sentences(run, units)


def _counted(evaluation: Evaluation, part: float) -> str:
    """Count the clusters that improved and that worsened by more than `part`, with their share of held-out frames."""
    before, after = (curve.cluster_force_rmse for curve in evaluation.final)
    share = evaluation.n_heldout / evaluation.n_heldout.sum()
    chosen = {"improved": after < (1 - part) * before, "worsened": after > (1 + part) * before}
    return " and ".join(f"{of.sum()} {verb} ({share[of].sum():.0%} of the frames)" for verb, of in chosen.items())


def _change(before: float, after: float) -> str:
    if abs(after - before) <= _SAME * before:
        return "stays"
    return "falls" if after < before else "rises"


def _moves(before: float, after: float, write: Format) -> str:
    if _change(before, after) == "stays":
        return f"stays at {write(after)}"
    return f"{_change(before, after)} from {write(before)} to {write(after)}"


def _factor(before: float, after: float) -> str:
    low, high = sorted((before, after))
    return "" if _change(before, after) == "stays" or not low else f" (by a factor of {high / low:.2f})"


def _worst_cluster(curve: Curve) -> int:
    return int(np.nanargmax(curve.cluster_force_rmse))


def _flatness(curve: Curve) -> float:
    return curve.worst / curve.force_rmse if curve.force_rmse else float("nan")


def _formats(evaluation: Evaluation, units: OutputUnits) -> tuple[Format, Format]:
    """Give writers of forces and of energies: three digits of the smallest overall error, as many for all others."""
    forces = min(curve.force_rmse for curve in evaluation.curves)
    energies = min(curve.energy_rmse for curve in evaluation.curves)
    return _format(forces, units), _format(energies, units)


def _format(smallest: float, units: OutputUnits) -> Format:
    scale = units.scale * KCAL_PER_MOL
    decimals = int(np.clip(2 - np.floor(np.log10(smallest * scale)), 0, 6)) if smallest > 0 else 2

    def write(value: float | None) -> str:
        return "–" if value is None or not np.isfinite(value) else f"{value * scale:,.{decimals}f}"

    return write


def _default_errors(evaluation: Evaluation) -> ClusterErrors:
    """Give the default model's held-out errors in eV; mean absolute errors were not kept."""
    curve = evaluation.final[0]
    unknown = np.full(len(evaluation.populations), np.nan)
    force, energy = curve.cluster_force_rmse * KCAL_PER_MOL, curve.cluster_energy_rmse * KCAL_PER_MOL
    return ClusterErrors(
        rmse=force, mae=unknown, energy_rmse=energy, energy_mae=unknown,
        counts=evaluation.n_heldout, populations=evaluation.populations,
        overall_rmse=curve.force_rmse * KCAL_PER_MOL, overall_mae=np.nan,
        overall_energy_rmse=curve.energy_rmse * KCAL_PER_MOL, overall_energy_mae=np.nan,
    )  # fmt: skip


def _sizes(evaluation: Evaluation, units: OutputUnits) -> list[dict[str, Any]]:
    """Give a row a size: its number of frames, and for each scheme overall, worst, flatness and energy."""
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
    """Give a row a cluster, the default model's worst one first and those without held-out frames last."""
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
    """Draw the default model's worst clusters, laid upon the frame of lowest energy, which comes first."""
    evaluation, reference = run.evaluation, run.reference
    force, _ = _formats(evaluation, units)
    lowest = upright(Atoms(reference["numbers"], reference["lowest_positions"]))
    pictures = [_picture(lowest, "lowest energy", "the frame of lowest energy, for comparison")]
    for cluster in _default_errors(evaluation).ascending[::-1][:N_WORST]:
        energy = (reference["energies"][cluster] - reference["lowest_energy"]) * units.scale
        rmse = [force(curve.cluster_force_rmse[cluster]) for curve in evaluation.final]
        words = f"{rmse[0]} → {rmse[1]} {units.force}; {energy:.3g} {units.energy} above the lowest frame"
        atoms = superposed(Atoms(reference["numbers"], reference["positions"][cluster]), lowest)
        pictures.append(_picture(atoms, f"cluster {cluster}", words))
    return pictures


def _picture(atoms: Atoms, title: str, words: str) -> dict[str, Any]:
    image = _data_uri(structure_png(atoms))
    return {"title": title, "words": words, "image": image, "scene": scene(atoms), "atoms": atoms}


def _history(run: Run, units: OutputUnits) -> list[dict[str, Any]]:
    """Give a row a step; its errors, in eV/Å, are over the frames left in the pool."""
    rows = []
    for line in run.history:
        rmse = [value for value in line["cluster_rmse"] if value is not None]
        rows.append(
            {
                "step": line["step"],
                "n_train": len(line["train_frames"]),
                "n_added": len(line["added_frames"]),
                "bad_clusters": line["bad_clusters"],
                "rmse": [f"{value * units.scale:#.3g}".rstrip(".") for value in (line["overall_rmse"], max(rmse))],
                "seconds": line["seconds"],
                "total": sum(line["seconds"].values()),
            }
        )
    return rows


def _temperatures(folder: Path) -> list[dict[str, Any]]:
    """Read what molecular dynamics left at each temperature."""
    found, read = [], comparisons(folder / "md")
    for at in folder.glob("md/*K"):
        summaries = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(at.glob("*/summary.json"))]
        if not summaries:
            continue
        compared = read.get(summaries[0]["temperature_K"], {})
        found.append(
            {
                "temperature_K": summaries[0]["temperature_K"],
                "summaries": summaries,
                "verdict": verdict(summaries, read),
                "pictures": {
                    name: _data_uri((at / f"{name}.png").read_bytes())
                    for name in MD_PICTURES
                    if (at / f"{name}.png").exists()
                },
                "models": [(name, _in_words(model)) for name, model in compared.get("models", {}).items()],
            }
        )
    return sorted(found, key=lambda temperature: temperature["temperature_K"])


def _in_words(model: dict[str, Any]) -> dict[str, str]:
    """Write down what the comparison tells of a model."""

    def measured(value: float | None, error: float | None, decimals: int) -> str:
        if value is None:
            return "–"
        return f"{value:.{decimals}f}" + ("" if error is None else f" ± {error:.{decimals}f}")

    words = {
        "survival": f"{model['survival']:.2f} ({model['survival_low']:.2f} to {model['survival_high']:.2f})",
        "samples": "–" if model["n_effective"] is None else f"{model['n_effective']:,.0f}",
    }
    for kind in ("kinetic", "configurational"):
        words[kind] = measured(model[f"{kind}_temperature_K"], model[f"{kind}_temperature_error_K"], 0)
    for target in ("data", "reference"):
        error = model["distances"].get(target, {}).get("pairs", {"error": None, "standard_error": None})
        words[f"distances_{target}"] = measured(error["error"], error["standard_error"], 3)
    true = model["reference_errors"] or {"force_rmse": None, "energy_rmse": None}
    words["force"], words["energy"] = (measured(true[f"{what}_rmse"], None, 2) for what in ("force", "energy"))
    return words


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name nested settings by their path."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
