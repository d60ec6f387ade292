"""Permutations of like atoms that preserve the bonds of a molecule, or map one of its sets of bonds onto another.

The group of all of them is large, for a methyl group alone 3!, and is never listed. Leaves, atoms with a single bond,
are taken off the graph of the bonds, whose automorphisms are then few, and put back in the ways that preserve the
handedness of all tetrahedral atoms, or invert it in all of them: pair distances do not see a reflection, so the mirror
image of a molecule may be the same place with its atoms exchanged.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, permutations, product
from typing import Any

import numpy as np

from ase_flatten.geometry.bonds import bond_graphs
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.utils.typing import BoolArray, FloatArray, IntArray

MOST_CANDIDATES = 2000
"""Largest number of permutations, apart from rotations of rotors, that are listed."""

_ROTATING = (1, 8, 9)
"""Three hydrogen, oxygen or fluorine atoms (CH3, NH3, SO3, CF3) rotate over low barriers; larger atoms need not."""

_MOST_GRAPHS = 8
"""Of several sets of bonds, the most frequent ones are considered."""

_LEAST_SHARE = 0.01
"""Sets of bonds that occur in a smaller share of the frames are ignored."""

_RIGID = 0.98
"""Two atoms have a fixed relative handedness if it is the same in this share of the frames."""

_PLANAR = 0.5
"""Volume of the directions of three bonds, below which an atom counts as planar; 0.77 in a tetrahedron."""

_Map = dict[int, int]


@dataclass(frozen=True)
class Rotor:
    """Three like leaves of a tetrahedral atom, such as the hydrogen atoms of a methyl group.

    Parameters
    ----------
    centre : int
    leaves : (int, int, int)
        In ascending order.
    axis : int
        The fourth neighbour of the centre.
    """

    centre: int
    leaves: tuple[int, int, int]
    axis: int

    def rotation(self, n_atoms: int) -> IntArray:
        """Return the permutation of all atoms that puts each leaf in the place of the one before."""
        found = np.arange(n_atoms)
        found[list(self.leaves)] = np.roll(self.leaves, -1)
        return found


@dataclass(frozen=True, eq=False)
class BondSymmetries:
    """Permutations of like atoms by the bonds.

    Parameters
    ----------
    bonds : (n_atoms, n_atoms) bool array
        The most frequent bonds.
    rotors : tuple of Rotor
        Those of all sets of bonds.
    others : (n_others, n_atoms) int array
        Permutations other than rotations of rotors, without the identity; of those that differ by such rotations,
        the one that `turned_back` returns.
    mirrored : (n_others,) bool array
        Whether each inverts the handedness.
    complete : bool
        False if there are more than `MOST_CANDIDATES`.
    """

    bonds: BoolArray
    rotors: tuple[Rotor, ...]
    others: IntArray
    mirrored: BoolArray
    complete: bool


def bond_symmetries(numbers: IntArray, positions: FloatArray) -> BondSymmetries:
    """Find the permutations of like atoms by the bonds that occur in the data.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    positions : (n_frames, n_atoms, 3) array, Å
    """
    found, counts, _ = bond_graphs(numbers, pair_distances(positions))
    order = np.argsort(-counts, kind="stable")
    frequent = [k for k in order[:_MOST_GRAPHS] if counts[k] >= _LEAST_SHARE * len(positions)] or order[:1]
    graphs = [_BondGraph.of(numbers, found[k]) for k in frequent]
    rotors = tuple(rotor for rotor in graphs[0].rotors if all(rotor in graph.rotors for graph in graphs))
    handedness = _handedness(positions, graphs)
    candidates: dict[tuple[int, ...], bool] = {}
    complete = True
    for graph, other in product(graphs, graphs):
        skeletons, all_of_them = _skeleton_maps(graph, other)
        maps = (one for skeleton in skeletons for one in _with_leaves(skeleton, graph, other, rotors, handedness))
        some = list(islice(maps, MOST_CANDIDATES + 1))
        complete &= all_of_them and len(some) <= MOST_CANDIDATES
        for permutation, mirrored in some[:MOST_CANDIDATES]:
            candidates.setdefault(permutation, mirrored)
    candidates.pop(tuple(range(len(numbers))), None)
    others = sorted(candidates, key=lambda permutation: (_n_moved(permutation), permutation))
    return BondSymmetries(
        bonds=graphs[0].bonds,
        rotors=rotors,
        others=np.array(others, dtype=np.int64).reshape(-1, len(numbers)),
        mirrored=np.array([candidates[permutation] for permutation in others], dtype=bool),
        complete=complete,
    )


def turned_back(permutation: IntArray, rotors: tuple[Rotor, ...]) -> IntArray:
    """Return the permutation that stands for all that differ from it by rotations: the first leaf gets the first atom.

    Parameters
    ----------
    permutation : (n_atoms,) int array
        One that puts the leaves of each rotor in the places of those of a rotor.
    """
    found = permutation.copy()
    for rotor in rotors:
        leaves = list(rotor.leaves)
        found[leaves] = np.roll(found[leaves], -int(np.argmin(found[leaves])))
    return found


@dataclass(frozen=True, eq=False)
class _BondGraph:
    """The atoms and one set of bonds."""

    numbers: IntArray
    bonds: BoolArray

    @classmethod
    def of(cls, numbers: IntArray, bonded: BoolArray) -> "_BondGraph":
        i, j = np.tril_indices(len(numbers), -1)
        bonds = np.zeros((len(numbers), len(numbers)), dtype=bool)
        bonds[i[bonded], j[bonded]] = bonds[j[bonded], i[bonded]] = True
        return cls(numbers, bonds)

    @cached_property
    def leaves(self) -> dict[int, dict[int, list[int]]]:
        """The leaves of each atom, by their atomic number."""
        found: dict[int, dict[int, list[int]]] = {}
        n_bonds = self.bonds.sum(axis=0)
        for leaf in np.flatnonzero(n_bonds == 1).tolist():
            (atom,) = np.flatnonzero(self.bonds[leaf]).tolist()
            if n_bonds[atom] > 1:
                found.setdefault(atom, {}).setdefault(int(self.numbers[leaf]), []).append(leaf)
        return found

    @cached_property
    def skeleton(self) -> Any:
        """The graph without leaves, for networkx; each atom knows its element and those of its leaves."""
        import networkx

        leaves = {leaf for groups in self.leaves.values() for group in groups.values() for leaf in group}
        graph = networkx.Graph()
        for atom in range(len(self.numbers)):
            if atom not in leaves:
                groups = self.leaves.get(atom, {})
                kind = (int(self.numbers[atom]), tuple(sorted((number, len(groups[number])) for number in groups)))
                graph.add_node(atom, kind=kind)
        pairs = np.argwhere(np.triu(self.bonds)).tolist()
        graph.add_edges_from((a, b) for a, b in pairs if a not in leaves and b not in leaves)
        return graph

    @cached_property
    def rotors(self) -> list[Rotor]:
        """The groups of three like leaves that rotate over a low barrier."""
        found = []
        for centre, groups in sorted(self.leaves.items()):
            neighbours = set(np.flatnonzero(self.bonds[centre]).tolist())
            for number, group in groups.items():
                if len(group) == 3 and len(neighbours) == 4 and number in _ROTATING:
                    (axis,) = neighbours - set(group)
                    found.append(Rotor(centre, (group[0], group[1], group[2]), axis))
        return found


def _skeleton_maps(graph: _BondGraph, other: _BondGraph) -> tuple[list[_Map], bool]:
    """Return the maps of one skeleton onto another, and whether these are all.

    If there are too many, those of single branches come first: all atoms outside of the branch remain in place.
    """
    found = list(islice(_isomorphisms(graph.skeleton, other.skeleton), MOST_CANDIDATES + 1))
    if len(found) <= MOST_CANDIDATES:
        return found, True
    return [*(_branch_maps(graph.skeleton) if graph is other else []), *found[:MOST_CANDIDATES]], False


def _branch_maps(skeleton: Any) -> Iterator[_Map]:
    """Yield the maps of each branch onto itself: what is left on one side if a bond outside of rings is cut."""
    import networkx

    for bridge in networkx.bridges(skeleton):
        for stem, branch in (bridge, bridge[::-1]):
            cut = skeleton.copy()
            cut.remove_edge(stem, branch)
            atoms = networkx.node_connected_component(cut, branch)
            if 2 * len(atoms) > len(skeleton):
                continue
            part = skeleton.subgraph(atoms).copy()
            part.nodes[branch]["kind"] = "stays in place"
            for found in islice(_isomorphisms(part, part), MOST_CANDIDATES):
                yield {atom: found.get(atom, atom) for atom in skeleton}


def _isomorphisms(graph: Any, other: Any) -> Iterator[_Map]:
    from networkx.algorithms.isomorphism import GraphMatcher

    return iter(GraphMatcher(graph, other, node_match=lambda a, b: a["kind"] == b["kind"]).isomorphisms_iter())


def _with_leaves(
    skeleton: _Map, graph: _BondGraph, other: _BondGraph, rotors: tuple[Rotor, ...], handedness: "_Handedness"
) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Yield the permutations that move the skeleton as given, and whether they invert the handedness."""
    for mirrored in (False, True):
        choices = []
        for atom in skeleton:
            ways = _ways_of_leaves(graph.leaves.get(atom, {}), other.leaves.get(skeleton[atom], {}), rotors)
            choices.append([way for way in ways if handedness.allows(atom, {**skeleton, **way}, mirrored)])
        for choice in product(*choices):
            moved = dict(skeleton)
            for way in choice:
                moved.update(way)
            yield tuple(moved[atom] for atom in range(len(moved))), mirrored


