"""Read trajectories and databases with ASE, frame by frame.

What a file declares about its size is compared with the file before ASE reads it: an atom count of 2³¹ or a view
that never ends would otherwise keep ASE busy for ever.
"""

import re
import sqlite3
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np
from ase.db.sqlite import SQLite3Database
from ase.io import iread
from ase.io.extxyz import key_val_str_to_dict
from ase.io.formats import filetype, get_compression, open_with_compression

from ase_flatten.data.label_keys import LabelKeys
from ase_flatten.data.units import energy_in_eV, length_in_angstrom
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.npz_files import LARGEST_COMPRESSION, SMALL_BYTES
from ase_flatten.utils.typing import FloatArray, IntArray

LONGEST_LINE = 1 << 24
"""Largest number of characters in a line of extended XYZ."""

_SQLITE = b"SQLite format 3\0"
_SQLITE_STEPS = 10_000_000
"""Instructions of SQLite's virtual machine that reading any file may take; a row takes less than one per byte."""
_STEPS_BETWEEN_LOOKS = 1000

_COLUMNS = re.compile(r":\s*[RSILrsil]\s*:\s*([^\s:\"'}\])]+)")
"""Numbers of columns, as in ``Properties=species:S:1:pos:R:3``; other text may look the same."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One structure of a trajectory, in the units of the file.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    positions : (n_atoms, 3) array
    energy, forces : as the file has them
        None if it has none under the names that were asked for.
    pbc : bool
        Whether the structure is periodic.
    units : tuple of str
        The declared units of energy and length; None if none is declared.
    values : mapping of names to values
        All that may be named instead.
    """

    numbers: IntArray
    positions: FloatArray
    energy: Any
    forces: Any
    pbc: bool
    units: tuple[str | None, str | None]
    values: Mapping[str, Any]


def read_frames(path: Path, keys: LabelKeys) -> Iterator[Frame]:
    """Read the frames of an ASE or SchNetPack database, or of a trajectory in any format that ASE reads.

    Parameters
    ----------
    keys : LabelKeys
        Names of results of ASE's calculators, of entries of the comment line and columns of extended XYZ, or of a
        database's data and key-value pairs; by default, energy and forces.

    Raises
    ------
    InputError
        Sizes that the file cannot hold, or units that contradict each other.
    Exception
        Whatever ASE's parsers raise for a damaged file.
    """
    with path.open("rb") as stream:
        is_database = path.suffix == ".db" or stream.read(len(_SQLITE)) == _SQLITE
    read = _database_frames if is_database else _trajectory_frames
    yield from read(path, keys.energy or "energy", keys.forces or "forces")


def _trajectory_frames(path: Path, energy_key: str, forces_key: str) -> Iterator[Frame]:
    file_format = filetype(str(path))
    if file_format in ("extxyz", "xyz"):
        _check_sizes(path)
    for atoms in iread(path, index=":", format=file_format, do_not_split_by_at_sign=True):
        results = atoms.calc.results if atoms.calc is not None else {}
        values = ChainMap(results, atoms.arrays, atoms.info)
        # Positions and results in ASE's own format are in Å and eV by definition; other values may be in any unit.
        own = path.suffix == ".traj"
        energy_unit, length_unit = "eV" if own and energy_key in results else None, "Ang" if own else None
        yield Frame(
            numbers=atoms.numbers,
            positions=atoms.positions,
            energy=values.get(energy_key),
            forces=values.get(forces_key),
            pbc=bool(atoms.pbc.any()),
            units=(
                _text(atoms.info.get("energy_unit", energy_unit)),
                _text(atoms.info.get("length_unit", length_unit)),
            ),
            values=values,
        )


def _check_sizes(path: Path) -> None:
    """Compare the numbers of atoms and of columns that an XYZ file declares with its lines; raise InputError."""
    with open_with_compression(str(path), "r") as stream:
        left = _size(path)
        while (line := stream.readline(LONGEST_LINE)).strip():
            left -= len(line)
            if line.lstrip().startswith("VEC"):
                continue
            n_atoms = int(line)
            if not 1 <= n_atoms <= left // 2:
                raise InputError(
                    f"expected a number of atoms that fits the size of {path}, "
                    f"found {printable(line.strip(), most=30)}; check the file"
                )
            left -= _check_frame(path, stream, n_atoms)


