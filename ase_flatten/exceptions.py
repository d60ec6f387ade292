"""The home of the exceptions up to version 0.1; model families of third parties import them from here."""

from ase_flatten.utils.exceptions import InputError, not_installed

__all__ = ["InputError", "not_installed"]
