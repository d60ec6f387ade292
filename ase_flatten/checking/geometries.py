"""Check geometries: the unit of length, molecules that fell apart, frames that occur more than once.

The limits lie between the most extreme values of sound reference data and the least extreme ones that a mistake causes:
MD17, Langevin trajectories and random subsets of these, down to 200 frames, pass.
"""

from itertools import permutations

import numpy as np
from ase.data import chemical_symbols
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ase_flatten.checking.findings import Finding, as_frames, some
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import LENGTH_UNITS
from ase_flatten.geometry.bonds import bonded_pairs, count_fragments, radius_sums, smallest_fragment
from ase_flatten.geometry.pair_distances import NEAR_IDENTICAL, near_identical_pairs
from ase_flatten.utils.typing import FloatArray, IntArray

IDENTICAL = 1e-5
"""Frames are duplicates below this root-mean-square difference of their pair distances, Å."""
BOND_BAND = (0.7, 1.45)
"""The median nearest neighbour of an atom, in sums of covalent radii (0.91 to 1.01 in organic molecules)."""

_NOBLE_GASES = (2, 10, 18, 36, 54, 86)


def length_unit(dataset: Dataset, distances: FloatArray, *, rng: np.random.Generator) -> list[Finding]:
    """Compare the distance of each atom's nearest neighbour with the covalent radii."""
    bonding = ~np.isin(dataset.numbers, _NOBLE_GASES)
    if bonding.sum() < 2:
        return []
    frames = rng.permutation(dataset.n_frames)[:300]
    i, j = np.tril_indices(dataset.n_atoms, -1)
    ratios = np.full((len(frames), dataset.n_atoms, dataset.n_atoms), np.inf)
    ratios[:, i, j] = ratios[:, j, i] = distances[frames] / radius_sums(dataset.numbers)
    found = float(np.median(ratios.min(axis=2)[:, bonding]))
    if BOND_BAND[0] <= found <= BOND_BAND[1]:
        return []
    options = [
        (abs(np.log(max(found, 1e-9) * LENGTH_UNITS[true] / LENGTH_UNITS[declared])), true, declared)
        for true, declared in permutations(LENGTH_UNITS, 2)
    ]
    mismatch, true, declared = min(options)
    advice = (
        f"the positions look like {true} where {declared} was declared; declare {true}"
        if mismatch < 0.3
        else "no unit explains this; check the positions and the order of the elements"
    )
    message = f"neighbours must be about the sum of their covalent radii apart, found {found:.3g} times that: {advice}"
    return [Finding("refused", "length unit", message)]


def broken_molecules(dataset: Dataset, distances: FloatArray) -> list[Finding]:
    """Check for atoms that have left the molecule or are too close to each other."""
    findings = []
    close = 0.5 * radius_sums(dataset.numbers)
    too_close = np.zeros(dataset.n_frames, dtype=bool)
    for pair in np.flatnonzero(distances.min(axis=0) < close):
        too_close |= distances[:, pair] < close[pair]
    if too_close.any():
        message = (
            f"atoms must not overlap, found two within half a bond length in {some(too_close)}; remove these frames"
        )
        findings.append(
            Finding("refused", "atoms too close", message, as_frames(too_close), ("two atoms are too close",))
        )
    n_fragments = count_fragments(dataset.numbers, distances)
    usual = _usual_fragments(dataset.numbers, distances, n_fragments)
    if usual > 1:
        message = f"one molecule is expected, found {usual} in most frames; ignore this if a complex is intended"
        findings.append(Finding("note", "complex", message))
    broken = n_fragments > usual
    if broken.any():
        first = int(np.argmax(broken))
        atom, _ = smallest_fragment(dataset.numbers, distances[first])
        who = f"atom {atom} ({chemical_symbols[dataset.numbers[atom]]})"
        message = (
            f"all atoms must stay bonded to the molecule, found it broken in {some(broken)}, where {who} has "
            "left it; remove these frames"
        )
        findings.append(Finding("refused", "broken molecules", message, as_frames(broken), ("the molecule is broken",)))
    return findings


