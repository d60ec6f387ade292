"""The order of the atoms: whether it is the same in all frames, and whether the elements fit the geometry.

If two or more bonds are impossibly long in a frame, and exchanging two atoms restores all of them, the atoms of that
frame are in another order. If the elements are in the wrong order throughout the file, some atoms have numbers of bonds
that their elements never have.
"""

from itertools import combinations

import numpy as np
from ase.data import chemical_symbols

from ase_flatten.checking.findings import Finding, as_frames, frame_numbers
from ase_flatten.data.dataset import Dataset
from ase_flatten.geometry.bonds import bonded_pairs, radius_sums
from ase_flatten.geometry.pair_distances import pair_permutation
from ase_flatten.utils.typing import FloatArray, IntArray

JUMPED = 1.7
"""A bond is impossibly long beyond this multiple of the sum of covalent radii."""
RESTORED = 1.35
"""Bonds are restored if all of them are below this multiple."""
MOST_BONDS = {1: (1, 1), 6: (2, 4), 7: (1, 4), 8: (1, 2), 9: (1, 1), 16: (1, 6), 17: (1, 1), 35: (1, 1)}
"""The smallest and the largest number of neighbours of an element in a molecule."""

_MAX_FRAMES = 2000


def atom_order(dataset: Dataset, distances: FloatArray) -> list[Finding]:
    """Check whether the atoms are in another order, in all frames or in some.

    Parameters
    ----------
    distances : (n_frames, n_pairs) array, Å
    """
    if dataset.n_atoms < 4:
        return []
    typical = np.median(distances, axis=0)
    return _elements(dataset.numbers, typical) or _exchanged_atoms(dataset, distances, typical)


def _elements(numbers: IntArray, typical: FloatArray) -> list[Finding]:
    """Find an exchange of two elements after which all atoms have possible numbers of bonds."""
    misfit = _misfit(numbers, typical)
    if misfit == 0:
        return []
    found = []
    for a, b in combinations(range(len(numbers)), 2):
        if numbers[a] != numbers[b]:
            exchanged = numbers.copy()
            exchanged[[a, b]] = numbers[[b, a]]
            found.append((_misfit(exchanged, typical), a, b))
    best, a, b = min(found, default=(misfit, 0, 0))
    # If it is only slightly better, the cause may be an ion, a radical, or a bond that is breaking.
    if best > 0.5 * misfit or misfit < 2:
        return []
    message = (
        "the elements must fit the geometry, found impossible numbers of bonds: "
        f"the elements of atoms {a} ({chemical_symbols[numbers[a]]}) and {b} ({chemical_symbols[numbers[b]]}) appear "
        f"to be exchanged{'' if best == 0 else ', and others as well'}; correct the order of the atomic numbers, "
        "the frames can be kept"
    )
    return [Finding("refused", "order of elements", message)]


def _misfit(numbers: IntArray, typical: FloatArray) -> int:
    """Count the bonds by which atoms have too many or too few."""
    i, j = np.tril_indices(len(numbers), -1)
    bonded = bonded_pairs(numbers, typical)
    n_bonds = np.bincount(np.concatenate([i[bonded], j[bonded]]), minlength=len(numbers))
    limits = np.array([MOST_BONDS.get(int(number), (0, 12)) for number in numbers])
    return int(np.sum(np.maximum(n_bonds - limits[:, 1], 0) + np.maximum(limits[:, 0] - n_bonds, 0)))


def _exchanged_atoms(dataset: Dataset, distances: FloatArray, typical: FloatArray) -> list[Finding]:
    """Find frames in which an exchange of two atoms restores two or more impossibly long bonds."""
    bonded = np.flatnonzero(bonded_pairs(dataset.numbers, typical))
    if not len(bonded):
        return []
    sums = radius_sums(dataset.numbers)
    jumped = np.sum(distances[:, bonded] > JUMPED * sums[bonded], axis=1) >= 2
    if not jumped.any():
        return []
    frames = np.flatnonzero(jumped)
    exchanged = np.zeros(dataset.n_frames, dtype=bool)
    first: tuple[int, int] | None = None
    identity = np.arange(dataset.n_atoms)
    pending = frames[:_MAX_FRAMES]
    for a, b in combinations(range(dataset.n_atoms), 2):
        if not len(pending):
            break
        order = identity.copy()
        order[[a, b]] = b, a
        reordered = distances[np.ix_(pending, pair_permutation(order))]
        restored = np.all(reordered[:, bonded] < RESTORED * sums[bonded], axis=1)
        if restored.any():
            exchanged[pending[restored]] = True
            first = first or (a, b)
            pending = pending[~restored]
    if first is None:
        return []
    one, other = (f"{atom} ({chemical_symbols[dataset.numbers[atom]]})" for atom in first)
    chosen = as_frames(exchanged)
    message = (
        f"the atoms must be in the same order in all frames, found two of them exchanged in {len(chosen)} of "
        f"{dataset.n_frames} frames, such as atoms {one} and {other} ({frame_numbers(np.array(chosen))}): their bonds "
        "are impossibly long, and normal after the exchange; reorder positions and forces there, the frames can be kept"
    )
    return [Finding("refused", "order of atoms", message, chosen, ("two atoms are exchanged",), mend=True)]
