"""Bonds of a molecule in its reference data, and whether a frame still has them."""

from dataclasses import dataclass

import numpy as np

from ase_flatten.bonds import radius_sums
from ase_flatten.dataset import FloatArray, IntArray

BONDED = 1.25
"""Atoms are bonded up to this multiple of the sum of their covalent radii."""

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

    def broken(self, positions: FloatArray) -> tuple[int, int, float] | None:
        """Find the bond of a frame, (n_atoms, 3) in Å, that is furthest beyond 0.5 Å of its mean length, if any is.

        Returns the two atoms and the bond's length in Å.
        """
        lengths = np.linalg.norm(positions[self.pairs[:, 0]] - positions[self.pairs[:, 1]], axis=-1)
        deviation = np.abs(lengths - self.lengths)
        if not len(deviation) or deviation.max() <= BROKEN:
            return None
        worst = int(np.argmax(deviation))
        i, j = self.pairs[worst]
        return int(i), int(j), float(lengths[worst])


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
    bonded = mean_distances < BONDED * radius_sums(numbers)
    return Bonds(pairs[bonded], mean_distances[bonded])
