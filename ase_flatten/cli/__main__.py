"""Run the command line: ``python -m ase_flatten.cli``."""

from ase_flatten.cli import main

if __name__ == "__main__":
    main()
