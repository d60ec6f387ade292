"""Distances, angles and dihedrals of a molecule: the coordinates that chemists think in."""

from itertools import pairwise

import numpy as np

from ase_flatten.utils.typing import BoolArray, FloatArray

Coordinate = tuple[int, ...]
"""The atoms of a coordinate: two for a distance, three for an angle, four for a dihedral."""


def bonded_coordinates(n_atoms: int, bonded: BoolArray) -> list[Coordinate]:
    """List the coordinates along the bonds of a molecule: bond lengths, then angles, then dihedrals.

    Parameters
    ----------
    bonded : (n_pairs,) bool array
        In the order of `ase_flatten.geometry.pair_distances.pair_distances`.
    """
    i, j = np.tril_indices(n_atoms, -1)
    bonds = sorted((int(b), int(a)) for a, b in zip(i[bonded], j[bonded], strict=True))
    neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
    for a, b in bonds:
        neighbours[a].append(b)
        neighbours[b].append(a)
    angles = [
        (a, middle, c) for middle in range(n_atoms) for a in neighbours[middle] for c in neighbours[middle] if a < c
    ]
    dihedrals = [
        (a, b, c, d) for b, c in bonds for a in neighbours[b] for d in neighbours[c] if c != a and b != d and a != d
    ]
    return [*bonds, *angles, *dihedrals]


def measure(positions: FloatArray, atoms: Coordinate) -> FloatArray:
    """Compute a coordinate of each frame.

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3) array, Å
    atoms : tuple of int
        Two, three or four atoms.

    Returns
    -------
    (n_frames,) array
        A distance in Å, an angle from 0 to 180°, or a dihedral from -180 to 180°, negative where the last bond is
        turned counterclockwise from the first one, as seen along the middle one (IUPAC).
    """
    steps = [positions[:, b] - positions[:, a] for a, b in pairwise(atoms)]
    if len(atoms) == 2:
        return np.asarray(np.linalg.norm(steps[0], axis=1))
    if len(atoms) == 3:
        one, other = -steps[0], steps[1]
        sine = np.linalg.norm(np.cross(one, other), axis=1)
        return np.degrees(np.arctan2(sine, np.einsum("fx,fx->f", one, other)))
    first, second = np.cross(steps[0], steps[1]), np.cross(steps[1], steps[2])
    length = np.linalg.norm(steps[1], axis=1)
    sine = length * np.einsum("fx,fx->f", steps[0], second)
    return np.degrees(np.arctan2(sine, np.einsum("fx,fx->f", first, second)))
