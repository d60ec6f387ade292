"""The command line, ``ase-flatten``."""

from ase_flatten.utils.start import starting


def main() -> None:
    """Import the commands and run the one that is asked for."""
    with starting():
        from ase_flatten.cli.app import main as run
    run()
