"""Which atoms are bonded, by their distances and covalent radii."""

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ase_flatten.utils.blocks import blocks
from ase_flatten.utils.typing import FloatArray, IntArray

BONDED = 1.25
"""Atoms are bonded up to this multiple of the sum of their covalent radii."""


CLEARLY_BONDED = 1.3
"""In one frame: thermal stretches of bonds stay below this multiple, other distances above it."""


def radius_sums(numbers: IntArray) -> FloatArray:
    """Add the covalent radii of each pair of atoms.

    Returns
    -------
    (n_pairs,) array, Å
        In the order of `pair_distances`.
    """
    radii = covalent_radii[numbers]
    i, j = np.tril_indices(len(numbers), -1)
    return np.asarray(radii[i] + radii[j])


def bonded_pairs(numbers: IntArray, mean_distances: FloatArray) -> NDArray[np.bool_]:
    """Return which pairs are bonded in data of these mean distances, (n_pairs,) in Å and in bool."""
    return np.asarray(mean_distances < BONDED * radius_sums(numbers))


def bond_graphs(numbers: IntArray, distances: FloatArray) -> tuple[NDArray[np.bool_], IntArray, FloatArray]:
    """Find the sets of bonds that occur in data: one for each form of a molecule whose bonds change.

    A pair is bonded below 1.3 times the sum of the covalent radii. Thermal stretches are no breaks: a pair that is
    bonded in most frames stays so up to the generous distance of `count_fragments`, and an atom stays bonded to its
    nearest neighbour, such as a proton halfway between two atoms. A frame with all bonds of a graph has
    that graph, so that those which contain another one are left out.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    distances : (n_frames, n_pairs) array, Å

    Returns
    -------
    graphs : (n_graphs, n_pairs) bool array
    counts : (n_graphs,) int array
        Frames that contain each graph.
    longest : (n_pairs,) array, Å
        The longest distance of each pair while it is bonded; 0 where it never is.
    """
    sums = radius_sums(numbers)
    usual = np.mean(distances < CLEARLY_BONDED * sums, axis=0) > 0.5
    longest = np.zeros(distances.shape[1])
    found: set[bytes] = set()
    for block in blocks(len(distances), 64 * distances.shape[1]):
        part = distances[block]
        near = _bonds(numbers, part)
        bonded = (part < CLEARLY_BONDED * sums) | (usual & near) | (_nearest(numbers, part / sums) & near)
        longest = np.maximum(longest, np.max(part, axis=0, where=bonded, initial=0))
        found |= {row.tobytes() for row in np.unique(np.packbits(bonded, axis=1), axis=0)}
    packed = np.array([np.frombuffer(row, dtype=np.uint8) for row in sorted(found)])
    graphs = _minimal(np.unpackbits(packed, axis=1, count=distances.shape[1]).astype(bool))
    counts = np.array([np.sum((distances[:, graph] <= longest[graph]).all(axis=1)) for graph in graphs])
    return graphs, counts.astype(np.int64), longest


def _nearest(numbers: IntArray, relative: FloatArray) -> NDArray[np.bool_]:
    """Return which pairs are an atom and its nearest neighbour, in terms of their radii."""
    i, j = np.tril_indices(len(numbers), -1)
    nearest = np.zeros(relative.shape, dtype=bool)
    rows = np.arange(len(relative))
    for atom in range(len(numbers)):
        of_atom = np.flatnonzero((i == atom) | (j == atom))
        nearest[rows, of_atom[relative[:, of_atom].argmin(axis=1)]] = True
    return nearest


def _minimal(graphs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Leave out graphs that contain all bonds of another one."""
    kept: list[NDArray[np.bool_]] = []
    for graph in graphs[np.argsort(graphs.sum(axis=1), kind="stable")]:
        if not any(graph[smaller].all() for smaller in kept):
            kept.append(graph)
    return np.array(kept)


def _bonds(numbers: IntArray, distances: FloatArray) -> NDArray[np.bool_]:
    # Generous: a proton halfway between two oxygen atoms is bonded to both.
    i, j = np.tril_indices(len(numbers), -1)
    hydrogen = (numbers[i] == 1) | (numbers[j] == 1)
    return distances < 1.5 * radius_sums(numbers) + 0.3 * hydrogen


def count_fragments(numbers: IntArray, distances: FloatArray) -> IntArray:
    """Count the bonded fragments of each frame: one sparse graph for a block of frames.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    distances : (n_frames, n_pairs) array, Å

    Returns
    -------
    (n_frames,) int array
        1 where the molecule is whole.
    """
    n_atoms = len(numbers)
    counts = np.ones(len(distances), dtype=np.int64)
    if _labels(numbers, distances.max(axis=0)[None]).max() == 0:
        return counts  # the bonds that every frame has connect the molecule
    for block in blocks(len(distances), 32 * distances.shape[1]):
        labels = _labels(numbers, distances[block])
        frame_of_fragment = np.empty(labels.max() + 1, dtype=np.int64)
        frame_of_fragment[labels] = np.repeat(np.arange(len(labels) // n_atoms), n_atoms)
        counts[block] = np.bincount(frame_of_fragment)
    return counts


def _labels(numbers: IntArray, distances: FloatArray) -> IntArray:
    """Return the fragment of each atom of each frame, numbered through all frames."""
    n_atoms = len(numbers)
    frames, pairs = np.nonzero(_bonds(numbers, distances))
    i, j = np.tril_indices(n_atoms, -1)
    n_nodes = len(distances) * n_atoms
    edges = (frames * n_atoms + i[pairs], frames * n_atoms + j[pairs])
    graph = coo_array((np.ones(len(frames), dtype=np.int8), edges), shape=(n_nodes, n_nodes))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def smallest_fragment(numbers: IntArray, distances: FloatArray) -> tuple[int, int]:
    """Return an atom of the smallest fragment of one frame, and that fragment's size.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    distances : (n_pairs,) array, Å
    """
    labels = _labels(numbers, distances[None])
    sizes = np.bincount(labels)
    return int(np.argmax(labels == np.argmin(sizes))), int(sizes.min())
