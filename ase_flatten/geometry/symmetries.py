"""The symmetries of a molecule that its data visit.

Every exchange of like atoms is an exact symmetry of the energy, but one that leads to places that the data never come
near only costs. Candidates are the permutations that preserve the bonds (`bond_symmetries`). One is visited if images
of frames lie among the frames: an image is near if it is as near to some frame as a frame is to the nearest twentieth
of the others. Only distances of atoms that the permutation moves, to atoms at most three bonds away, are compared, so
that the exchange of two atoms is not lost in the motion of a large molecule.
"""

from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from ase_flatten.geometry.bond_symmetries import MOST_CANDIDATES, BondSymmetries, Rotor, bond_symmetries, turned_back
from ase_flatten.geometry.pair_distances import squared_distances
from ase_flatten.utils.typing import FloatArray, IntArray

MOST_PERMUTATIONS = 1000
"""Largest group: six methyl groups make 729. A kernel has as many terms for each pair of geometries."""

COMPARED_FRAMES = 200
"""Frames are compared with one another; these many, evenly spaced, suffice."""

NEAR = 0.05
"""An image is near if it is as near as a frame is to the nearest of this share of the other frames."""

VISITED = 0.1
"""A permutation is visited if this share of the images is near a frame."""

_NAMED = 8
"""Largest number of exchanges that are named."""

_HOPS = 3
"""A torsion has three bonds."""


@dataclass(frozen=True, eq=False)
class Symmetries:
    """A group of permutations of like atoms, and what is in it.

    Parameters
    ----------
    permutations : (n_permutations, n_atoms) int array
        In lexicographic order, so that the identity is first.
    kept : tuple of str
        What generates the group, a line for each, and why it was kept.
    left_out : tuple of str
        What was considered but left out, and why.
    """

    permutations: IntArray
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def find_symmetries(numbers: IntArray, positions: FloatArray) -> Symmetries:
    """Find the permutations that preserve the bonds of a molecule and that its data visit.

    Rotations of methyl groups and their like are always kept, since their barriers are low.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    positions : (n_frames, n_atoms, 3) array, Å
        `COMPARED_FRAMES` of them are compared.
    """
    if len(numbers) < 2:
        return Symmetries(np.zeros((1, len(numbers)), dtype=np.int64))
    rows = np.unique(np.linspace(0, len(positions) - 1, COMPARED_FRAMES).round().astype(np.int64))
    positions = positions[rows]
    candidates = bond_symmetries(numbers, positions)
    visits = _Visits(positions, candidates)
    group = _Group(numbers)
    for rotor, share in _by_visits(candidates.rotors, visits):
        group.add_rotor(rotor, share)
    for permutation, mirrored in zip(candidates.others, candidates.mirrored, strict=True):
        group.consider(permutation, bool(mirrored), visits)
    if not candidates.complete:
        group.left_out.append(f"some of more than {MOST_CANDIDATES} exchanges that preserve the bonds: not looked at")
    return group.symmetries()


def _by_visits(rotors: tuple[Rotor, ...], visits: "_Visits") -> list[tuple[Rotor, float]]:
    """Return the rotors with the share of near images, the most visited first if not all may be kept."""
    n_atoms = visits.positions.shape[1]
    found = [(rotor, visits.share(rotor.rotation(n_atoms), rotor)) for rotor in rotors]
    if 3 ** len(rotors) <= MOST_PERMUTATIONS:
        return found
    return sorted(found, key=lambda one: -one[1])


class _Visits:
    """The comparison of images of frames with the frames.

    Rotors are turned by thirds until the first leaf is the nearest to a certain atom, in frames and images: what is
    compared are places up to rotations of rotors.
    """

    def __init__(self, positions: FloatArray, candidates: BondSymmetries) -> None:
        self.positions, self._candidates = positions, candidates

    def share(self, permutation: IntArray, rotor: Rotor | None = None) -> float:
        """Return the share of the images that are near another frame; `rotor` is the one whose rotation this is."""
        if len(self.positions) < 2:
            return 0.0
        i, j = self._compared(permutation)
        frames, images = (
            np.linalg.norm(turned[:, i] - turned[:, j], axis=2)
            for turned in (self._turned(some, rotor) for some in (self.positions, self.positions[:, permutation]))
        )
        between, to_images = squared_distances(frames, frames), squared_distances(images, frames)
        for squared in (between, to_images):
            np.fill_diagonal(squared, np.inf)
        place = int(NEAR * (len(frames) - 1))
        near = np.median(np.partition(between, place, axis=1)[:, place])
        return float(np.mean(to_images.min(axis=1) <= near))

    def _compared(self, permutation: IntArray) -> tuple[IntArray, IntArray]:
        """Return the pairs of a moved atom and one that is at most `_HOPS` bonds from a moved atom."""
        moved = permutation != np.arange(len(permutation))
        near = moved
        for _ in range(_HOPS):
            near = near | self._candidates.bonds[near].any(axis=0)
        i, j = np.nonzero(np.tril(np.logical_or.outer(moved, moved) & np.logical_and.outer(near, near), -1))
        return i, j

    def _turned(self, positions: FloatArray, but: Rotor | None) -> FloatArray:
        """Turn each rotor in each frame, except for one."""
        turned = positions.copy()
        for rotor in self._candidates.rotors:
            beyond = np.flatnonzero(self._candidates.bonds[rotor.axis])
            beyond = beyond[beyond != rotor.centre]
            if rotor == but or not len(beyond):
                continue
            leaves = list(rotor.leaves)
            first = np.linalg.norm(positions[:, leaves] - positions[:, beyond[:1]], axis=2).argmin(axis=1)
            order = (first[:, None] + np.arange(3)) % 3
            turned[:, leaves] = np.take_along_axis(positions[:, leaves], order[:, :, None], axis=1)
        return turned


