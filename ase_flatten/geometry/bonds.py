"""Which atoms are bonded, by their distances and covalent radii.

There are three criteria, for three questions:

==================  ====================================  ==========================================================
criterion           question                              where
==================  ====================================  ==========================================================
`bonded_pairs`      Which bonds does the molecule have?   checks of units, atom order and complexes; bond lengths in
                    From mean or median distances.        distance distributions
`bond_graphs`       Which sets of bonds occur in the      what is known of a molecule (`data.known_molecule`), and
                    data? From each frame.                through it the criteria of molecular dynamics
`connected_pairs`   Is the molecule in one piece?         `count_fragments`: checks, sampling, molecular dynamics
                    From each frame, generously.
==================  ====================================  ==========================================================

Pictures (`report.molecule_drawing`) have limits of their own, because they draw stretched and hydrogen bonds as well.
"""

import numpy as np
from ase.data import covalent_radii
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ase_flatten.utils.blocks import blocks
from ase_flatten.utils.typing import BoolArray, FloatArray, IntArray

BONDED = 1.25
"""For mean or median distances: atoms are bonded below this multiple of the sum of their covalent radii."""

CLEARLY_BONDED = 1.3
"""For a single frame: thermally stretched bonds stay below this multiple, other distances above it."""

CONNECTED = 1.5
"""For the connection of a molecule: this multiple, and with a hydrogen atom `HYDROGEN_MARGIN` more."""

HYDROGEN_MARGIN = 0.3
"""Å. A proton halfway between two oxygen atoms is connected to both."""


def radius_sums(numbers: IntArray) -> FloatArray:
    """Return the sum of the covalent radii of each pair of atoms.

    Returns
    -------
    (n_pairs,) array, Å
        In the order of `pair_distances`.
    """
    radii = covalent_radii[numbers]
    i, j = np.tril_indices(len(numbers), -1)
    return np.asarray(radii[i] + radii[j])


def bonded_pairs(numbers: IntArray, mean_distances: FloatArray) -> BoolArray:
    """Return which bonds a molecule has.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    mean_distances : (n_pairs,) array, Å
        Mean or median of each pair distance over many frames.

    Returns
    -------
    (n_pairs,) bool array
    """
    return np.asarray(mean_distances < BONDED * radius_sums(numbers))


def connected_pairs(numbers: IntArray, distances: FloatArray) -> BoolArray:
    """Return which pairs hold the molecule together in each frame, however stretched the bond.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    distances : (n_frames, n_pairs) array, Å

    Returns
    -------
    (n_frames, n_pairs) bool array
    """
    i, j = np.tril_indices(len(numbers), -1)
    hydrogen = (numbers[i] == 1) | (numbers[j] == 1)
    return np.asarray(distances < CONNECTED * radius_sums(numbers) + HYDROGEN_MARGIN * hydrogen)


def bond_graphs(numbers: IntArray, distances: FloatArray) -> tuple[BoolArray, IntArray, FloatArray]:
    """Find the sets of bonds that occur in the data: one for each form of a molecule whose bonds change.

    A pair is bonded below 1.3 times the sum of the covalent radii. Thermal stretching does not break a bond: a pair
    that is bonded in most frames remains bonded as long as it is connected (`connected_pairs`), and so does an atom
    and its nearest neighbour, such as a proton halfway between two atoms. A frame with all bonds of a graph has that
    graph; therefore graphs that contain another one are left out.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    distances : (n_frames, n_pairs) array, Å

    Returns
    -------
    graphs : (n_graphs, n_pairs) bool array
    counts : (n_graphs,) int array
        Number of frames with each graph.
    longest : (n_pairs,) array, Å
        The longest distance of each pair while it is bonded; 0 if it never is.
    """
    sums = radius_sums(numbers)
    usual = np.mean(distances < CLEARLY_BONDED * sums, axis=0) > 0.5
    longest = np.zeros(distances.shape[1])
    found: set[bytes] = set()
    for block in blocks(len(distances), 64 * distances.shape[1]):
        part = distances[block]
        near = connected_pairs(numbers, part)
        bonded = (part < CLEARLY_BONDED * sums) | (usual & near) | (_nearest(numbers, part / sums) & near)
        longest = np.maximum(longest, np.max(part, axis=0, where=bonded, initial=0))
        found |= {row.tobytes() for row in np.unique(np.packbits(bonded, axis=1), axis=0)}
    packed = np.array([np.frombuffer(row, dtype=np.uint8) for row in sorted(found)])
    graphs = _minimal(np.unpackbits(packed, axis=1, count=distances.shape[1]).astype(bool))
    counts = np.array([np.sum((distances[:, graph] <= longest[graph]).all(axis=1)) for graph in graphs])
    return graphs, counts.astype(np.int64), longest


def _nearest(numbers: IntArray, relative: FloatArray) -> BoolArray:
    """Return which pairs are an atom and its nearest neighbour, by distances relative to the covalent radii."""
    i, j = np.tril_indices(len(numbers), -1)
    nearest = np.zeros(relative.shape, dtype=bool)
    rows = np.arange(len(relative))
    for atom in range(len(numbers)):
        of_atom = np.flatnonzero((i == atom) | (j == atom))
        nearest[rows, of_atom[relative[:, of_atom].argmin(axis=1)]] = True
    return nearest


def _minimal(graphs: BoolArray) -> BoolArray:
    """Return the graphs that do not contain all bonds of another one."""
    kept: list[BoolArray] = []
    for graph in graphs[np.argsort(graphs.sum(axis=1), kind="stable")]:
        if not any(graph[smaller].all() for smaller in kept):
            kept.append(graph)
    return np.array(kept)


def count_fragments(numbers: IntArray, distances: FloatArray) -> IntArray:
    """Count the fragments of each frame, by `connected_pairs`.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    distances : (n_frames, n_pairs) array, Å

    Returns
    -------
    (n_frames,) int array
        1 if the molecule is whole.
    """
    n_atoms = len(numbers)
    counts = np.ones(len(distances), dtype=np.int64)
    if _labels(numbers, distances.max(axis=0)[None]).max() == 0:
        return counts  # pairs that are connected in every frame hold the molecule together
    for block in blocks(len(distances), 32 * distances.shape[1]):
        labels = _labels(numbers, distances[block])
        frame_of_fragment = np.empty(labels.max() + 1, dtype=np.int64)
        frame_of_fragment[labels] = np.repeat(np.arange(len(labels) // n_atoms), n_atoms)
        counts[block] = np.bincount(frame_of_fragment)
    return counts


def _labels(numbers: IntArray, distances: FloatArray) -> IntArray:
    """Return the fragment of each atom of each frame, numbered consecutively over all frames."""
    n_atoms = len(numbers)
    frames, pairs = np.nonzero(connected_pairs(numbers, distances))
    i, j = np.tril_indices(n_atoms, -1)
    n_nodes = len(distances) * n_atoms
    edges = (frames * n_atoms + i[pairs], frames * n_atoms + j[pairs])
    graph = coo_array((np.ones(len(frames), dtype=np.int8), edges), shape=(n_nodes, n_nodes))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def smallest_fragment(numbers: IntArray, distances: FloatArray) -> tuple[int, int]:
    """Return an atom of the smallest fragment of one frame, and the size of that fragment.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    distances : (n_pairs,) array, Å
    """
    labels = _labels(numbers, distances[None])
    sizes = np.bincount(labels)
    return int(np.argmax(labels == np.argmin(sizes))), int(sizes.min())
