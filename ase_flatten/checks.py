"""Look a data set over: what would spoil a model, in one sentence each.

Reading errors (shapes, NaN, periodic cells, a changing composition) are InputErrors of `io` and `Dataset`.
The bands below are set between the largest value that sound reference data show and the smallest that a mistake
makes: MD17, Langevin trajectories and random subsets of them, down to 200 frames, pass.
"""

from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from ase_flatten.bonds import count_fragments, radius_sums, smallest_fragment
from ase_flatten.dataset import Dataset, FloatArray, IntArray
from ase_flatten.descriptors import NEAR_IDENTICAL, nearest_frames, pair_distances
from ase_flatten.energy_forces import TIGHT_RMSD, EnergySlope, close_pairs, energy_shift, energy_slope, explain_slope
from ase_flatten.progress import SILENT, Progress
from ase_flatten.units import LENGTH_UNITS

USEFUL_FRAMES = 100
IDENTICAL = 1e-5
"""Frames are duplicates below this root-mean-square difference of their pair distances, Å."""
NET_FORCE_BAND = (1e-3, 5e-2)
"""Net forces and torques are noted and refused above these parts of what random atomic forces would sum to."""
BOND_BAND = (0.7, 1.45)
"""The median nearest neighbour of an atom, in sums of covalent radii (0.91 to 1.01 in organic molecules)."""
SLOPE_BAND = (0.8, 1.25)
"""The slope of ΔE on the work of the forces: unit mistakes are factors of 1.6 and more, or a sign."""
MIN_PAIRS = 20
"""Fewer pairs of close frames than this say nothing about energies and forces."""
MIXED = 0.15
"""The work of forces that energies may contradict where frames are close."""
MIXED_ALIKE = 0.8
"""The part of that work above which one factor, and so another unit, explains the contradiction."""
OUTLIER = 20.0
"""Robust standard deviations beyond which a frame is named."""


@dataclass(frozen=True)
class Finding:
    """Say one thing that is wrong, or worth knowing, about a data set."""

    level: Literal["refused", "note"]
    what: str
    """A short key, such as "duplicates"."""
    message: str
    """One sentence: what was expected, what was found, what to do."""


def check_dataset(dataset: Dataset, *, rng: np.random.Generator, progress: Progress = SILENT) -> list[Finding]:
    """Look for what would spoil a model: duplicates, wrong units, broken molecules, labels that do not belong.

    Returns
    -------
    list of Finding
        Empty when all is well.
    """
    with progress.task("looking the data set over", 5) as advance:
        distances = pair_distances(dataset.positions)
        advance(1)
        findings = _few_frames(dataset) + _outliers(dataset) + _net_forces(dataset)
        advance(1)
        wrong_unit = _length_unit(dataset, distances, rng=rng)
        if wrong_unit:
            # Every other distance criterion would only repeat it.
            return findings + wrong_unit
        findings += _broken_molecules(dataset, distances)
        advance(1)
        nearest, lengths = nearest_frames(distances)
        lengths /= np.sqrt(distances.shape[1])
        findings += _duplicates(dataset, nearest, lengths)
        advance(1)
        pairs = close_pairs(distances, nearest, lengths, beyond=IDENTICAL, rng=rng)
        findings += _energies(dataset, energy_slope(dataset, pairs), energy_shift(dataset, rng=rng))
        advance(1)
    return findings


def _few_frames(dataset: Dataset) -> list[Finding]:
    message = f"at least {USEFUL_FRAMES} frames are useful, found {dataset.n_frames}; compute more before you train"
    return [Finding("note", "few frames", message)] if dataset.n_frames < USEFUL_FRAMES else []


def _outliers(dataset: Dataset) -> list[Finding]:
    if dataset.n_frames < USEFUL_FRAMES:
        return []
    findings = []
    largest = np.abs(dataset.forces).max(axis=(1, 2))
    for what, values in (("energy", dataset.energies), ("force", largest)):
        deviation = np.abs(values - np.median(values))
        scale = 1.4826 * np.median(deviation)
        far = deviation > OUTLIER * scale
        if scale > 0 and far.any():
            message = (
                f"the {what} must be of one size in all frames, found it more than {OUTLIER:g} robust standard "
                f"deviations away in {_some(far)}, most in frame {np.argmax(deviation)}; look whether these converged"
            )
            findings.append(Finding("note", f"{what} outliers", message))
    return findings


