"""Exceptions under the name that they had up to version 0.1, for model families of third parties."""

from ase_flatten.utils.exceptions import InputError, nearest, not_installed

__all__ = ["InputError", "nearest", "not_installed"]
