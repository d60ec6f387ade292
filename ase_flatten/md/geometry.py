"""Bonds of a molecule in its reference data, and whether a frame still has them."""

from dataclasses import dataclass

import numpy as np

from ase_flatten.bonds import bonded_pairs
from ase_flatten.dataset import FloatArray, IntArray

BROKEN = 0.5
"""A bond is broken beyond this distance from its mean length in the reference data, Å (MDsim's criterion)."""


@dataclass(frozen=True, eq=False)
class Bonds:
    """Hold the bonds of a molecule.

    Parameters
    ----------
    pairs : (n_bonds, 2) int array
    lengths : (n_bonds,) array, Å
        Mean lengths in the reference data.
    """

    pairs: IntArray
    lengths: FloatArray

    def deviations(self, positions: FloatArray) -> FloatArray:
        """Give how far the bonds of (n, n_atoms, 3) positions are from their means, (n, n_bonds) in Å."""
        difference = positions[:, self.pairs[:, 0]] - positions[:, self.pairs[:, 1]]
        deviations: FloatArray = np.abs(np.sqrt(np.einsum("rbx,rbx->rb", difference, difference)) - self.lengths)
        return deviations


def reference_bonds(numbers: IntArray, mean_distances: FloatArray) -> Bonds:
    """Find the bonds of the reference data and their mean lengths.

    A pair is a bond when its mean distance is below 1.25 times the sum of the covalent radii.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    mean_distances : (n_pairs,) array, Å
        Means over the reference data, in the order of `pair_distances`.
    """
    pairs = np.column_stack(np.tril_indices(len(numbers), -1))
    bonded = bonded_pairs(numbers, mean_distances)
    return Bonds(pairs[bonded], mean_distances[bonded])
