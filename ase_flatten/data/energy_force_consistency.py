"""Consistency of energies and forces: the work of the forces between close frames must equal the energy difference.

Over a pair of frames, superposed by a proper rotation, ΔE = -½ (F₁ + F₂)·ΔR to third order in the displacement ΔR.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy.stats import rankdata

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import ENERGY_UNITS, LENGTH_UNITS, output_units
from ase_flatten.utils.blocks import blocks
from ase_flatten.utils.typing import FloatArray, IntArray

MAX_PAIRS = 1000
TIGHT_RMSD = 0.1
"""The trapezoid is accurate to a few per cent below this root-mean-square displacement, Å."""
MAX_RMSD = 0.3
"""Largest root-mean-square displacement of pairs that are compared, Å; beyond it the trapezoid is inaccurate."""
CLOSE = 0.05
"""Pairs below this root-mean-square difference of pair distances are as useful as closer ones, Å."""
TOLERANCE = np.log(1.15)
SAME_FACTOR = 0.2

_MAX_SHIFTED = 2000
_DISTANCE_BINS = 20
_SMALLEST_SCALE = 1e-9


@dataclass(frozen=True)
class EnergySlope:
    """Energy differences ΔE of pairs of close frames compared with the work of the forces."""

    n_pairs: int
    rmsd: float
    """Median displacement of the pairs, Å."""
    correlation: float
    """Spearman's."""
    low: float
    """Slope of ΔE on the work: the trapezoid's own error makes it too small."""
    high: float
    """Inverse slope of the work on ΔE: free of that error, and the best estimate wherever energies are precise."""
    spread: float
    """Standard error of the logarithm of the slopes."""
    outside: float
    """Fraction of the work in pairs whose ΔE deviates from the (lower) slope by more than half of it."""
    shared: float
    """Fraction of that work in pairs that all deviate by about the same factor, as with a second unit."""
    flat: bool
    """Whether energies hardly change although the forces do work."""


def energy_slope(dataset: Dataset, pairs: IntArray) -> EnergySlope:
    """Regress energy differences on the work of the forces, through the origin, by least absolute deviations.

    Parameters
    ----------
    pairs : (n_pairs, 2) int array
        Frames close to each other; pairs that do not superpose, such as mirror images, are dropped.
    """
    work, rmsd = trapezoid(dataset, pairs)
    kept = np.argsort(rmsd, kind="stable")[: min(MAX_PAIRS, int(np.sum(rmsd < MAX_RMSD)))]
    work, rmsd, pairs = work[kept], rmsd[kept], pairs[kept]
    change = dataset.energies[pairs[:, 1]] - dataset.energies[pairs[:, 0]]
    correlation = rank_correlation(work, change)
    low, inverse = _slope(work, change), _slope(change, work)
    outside = np.abs(change - low * work) > 0.5 * np.abs(low * work)
    weights, other = np.abs(work[outside]), _slope(work[outside], change[outside])
    same = np.abs(change[outside] - other * work[outside]) < SAME_FACTOR * np.abs(other) * weights
    unexplained = float(np.sqrt(max(0.0, 1 - correlation**2)))
    return EnergySlope(
        n_pairs=len(kept),
        rmsd=float(np.median(rmsd)) if len(kept) else np.inf,
        correlation=correlation,
        low=low,
        high=1 / inverse if inverse else np.inf,
        spread=unexplained / max(abs(correlation) * float(np.sqrt(len(kept))), 1e-12),
        outside=float(np.sum(np.abs(work[outside])) / max(np.sum(np.abs(work)), 1e-12)),
        shared=float(np.sum(weights[same]) / max(np.sum(weights), 1e-12)),
        flat=bool(np.sum(np.abs(change)) < 0.1 * np.sum(np.abs(work))),
    )


