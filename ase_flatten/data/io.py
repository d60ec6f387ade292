"""Read and write data sets: sGDML/MD17/MD22 npz, extended XYZ and whatever ASE reads.

Units are what the file declares or what the caller states; they are never guessed.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write
from ase.io.formats import UnknownFileTypeError

from ase_flatten.data.dataset import Dataset, check_shapes, formula
from ase_flatten.data.trajectory_files import Frame, read_frames
from ase_flatten.data.units import KCAL_PER_MOL, energy_in_eV, length_in_angstrom
from ase_flatten.utils.atomic_files import write_npz, writing
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.npz_files import declared_shape, reading_npz, require_regular
from ase_flatten.utils.typing import FloatArray, IntArray

_NPZ_KEYS = (
    {"numbers": "z", "positions": "R", "energies": "E", "forces": "F"},
    {"numbers": "nuclear_charges", "positions": "coords", "energies": "energies", "forces": "forces"},
)


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
        if path.suffix == ".npz":
            raw = _read_npz(path, energy_key, forces_key)
        else:
            keys = {"energy_key": energy_key or "energy", "forces_key": forces_key or "forces"}
            raw = _collect(path, read_frames(path, **keys))
        energy = energy_in_eV(_unit("energy", path, raw.energy_unit, energy_unit, energy_in_eV))
        length = length_in_angstrom(_unit("length", path, raw.length_unit, length_unit, length_in_angstrom))
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


@dataclass
class _Raw:
    """The content of a file, in its own units."""

    numbers: IntArray
    positions: Any
    energies: Any
    forces: Any
    energy_unit: str | None = None
    length_unit: str | None = None
    name: str = ""
    theory: str = ""


def _read_npz(path: Path, energy_key: str | None, forces_key: str | None) -> _Raw:
    named = {name: key for name, key in (("energies", energy_key), ("forces", forces_key)) if key}
    with reading_npz(path, "an npz file of plain arrays") as archive:
        return _raw_of_npz(path, archive, named)


def _raw_of_npz(path: Path, archive: "np.lib.npyio.NpzFile", named: dict[str, str]) -> _Raw:
    layouts = ({**keys, **named} for keys in _NPZ_KEYS)
    keys = next((keys for keys in layouts if set(keys.values()) <= set(archive.files)), None)
    if keys is None:
        raise InputError(
            f"expected the keys z, R, E and F (or nuclear_charges, coords, energies and forces) in {path}, "
            f"found {printable(', '.join(archive.files)) or 'none'}; rename the arrays"
        )
    if "lattice" in archive.files:
        raise InputError(
            f"expected a molecule without a cell, found a lattice in {path}; periodic data are not supported"
        )
    shapes = {name: declared_shape(archive, key) for name, key in keys.items()}
    *_, n_atoms = shapes["numbers"] or (0,)
    energies = shapes["energies"][:1] if shapes["energies"][1:] == (1,) else shapes["energies"]
    check_shapes(n_atoms, shapes["positions"], energies, shapes["forces"])
    numbers = archive[keys["numbers"]]
    if numbers.ndim == 2:
        changed = np.any(numbers != numbers[:1], axis=1)
        if changed.any():
            raise InputError(
                f"expected the same atoms in the same order in every frame of {path}, "
                f"found others in frame {np.argmax(changed)}; split or reorder the data"
            )
        numbers = numbers[:1].reshape(-1)
    return _Raw(
        numbers=numbers,
        positions=archive[keys["positions"]],
        energies=archive[keys["energies"]].reshape(energies),
        forces=archive[keys["forces"]],
        energy_unit=_text(path, archive, "e_unit"),
        length_unit=_text(path, archive, "r_unit"),
        name=_text(path, archive, "name") or "",
        theory=_text(path, archive, "theory") or "",
    )


def _text(path: Path, archive: "np.lib.npyio.NpzFile", key: str) -> str | None:
    if key not in archive.files:
        return None
    shape = declared_shape(archive, key)
    if 0 in shape:
        raise InputError(f"expected text as {key} in {path}, found an empty array; write the text or leave {key} out")
    text = archive[key].flat[0]
    return text.decode() if isinstance(text, bytes) else str(text)


def _collect(path: Path, frames: Iterable[Frame]) -> _Raw:
    """Collect the frames of a trajectory; refuse anything but one molecule with energies and forces."""
    positions: list[FloatArray] = []
    forces: list[FloatArray] = []
    energies: list[float] = []
    first: Frame | None = None
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
                    f"expected one declaration of units in {path}, found {printable(frame.units)} in frame {number} "
                    f"after {printable(first.units)}; write all frames in the same units"
                )
            if np.shape(frame.forces) != frame.positions.shape:
                raise ValueError(f"forces of the shape {np.shape(frame.forces)}")
            positions.append(frame.positions)
            forces.append(np.asarray(frame.forces, dtype=np.float64))
            energies.append(float(frame.energy))
    except InputError:
        raise
    except UnknownFileTypeError as error:  # which says the suffix only
        raise InputError(
            f"expected a trajectory that ASE reads, found {path}, whose format it does not know; "
            "give an npz, extended XYZ, .traj or .db file"
        ) from error
    except Exception as error:  # ASE's readers raise whatever their parsers do
        raise InputError(
            f"expected a trajectory that ASE reads, could not read frame {len(energies)} of {path}: "
            f"{printable(error) or type(error).__name__}"
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
