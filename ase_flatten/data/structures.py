"""Structures without labels: the atoms and positions in a file, read batch by batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.formats import UnknownFileTypeError

from ase_flatten.data.dataset import formula
from ase_flatten.data.label_keys import LabelKeys
from ase_flatten.data.npz_layouts import LAYOUTS, text_entry
from ase_flatten.data.trajectory_files import read_frames
from ase_flatten.data.units import check_agreement, length_in_angstrom
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.npz_files import reading_npz, require_regular
from ase_flatten.utils.typing import FloatArray, IntArray

_SAME_PLACE = 0.01
"""Atoms that are closer than this, Å, are in the same place."""

_NPZ_KEYS = (*((layout["numbers"], layout["positions"]) for layout in LAYOUTS), ("numbers", "positions"))


@dataclass(frozen=True, eq=False)
class Structures:
    """The checked frames of a file.

    Parameters
    ----------
    path : Path
    numbers : (n_atoms,) int array
    n_frames : int
    length_unit : str or None
        As the user gave it.
    """

    path: Path
    numbers: IntArray
    n_frames: int
    length_unit: str | None

    @classmethod
    def of(cls, path: Path, length_unit: str | None, known: IntArray | None) -> "Structures":
        """Read a file once to check it; the molecule must be `known`, or else that of its first frame.

        Raises
        ------
        InputError
            A file that is missing, cannot be read or holds no frame; another molecule or order of atoms; a periodic
            cell; positions that are not finite, or two atoms in the same place.
        """
        n_frames = 0
        for numbers, positions in _read(path, length_unit):
            if known is None:
                known = numbers
            if not np.array_equal(numbers, known):
                raise InputError(
                    f"expected {formula(known)} in the order {' '.join(Atoms(known).symbols)}, found "
                    f"{' '.join(Atoms(numbers).symbols) or 'no atoms'} in frame {n_frames} of {path}; "
                    "reorder the atoms or choose another model"
                )
            if len(numbers) > 1 and pair_distances(positions[None]).min() < _SAME_PLACE:
                raise InputError(
                    f"expected atoms apart from each other, found two in the same place in frame {n_frames} of {path}; "
                    "remove the frame"
                )
            n_frames += 1
        if known is None or not n_frames:
            raise InputError(f"expected at least one frame in {path}, found none")
        return cls(path, known, n_frames, length_unit)

    def batches(self, size: int) -> Iterator[FloatArray]:
        """Read positions, (n, n_atoms, 3) in Å, of up to `size` frames at a time."""
        frames = _read(self.path, self.length_unit)
        while batch := [positions for _, positions in islice(frames, size)]:
            yield np.array(batch)


def _read(path: Path, length_unit: str | None) -> Iterator[tuple[IntArray, FloatArray]]:
    """Read the atomic numbers and positions, Å, of each frame; raise InputError if they cannot be used."""
    try:
        require_regular(path)
        frames = _npz_frames(path, length_unit) if path.suffix == ".npz" else _ase_frames(path, length_unit)
        for number, (numbers, positions) in enumerate(frames):
            if not np.all((numbers > 0) & (numbers < len(chemical_symbols))):
                raise InputError(
                    f"expected atomic numbers from 1 to 118, found {printable(numbers.tolist())} in frame {number} of "
                    f"{path}; correct or remove the frame"
                )
            if not np.isfinite(positions).all():
                raise InputError(
                    f"expected finite positions, found NaN or infinity in frame {number} of {path}; remove the frame"
                )
            yield numbers, positions
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"expected structures, found no file {printable(path)}; check the path") from None
    except UnknownFileTypeError as error:
        raise InputError(
            f"expected structures that ASE reads, found {path}, whose format it does not know; give an extended XYZ, "
            ".traj, .db or npz file"
        ) from error
    except Exception as error:  # ASE's readers raise whatever their parsers do
        raise InputError(
            f"expected structures that ASE reads, could not read {path}: {printable(error) or type(error).__name__}; "
            "check the file"
        ) from error


def _ase_frames(path: Path, length_unit: str | None) -> Iterator[tuple[IntArray, FloatArray]]:
    for number, frame in enumerate(read_frames(path, LabelKeys())):
        if frame.pbc:
            raise InputError(
                f"expected molecules without a cell, found a periodic frame {number} in {path}; remove the cell"
            )
        yield frame.numbers, frame.positions * _scale(path, frame.units[1], length_unit, default="Ang")


def _npz_frames(path: Path, length_unit: str | None) -> Iterator[tuple[IntArray, FloatArray]]:
    with reading_npz(path, "an npz file of plain arrays") as archive:
        keys = next((keys for keys in _NPZ_KEYS if set(keys) <= set(archive.files)), None)
        if keys is None:
            raise InputError(
                f"expected the keys z and R (or nuclear_charges and coords, or numbers and positions) in {path}, "
                f"found {printable(', '.join(archive.files)) or 'none'}; rename the arrays"
            )
        if "lattice" in archive.files:
            raise InputError(f"expected molecules without a cell, found a lattice in {path}; leave it out")
        numbers, positions = (archive[key] for key in keys)
        declared = text_entry(path, archive, "r_unit")
    scale = _scale(path, declared, length_unit, default=None)
    if positions.ndim != 3 or positions.shape[2] != 3 or numbers.shape[-1:] != positions.shape[1:2]:
        raise InputError(
            f"expected positions of the shape (n_frames, n_atoms, 3) and a number for each atom in {path}, found "
            f"{positions.shape} and {numbers.shape}; correct the arrays"
        )
    of_frames = np.broadcast_to(numbers, positions.shape[:2])
    for frame, of_frame in zip(positions, of_frames, strict=True):
        yield of_frame.astype(np.int64), frame.astype(float) * scale


def _scale(path: Path, declared: str | None, given: str | None, *, default: str | None) -> float:
    check_agreement(path, "length", declared, given, length_in_angstrom)
    unit = declared or given or default
    if unit is None:
        raise InputError(f"{path} does not declare its length unit; state it with --length-unit")
    return length_in_angstrom(unit)
