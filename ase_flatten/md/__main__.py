"""The command `python -m ase_flatten.md`, which is `ase-flatten md`."""

from ase_flatten.utils.start import starting

with starting():
    from ase_flatten.cli.app import run_alone

if __name__ == "__main__":
    run_alone("md")
