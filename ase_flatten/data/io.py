"""Read and write data sets: sGDML/MD17/MD22 npz, extended XYZ and whatever ASE reads.

Units are what the file declares or what the caller states; they are never guessed.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import iread
from ase.io import write as ase_write

from ase_flatten.data.dataset import Dataset, formula
from ase_flatten.data.units import KCAL_PER_MOL, energy_in_eV, length_in_angstrom
from ase_flatten.utils.atomic_files import reading_npz, write_npz, writing
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray

_NPZ_KEYS = (
    {"numbers": "z", "positions": "R", "energies": "E", "forces": "F"},
    {"numbers": "nuclear_charges", "positions": "coords", "energies": "energies", "forces": "forces"},
)


def read_dataset(path: str | Path, *, energy_unit: str | None = None, length_unit: str | None = None) -> Dataset:
    """Read a data set, never unpickling.

    Parameters
    ----------
    path : str or Path
        An npz file in the layout of sGDML, MD17, MD22 or rMD17; a SchNetPack or
        ASE database (.db); extended XYZ, .traj or another trajectory ASE reads.
    energy_unit, length_unit : str, optional
        The units of the file, where it does not declare them: eV, kcal/mol,
        kJ/mol, Hartree, ...; Ang, Bohr, nm. Forces are in energy per length.

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
    if not path.is_file():
        raise InputError(f"expected a data set, found no file {path}; check the path")
    if path.suffix == ".npz":
        raw = _read_npz(path)
    elif path.suffix == ".db":
        raw = _collect(path, _database_frames(path))
    else:
        raw = _collect(path, _trajectory_frames(path))
    energy = energy_in_eV(_unit("energy", path, raw.energy_unit, energy_unit, energy_in_eV))
    length = length_in_angstrom(_unit("length", path, raw.length_unit, length_unit, length_in_angstrom))
    try:
        return Dataset(
            numbers=raw.numbers,
            positions=np.asarray(raw.positions, dtype=np.float64) * length,
            energies=np.asarray(raw.energies, dtype=np.float64) * energy,
            forces=np.asarray(raw.forces, dtype=np.float64) * (energy / length),
            name=raw.name,
            theory=raw.theory,
        )
    except (ValueError, TypeError) as error:  # InputError, or text where numbers belong
        raise InputError(f"{path}: {error}") from None


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


@dataclass
class _Raw:
    """What a file holds, in its own units."""

    numbers: IntArray
    positions: Any
    energies: Any
    forces: Any
    energy_unit: str | None = None
    length_unit: str | None = None
    name: str = ""
    theory: str = ""


@dataclass
class _Frame:
    """One structure of a trajectory, in the file's units."""

    numbers: IntArray
    positions: FloatArray
    energy: float | None
    forces: FloatArray | None
    pbc: bool
    units: tuple[str | None, str | None] = field(default=(None, None))


def _read_npz(path: Path) -> _Raw:
    with reading_npz(path, "an npz file of plain arrays") as archive:
        return _raw_of_npz(path, archive)


def _raw_of_npz(path: Path, archive: "np.lib.npyio.NpzFile") -> _Raw:
    keys = next((keys for keys in _NPZ_KEYS if set(keys.values()) <= set(archive.files)), None)
    if keys is None:
        raise InputError(
            f"expected the keys z, R, E and F (or nuclear_charges, coords, energies and forces) in {path}, "
            f"found {', '.join(archive.files)}; rename the arrays"
        )
    if "lattice" in archive.files:
        raise InputError(
            f"expected a molecule without a cell, found a lattice in {path}; periodic data are not supported"
        )
    numbers = archive[keys["numbers"]]
    if numbers.ndim == 2:
        changed = np.any(numbers != numbers[0], axis=1)
        if changed.any():
            raise InputError(
                f"expected the same atoms in the same order in every frame of {path}, "
                f"found others in frame {np.argmax(changed)}; split or reorder the data"
            )
        numbers = numbers[0]
    energies = archive[keys["energies"]]
    return _Raw(
        numbers=numbers,
        positions=archive[keys["positions"]],
        energies=energies.ravel() if energies.shape[1:] == (1,) else energies,
        forces=archive[keys["forces"]],
        energy_unit=_text(archive, "e_unit"),
        length_unit=_text(archive, "r_unit"),
        name=_text(archive, "name") or "",
        theory=_text(archive, "theory") or "",
    )


