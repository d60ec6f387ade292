"""The command ``predict``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_flatten.cli.command import DATA, OUTPUT
from ase_flatten.cli.options import MODEL_NAMES, Quiet, Verbose, Workers
from ase_flatten.utils import console


@console.user_errors
def predict(
    model: Annotated[str, typer.Argument(help=f"The model: {MODEL_NAMES}.")],
    structures: Annotated[
        Path, typer.Argument(metavar="FILE", help="Structures in any format that ASE reads, or an npz file.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write: .extxyz, .xyz or .npz.", rich_help_panel=OUTPUT)
    ],
    overwrite: Annotated[bool, typer.Option(help="Replace an output that exists.", rich_help_panel=OUTPUT)] = False,
    length_unit: Annotated[
        str | None,
        typer.Option(help="Length unit of a file that declares none [Ang; needed for npz].", rich_help_panel=DATA),
    ] = None,
    workers: Workers = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Predict energies and forces for all frames of a file.

    They are written in eV and Å, with the extrapolation of each frame where the training geometries are known.
    """
    from ase_flatten.report.outliers import MAX_WORKERS
    from ase_flatten.report.predictions import predict_file
    from ase_flatten.utils.cores import n_cores
    from ase_flatten.utils.parallel import LocalExecutor

    console.set_up_logging(quiet=quiet, verbose=verbose)
    with LocalExecutor(workers or min(n_cores(), MAX_WORKERS)) as executor:
        found = predict_file(
            model, structures, output, length_unit=length_unit, overwrite=overwrite, executor=executor,
            progress=console.progress(quiet),
        )  # fmt: skip
    if found.n_outside:
        console.say(
            f"{found.n_outside} of {found.n_frames} frames lie outside the training geometries (extrapolation above 1)"
        )
    console.say(f"energies and forces of {found.n_frames} frames of {found.formula}: {output}")