def close_pairs(
    distances: FloatArray, nearest: IntArray, lengths: FloatArray, *, beyond: float, rng: np.random.Generator
) -> IntArray:
    """Choose pairs of close frames among nearest frames and neighbours in file order.

    Parameters
    ----------
    distances : (n_frames, n_pairs) array, Å
    nearest : (n_frames,) int array
        A near frame of each frame.
    lengths : (n_frames,) array, Å
        Root-mean-square difference of their pair distances.
    beyond : float, Å
        Pairs closer than this are the same geometry and are left out.

    Returns
    -------
    (n, 2) int array
        Spread over the whole file if more pairs are close than are needed.
    """
    frames = np.arange(len(distances))
    pairs = np.vstack([np.column_stack([frames, nearest]), np.column_stack([frames[:-1], frames[1:]])])
    lengths = np.concatenate([lengths, _consecutive_lengths(distances)])
    pairs, first = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)
    lengths = lengths[first]
    kept = (lengths > beyond) & np.isfinite(lengths)  # a single frame has no other
    pairs, lengths = pairs[kept], lengths[kept]
    wanted = 4 * MAX_PAIRS  # some of them do not superpose
    close = np.flatnonzero(lengths < CLOSE)
    if len(close) > wanted:
        return np.asarray(pairs[rng.choice(close, wanted, replace=False)])
    return np.asarray(pairs[np.argsort(lengths, kind="stable")[:wanted]])


def energy_shift(dataset: Dataset, *, rng: np.random.Generator) -> int:
    """Find by how many frames the energies are shifted relative to the forces, in file order: -1, 0 or 1.

    A shift is reported only if the energies fit the forces much better with it than without.
    """
    starts = np.sort(rng.permutation(np.arange(1, dataset.n_frames - 2))[:_MAX_SHIFTED])
    work, rmsd = trapezoid(dataset, np.column_stack([starts, starts + 1]))
    starts, work = starts[rmsd < MAX_RMSD], work[rmsd < MAX_RMSD]
    if len(starts) < 50:
        return 0
    found = {
        shift: rank_correlation(work, dataset.energies[starts + 1 + shift] - dataset.energies[starts + shift])
        for shift in (-1, 0, 1)
    }
    best = max(found, key=lambda shift: abs(found[shift]))
    return best if abs(found[best]) > 0.8 and 1 - abs(found[best]) < 0.5 * (1 - abs(found[0])) else 0


def trapezoid(dataset: Dataset, pairs: IntArray) -> tuple[FloatArray, FloatArray]:
    """Compute -½ (F₁ + F₂)·ΔR over pairs of frames, after superposing them (Kabsch, proper rotations only).

    Returns
    -------
    work : (n_pairs,) array, eV
    rmsd : (n_pairs,) array, Å
        Root-mean-square displacement between the superposed frames.
    """
    first, second = dataset.positions[pairs[:, 0]], dataset.positions[pairs[:, 1]]
    first = first - first.mean(axis=1, keepdims=True)
    second = second - second.mean(axis=1, keepdims=True)
    left, _, right = np.linalg.svd(first.transpose(0, 2, 1) @ second)
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]
    rotation = left @ right
    displacement = second - first @ rotation
    forces = dataset.forces[pairs[:, 0]] @ rotation + dataset.forces[pairs[:, 1]]
    work = -0.5 * np.einsum("pax,pax->p", forces, displacement)
    return work, np.sqrt(np.mean(np.sum(displacement**2, axis=2), axis=1))


def work_residuals(dataset: Dataset, near: IntArray) -> tuple[FloatArray, FloatArray]:
    """Compute how far each energy deviates from the energies of near frames plus the work of the forces.

    Each frame is paired with `near` and with its neighbours in file order, if they superpose. The pair that agrees
    best counts, so that a wrong energy does not make those of near frames look wrong.

    Parameters
    ----------
    near : (n_frames, n_near) int array
        Frames near each frame.

    Returns
    -------
    ratios : (n_frames,) array
        Smallest deviation, in robust standard deviations over pairs that are equally far apart; 0 for a frame with
        fewer than two partners.
    residuals : (n_frames,) array, eV
        Smallest deviation; also 0 for a frame with fewer than two partners.
    """
    frames = np.arange(dataset.n_frames)
    ahead = np.column_stack([frames[:-1], frames[1:]])
    near_pairs = np.column_stack([np.repeat(frames, near.shape[1]), near.ravel()])
    pairs = np.unique(np.vstack([near_pairs, ahead, ahead[:, ::-1]]), axis=0)  # near frames may be next in the file too
    work, rmsd = np.empty((2, len(pairs)))
    for block in blocks(len(pairs), 8 * 30 * dataset.n_atoms):
        work[block], rmsd[block] = trapezoid(dataset, pairs[block])
    kept = rmsd < MAX_RMSD
    pairs, work, rmsd = pairs[kept], work[kept], rmsd[kept]
    found = np.abs(dataset.energies[pairs[:, 1]] - dataset.energies[pairs[:, 0]] - work)
    scales = np.ones(len(found))
    for alike in np.array_split(np.argsort(rmsd, kind="stable"), _DISTANCE_BINS):
        if len(alike):
            scales[alike] = max(1.4826 * float(np.median(found[alike])), _SMALLEST_SCALE)
    ratios, residuals = np.full((2, dataset.n_frames), np.inf)
    np.minimum.at(ratios, pairs[:, 0], found / scales)
    np.minimum.at(residuals, pairs[:, 0], found)
    judged = np.bincount(pairs[:, 0], minlength=dataset.n_frames) >= 2
    return np.where(judged, ratios, 0.0), np.where(judged, residuals, 0.0)


