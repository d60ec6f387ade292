"""The folder of an unfinished sampling run: its settings, and one file for each chunk that is done."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset, write_dataset
from ase_flatten.utils.atomic_files import write_json, write_npz
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class State:
    """Hold where the dynamics stand.

    Parameters
    ----------
    step : int
        How many steps are done.
    positions, momenta : (n_atoms, 3) arrays, Å and ASE's unit of momentum
    generator : dict
        The state of the random generator, as JSON can hold it.
    """

    step: int
    positions: FloatArray
    momenta: FloatArray
    generator: dict[str, Any]


@dataclass(frozen=True, eq=False)
class LabelledFrame:
    """Hold one configuration with its energy, eV, and forces, (n_atoms, 3) in eV/Å; positions in Å."""

    positions: FloatArray
    energy: float
    forces: FloatArray


class PartialRun:
    """Keep an unfinished run beside the data set that it will become.

    Parameters
    ----------
    output : Path
        The data set, npz.
    numbers : (n_atoms,) int array
        Atomic numbers.
    record : dict
        Everything the frames depend on, as JSON can hold it; a `calculator` and a `dtype` among it.
    """

    def __init__(self, output: Path, numbers: IntArray, record: dict[str, Any]) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".partial")
        self.numbers = numbers
        self.record = record

    def open(self, *, resume: bool) -> State | None:
        """Take up the folder, or make it, and give the last state that it holds.

        Raises
        ------
        InputError
            The output is no npz or exists, or the folder holds a run with other settings.
        """
        if self.output.suffix != ".npz":
            raise InputError(f"expected the name of an npz file to write, got {self.output}; end it in .npz")
        if self.folder.exists() and not resume:
            shutil.rmtree(self.folder)
        settings = self.folder / "settings.json"
        if settings.exists():
            self._check_same(json.loads(settings.read_text(encoding="utf-8")))
        elif self.output.exists():
            raise InputError(f"expected no file {self.output}, found one; choose another name or delete it")
        else:
            write_json(settings, self.record)
        return self._last_state()

    def save(self, state: State, frames: list[LabelledFrame]) -> None:
        """Write down a chunk: its frames and the state that it ended in, in one file."""
        write_npz(
            self.folder / f"chunk-{state.step:09d}.npz",
            {
                "step": state.step,
                "state_positions": state.positions,
                "state_momenta": state.momenta,
                "generator": json.dumps(state.generator),
                **_stack(frames, len(self.numbers)),
            },
            writer=np.savez,
        )

    def finish(self) -> Dataset:
        """Write the data set, remove the folder, and give what the file holds."""
        self._write(self.output, [])
        shutil.rmtree(self.folder)
        return read_dataset(self.output)

    def keep(self, frames: list[LabelledFrame]) -> str:
        """Write all chunks and these last frames as a data set into the folder; say in words where they are."""
        path = self.folder / "frames.npz"
        n_frames = self._write(path, frames)
        return f"the {n_frames} frames before that are in {path}" if n_frames else "no frame was sampled before that"

    def _write(self, path: Path, last: list[LabelledFrame]) -> int:
        parts = []
        for chunk_path in self._chunks():
            with np.load(chunk_path, allow_pickle=False) as chunk:
                parts.append({name: chunk[name] for name in ("positions", "energies", "forces")})
        parts.append(_stack(last, len(self.numbers)))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
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
        with np.load(chunks[-1], allow_pickle=False) as chunk:
            generator = json.loads(str(chunk["generator"]))
            return State(int(chunk["step"]), chunk["state_positions"], chunk["state_momenta"], generator)

    def _chunks(self) -> list[Path]:
        return sorted(self.folder.glob("chunk-*.npz"))

    def _check_same(self, found: dict[str, Any]) -> None:
        changed = [name for name, value in self.record.items() if found.get(name) != value]
        if changed:
            given = " and ".join(f"{name} {found.get(name)}, not {self.record[name]}" for name in changed)
            raise InputError(
                f"expected the settings of the unfinished run in {self.folder}, which has {given}; "
                "give the same settings, or delete that folder to begin anew"
            )


def _stack(frames: list[LabelledFrame], n_atoms: int) -> dict[str, FloatArray]:
    return {
        "positions": np.array([frame.positions for frame in frames]).reshape(-1, n_atoms, 3),
        "energies": np.array([frame.energy for frame in frames], dtype=np.float64),
        "forces": np.array([frame.forces for frame in frames]).reshape(-1, n_atoms, 3),
    }
