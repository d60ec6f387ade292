"""The command `python -m ase_flatten.ipi`."""

from ase_flatten.utils.start import starting

with starting():
    import argparse
    import logging
    from pathlib import Path

    from ase_flatten.utils import console

log = logging.getLogger("ase_flatten.ipi")


class _ShowPES(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        console.say(str(Path(__file__).with_name("pes.py")))
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ase_flatten.ipi",
        description="Serve i-PI with energies and forces of a model. Several processes may attach to one i-PI.",
        epilog="Example: python -m ase_flatten.ipi runs/demo --unix flatten",
    )
    parser.add_argument(
        "model", help="run folder, model folder or file, schnetpack:FILE:UNIT, tblite:METHOD or ase:MODULE:FACTORY"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--unix", metavar="NAME", help="address of i-PI's ffsocket in mode unix")
    where.add_argument("--port", type=int, metavar="P", help="port of i-PI's ffsocket in mode inet")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="where i-PI runs, for --port [127.0.0.1]")
    parser.add_argument(
        "--sockets-prefix", default="/tmp/ipi_", metavar="PATH", help="i-PI's sockets_prefix, for --unix [/tmp/ipi_]"
    )
    parser.add_argument(
        "--structure", type=Path, metavar="FILE", help="the molecule, for a model that does not know its elements"
    )
    parser.add_argument(
        "--wait", type=float, default=60.0, metavar="S", help="how long to wait for i-PI and its first message, s [60]"
    )
    parser.add_argument("--reconnect", action="store_true", help="wait for i-PI again after it has disconnected")
    parser.add_argument(
        "--pes", nargs=0, action=_ShowPES, help="print the path of the file for i-pi-driver-py -m custom -P, and exit"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show errors only")
    parser.add_argument("-v", "--verbose", action="store_true", help="show more of what is done")
    return parser


def _run(given: argparse.Namespace) -> None:
    from ase.data import chemical_symbols

    from ase_flatten.ipi.model import load_answer
    from ase_flatten.ipi.socket_protocol import Address, connect, serve, unix_address
    from ase_flatten.utils.exceptions import BackendError

    console.set_up_logging(quiet=given.quiet, verbose=given.verbose)
    address: Address = unix_address(given.unix, given.sockets_prefix) if given.unix else (given.host, given.port)
    answer, numbers = load_answer(given.model, given.structure)
    log.info(
        "%s assumes that the atoms of i-PI are %s, in this order: i-PI sends only their number",
        given.model,
        " ".join(chemical_symbols[number] for number in numbers),
    )
    while True:
        with connect(address, wait_s=given.wait) as connection:
            log.info("attached to i-PI")
            ended = serve(connection, answer, len(numbers), wait_s=given.wait)
        log.info("i-PI has %s", "ended" if ended else "disconnected without EXIT")
        if given.reconnect:
            continue
        if not ended:
            raise BackendError(
                "expected i-PI to send EXIT when it ends, found it disconnected; see its log, or wait for the next "
                "with --reconnect"
            )
        return


def main() -> None:
    """Run the command line."""
    console.run_command(_run, _parser().parse_args())


if __name__ == "__main__":
    main()
