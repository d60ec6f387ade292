"""The command ``errors``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from ase_flatten.cli.command import CLUSTERS, DATA, MODEL, OUTPUT
from ase_flatten.cli.options import (
    MODEL_NAMES,
    Data,
    EnergyKey,
    EnergyUnit,
    ForcesKey,
    LengthUnit,
    Quiet,
    Seed,
    Subset,
    Units,
    Verbose,
    Workers,
    read,
    results_folder,
)
from ase_flatten.utils import console
from ase_flatten.utils.exceptions import InputError

if TYPE_CHECKING:
    from ase_flatten.data.units import OutputUnits
    from ase_flatten.report.outliers import Outliers


@console.user_errors
def errors(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="DATASET MODEL", help="Data set and model.")] = None,
    data: Data = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help=f"The model: {MODEL_NAMES}.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    former: Annotated[str | None, typer.Option("-i", hidden=True, rich_help_panel=MODEL)] = None,  # as in MLFF's run.py
    test: Annotated[
        Path | None,
        typer.Option(
            help="Test set to judge instead of the data set, whose clusters it is sorted into.", rich_help_panel=DATA
        ),
    ] = None,
    clusters: Annotated[
        Path | None,
        typer.Option(
            help="Run folder or clusters.npz to take the clusters from [the model's run, or new clusters].",
            rich_help_panel=CLUSTERS,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results [runs/DATA-MODEL-errors].", rich_help_panel=OUTPUT)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace results of another model or other data.", rich_help_panel=OUTPUT)
    ] = False,
    worst: Annotated[
        int, typer.Option(min=1, help="Number of worst clusters whose frames are written.", rich_help_panel=CLUSTERS)
    ] = 3,
    workers: Workers = None,
    subset: Subset = None,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    units: Units = "kcal/mol",
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find outliers: the force RMSE of a model on each cluster."""
    from ase_flatten.data.units import output_units
    from ase_flatten.report.outliers import MAX_WORKERS, find_outliers
    from ase_flatten.report.results_record import folder_name
    from ase_flatten.utils.cores import n_cores
    from ase_flatten.utils.parallel import LocalExecutor

    console.set_up_logging(quiet=quiet, verbose=verbose)
    path, spec = _data_and_model(list(arguments or []), data, [one for one in (model, former) if one is not None])
    folder = results_folder(out, folder_name(path, spec, test or "", "errors"))
    content, unit = read(path, energy_unit, length_unit, energy_key, forces_key), output_units(units)
    frames = None if test is None else read(test, energy_unit, length_unit, energy_key, forces_key)
    with LocalExecutor(workers or min(n_cores(), MAX_WORKERS)) as executor:
        outliers = find_outliers(
            content, spec, folder, n_worst=worst, units=unit, seed=seed or 0, subset=subset, executor=executor,
            clusters=clusters, test=frames, source=str(path), test_source=str(test or ""), overwrite=overwrite,
            progress=console.progress(quiet),
        )  # fmt: skip
    _show(outliers, unit, everything=verbose)
    console.say(f"tables, figure and worst frames: {folder}")


def _data_and_model(given: list[str], data: Path | None, models: list[str]) -> tuple[Path, str]:
    """Return the data set and the model, which are given by position or as options."""
    datasets = [] if data is None else [str(data)]
    for known in (datasets, models):
        if not known and given:
            known.append(given.pop(0))
    if given or len(datasets) != 1 or len(models) != 1 or not Path(datasets[0]).name:
        raise InputError("expected one data set and one model; see ase-flatten errors --help")
    return Path(datasets[0]), models[0]


def _show(outliers: "Outliers", unit: "OutputUnits", *, everything: bool) -> None:
    """Print the worst clusters, and the errors over all frames."""
    from ase_flatten.evaluation.accuracy import in_words
    from ase_flatten.evaluation.frame_groups import N_LEAST
    from ase_flatten.report.outlier_tables import half_width_of

    found = outliers.errors
    if outliers.clusters_of:
        console.say(f"clusters of {outliers.clusters_of}")
    shown = found.ascending[::-1][: None if everything else 10]
    columns = {
        "force RMSE": found.rmse,
        "±": half_width_of(found),
        "force MAE": found.mae,
        f"energy RMSE, {unit.energy}": found.energy_rmse,
    }
    if not columns["±"].any():
        del columns["±"]  # all frames were predicted
    console.table(
        f"Force RMSE by cluster, {unit.force}, worst first",
        ("cluster", "frames", *columns),
        [
            (label, found.populations[label], *(f"{values[label] * unit.scale:.3f}" for values in columns.values()))
            for label in shown
        ],
    )
    n_small = int(np.sum(found.populations[shown] < N_LEAST))
    if n_small:
        console.say(f"{n_small} of these clusters have fewer than {N_LEAST} frames, whose errors say little")
    console.say(f"over {outliers.n_frames} frames {outliers.which_frames}{outliers.how}:")
    for line in in_words(outliers.accuracy, unit):
        console.say(f"  {line}")
    if outliers.energy_offset is not None:
        console.say(
            f"energies are compared up to a constant: a mean difference of {outliers.energy_offset * unit.scale:,.2f} "
            f"{unit.energy} (model minus reference) was removed"
        )
    if outliers.overlap:
        console.say(outliers.overlap)
