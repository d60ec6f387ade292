"""The command ``ase-flatten`` and its subcommands, in the order of ``--help``."""

from typing import Annotated

import typer

from ase_flatten import __version__
from ase_flatten.cli.command import Command, CommandGroup
from ase_flatten.cli.data import check, clean, cluster
from ase_flatten.cli.errors import errors
from ase_flatten.cli.ipi import ipi
from ase_flatten.cli.md import md
from ase_flatten.cli.predict import predict
from ase_flatten.cli.report import report
from ase_flatten.cli.sample import sample
from ase_flatten.cli.show import show
from ase_flatten.cli.train import train
from ase_flatten.utils import console

BUNDLED = "examples/data/salicylic_gfn2_500K.npz"

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Machine-learned force fields that are right everywhere, not on average.",
)

for group, command, example in (
    ("Data", check, f"check {BUNDLED}"),
    ("Data", clean, f"clean {BUNDLED} -o runs/clean.npz"),
    ("Data", cluster, f"cluster {BUNDLED} --out runs/clusters"),
    ("Data", sample, "sample examples/data/salicylic_acid.xyz --T 500 --frames 1000 -o runs/salicylic.npz"),
    ("Models", train, f"train {BUNDLED} -n 3 -i 40 -s 20 --out runs/demo"),
    ("Models", errors, f"errors {BUNDLED} runs/demo --out runs/outliers"),
    ("Models", report, "report runs/demo"),
    ("Models", show, "show runs/demo"),
    ("Models", predict, f"predict runs/demo {BUNDLED} -o runs/predicted.extxyz"),
    ("Dynamics", md, "md runs/demo --T 300 400"),
    ("Dynamics", ipi, "ipi runs/demo --unix flatten"),
):
    app.command(cls=Command, rich_help_panel=group, epilog=f"Example: ase-flatten {example}")(command)


def _version(asked: bool) -> None:
    if asked:
        console.say(f"ase-flatten {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line."""
    app(prog_name="ase-flatten")


def run_alone(name: str) -> None:
    """Run one of the commands as ``python -m ase_flatten.NAME``."""
    commands: dict[str, typer.core.TyperCommand] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    commands[name](prog_name=f"python -m ase_flatten.{name}")


if __name__ == "__main__":
    main()