def _net_forces(dataset: Dataset) -> list[Finding]:
    """Compare net force and torque with what independent atomic forces of this size would sum to."""
    masses = atomic_masses[dataset.numbers]
    centred = dataset.positions - (np.einsum("a,fax->fx", masses, dataset.positions) / masses.sum())[:, None]
    typical = np.sqrt(dataset.n_atoms * np.mean(np.sum(dataset.forces**2, axis=2)))
    if typical == 0:
        message = "forces must change from frame to frame, found zeros only; write the forces with the structures"
        return [Finding("refused", "no forces", message)]
    radius = np.sqrt(np.mean(np.sum(centred**2, axis=2)))
    torque = _cross_sum(centred, dataset.forces)
    findings = []
    for what, net in (("force", dataset.forces.sum(axis=1) / typical), ("torque", torque / (radius * typical))):
        size = np.linalg.norm(net, axis=1)
        noted, refused = NET_FORCE_BAND
        bad = size > refused
        rms = np.sqrt(np.mean(size**2))
        expected = f"the net {what} on an isolated molecule must vanish"
        if bad.any():
            message = (
                f"{expected}, found more than {refused:.0%} of what random forces would give in {_some(bad)}; look "
                "for an external field, constraints, or forces that belong to other frames"
            )
            findings.append(Finding("refused", f"net {what}", message))
        elif rms > noted:
            message = f"{expected}, found {rms:.1%} of what random forces would give; converge the forces more tightly"
            findings.append(Finding("note", f"net {what}", message))
    return findings


def _cross_sum(positions: FloatArray, forces: FloatArray) -> FloatArray:
    # The antisymmetric part of the virial: no array of the size of the positions is made.
    virial = positions.transpose(0, 2, 1) @ forces
    return np.stack([virial[:, y, z] - virial[:, z, y] for y, z in ((1, 2), (2, 0), (0, 1))], axis=1)


def _length_unit(dataset: Dataset, distances: FloatArray, *, rng: np.random.Generator) -> list[Finding]:
    """Compare the distance of each atom's nearest neighbour with the covalent radii."""
    frames = rng.permutation(dataset.n_frames)[:300]
    i, j = np.tril_indices(dataset.n_atoms, -1)
    ratios = np.full((len(frames), dataset.n_atoms, dataset.n_atoms), np.inf)
    ratios[:, i, j] = ratios[:, j, i] = distances[frames] / radius_sums(dataset.numbers)
    found = float(np.median(ratios.min(axis=2)))
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


def _broken_molecules(dataset: Dataset, distances: FloatArray) -> list[Finding]:
    """Look for atoms that left the molecule or fell into each other."""
    findings = []
    close = 0.5 * radius_sums(dataset.numbers)
    too_close = np.zeros(dataset.n_frames, dtype=bool)
    for pair in np.flatnonzero(distances.min(axis=0) < close):
        too_close |= distances[:, pair] < close[pair]
    if too_close.any():
        message = f"atoms must stay apart, found two nearer than half a bond in {_some(too_close)}; remove these frames"
        findings.append(Finding("refused", "atoms too close", message))
    n_fragments = count_fragments(dataset.numbers, distances)
    # A complex of several molecules is sound when it is one all along.
    usual = int(np.median(n_fragments))
    broken = n_fragments > usual
    if usual > 1:
        _, size = smallest_fragment(dataset.numbers, distances[np.argmax(n_fragments == usual)])
        if size == 1:  # lost early, and missing ever since
            broken = n_fragments > 1
        else:
            message = f"one molecule was expected, found {usual} in most frames; go on if this complex is meant"
            findings.append(Finding("note", "complex", message))
    if broken.any():
        first = int(np.argmax(broken))
        atom, _ = smallest_fragment(dataset.numbers, distances[first])
        message = (
            f"all atoms must stay bonded to the molecule, found it fallen apart in {_some(broken)}, where atom {atom} "
            f"({chemical_symbols[dataset.numbers[atom]]}) has left; remove these frames"
        )
        findings.append(Finding("refused", "broken molecules", message))
    return findings


