"""The command ``report``, and the last lines of ``train``."""

from pathlib import Path
from typing import Annotated

import typer

from ase_flatten.cli.options import Quiet, Units, Verbose
from ase_flatten.utils import console


@console.user_errors
def report(
    run: Annotated[Path | None, typer.Argument(help="The run folder [the newest one below runs/].")] = None,
    units: Units = "kcal/mol",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw the figures and write one self-contained page."""
    from ase_flatten.data.units import output_units
    from ase_flatten.report.page import verdict_sentences, write_report
    from ase_flatten.workflow.run_folder import open_run

    console.set_up_logging(quiet=quiet, verbose=verbose)
    found, unit = open_run(run), output_units(units)
    page = write_report(found, units=unit)
    conclude(page, verdict_sentences(found, units=unit))


def conclude(page: Path, sentences: list[str]) -> None:
    """Print the reasons, then where the report is, then the verdict, which is the first sentence."""
    headline, *reasons = sentences
    for sentence in reasons:
        console.say(sentence)
    console.say(f"report: {page}")
    console.say(f"verdict: {headline}")