class _Group:
    """A group under construction: rotations of rotors, and permutations up to these."""

    def __init__(self, numbers: IntArray) -> None:
        self._numbers = numbers
        self._rotors: tuple[Rotor, ...] = ()
        self._members = {tuple(range(len(numbers)))}
        self.kept: list[str] = []
        self.left_out: list[str] = []

    def add_rotor(self, rotor: Rotor, share: float) -> None:
        """Add the rotations of a rotor."""
        what = _rotor_name(self._numbers, rotor)
        if 3 ** (len(self._rotors) + 1) > MOST_PERMUTATIONS:
            self.left_out.append(f"{what}: rotations, would make more than {MOST_PERMUTATIONS} permutations")
            return
        self._rotors += (rotor,)
        why = "visited by the data" if share >= VISITED else "not visited by the data, but of a low barrier"
        self.kept.append(f"{what}: 3 rotations, {why}")

    def consider(self, permutation: IntArray, mirrored: bool, visits: "_Visits") -> None:
        """Add a permutation and all its products, if the data visit it."""
        if self._preserves_rotors(permutation) and self._key(permutation) in self._members:
            return
        what = _exchange_name(self._numbers, permutation, mirrored)
        if visits.share(permutation) < VISITED:
            self.left_out.append(f"{what}: not visited by the data")
        elif not self._preserves_rotors(permutation):
            self.left_out.append(f"{what}: takes atoms that rotate to the places of others that do not")
        elif (grown := self._closure(permutation)) is None:
            self.left_out.append(f"{what}: would make more than {MOST_PERMUTATIONS} permutations")
        else:
            self._members = grown
            self.kept.append(f"{what}: visited by the data")

    def symmetries(self) -> Symmetries:
        """Return the group."""
        permutations = np.array(sorted(self._members), dtype=np.int64)
        for rotor in self._rotors:
            rotation = rotor.rotation(permutations.shape[1])
            turns = np.array([np.arange(len(rotation)), rotation, rotation[rotation]])
            permutations = permutations[:, turns].reshape(-1, len(rotation))
        return Symmetries(np.unique(permutations, axis=0), tuple(self.kept), tuple(self.left_out))

    def _closure(self, permutation: IntArray) -> set[tuple[int, ...]] | None:
        """Return the members of the group with one more generator; None if there are too many."""
        generators = [np.array(member) for member in self._members] + [permutation]
        found = set(self._members)
        new = [self._key(permutation)]
        while new:
            found.update(new)
            if len(found) * 3 ** len(self._rotors) > MOST_PERMUTATIONS:
                return None
            products = {self._key(np.array(one)[generator]) for one in new for generator in generators}
            new = sorted(products - found)
        return found

    def _key(self, permutation: IntArray) -> tuple[int, ...]:
        return tuple(turned_back(permutation, self._rotors).tolist())

    def _preserves_rotors(self, permutation: IntArray) -> bool:
        places = {rotor.leaves for rotor in self._rotors}
        return all(tuple(sorted(permutation[list(rotor.leaves)].tolist())) in places for rotor in self._rotors)


def _rotor_name(numbers: IntArray, rotor: Rotor) -> str:
    centre, leaf = (chemical_symbols[numbers[atom]] for atom in (rotor.centre, rotor.leaves[0]))
    group = "methyl" if (centre, leaf) == ("C", "H") else f"{centre}{leaf}3 group"
    return f"{group} {centre}{rotor.centre} ({', '.join(f'{leaf}{atom}' for atom in rotor.leaves)})"


def _exchange_name(numbers: IntArray, permutation: IntArray, mirrored: bool) -> str:
    """Name a permutation by its cycles: `exchange of H3 and H4, H6 and H7`."""
    cycles, seen = [], set()
    for atom in range(len(permutation)):
        cycle = []
        while atom not in seen:
            seen.add(atom)
            cycle.append(f"{chemical_symbols[numbers[atom]]}{atom}")
            atom = int(permutation[atom])
        if len(cycle) > 1:
            cycles.append(" and ".join(cycle) if len(cycle) == 2 else "-".join(cycle))
    if len(cycles) > _NAMED:
        cycles[_NAMED:] = [f"and {len(cycles) - _NAMED} others"]
    return f"{'mirror image with ' if mirrored else ''}exchange of {', '.join(cycles)}"