def explain_slope(slope: float, n_atoms: int) -> str | None:
    """Return the mistake that makes energies change `slope` times as much as the forces imply.

    Returns
    -------
    str or None
        What the labels look like and what to do; None if no mistake explains it.
    """
    options = []
    for sign in (1, -1):
        for factor, n_mistakes, what in ((1.0, 0, ""), *_mistakes(n_atoms)):
            mismatch = abs(np.log(slope / (sign * factor))) if slope * sign > 0 else np.inf
            said = [what] if what else []
            said += ["the forces look like gradients, which have the other sign; write -dE/dx"] if sign < 0 else []
            # Of two explanations that fit equally well, the simpler one.
            options.append((mismatch + 0.04 * (n_mistakes + (sign < 0)), mismatch, ", and ".join(said)))
    _, mismatch, advice = min(options)
    return advice if mismatch < TOLERANCE and advice else None


def _mistakes(n_atoms: int) -> list[tuple[float, int, str]]:
    """List mistakes: the factor that each causes, the number of single mistakes in it, and its description."""
    one = "write both in one unit"
    usual = ("eV", "kcal/mol", "kJ/mol", "Hartree")
    mixed = [*permutations(usual, 2), *permutations(("Rydberg", "Hartree"), 2), *permutations(("Rydberg", "eV"), 2)]
    mixed += permutations(("meV", "eV"), 2)
    bohr = 1 / LENGTH_UNITS["Bohr"]
    table = [(1 / n_atoms, 1, "the energies look like energies per atom; multiply them by the number of atoms")]
    for energy, force in mixed:
        factor = ENERGY_UNITS[force] / ENERGY_UNITS[energy]
        words = f"the energies look like {energy} where the forces are in {output_units(force).force}; {one}"
        table.append((factor, 1, words))
        if force in ("Hartree", "Rydberg"):
            words = f"the energies look like {energy} where the forces are in {force}/Bohr and lengths in Å; {one}"
            table.append((factor * bohr, 2, words))
    for here, there in permutations(LENGTH_UNITS, 2):
        factor = LENGTH_UNITS[there] / LENGTH_UNITS[here]
        words = f"the forces look like energy per {here} where the positions are in {there}; {one} of length"
        table.append((factor, 1 + ("nm" in (here, there)), words.replace("Ang", "Å")))
    return table


def rank_correlation(a: FloatArray, b: FloatArray) -> float:
    """Compute Spearman's correlation; 0 if either is constant."""
    if len(a) < 2 or not np.ptp(a) or not np.ptp(b):
        return 0.0
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _slope(x: FloatArray, y: FloatArray) -> float:
    """Minimise the sum of |y - slope x|: the median of y/x, weighted by |x|."""
    x, y = x[x != 0], y[x != 0]
    if not len(x):
        return 0.0
    ratios = y / x
    order = np.argsort(ratios)
    weights = np.cumsum(np.abs(x[order]))
    return float(ratios[order][np.searchsorted(weights, weights[-1] / 2)])


def _consecutive_lengths(distances: FloatArray) -> FloatArray:
    lengths = np.empty(max(len(distances) - 1, 0))
    for block in blocks(len(lengths), 8 * 2 * distances.shape[1]):
        difference = distances[block.start + 1 : block.stop + 1] - distances[block]
        lengths[block] = np.sqrt(np.mean(difference**2, axis=1))
    return lengths
