"""Options and arguments that several commands share."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ase_flatten.cli.command import CLUSTERS, DATA, MODEL, OUTPUT
from ase_flatten.utils.exceptions import InputError

if TYPE_CHECKING:
    from ase_flatten.data.dataset import Dataset

MODEL_NAMES = "a run or model folder, a model file, schnetpack:FILE:UNIT, tblite:METHOD or ase:MODULE:FACTORY"
"""What names a model, as `ase_flatten.models.resolver.resolve` reads it."""

DataArgument = Annotated[Path | None, typer.Argument(help="The data set.")]
Data = Annotated[
    Path | None, typer.Option("-d", "--dataset", help="The data set, instead of the argument.", rich_help_panel=DATA)
]
EnergyUnit = Annotated[
    str | None,
    typer.Option(help="Energy unit of a data set that declares none, such as kcal/mol.", rich_help_panel=DATA),
]
LengthUnit = Annotated[
    str | None, typer.Option(help="Length unit of a data set that declares none, such as Ang.", rich_help_panel=DATA)
]
EnergyKey = Annotated[
    str | None,
    typer.Option(help="Name of the energies in the file, such as REF_energy [energy].", rich_help_panel=DATA),
]
ForcesKey = Annotated[
    str | None, typer.Option(help="Name of the forces in the file, such as REF_forces [forces].", rich_help_panel=DATA)
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of all random choices [0].")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show results and errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show more details.")]
Units = Annotated[str, typer.Option(help="Energy unit of the output, such as eV.", rich_help_panel=OUTPUT)]
Subset = Annotated[
    bool | None,
    typer.Option(
        "--subset/--all-frames",
        help="Estimate cluster errors from random frames of each cluster, or predict all frames [--subset where "
        "predictions are slow].",
        show_default=False,
        rich_help_panel=CLUSTERS,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Processes for an ASE calculator [one per core, at most 8].", rich_help_panel=MODEL),
]
NGeometry = Annotated[
    int | None,
    typer.Option(
        min=1, help="Clusters by pair distances [10, fewer below 1,000 held-out frames].", rich_help_panel=CLUSTERS
    ),
]
NEnergy = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Clusters by energy within each of them [5, fewer below 1,000 held-out frames].",
        rich_help_panel=CLUSTERS,
    ),
]


def one_path(argument: Path | None, option: Path | None) -> Path:
    """Return the path of the data set; raise InputError unless it was given once."""
    if (argument is None) == (option is None):
        raise InputError("expected one data set, as the argument or with -d; give one")
    return argument or option or Path()


def results_folder(asked: Path | None, default: str) -> Path:
    """Return the folder of the results; raise InputError if it is a run folder, whose files they would replace."""
    folder = asked or Path("runs") / default
    if (folder / "run.json").exists():
        raise InputError(f"expected a folder for results, found a run in {folder}; choose another --out")
    return folder


def read(
    path: Path, energy_unit: str | None, length_unit: str | None, energy_key: str | None, forces_key: str | None
) -> "Dataset":
    """Read a data set; raise InputError if it cannot be used."""
    from ase_flatten.data.io import read_dataset

    return read_dataset(
        path, energy_unit=energy_unit, length_unit=length_unit, energy_key=energy_key, forces_key=forces_key
    )


def repeated(
    path: Path, energy_unit: str | None, length_unit: str | None, energy_key: str | None, forces_key: str | None
) -> str:
    """Return a data set and the options to read it with, as words of a command to type."""
    given = {
        "--energy-unit": energy_unit,
        "--length-unit": length_unit,
        "--energy-key": energy_key,
        "--forces-key": forces_key,
    }
    return shlex.join([str(path), *(word for option, value in given.items() if value for word in (option, value))])
