"""The content of a file in its own units, collected from the frames of a trajectory."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.io.formats import UnknownFileTypeError

from ase_flatten.data.dataset import formula
from ase_flatten.data.label_keys import LabelKeys, labels_missing, other_labels
from ase_flatten.data.trajectory_files import Frame, read_frames
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.typing import FloatArray, IntArray

logger = logging.getLogger(__name__)


@dataclass
class RawDataset:
    """The content of a file, in its own units."""

    numbers: IntArray
    positions: Any
    energies: Any
    forces: Any
    energy_unit: str | None = None
    length_unit: str | None = None
    name: str = ""
    theory: str = ""


def read_trajectory(path: Path, keys: LabelKeys) -> RawDataset:
    """Collect the frames of a trajectory or database, without those of isolated atoms.

    Raises
    ------
    InputError
        Anything but one molecule without a cell, with an energy and forces in every frame.
    """
    positions: list[FloatArray] = []
    forces: list[FloatArray] = []
    energies: list[float] = []
    first: Frame | None = None
    isolated: Counter[str] = Counter()
    try:
        for number, frame in enumerate(read_frames(path, keys)):
            if len(frame.numbers) == 1:
                isolated[formula(frame.numbers)] += 1
                continue
            first = first or frame
            _check(frame, first, f"frame {number} of {path}", keys)
            positions.append(frame.positions)
            forces.append(np.asarray(frame.forces, dtype=np.float64))
            energies.append(np.asarray(frame.energy).item())
    except InputError:
        raise
    except UnknownFileTypeError as error:  # which says the suffix only
        raise InputError(
            f"expected a trajectory that ASE reads, found {path}, whose format it does not know; "
            "give an npz, extended XYZ, .traj or .db file"
        ) from error
    except Exception as error:  # ASE's readers raise whatever their parsers do
        raise InputError(
            f"expected a trajectory that ASE reads, could not read frame {len(energies) + isolated.total()} of {path}: "
            f"{printable(error) or type(error).__name__}"
        ) from error
    if first is None:
        found = "isolated atoms only" if isolated else "none"
        raise InputError(f"expected at least one frame of a molecule in {path}, found {found}")
    others = other_labels(keys, list(first.values))
    if others:
        logger.info(
            "the file also holds %s; to read these instead of the usual keys, give --energy-key and --forces-key",
            printable(", ".join(others)),
        )
    if isolated:
        n = isolated.total()
        logger.info(
            "%d frame%s of isolated atoms (%s) set aside; frames are counted without them",
            n, "s" if n > 1 else "", ", ".join(sorted(isolated)),
        )  # fmt: skip
    return RawDataset(first.numbers, np.stack(positions), energies, np.stack(forces), *first.units, name=path.stem)


def _check(frame: Frame, first: Frame, which: str, keys: LabelKeys) -> None:
    """Refuse a frame that has no labels, or that is not of the same molecule in the same units as the first."""
    if frame.pbc:
        raise InputError(
            f"expected molecules without a cell, found a periodic {which}; periodic data are not supported: "
            'if the cell is only a box around the molecule, write pbc="F F F"'
        )
    missing = [label for label in ("energy", "forces") if getattr(frame, label) is None]
    if missing:
        own = ("numbers", "positions")
        found = [name for name, value in frame.values.items() if value is not True and name not in own]
        of_atoms = [name for name in found if np.shape(frame.values[name])[:1] == (len(frame.numbers),)]
        raise labels_missing(
            "an energy and forces in every frame",
            f"in {which}",
            keys=keys,
            missing=missing,
            found=[name for name in found if name not in of_atoms],
            of_atoms=of_atoms,
        )
    if not np.array_equal(frame.numbers, first.numbers):
        raise InputError(
            f"expected {formula(first.numbers)} with its atoms in the same order in every frame, "
            f"found {formula(frame.numbers)} in {which}; split or reorder the data"
        )
    if frame.units != first.units:
        raise InputError(
            f"expected one declaration of units, found {printable(frame.units)} in {which} "
            f"after {printable(first.units)}; write all frames in the same units"
        )
    for label, value, shape, must_be in (
        ("energy", np.squeeze(frame.energy), (), "a number"),
        ("forces", np.asarray(frame.forces), frame.positions.shape, "three numbers for each atom"),
    ):
        if value.shape != shape or value.dtype.kind not in "iuf":
            key = getattr(keys, label)
            remedy = f"choose another --{label}-key" if key else "check the file"
            raise InputError(
                f"expected {must_be} as {printable(key or label)} in every frame, found {value.dtype.name} of the "
                f"shape {value.shape} in {which}; {remedy}"
            )