def _ways_of_leaves(
    groups: dict[int, list[int]], places: dict[int, list[int]], rotors: tuple[Rotor, ...]
) -> Iterator[_Map]:
    """Yield the ways to put the leaves of one atom in the places of those of another; not those that are rotations."""
    freely = {rotor.leaves for rotor in rotors}
    choices = []
    for number, group in groups.items():
        first, *rest = place = places[number]
        turned = tuple(group) in freely and tuple(place) in freely
        choices.append([(first, *rest), (first, *rest[::-1])] if turned else list(permutations(place)))
    leaves = [leaf for group in groups.values() for leaf in group]
    for choice in product(*choices):
        yield dict(zip(leaves, (place for places_of in choice for place in places_of), strict=True))


@dataclass(frozen=True)
class _Handedness:
    """The sign of the volume that the neighbours of each rigid atom span, and these neighbours in ascending order."""

    signs: dict[int, int]
    neighbours: dict[int, tuple[int, ...]]

    def allows(self, atom: int, moved: _Map, mirrored: bool) -> bool:
        """Return whether a map preserves (or inverts) the handedness of an atom, as far as it is fixed."""
        place = moved[atom]
        if atom not in self.signs or place not in self.signs:
            return True
        images = [moved[neighbour] for neighbour in self.neighbours[atom]]
        if set(images) != set(self.neighbours[place]):
            return True
        sign = self.signs[place] * _parity(images)
        return sign == (-self.signs[atom] if mirrored else self.signs[atom])


