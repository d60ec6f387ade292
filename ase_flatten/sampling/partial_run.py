"""The folder of an unfinished sampling run: its settings, and one file for each chunk that is done."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset, write_dataset
from ase_flatten.utils.atomic_files import remove_folder, unwritable, write_json, write_npz
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.records import read_arrays, read_record
from ase_flatten.utils.typing import FloatArray, IntArray

_LABELS = ("positions", "energies", "forces")


@dataclass(frozen=True, eq=False)
class State:
    """State of the dynamics after a step.

    Parameters
    ----------
    step : int
        Number of steps done.
    positions, momenta : (n_atoms, 3) arrays, Å and ASE's unit of momentum
    generator : dict
        State of the random generator, as JSON can represent it.
    """

    step: int
    positions: FloatArray
    momenta: FloatArray
    generator: dict[str, Any]


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """One configuration with its labels.

    Parameters
    ----------
    positions : (n_atoms, 3) array, Å
    energy : float, eV
    forces : (n_atoms, 3) array, eV/Å
    """

    positions: FloatArray
    energy: float
    forces: FloatArray


class PartialRun:
    """Unfinished run, in a folder beside the data set that it will become.

    Parameters
    ----------
    output : Path
        The data set to write, npz.
    numbers : (n_atoms,) int array
        Atomic numbers.
    record : dict
        Everything that the frames depend on, as JSON can represent it; among it `calculator`, `dtype`,
        `frames` and `versions`.
    """

    def __init__(self, output: Path, numbers: IntArray, record: dict[str, Any]) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".partial")
        self.numbers = numbers
        self.record = record

    def open(self, *, resume: bool) -> State | None:
        """Open the folder, or make it, and return the last state that it holds.

        Raises
        ------
        InputError
            The output is not an npz file or exists, or the folder is damaged or holds a run with other settings.
        """
        if self.output.suffix != ".npz":
            raise InputError(f"expected the name of an npz file to write, got {self.output}; end it in .npz")
        if not resume or not self.folder.exists():
            remove_folder(self.folder)
        settings = self.folder / "settings.json"
        if settings.exists():
            self._check_same(read_record(settings, dict[str, Any], what="the settings of a run", remedy=self._remedy))
        elif self._chunks():
            raise InputError(f"expected the settings of a run in {self.folder}, found frames only; {self._remedy}")
        elif self.output.exists():
            raise InputError(f"expected no file {self.output}, found one; choose another name or delete it")
        else:
            write_json(settings, self.record)
        return self._last_state()

    def save(self, state: State, frames: list[LabelledFrame]) -> None:
        """Write a chunk, its frames and the state at its end, to one file."""
        write_npz(
            self._chunk(state.step),
            {
                "step": state.step,
                "state_positions": state.positions,
                "state_momenta": state.momenta,
                "generator": json.dumps(state.generator),
                **_stack(frames, len(self.numbers)),
            },
            writer=np.savez,
        )

    def require_frames(self, n_frames: int) -> None:
        """Refuse a folder that does not hold this number of frames; raise InputError."""
        found = sum(len(self._read(path)["energies"]) for path in self._chunks())
        if found != n_frames:
            raise InputError(f"expected {n_frames} frames in {self.folder}, found {found}; {self._remedy}")

    def finish(self) -> Dataset:
        """Write the data set, remove the folder, and return what the file holds.

        The folder is renamed before it is removed, so that a later call never takes a part of it for an
        unfinished run.

        Raises
        ------
        InputError
            The folder does not hold all frames.
        """
        self.require_frames(self.record["frames"])
        whole = self.folder / "frames.npz"
        self._write(whole, [])
        try:
            os.replace(whole, self.output)
        except OSError as error:
            raise unwritable(self.output, error) from error
        remove_folder(self.folder)
        return read_dataset(self.output)

    def keep(self, frames: list[LabelledFrame]) -> str:
        """Write all chunks and these last frames to a data set in the folder; describe where they are."""
        path = self.folder / "frames.npz"
        n_frames = self._write(path, frames)
        return f"the {n_frames} frames before that are in {path}" if n_frames else "no frame was sampled before that"

    def _write(self, path: Path, last: list[LabelledFrame]) -> int:
        parts = [self._read(chunk) for chunk in self._chunks()]
        parts.append(_stack(last, len(self.numbers)))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in _LABELS}
        n_frames = len(joined["energies"])
        if n_frames:
            theory = self.record["calculator"].removeprefix("tblite:")
            dataset = Dataset(self.numbers, **joined, name=self.output.stem, theory=theory)
            extra = {name: value for name, value in self.record.items() if name not in ("versions", "dtype", "frames")}
            extra["versions"] = json.dumps(self.record["versions"], sort_keys=True)
            write_dataset(path, dataset, dtype=self.record["dtype"], **extra)
        return n_frames

    def _last_state(self) -> State | None:
        chunks = self._chunks()
        if not chunks:
            return None
        chunk = self._read(chunks[-1])
        try:
            generator = json.loads(str(chunk["generator"]))
            np.random.default_rng().bit_generator.state = generator
            step = int(chunk["step"])
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise self._damaged(chunks[-1], str(error)) from error
        if chunks[-1] != self._chunk(step):
            raise self._damaged(chunks[-1], f"that of step {step}")
        return State(step, chunk["state_positions"], chunk["state_momenta"], generator)

    def _read(self, path: Path) -> dict[str, np.ndarray]:
        """Read a chunk, and check the shapes of its arrays."""
        one = (len(self.numbers), 3)
        names = (*_LABELS, "step", "state_positions", "state_momenta", "generator")
        chunk = read_arrays(path, names, what="a chunk of a sampling run", remedy=self._remedy)
        vectors = (chunk["energies"].size, *one)
        expected = {
            "positions": vectors,
            "energies": vectors[:1],
            "forces": vectors,
            "state_positions": one,
            "state_momenta": one,
        }
        for name, shape in expected.items():
            found = chunk[name]
            if found.shape != shape or found.dtype != np.float64:
                raise self._damaged(path, f"{name} of the shape {found.shape} and the type {found.dtype}")
        return chunk

    def _damaged(self, path: Path, found: str) -> InputError:
        return InputError(f"expected a chunk of this run in {path}, found {printable(found)}; {self._remedy}")

    @property
    def _remedy(self) -> str:
        return f"delete the folder {self.folder} and run the same command again"

    def _chunk(self, step: int) -> Path:
        return self.folder / f"chunk-{step:09d}.npz"

    def _chunks(self) -> list[Path]:
        return sorted(self.folder.glob("chunk-*.npz"))

    def _check_same(self, found: dict[str, Any]) -> None:
        changed = [name for name, value in self.record.items() if found.get(name) != value]
        if changed:
            given = " and ".join(f"{name} {printable(found.get(name))}, not {self.record[name]}" for name in changed)
            raise InputError(
                f"expected the settings of the unfinished run in {self.folder}, which has {given}; "
                "use the same settings, or delete that folder to start again"
            )


def _stack(frames: list[LabelledFrame], n_atoms: int) -> dict[str, FloatArray]:
    return {
        "positions": np.array([frame.positions for frame in frames]).reshape(-1, n_atoms, 3),
        "energies": np.array([frame.energy for frame in frames], dtype=np.float64),
        "forces": np.array([frame.forces for frame in frames]).reshape(-1, n_atoms, 3),
    }
