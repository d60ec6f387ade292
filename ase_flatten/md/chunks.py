"""Chunks of an unfinished run: recorded frames and the state of the engine, one file for each.

A file is written at each checkpoint, into a folder beside that of the finished run, and never changed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ase_flatten.md.results import Failure
from ase_flatten.utils.atomic_files import write_npz
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.records import read_arrays
from ase_flatten.utils.typing import FloatArray, IntArray

RECORDED = ("potential", "kinetic", "conserved")
"""Energies of all records."""

DRAWN = ("positions", "momenta", "forces")
"""Arrays of the frames of a trajectory."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Consecutive records: the energies of all, and the frames of those that may become part of a trajectory.

    Parameters
    ----------
    potential, kinetic, conserved : (n_records, n_replicas) arrays, eV
    positions, momenta, forces : (n_frames, n_replicas, n_atoms, 3) arrays, Å, ASE's unit of momentum, eV/Å
    record : (n_frames,) int array
        The record number of each frame.
    drawn : (n_frames, n_replicas) bool array
        Whether the frame of a replica may be in its trajectory.
    drawn_energy : (n_frames, n_replicas) array, eV
    """

    potential: FloatArray
    kinetic: FloatArray
    conserved: FloatArray
    positions: FloatArray
    momenta: FloatArray
    forces: FloatArray
    record: IntArray
    drawn: NDArray[np.bool_]
    drawn_energy: FloatArray


@dataclass(frozen=True, eq=False)
class Chunk:
    """One checkpoint.

    Parameters
    ----------
    at : int
        The step of the checkpoint.
    alive : (n_replicas,) bool array
    failures : tuple of Failure
        All up to this step.
    state : dict
        Of the engine.
    frames : Frames or None
        Recorded since the previous chunk; None if there are none.
    """

    at: int
    alive: NDArray[np.bool_]
    failures: tuple[Failure, ...]
    state: Mapping[str, Any]
    frames: Frames | None


def chunk_files(folder: Path) -> list[Path]:
    """List the chunks of a folder in their order."""
    return sorted(folder.glob("chunk-*.npz"))


def write_chunk(folder: Path, chunk: Chunk) -> None:
    """Write a chunk after the existing ones, atomically."""
    frames = {} if chunk.frames is None else vars(chunk.frames)
    write_npz(
        folder / f"chunk-{len(chunk_files(folder)):06d}.npz",
        {
            "at": chunk.at,
            "alive": chunk.alive,
            "failures": json.dumps([asdict(failure) for failure in chunk.failures]),
            **{f"state_{name}": value for name, value in chunk.state.items()},
            **{f"frames_{name}": values for name, values in frames.items()},
        },
        writer=np.savez,
    )


def read_chunk(path: Path, *, n_replicas: int, n_atoms: int, n_records: int) -> Chunk:
    """Read a chunk of a run of `n_records` at most; raise InputError if it is damaged."""
    what = "a checkpoint of an unfinished run"
    arrays = read_arrays(path, ("at", "alive", "failures"), what=what, remedy=what_to_do(path.parent))
    try:
        alive = _array(arrays, "alive", (n_replicas,), "b")
        failures = msgspec.json.decode(str(arrays["failures"]), type=tuple[Failure, ...])
        if any(failure.replica >= n_replicas for failure in failures):
            raise ValueError(f"a failure of a replica that is not among the {n_replicas}")
        state = {name.removeprefix("state_"): value for name, value in arrays.items() if name.startswith("state_")}
        frames = _frames(arrays, n_replicas, n_atoms)
        if frames is not None and not ((frames.record >= 0) & (frames.record < n_records)).all():
            raise ValueError("frames after the end of the run")
        return Chunk(int(_array(arrays, "at", (), "iu")), alive, failures, state, frames)
    except (ValueError, msgspec.MsgspecError) as error:
        raise damaged(path, error) from error


def last_step(folder: Path) -> int | None:
    """Read the step of the last checkpoint; None if there is no checkpoint that can be read."""
    files = chunk_files(folder)
    try:
        arrays = read_arrays(files[-1], ("at",), what="a checkpoint", remedy=what_to_do(folder)) if files else {}
        return int(_array(arrays, "at", (), "iu"))
    except ValueError:
        return None


def damaged(path: Path, error: Exception) -> InputError:
    """Return the error for a chunk with wrong content."""
    return InputError(
        f"expected a checkpoint of an unfinished run in {path}, found {printable(error)}; {what_to_do(path.parent)}"
    )


def what_to_do(folder: Path) -> str:
    """Return what to do about an unfinished run that is damaged."""
    return f"delete {folder} and run it again, or begin anew with --no-resume"


def stack(recorded: Sequence[Mapping[str, np.ndarray]], chosen: Sequence[Mapping[str, np.ndarray]]) -> Frames:
    """Stack the energies of the records, and the frames of those that were chosen."""
    others = ("record", "drawn", "drawn_energy")
    return Frames(
        **{name: np.array([frame[name] for frame in recorded]) for name in RECORDED},
        **{name: np.array([frame[name] for frame in chosen]) for name in (*DRAWN, *others)},
    )


def _frames(arrays: Mapping[str, np.ndarray], n_replicas: int, n_atoms: int) -> Frames | None:
    if "frames_drawn" not in arrays:
        return None
    n_records, n_frames = _length(arrays, "frames_potential"), _length(arrays, "frames_record")
    return Frames(
        **{name: _array(arrays, f"frames_{name}", (n_records, n_replicas), "f") for name in RECORDED},
        **{name: _array(arrays, f"frames_{name}", (n_frames, n_replicas, n_atoms, 3), "f") for name in DRAWN},
        record=_array(arrays, "frames_record", (n_frames,), "iu"),
        drawn=_array(arrays, "frames_drawn", (n_frames, n_replicas), "b"),
        drawn_energy=_array(arrays, "frames_drawn_energy", (n_frames, n_replicas), "f"),
    )


def _length(arrays: Mapping[str, np.ndarray], name: str) -> int:
    if name not in arrays or not arrays[name].ndim:
        raise ValueError(f"no array {name}")
    return len(arrays[name])


def _array(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], kinds: str) -> np.ndarray:
    if name not in arrays:
        raise ValueError(f"no array {name}")
    array = arrays[name]
    if array.shape != shape or array.dtype.kind not in kinds:
        raise ValueError(f"{name} of shape {array.shape} and type {array.dtype}, not {shape}")
    return array
