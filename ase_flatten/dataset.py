"""The home of `Dataset` up to version 0.1; model families of third parties import it from here."""

from ase_flatten.data.dataset import Dataset, formula
from ase_flatten.utils.typing import FloatArray, IntArray

__all__ = ["Dataset", "FloatArray", "IntArray", "formula"]