def _text(archive: "np.lib.npyio.NpzFile", key: str) -> str | None:
    if key not in archive.files:
        return None
    value = archive[key]
    text = value.item() if value.shape == () else value.ravel()[0]
    return text.decode() if isinstance(text, bytes) else str(text)


def _trajectory_frames(path: Path) -> Iterator[_Frame]:
    # ASE's own formats hold eV and Å by definition; XYZ may hold anything.
    by_definition = ("eV", "Ang") if path.suffix == ".traj" else (None, None)
    for atoms in iread(path, index=":"):
        results = atoms.calc.results if atoms.calc is not None else {}
        yield _Frame(
            numbers=atoms.numbers,
            positions=atoms.positions,
            energy=results.get("energy", atoms.info.get("energy")),
            forces=results.get("forces", atoms.arrays.get("forces")),
            pbc=bool(atoms.pbc.any()),
            units=(
                atoms.info.get("energy_unit", by_definition[0]),
                atoms.info.get("length_unit", by_definition[1]),
            ),
        )


def _database_frames(path: Path) -> Iterator[_Frame]:
    from ase.db import connect

    database = connect(path)
    metadata = database.metadata
    declared = metadata.get("_property_unit_dict", {"energy": "eV"}), metadata.get("_distance_unit", "Ang")
    _check_force_unit(path, declared[0], declared[1])
    for row in database.select():
        data = row.data
        energy = data.get("energy", row.get("energy"))
        yield _Frame(
            numbers=row.numbers,
            positions=row.positions,
            energy=None if energy is None else float(np.ravel(energy)[0]),
            forces=data.get("forces", row.get("forces")),
            pbc=bool(row.pbc.any()),
            units=(declared[0].get("energy"), declared[1]),
        )


def _check_force_unit(path: Path, declared: dict[str, str], length: str) -> None:
    force, energy = declared.get("forces"), declared.get("energy")
    if force is None or energy is None:
        return
    force_energy, _, force_length = force.rpartition("/")
    per_length = energy_in_eV(force_energy) / length_in_angstrom(force_length)
    if not np.isclose(per_length, energy_in_eV(energy) / length_in_angstrom(length)):
        raise InputError(
            f"{path} declares forces in {force}, but energies in {energy} and lengths in {length}; "
            f"write the forces in {energy}/{length}"
        )


def _collect(path: Path, frames: Iterable[_Frame]) -> _Raw:
    """Gather the frames of a trajectory, refusing what is not one molecule with energies and forces."""
    positions: list[FloatArray] = []
    forces: list[FloatArray] = []
    energies: list[float] = []
    first: _Frame | None = None
    try:
        for number, frame in enumerate(frames):
            first = first or frame
            if frame.pbc:
                raise InputError(
                    f"expected molecules without a cell, found a periodic frame {number} in {path}; "
                    "periodic data are not supported"
                )
            if frame.energy is None or frame.forces is None:
                raise InputError(
                    f"expected an energy and forces in every frame, found none in frame {number} of {path}; "
                    "write the calculator's results with the structures"
                )
            if not np.array_equal(frame.numbers, first.numbers):
                raise InputError(
                    f"expected {formula(first.numbers)} with its atoms in the same order in every frame of {path}, "
                    f"found {formula(frame.numbers)} in frame {number}; split or reorder the data"
                )
            if frame.units != first.units:
                raise InputError(
                    f"expected one declaration of units in {path}, found {frame.units} in frame {number} "
                    f"after {first.units}; write all frames in the same units"
                )
            positions.append(frame.positions)
            forces.append(frame.forces)
            energies.append(float(frame.energy))
    except InputError:
        raise
    except Exception as error:  # ASE's readers raise whatever their parsers do
        raise InputError(
            f"expected a trajectory that ASE reads, could not read frame {len(energies)} of {path}: {error}"
        ) from error
    if first is None:
        raise InputError(f"expected at least one frame in {path}, found none")
    return _Raw(first.numbers, np.stack(positions), energies, np.stack(forces), *first.units, name=path.stem)


def _unit(kind: str, path: Path, declared: str | None, given: str | None, factor: Any) -> str:
    if declared is None and given is None:
        raise InputError(f"{path} does not declare its {kind} unit; state it with --{kind}-unit")
    if declared is not None and given is not None and factor(declared) != factor(given):
        raise InputError(f"{path} declares the {kind} unit {declared}, but --{kind}-unit {given} was given; drop one")
    return given or declared or ""
