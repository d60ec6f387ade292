"""Corrupt a share of a data set's frames in ways that real files are corrupted, to see what is noticed.

    from corruption import KINDS, corrupt
    corrupted, bad_frames = corrupt(dataset, "sign", 0.01, rng=np.random.default_rng(0))

Bad frames are drawn at random. All but "duplicate" keep the geometries of the other frames as they are, and
all keep the number of frames.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ase_flatten.calculators import load_calculator
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.utils.typing import FloatArray, IntArray

Change = Callable[[Dataset, IntArray, np.random.Generator], Dataset]


def corrupt(dataset: Dataset, kind: str, share: float, *, rng: np.random.Generator) -> tuple[Dataset, IntArray]:
    """Corrupt a share of the frames in one way.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    share : float
        Part of the frames, at least one frame; "shuffled" takes at least two.

    Returns
    -------
    Dataset
        The same frames in the same order, some of them bad.
    bad_frames : (n_bad,) int array, ascending
    """
    n_bad = max(2 if kind == "shuffled" else 1, round(share * dataset.n_frames))
    bad_frames = np.sort(rng.choice(dataset.n_frames, n_bad, replace=False))
    return KINDS[kind](dataset, bad_frames, rng), bad_frames


def other_labels(dataset: Dataset, frames: IntArray) -> tuple[FloatArray, FloatArray]:
    """Compute energies (n,) in eV and forces (n, n_atoms, 3) in eV/Å of frames by another method.

    It is GFN1-xTB for data by GFN2-xTB, and GFN2-xTB for any others.
    """
    method = "GFN1-xTB" if "GFN2" in dataset.theory.upper() else "GFN2-xTB"
    calculator = load_calculator(f"tblite:{method}")
    energies, forces = np.empty(len(frames)), np.empty((len(frames), dataset.n_atoms, 3))
    for row, frame in enumerate(frames):
        atoms = dataset.atoms(int(frame))
        atoms.calc = calculator
        energies[row], forces[row] = atoms.get_potential_energy(), atoms.get_forces()
    return energies, forces


def _labelled(dataset: Dataset, frames: IntArray, energies: FloatArray, forces: FloatArray) -> Dataset:
    all_energies, all_forces = dataset.energies.copy(), dataset.forces.copy()
    all_energies[frames], all_forces[frames] = energies, forces
    return replace(dataset, energies=all_energies, forces=all_forces)


def _zero(dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> Dataset:
    """Set the forces to zero."""
    return _labelled(dataset, frames, dataset.energies[frames], np.zeros_like(dataset.forces[frames]))


def _sign(dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> Dataset:
    """Replace the forces by gradients."""
    return _labelled(dataset, frames, dataset.energies[frames], -dataset.forces[frames])


def _unit(dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> Dataset:
    """Write energies and forces in kcal/mol where eV are declared."""
    return _labelled(dataset, frames, dataset.energies[frames] / KCAL_PER_MOL, dataset.forces[frames] / KCAL_PER_MOL)


def _unit_down(dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> Dataset:
    """Write energies and forces in eV where kcal/mol are declared."""
    return _labelled(dataset, frames, dataset.energies[frames] * KCAL_PER_MOL, dataset.forces[frames] * KCAL_PER_MOL)


def _force_unit(dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> Dataset:
    """Write forces in Hartree/Bohr where Hartree/Å are declared, the energies right."""
    return _labelled(dataset, frames, dataset.energies[frames], 0.529177 * dataset.forces[frames])


def _energy(dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> Dataset:
    """Add 1 eV."""
    return _labelled(dataset, frames, dataset.energies[frames] + 1, dataset.forces[frames])


def _method(dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> Dataset:
    """Take the labels of another method, energies aligned by the median difference."""
    energies, forces = other_labels(dataset, frames)
    return _labelled(dataset, frames, energies + np.median(dataset.energies[frames] - energies), forces)


def _method_raw(dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> Dataset:
    """Take the labels of another method, energies as they come."""
    return _labelled(dataset, frames, *other_labels(dataset, frames))


def _shuffled(dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> Dataset:
    """Assign to each bad frame the labels of another one."""
    others = np.roll(rng.permutation(frames), 1)
    order = np.argsort(np.roll(others, -1))
    return _labelled(dataset, frames, dataset.energies[others[order]], dataset.forces[others[order]])


def _swapped(dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> Dataset:
    """Exchange two like atoms, positions and forces alike: a correct frame in another order of atoms."""
    like = list(map(np.flatnonzero, dataset.numbers == np.unique(dataset.numbers)[:, None]))
    a, b = rng.choice(rng.permutation([atoms.tolist() for atoms in like if len(atoms) > 1][-1]), 2, replace=False)
    order = np.arange(dataset.n_atoms)
    order[[a, b]] = b, a
    positions = dataset.positions.copy()
    positions[frames] = positions[frames][:, order]
    swapped = replace(dataset, positions=positions)
    return _labelled(swapped, frames, dataset.energies[frames], dataset.forces[frames][:, order])


def _duplicate(dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> Dataset:
    """Replace each bad frame by a copy of the last good one before it."""
    good = np.setdiff1d(np.arange(dataset.n_frames), frames)
    source = good[np.maximum(np.searchsorted(good, frames) - 1, 0)]
    positions = dataset.positions.copy()
    positions[frames] = positions[source]
    copied = replace(dataset, positions=positions)
    return _labelled(copied, frames, dataset.energies[source], dataset.forces[source])


KINDS: dict[str, Change] = {
    "zero": _zero,
    "sign": _sign,
    "unit": _unit,
    "unit-down": _unit_down,
    "force-unit": _force_unit,
    "energy": _energy,
    "method": _method,
    "method-raw": _method_raw,
    "shuffled": _shuffled,
    "swapped": _swapped,
    "duplicate": _duplicate,
}
"""The kinds of corruption; "unit" is kcal/mol read as eV, "unit-down" the reverse."""
