"""The command ``errors``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_flatten.cli.options import (
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
    read,
    results_folder,
)
from ase_flatten.utils import console
from ase_flatten.utils.exceptions import InputError


@console.user_errors
def errors(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="DATASET MODEL", help="Data set and model.")] = None,
    data: Data = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-i",
            "--model",
            help="A run or model folder, a model file, schnetpack:FILE:UNIT, tblite:METHOD or ase:MODULE:FACTORY.",
        ),
    ] = None,
    clusters: Annotated[
        Path | None,
        typer.Option(help="Run folder or clusters.npz to take the clusters from [the model's run, or new clusters]."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results [runs/NAME-errors].")] = None,
    worst: Annotated[int, typer.Option(min=1, help="Number of worst clusters whose frames are written.")] = 3,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes for an ASE calculator [one per core, at most 8].")
    ] = None,
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
    from ase_flatten.utils.cores import n_cores
    from ase_flatten.utils.parallel import LocalExecutor

    console.set_up_logging(quiet=quiet, verbose=verbose)
    given = list(arguments or [])
    path = Path(str(data or (given.pop(0) if given else "")))
    spec = model or (given.pop(0) if given else None)
    if not path.name or spec is None or given:
        raise InputError("expected one data set and one model; see ase-flatten errors --help")
    folder = results_folder(out, f"{path.stem}-errors")
    content, unit = read(path, energy_unit, length_unit, energy_key, forces_key), output_units(units)
    with LocalExecutor(workers or min(n_cores(), MAX_WORKERS)) as executor:
        outliers = find_outliers(
            content, spec, folder, n_worst=worst, units=unit, seed=seed or 0, subset=subset, executor=executor,
            clusters=clusters, progress=console.progress(quiet),
        )  # fmt: skip
    found = outliers.errors
    if outliers.clusters_of:
        console.say(f"clusters of {outliers.clusters_of}")
    console.table(
        f"Force RMSE by cluster, {unit.force}, worst first",
        ("cluster", "frames", "force RMSE", "±", "force MAE", f"energy RMSE, {unit.energy}"),
        [
            (label, found.populations[label], *(f"{value[label] * unit.scale:.3f}" for value in outliers.columns))
            for label in found.ascending[::-1][: None if verbose else 10]
        ],
    )
    console.say(
        f"over {outliers.n_frames} frames {outliers.which_frames}{outliers.how}: {found.overall_rmse * unit.scale:.3f} "
        f"{unit.force}"
    )
    console.say(f"tables, figure and worst frames: {folder}")
