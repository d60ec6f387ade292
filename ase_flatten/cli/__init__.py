"""The command line, ``ase-flatten``."""
