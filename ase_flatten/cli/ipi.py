"""The command ``ipi``, and ``python -m ase_flatten.ipi``."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from ase_flatten.cli.command import CONNECTION, MODEL
from ase_flatten.cli.options import MODEL_NAMES, Quiet, Verbose
from ase_flatten.utils import console
from ase_flatten.utils.exceptions import BackendError, InputError

log = logging.getLogger("ase_flatten.ipi")


def _show_pes(asked: bool) -> None:
    if asked:
        console.say(str(Path(__file__).parents[1] / "ipi" / "pes.py"))
        raise typer.Exit


@console.user_errors
def ipi(
    model: Annotated[str, typer.Argument(help=f"The model: {MODEL_NAMES}.")],
    unix: Annotated[
        str | None,
        typer.Option(help="Address of i-PI's ffsocket in mode unix.", metavar="NAME", rich_help_panel=CONNECTION),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port of i-PI's ffsocket in mode inet, instead of --unix.", metavar="P", rich_help_panel=CONNECTION
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where i-PI runs, for --port.", metavar="H", rich_help_panel=CONNECTION)
    ] = "127.0.0.1",
    sockets_prefix: Annotated[
        str, typer.Option(help="i-PI's sockets_prefix, for --unix.", metavar="PATH", rich_help_panel=CONNECTION)
    ] = "/tmp/ipi_",
    wait: Annotated[
        float,
        typer.Option(
            help="How long to wait for i-PI and its first message, s.", metavar="S", rich_help_panel=CONNECTION
        ),
    ] = 60.0,
    reconnect: Annotated[
        bool,
        typer.Option("--reconnect", help="Wait for i-PI again after it has disconnected.", rich_help_panel=CONNECTION),
    ] = False,
    structure: Annotated[
        Path | None,
        typer.Option(
            help="The molecule, for a model that does not know its elements.", metavar="FILE", rich_help_panel=MODEL
        ),
    ] = None,
    pes: Annotated[
        bool,
        typer.Option(
            "--pes",
            callback=_show_pes,
            is_eager=True,
            help="Print the path of the file for i-pi-driver-py -m custom -P, and exit.",
        ),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve i-PI with energies and forces of a model.

    Several processes may attach to one i-PI.
    """
    from ase.data import chemical_symbols

    from ase_flatten.ipi.model import load_answer
    from ase_flatten.ipi.socket_protocol import Address, connect, serve, unix_address

    console.set_up_logging(quiet=quiet, verbose=verbose)
    if (unix is None) == (port is None):
        raise InputError("expected where i-PI listens, as --unix NAME or as --port P; give one of them")
    address: Address = (host, port) if port is not None else unix_address(str(unix), sockets_prefix)
    answer, numbers = load_answer(model, structure)
    log.info(
        "%s assumes that the atoms of i-PI are %s, in this order: i-PI sends only their number",
        model,
        " ".join(chemical_symbols[number] for number in numbers),
    )
    while True:
        with connect(address, wait_s=wait) as connection:
            log.info("attached to i-PI")
            ended = serve(connection, answer, len(numbers), wait_s=wait)
        log.info("i-PI has %s", "ended" if ended else "disconnected without EXIT")
        if reconnect:
            continue
        if not ended:
            raise BackendError(
                "expected i-PI to send EXIT when it ends, found it disconnected; see its log, or wait for the next "
                "with --reconnect"
            )
        return