def _usual_fragments(numbers: IntArray, distances: FloatArray, n_fragments: IntArray) -> int:
    """Count the molecules of a sound frame.

    A complex of several molecules is sound; the members of each are connected by bonds of short median length. An atom
    that is bonded in one frame and isolated in most of them has been lost.
    """
    usual = int(np.median(n_fragments))
    if usual > 1:
        _, size = smallest_fragment(numbers, distances[np.argmax(n_fragments == usual)])
        if size == 1 and n_fragments.min() < usual and not np.isin(numbers, _NOBLE_GASES).any():
            return 1  # lost early, and missing since then
    i, j = np.tril_indices(len(numbers), -1)
    bonded = bonded_pairs(numbers, np.median(distances, axis=0))
    graph = coo_array((np.ones(bonded.sum()), (i[bonded], j[bonded])), shape=(len(numbers),) * 2)
    members = np.bincount(connected_components(graph, directed=False)[1])
    apart = len(members) if members.min() > 1 or np.isin(numbers, _NOBLE_GASES).any() else 1
    return max(usual, apart)


def duplicates(dataset: Dataset, distances: FloatArray, lengths: FloatArray) -> list[Finding]:
    """Check for frames that occur more than once, exactly or nearly.

    A molecule of two atoms has a single distance, which may coincide by chance: its frames are duplicates only if their
    positions are the same.

    Parameters
    ----------
    lengths : (n_frames,) array, Å
        Root-mean-square difference of the pair distances to a near frame.
    """
    same, message, frames, reasons = _same_frames(dataset, distances, lengths)
    findings = [Finding("refused", "duplicates", message, frames, reasons)] if frames else []
    near = (lengths < NEAR_IDENTICAL) & ~same
    if near.any() and dataset.n_atoms > 2:
        # Counted by nearest neighbours: all pairs would not fit into memory if a trajectory hardly moves.
        message = (
            f"frames should differ, found {near.sum()} of {dataset.n_frames} with another within {NEAR_IDENTICAL} Å; "
            "these are kept on the same side of every split; sample less often to make them useful"
        )
        findings.append(Finding("note", "near-identical", message))
    return findings


def _same_frames(
    dataset: Dataset, distances: FloatArray, lengths: FloatArray
) -> tuple[np.ndarray, str, tuple[int, ...], tuple[str, ...]]:
    """Group duplicates.

    Returns
    -------
    same : (n_frames,) bool array
        Frames that have a duplicate.
    message : str
    remove, reasons : tuples
        Frames to remove, all but one of each group, or all if their labels differ; and why.
    """
    n_frames = dataset.n_frames
    candidates = np.flatnonzero(lengths < IDENTICAL)
    pairs = np.empty((0, 2), dtype=np.int64)
    if len(candidates) > 1:
        described = distances[candidates] if dataset.n_atoms > 2 else dataset.positions[candidates].reshape(-1, 6)
        pairs = candidates[near_identical_pairs(described, tolerance=IDENTICAL)]
    same = np.zeros(n_frames, dtype=bool)
    same[pairs.ravel()] = True
    if not len(pairs):
        return same, "", (), ()
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n_frames, n_frames))
    _, groups = connected_components(graph, directed=False)
    sizes = np.linalg.norm(dataset.forces, axis=2)
    a, b = pairs.T
    contradict = np.abs(dataset.energies[a] - dataset.energies[b]) > 1e-3
    contradict |= np.abs(sizes[a] - sizes[b]).max(axis=1) > 1e-2
    contradicted = np.isin(groups, groups[a[contradict]])
    first = np.zeros(n_frames, dtype=bool)
    first[np.unique(groups, return_index=True)[1]] = True
    leave = as_frames(same & (contradicted | ~first))
    reasons = tuple(
        "another frame has this geometry with other labels" if contradicted[frame] else "an earlier frame is the same"
        for frame in leave
    )
    one, other = sorted(pairs[int(np.argmax(contradict))])
    found = f"found {same.sum()} of {n_frames} frames that occur more than once"
    message = (
        f"a geometry must have one energy and one set of forces, {found}, some with other labels (such as frames "
        f"{one} and {other}); find out which are right and keep those"
        if contradict.any()
        else f"all frames must differ, {found} (such as frames {one} and {other}); keep one of each"
    )
    return same, message, leave, reasons
