"""The sections of the report on clusters: where the default model is wrong, all clusters, the growing training set."""

from typing import Any

import numpy as np
from ase import Atoms

from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.conclusions import Format
from ase_flatten.evaluation.distinctions import in_words
from ase_flatten.evaluation.held_out import N_WORST, Evaluation
from ase_flatten.report.figure_style import three_digits
from ase_flatten.report.figures import plot_outliers
from ase_flatten.report.molecule_drawing import scene, structure_png, superposed, upright
from ase_flatten.report.number_formats import formats
from ase_flatten.report.pictures import data_uri, small_data_uri
from ase_flatten.report.sections import Section
from ase_flatten.selection.cluster_errors import ClusterErrors
from ase_flatten.workflow.run_folder import Run


def worst_section(run: Run, units: OutputUnits) -> Section:
    """Return where the default model is least accurate, with structures and what distinguishes them."""
    groups, structures = run.claims.groups, _worst_structures(run, units)
    paths = plot_outliers(
        _default_errors(run.evaluation.grouped(groups)), run.folder / "figures" / "outliers", units=units,
        structure=structures[1]["atoms"], groups=groups,
    )  # fmt: skip
    return Section(
        "worst.html",
        {
            "picture": small_data_uri(paths[0].read_bytes()),
            "structures": structures,
            "distinguished": bool(run.distinctions),
        },
    )


def distinction_words(run: Run, group: int, units: OutputUnits) -> str:
    """Return what distinguishes the frames of a group, without its name; empty if the run does not say."""
    found = run.distinctions.get(run.claims.groups.members[group])
    return "" if found is None else in_words(found, run.reference.molecule.numbers, units)


def clusters_section(run: Run, units: OutputUnits) -> Section:
    """Return the errors on each group of clusters and on each cluster within it."""
    return Section("clusters.html", {"rows": _rows(run, units)})


def growth_section(run: Run, units: OutputUnits) -> Section:
    """Return how the training set grew."""
    return Section("growth.html", {"history": _history(run, units), "sampled": bool(run.settings.subset)})


def _rows(run: Run, units: OutputUnits) -> list[dict[str, Any]]:
    """Return a row for each group, worst of the default model first, and below it one for each of several clusters."""
    groups, clusters = run.claims.groups, run.evaluation
    grouped = clusters.grouped(groups)
    write = formats(clusters, units)
    rows = []
    for group in np.argsort(-grouped.final[0].cluster_force_rmse, kind="stable"):
        members = groups.members[group]
        rows.append(_row(grouped, int(group), groups.name(int(group)), write))
        if len(members) > 1:
            rows += [_row(clusters, cluster, f"cluster {cluster}", write) | {"within": True} for cluster in members]
    return rows


def _row(evaluation: Evaluation, place: int, name: str, write: tuple[Format, Format]) -> dict[str, Any]:
    default, improved = evaluation.final
    force, energy = write
    return {
        "name": name,
        "within": False,
        "population": int(evaluation.populations[place]),
        "n_heldout": int(evaluation.n_heldout[place]),
        "force": [force(curve.cluster_force_rmse[place]) for curve in evaluation.final],
        "energy": [energy(curve.cluster_energy_rmse[place]) for curve in evaluation.final],
        "better": bool(improved.cluster_force_rmse[place] < default.cluster_force_rmse[place]),
    }


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


def _worst_structures(run: Run, units: OutputUnits) -> list[dict[str, Any]]:
    """Draw the frame of lowest energy, and the largest cluster of each of the default model's worst groups."""
    groups, reference = run.claims.groups, run.reference
    evaluation, populations = run.evaluation.grouped(groups), run.evaluation.populations
    force, _ = formats(evaluation, units)
    numbers = reference.molecule.numbers
    lowest = upright(Atoms(numbers, reference.lowest_positions))
    pictures = [_picture(lowest, "lowest energy", ["Frame of lowest energy, for comparison."])]
    for group in _default_errors(evaluation).ascending[::-1][:N_WORST]:
        cluster = max(groups.members[group], key=lambda cluster: populations[cluster])
        energy = (reference.energies[cluster] - reference.molecule.lowest_energy) * units.scale
        rmse = [force(curve.cluster_force_rmse[group]) for curve in evaluation.final]
        words = [f"{rmse[0]} → {rmse[1]} {units.force}; {energy:.3g} {units.energy} above the lowest frame."]
        atoms = superposed(Atoms(numbers, reference.positions[cluster]), lowest)
        found = run.distinctions.get(groups.members[group])
        marked = found.difference.atoms if found and found.difference else ()
        if difference := distinction_words(run, int(group), units):
            words.append(f"{difference[:1].upper()}{difference[1:]}.")
        pictures.append(_picture(atoms, groups.name(group), words, marked))
    return pictures


def _picture(atoms: Atoms, title: str, words: list[str], marked: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        "title": title,
        "words": words,
        "image": data_uri(structure_png(atoms, marked=marked)),
        "scene": scene(atoms, marked=marked),
        "atoms": atoms,
    }


def _history(run: Run, units: OutputUnits) -> list[dict[str, Any]]:
    """Return one row for each step; its errors are over the frames left in the pool."""
    rows = []
    for line in run.history:
        errors = [-1.0 if value is None else value for value in line.cluster_rmse]
        rows.append(
            {
                "step": line.step,
                "n_train": len(line.train_frames),
                "n_added": len(line.added_frames),
                "bad_clusters": line.bad_clusters,
                "rmse": [three_digits(value * units.scale) for value in (line.overall_rmse, line.worst_rmse)],
                "worst": f"cluster {np.argmax(errors)}",
                "total": sum(line.seconds.values()),
            }
        )
    return rows
