"""The command `python -m ase_flatten.ipi`, which is `ase-flatten ipi`."""

from ase_flatten.utils.start import starting

with starting():
    from ase_flatten.cli.app import run_alone

if __name__ == "__main__":
    run_alone("ipi")