def _check_frame(path: Path, stream: IO[str], n_atoms: int) -> int:
    """Check the columns of a frame, and return the number of characters of its comment and atoms."""
    comment, first = stream.readline(LONGEST_LINE), stream.readline(LONGEST_LINE)
    n_columns, n_words = _n_columns(comment), len(first.split())
    if n_columns > n_words:
        raise InputError(
            f"expected {printable(n_columns, most=30)} columns for each atom, as a comment line of {path} declares, "
            f"found {n_words}; check the file"
        )
    return len(comment) + len(first) + sum(len(stream.readline(LONGEST_LINE)) for _ in range(n_atoms - 1))


def _n_columns(comment: str) -> int:
    """Return the number of columns that a comment line declares, or a lower one if no count stands out."""
    counts = _COLUMNS.findall(comment)
    if all(count.isdecimal() and len(count) < 3 for count in counts):
        return 0
    return sum(int(count) for count in str(key_val_str_to_dict(comment).get("Properties", "")).split(":")[2::3])


def _size(path: Path) -> int:
    """Return the number of bytes of a file, decompressed; raise ValueError if it is far too large."""
    size = path.stat().st_size
    if get_compression(str(path))[1] is None:
        return size
    most, total = SMALL_BYTES + LARGEST_COMPRESSION * size, 0
    with open_with_compression(str(path), "rb") as stream:
        while piece := stream.read(1 << 20):
            total += len(piece)
            if total > most:
                raise ValueError(f"more than {most / 2**20:.0f} MiB in a file of {size / 2**20:.1f} MiB")
    return total


class _BoundedDatabase(SQLite3Database):
    """An ASE database that is opened for reading only, and whose answers are limited by the size of the file."""

    def _connect(self) -> sqlite3.Connection:
        path = Path(str(self.filename))
        size = path.stat().st_size
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(size, 1_000_000))
        looks = iter(range((_SQLITE_STEPS + size) // _STEPS_BETWEEN_LOOKS))
        connection.set_progress_handler(lambda: next(looks, None) is None, _STEPS_BETWEEN_LOOKS)
        kinds = dict(connection.execute("SELECT name, type FROM sqlite_master"))
        if kinds.get("systems") != "table" or "view" in kinds.values():
            connection.close()
            raise ValueError("no table of systems, or views in its place")
        return connection


def _database_frames(path: Path, energy_key: str, forces_key: str) -> Iterator[Frame]:
    with _BoundedDatabase(str(path), use_lock_file=False) as database:
        metadata = database.metadata
        properties, length = (
            metadata.get("_property_unit_dict", {"energy": "eV"}),
            metadata.get("_distance_unit", "Ang"),
        )
        declared = {name: _text(unit) for name, unit in properties.items()}
        _check_force_unit(path, declared.get(energy_key), declared.get(forces_key), str(length))
        for row in database.select():
            results = {name: row.get(name) for name in ("energy", "forces") if row.get(name) is not None}
            values = ChainMap(row.data, row.key_value_pairs, results)
            yield Frame(
                numbers=row.numbers,
                positions=row.positions,
                energy=values.get(energy_key),
                forces=values.get(forces_key),
                pbc=bool(row.pbc.any()),
                units=(declared.get(energy_key), str(length)),
                values=values,
            )


def _check_force_unit(path: Path, energy: str | None, force: str | None, length: str) -> None:
    if force is None or energy is None:
        return
    force_energy, _, force_length = force.rpartition("/")
    per_length = energy_in_eV(force_energy) / length_in_angstrom(force_length)
    if not np.isclose(per_length, energy_in_eV(energy) / length_in_angstrom(length)):
        raise InputError(
            f"{path} declares forces in {printable(force)}, but energies in {energy} and lengths in {length}; "
            f"write the forces in {energy}/{length}"
        )


def _text(declared: Any) -> str | None:
    return None if declared is None else str(declared)