def _duplicates(dataset: Dataset, nearest: IntArray, lengths: FloatArray) -> list[Finding]:
    findings = []
    same = lengths < IDENTICAL
    if same.any():
        frames = np.flatnonzero(same)
        others = nearest[frames]
        sizes = np.linalg.norm(dataset.forces, axis=2)
        contradict = np.abs(dataset.energies[frames] - dataset.energies[others]) > 1e-3
        contradict |= np.abs(sizes[frames] - sizes[others]).max(axis=1) > 1e-2
        frame = int(np.argmax(contradict))
        pair = sorted((frames[frame], others[frame]))
        found = f"found {len(frames)} of {dataset.n_frames} frames that occur more than once"
        message = (
            f"a geometry must have one energy and one set of forces, {found}, some with other labels (such as frames "
            f"{pair[0]} and {pair[1]}); find out which are right and keep those"
            if contradict.any()
            else f"every frame must be new, {found} (such as frames {pair[0]} and {pair[1]}); keep one of each"
        )
        findings.append(Finding("refused", "duplicates", message))
    near = (lengths < NEAR_IDENTICAL) & ~same
    if near.any():
        # Counted by nearest neighbours: all pairs would not fit into memory where a trajectory stands still.
        message = (
            f"frames should be apart, found {near.sum()} of {dataset.n_frames} with another within {NEAR_IDENTICAL} Å; "
            "they are kept on the same side of every split, sample less densely to make them useful"
        )
        findings.append(Finding("note", "near-identical", message))
    return findings


def _energies(dataset: Dataset, slope: EnergySlope, shift: int) -> list[Finding]:
    """Judge the slope, the correlation against what pairs at this distance must show, or neither."""
    expected = "energies and forces must agree"
    found = f"(correlation {slope.correlation:.2f} over {slope.n_pairs} pairs of close frames)"
    message = (
        f"{expected}, which could not be decided {found}: frames are too few or too far apart; "
        "add some that are close, or make sure of units and signs yourself"
    )
    undecided = Finding("note", "energies undecided", message)
    notes: list[Finding] = []
    if slope.n_pairs < MIN_PAIRS:
        return [undecided]
    if shift:
        message = (
            f"{expected}, found that those of one frame fit the energies of the {'next' if shift > 0 else 'last'} "
            "frame: the lists are shifted against each other; align them"
        )
        return [Finding("refused", "energies and forces", message)]
    # Sound data reach 0.99 where frames are close, and 0.85 where they are not.
    tight = slope.rmsd < TIGHT_RMSD
    required = 0.8 if tight else 0.6
    largest = np.tanh(np.arctanh(min(abs(slope.correlation), 1 - 1e-12)) + 3 / np.sqrt(slope.n_pairs - 3))
    if largest < required:
        advice = (
            "they hardly change, as the total energy (with the kinetic) of a trajectory would; give potential energies"
            if slope.flat
            else "they do not belong to these forces; look for shuffled labels or two methods"
        )
        return [Finding("refused", "energies and forces", f"{expected}, found unrelated energies {found}: {advice}")]
    if tight and slope.outside > MIXED:
        message = (
            f"{expected}, found that those of a part of the frames do not {found}: look for two units, two methods "
            "or shuffled labels in one file, and keep one kind"
        )
        # Stiff bonds far from their minimum scatter; a second unit is away by one factor.
        if slope.shared > MIXED_ALIKE:
            return [Finding("refused", "energies and forces", message)]
        notes.append(Finding("note", "energies in part", message))
    if abs(slope.correlation) < required:
        return [undecided]
    low, high = sorted([slope.low, slope.high])
    margin = np.exp(2 * slope.spread)
    if low > 0 and low / margin < SLOPE_BAND[1] and high * margin > SLOPE_BAND[0]:
        return notes
    explained = explain_slope(slope.high, dataset.n_atoms) or explain_slope(slope.low, dataset.n_atoms)
    advice = explained or "no single mistake of units or sign explains this; compute some of the labels again"
    message = f"{expected}, found that energies change {slope.high:.3g} times as much as the forces say: {advice}"
    return [Finding("refused", "energies and forces", message)]


def _some(chosen: np.ndarray) -> str:
    count = int(np.sum(chosen))
    return f"{count} of {len(chosen)} frames (the first is frame {int(np.argmax(chosen))})"
