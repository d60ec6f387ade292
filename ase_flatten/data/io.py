"""Read and write data sets: sGDML/MD17/MD22 npz, extended XYZ and whatever ASE reads.

Units are what the file declares or what the caller states; they are never guessed.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.label_keys import LabelKeys
from ase_flatten.data.npz_layouts import read_npz
from ase_flatten.data.raw_dataset import RawDataset, read_trajectory
from ase_flatten.data.units import (
    ENERGY_UNITS,
    KCAL_PER_MOL,
    LENGTH_UNITS,
    check_agreement,
    energy_in_eV,
    length_in_angstrom,
)
from ase_flatten.utils.atomic_files import write_npz, writing
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.npz_files import require_regular
from ase_flatten.utils.typing import FloatArray, IntArray


def read_dataset(
    path: str | Path,
    *,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
) -> Dataset:
    """Read a data set, never unpickling.

    Parameters
    ----------
    path : str or Path
        An npz file in the layout of sGDML, MD17, MD22 or rMD17; a SchNetPack or
        ASE database (.db); extended XYZ, .traj or another trajectory ASE reads.
    energy_unit, length_unit : str, optional
        The units of the file, where it does not declare them: eV, kcal/mol,
        kJ/mol, Hartree, ...; Ang, Bohr, nm. Forces are in energy per length.
    energy_key, forces_key : str, optional
        The names of energies and forces in the file, such as REF_energy and
        REF_forces; by default, the usual ones of its format.

    Raises
    ------
    InputError
        A file that is missing, unreadable or incomplete; units that are neither
        declared nor given, or that contradict each other; periodic cells; a
        composition or an order of atoms that changes; numbers that are not finite.

    Examples
    --------
    >>> from ase_flatten import read_dataset
    >>> data = read_dataset("examples/data/salicylic_gfn2_500K.npz")
    >>> data.formula, data.theory
    ('C7H6O3', 'GFN2-xTB')
    >>> data.forces.shape == (data.n_frames, 16, 3)  # eV/Å
    True
    """
    path = Path(path)
    try:
        require_regular(path)
    except FileNotFoundError:
        raise InputError(f"expected a data set, found no file {path}; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"expected a data set, cannot read {printable(path)}: {reason}; check the path") from error
    try:
        keys = LabelKeys(energy_key, forces_key)
        raw = read_npz(path, keys) if path.suffix == ".npz" else read_trajectory(path, keys)
        energy, length = _units(path, raw, energy_unit, length_unit)
        return Dataset(
            numbers=raw.numbers,
            positions=np.asarray(raw.positions, dtype=np.float64) * length,
            energies=np.asarray(raw.energies, dtype=np.float64) * energy,
            forces=np.asarray(raw.forces, dtype=np.float64) * (energy / length),
            name=raw.name,
            theory=raw.theory,
        )
    except (ValueError, TypeError, ArithmeticError) as error:  # InputError, or text where numbers belong
        reason = str(error) if str(path) in str(error) else f"{path}: {printable(error)}"
        raise InputError(reason) from error


def write_dataset(path: str | Path, dataset: Dataset, *, dtype: str = "float64", **extra: Any) -> None:
    """Write a data set atomically, as npz or, by the suffix, as extended XYZ.

    The npz has sGDML's own keys in kcal/mol and Å, and the `sgdml` command accepts it.

    Parameters
    ----------
    dtype : {"float64", "float32"}
        Precision of positions, energies and forces in the npz.
    **extra : arrays, numbers or strings
        Further entries of the npz, such as how the data were made.

    Examples
    --------
    >>> from ase_flatten import read_dataset, write_dataset
    >>> data = read_dataset("examples/data/salicylic_gfn2_500K.npz")
    >>> write_dataset("hundred.npz", data.take(range(100)))
    >>> read_dataset("hundred.npz").n_frames
    100
    """
    if Path(path).suffix != ".npz":
        write_frames(path, dataset, np.arange(dataset.n_frames))
        return
    arrays = {
        "z": dataset.numbers.astype(np.uint8),
        "R": dataset.positions.astype(dtype),
        "E": (dataset.energies / KCAL_PER_MOL)[:, None],
        "F": (dataset.forces / KCAL_PER_MOL).astype(dtype),
    }
    text = {
        "type": "d",
        "code_version": "ase-flatten",
        "name": dataset.name or Path(path).stem,
        "theory": dataset.theory or "unknown",
        "r_unit": "Ang",
        "e_unit": "kcal/mol",
    }
    write_npz(path, {**text, **extra, **arrays, "md5": sgdml_md5(arrays)})


def write_frames(
    path: str | Path, dataset: Dataset, frames: IntArray, *, arrays: dict[str, FloatArray] | None = None, **info: Any
) -> None:
    """Write frames as extended XYZ in eV and Å, units declared in every comment line.

    Parameters
    ----------
    frames : (n,) int array
    arrays : dict of (n, n_atoms, ...) arrays, optional
        Columns for each atom.
    **info : (n,) arrays
        Values for each frame, written into its comment line.
    """

    def labelled() -> Iterator[Atoms]:
        for row, frame in enumerate(frames):
            atoms = dataset.atoms(int(frame))
            atoms.info = {"frame": int(frame), "energy_unit": "eV", "length_unit": "Ang"}
            atoms.info.update({name: np.asarray(values)[row].item() for name, values in info.items()})
            for name, values in (arrays or {}).items():
                atoms.arrays[name] = np.asarray(values)[row]
            atoms.calc = SinglePointCalculator(atoms, energy=dataset.energies[frame], forces=dataset.forces[frame])
            yield atoms

    with writing(path) as beside:
        ase_write(beside, labelled(), format="extxyz")  # type: ignore[arg-type]  # ASE takes an iterator as well


def sgdml_md5(arrays: dict[str, Any]) -> bytes:
    """Compute the fingerprint that sGDML gives a data set: MD5 of the MD5s of z, R, E and F."""
    digest = hashlib.md5(usedforsecurity=False)
    for key in ("z", "R", "E", "F"):
        digest.update(hashlib.md5(np.ascontiguousarray(arrays[key]).tobytes(), usedforsecurity=False).digest())
    return digest.hexdigest().encode()


def _units(path: Path, raw: RawDataset, energy_unit: str | None, length_unit: str | None) -> tuple[float, float]:
    """Return the units of energy and length in eV and Å, as the file declares them or as they were given."""
    energy, length = energy_unit or raw.energy_unit, length_unit or raw.length_unit
    if energy is None or length is None:
        kinds = (("energy", energy, ENERGY_UNITS), ("length", length, LENGTH_UNITS))
        unknown = {kind: f"one of {', '.join(table)}" for kind, unit, table in kinds if unit is None}
        units = " and ".join(f"{kind} unit" for kind in unknown)
        it = "it" if len(unknown) == 1 else "them"
        options = " and ".join(f"--{kind}-unit ({names})" for kind, names in unknown.items())
        usual = " (ASE, MACE and GAP write eV and Ang)" if path.suffix in (".xyz", ".extxyz") else ""
        raise InputError(f"{path} does not declare its {units}; state {it} with {options}{usual}")
    for kind, declared, given, factor in (
        ("energy", raw.energy_unit, energy_unit, energy_in_eV),
        ("length", raw.length_unit, length_unit, length_in_angstrom),
    ):
        check_agreement(path, kind, declared, given, factor)
    return energy_in_eV(energy), length_in_angstrom(length)
