"""The command ``sample``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_flatten.cli.command import DYNAMICS, MODEL, OUTPUT
from ase_flatten.cli.options import Quiet, Seed, Verbose
from ase_flatten.utils import console


@console.user_errors
def sample(
    structure: Annotated[Path, typer.Argument(help="A structure file, or the name of a molecule that ASE knows.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The data set to write (.npz).", rich_help_panel=OUTPUT)
    ],
    calculator: Annotated[
        str, typer.Option(help="tblite:METHOD, ase:MODULE:FACTORY, or a model.", rich_help_panel=MODEL)
    ] = "tblite:GFN2-xTB",
    temperature: Annotated[float, typer.Option("--T", help="Temperature, K.", rich_help_panel=DYNAMICS)] = 500.0,
    frames: Annotated[int, typer.Option(min=1, help="Frames to keep.", rich_help_panel=DYNAMICS)] = 10_000,
    stride: Annotated[int, typer.Option(min=1, help="Steps between them.", rich_help_panel=DYNAMICS)] = 10,
    timestep: Annotated[float, typer.Option(help="Time step, fs.", rich_help_panel=DYNAMICS)] = 0.5,
    friction: Annotated[float, typer.Option(help="Langevin friction, 1/fs.", rich_help_panel=DYNAMICS)] = 0.01,
    equilibration: Annotated[float, typer.Option(help="Equilibration, ps.", rich_help_panel=DYNAMICS)] = 2.0,
    dtype: Annotated[
        str, typer.Option(help="Precision of the file: float64 or float32.", rich_help_panel=OUTPUT)
    ] = "float64",
    engine: Annotated[
        str,
        typer.Option(
            help="Program that integrates: ase, or ipi for a separate i-PI process.", rich_help_panel=DYNAMICS
        ),
    ] = "ase",
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Sample a reference trajectory with any ASE calculator.

    An interrupted trajectory is resumed by the same command.
    """
    from ase_flatten.sampling.sample import SampleSettings
    from ase_flatten.sampling.sample import sample as sample_trajectory

    console.set_up_logging(quiet=quiet, verbose=verbose)
    settings = SampleSettings(
        calculator, temperature, frames, stride, timestep, friction, equilibration, seed or 0, dtype, engine
    )
    data = sample_trajectory(structure, output, settings, progress=console.progress(quiet))
    console.say(f"{data.n_frames} frames of {data.formula}: {output}")
