"""Data sets in npz files, in the layouts of sGDML, MD17, MD22 and rMD17."""

from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from ase_flatten.data.dataset import check_shapes
from ase_flatten.data.label_keys import LabelKeys, labels_missing
from ase_flatten.data.raw_dataset import RawDataset
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.npz_files import declared_shape, reading_npz

LAYOUTS = (
    {"numbers": "z", "positions": "R", "energy": "E", "forces": "F"},
    {"numbers": "nuclear_charges", "positions": "coords", "energy": "energies", "forces": "forces"},
)
"""The names of the arrays; the first layout that fits is taken."""


def read_npz(path: Path, keys: LabelKeys) -> RawDataset:
    """Read an npz file, never unpickling.

    Raises
    ------
    InputError
        A file that is damaged or incomplete; a lattice; an order of atoms that changes.
    """
    with reading_npz(path, "an npz file of plain arrays") as archive:
        return _raw_dataset(path, archive, _layout(path, archive, keys))


def _layout(path: Path, archive: NpzFile, keys: LabelKeys) -> dict[str, str]:
    """Return the names of the arrays; raise InputError if one of them is missing."""
    there = set(archive.files)
    asked = {label: key for label, key in (("energy", keys.energy), ("forces", keys.forces)) if key}
    layouts = [{**layout, **asked} for layout in LAYOUTS if {layout["numbers"], layout["positions"]} <= there]
    complete = [layout for layout in layouts if set(layout.values()) <= there]
    if complete:
        return complete[0]
    if not layouts:
        raise InputError(
            f"expected the keys z, R, E and F (or nuclear_charges, coords, energies and forces) in {path}, "
            f"found {printable(', '.join(archive.files)) or 'none'}; rename the arrays"
        )
    names = layouts[0]
    raise labels_missing(
        "energies and forces under the keys {energy} and {forces}".format_map(names),
        f"in {path}",
        keys=keys,
        missing=[label for label in ("energy", "forces") if names[label] not in there],
        found=archive.files,
    )


def _raw_dataset(path: Path, archive: NpzFile, keys: dict[str, str]) -> RawDataset:
    if "lattice" in archive.files:
        raise InputError(
            f"expected a molecule without a cell, found a lattice in {path}; periodic data are not supported"
        )
    shapes = {name: declared_shape(archive, key) for name, key in keys.items()}
    *_, n_atoms = shapes["numbers"] or (0,)
    energies = shapes["energy"][:1] if shapes["energy"][1:] == (1,) else shapes["energy"]
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
    return RawDataset(
        numbers=numbers,
        positions=archive[keys["positions"]],
        energies=archive[keys["energy"]].reshape(energies),
        forces=archive[keys["forces"]],
        energy_unit=text_entry(path, archive, "e_unit"),
        length_unit=text_entry(path, archive, "r_unit"),
        name=text_entry(path, archive, "name") or "",
        theory=text_entry(path, archive, "theory") or "",
    )


def text_entry(path: Path, archive: NpzFile, key: str) -> str | None:
    """Return a text of an npz file, such as a unit; None if it has none of this name, InputError for an empty array."""
    if key not in archive.files:
        return None
    shape = declared_shape(archive, key)
    if 0 in shape:
        raise InputError(f"expected text as {key} in {path}, found an empty array; write the text or leave {key} out")
    text = archive[key].flat[0]
    return text.decode() if isinstance(text, bytes) else str(text)
