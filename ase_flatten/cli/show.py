"""The command ``show``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_flatten.cli.command import MODEL
from ase_flatten.cli.options import EnergyKey, EnergyUnit, ForcesKey, LengthUnit, Quiet, Units, Verbose
from ase_flatten.utils import console

_SIZES = (200, 500, 1000)


@console.user_errors
def show(
    path: Annotated[
        Path, typer.Argument(help="A data set, a model folder or file, a run folder, or results of md or errors.")
    ],
    frames: Annotated[
        list[int] | None,
        typer.Option(
            min=2, help="Training frames to estimate time and memory for; may be repeated [200, 500 and 1000]."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model family to estimate them for; may be repeated [all].", rich_help_panel=MODEL),
    ] = None,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    units: Units = "kcal/mol",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what a data set, a model or a run is.

    For a data set, also what a training would need in time and memory. Nothing is written.
    """
    from ase_flatten.data.units import output_units
    from ase_flatten.report.overview import overview
    from ase_flatten.report.training_needs import training_needs
    from ase_flatten.utils.exceptions import InputError, printable

    console.set_up_logging(quiet=quiet, verbose=verbose)
    found = overview(
        path, energy_unit=energy_unit, length_unit=length_unit, energy_key=energy_key, forces_key=forces_key,
        units=output_units(units),
    )  # fmt: skip
    if found.dataset is None and (frames or model):
        raise InputError(f"expected a data set with --frames and --model, found a {found.kind}; leave them out")
    console.say(f"{path}: {found.kind}")
    width = max(len(name) for name, _ in found.facts) + 2
    for name, value in found.facts:
        console.say(f"  {name:<{width}}{printable(value, most=2000)}")
    if found.table is not None:
        console.table(found.table.title, found.table.columns, found.table.rows)
    if found.dataset is not None:
        sizes = frames or _SIZES
        needs = training_needs(found.dataset, sizes, names=model, progress=console.progress(quiet))
        console.table("One training, about", ("family", *(f"{n} frames" for n in sizes)), needs)
        console.say("on this machine, from scratch and with default settings; a run of train makes several")