def _handedness(positions: FloatArray, graphs: list[_BondGraph]) -> _Handedness:
    """Find the atoms with three or four neighbours whose handedness, relative to one another, never changes."""
    first = graphs[0].bonds
    same = np.all([(graph.bonds == first).all(axis=0) for graph in graphs], axis=0)
    neighbours = {
        atom: tuple(np.flatnonzero(first[atom]).tolist())
        for atom in np.flatnonzero(same & np.isin(first.sum(axis=0), (3, 4))).tolist()
    }
    if not neighbours:
        return _Handedness({}, {})
    volumes = np.array([_volumes(positions, atom, others) for atom, others in neighbours.items()])
    tetrahedral = np.median(np.abs(volumes), axis=1) > _PLANAR
    neighbours = {atom: others for (atom, others), one in zip(neighbours.items(), tetrahedral, strict=True) if one}
    if not neighbours:
        return _Handedness({}, {})
    signs = np.sign(volumes[tetrahedral])
    relative = signs @ signs.T / len(positions)
    rigid = np.abs(relative) > _RIGID
    reference = int(np.argmax(rigid.sum(axis=0)))
    return _Handedness(
        {atom: int(np.sign(relative[row, reference])) for row, atom in enumerate(neighbours) if rigid[row, reference]},
        neighbours,
    )


def _volumes(positions: FloatArray, atom: int, neighbours: tuple[int, ...]) -> FloatArray:
    """Return the volume that the directions from an atom to its neighbours span in each frame.

    With four neighbours, a fourth of the volume of the tetrahedron of their directions: 0.77 if it is regular, as for
    three of its directions.
    """
    bonds = positions[:, neighbours] - positions[:, [atom]]
    directions = bonds / np.linalg.norm(bonds, axis=2, keepdims=True)
    if len(neighbours) == 3:
        return np.asarray(np.linalg.det(directions))
    return np.asarray(np.linalg.det(directions[:, :3] - directions[:, 3:])) / 4


def _parity(images: list[int]) -> int:
    """Return 1 for an even permutation of numbers in ascending order, -1 for an odd one."""
    n_inversions = sum(a > b for place, b in enumerate(images) for a in images[:place])
    return -1 if n_inversions % 2 else 1


def _n_moved(permutation: tuple[int, ...]) -> int:
    return sum(place != atom for atom, place in enumerate(permutation))
