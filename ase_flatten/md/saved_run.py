"""What `run_md` has left of a model: read for the analysis."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.trajectory import Trajectory

from ase_flatten.utils.atomic_files import reading_npz
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray

MOST_FRAMES = 1000
"""Of a replica in its trajectory, evenly spread: all records of a long run would fill the disk."""

N_BEFORE_FAILURE = 10
"""Records before a failure that are all in the trajectory."""

_ORDER = ("default", "improved", "reference")


@dataclass(frozen=True)
class SavedRun:
    """Read the folder of a model, such as ``RUN/md/400K/improved``.

    Parameters
    ----------
    folder : Path
    """

    folder: Path

    @property
    def name(self) -> str:
        """The model's name."""
        return self.folder.name

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        content: dict[str, Any] = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        return content

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The content of energies.npz."""
        with reading_npz(self.folder / "energies.npz", "energies of a run") as archive:
            return {name: archive[name] for name in archive.files}

    @property
    def duration_ps(self) -> float:
        """The time that a replica runs unless it fails."""
        return float(self.arrays["time_ps"][-1])

    @property
    def n_planned(self) -> int:
        """Number of records of a replica by the protocol; a run that was stopped at a look has fewer."""
        settings = self.summary.get("settings", {})
        if "n_steps" not in settings:
            return len(self.arrays["time_ps"])
        return int(settings["n_steps"]) // int(settings["interval"]) + 1

    @property
    def n_physical(self) -> np.ndarray:
        """Number of recorded frames of each replica before it failed, (n_replicas,)."""
        return np.asarray(np.isfinite(self.arrays["potential"]).sum(axis=0))

    @property
    def survivors(self) -> np.ndarray:
        """The numbers of the replicas that did not fail."""
        failed = {failure["replica"] for failure in self.summary["failures"]}
        return np.array([replica for replica in range(self.summary["n_replicas"]) if replica not in failed], dtype=int)

    def frames(self, replica: int, most: int = MOST_FRAMES) -> list[Atoms]:
        """Read at most so many frames of a replica before it failed, evenly spread over its time."""
        n_records, n_physical = self.n_planned, int(self.n_physical[replica])
        kept = kept_records(n_records, n_physical if replica not in self.survivors else n_records)
        even = np.flatnonzero((kept % stride(n_records) == 0) & (kept < n_physical))
        if not len(even):
            return []
        chosen = even[np.unique(np.linspace(0, len(even) - 1, min(most, len(even))).astype(int))]
        with Trajectory(self.folder / f"replica-{replica:02d}.traj") as trajectory:
            return [trajectory[int(frame)] for frame in chosen]


def kept_records(n_records: int, n_physical: int) -> IntArray:
    """Return the numbers of the records in a replica's trajectory: evenly spread ones, and all that lead to a failure.

    Parameters
    ----------
    n_records : int
        Of a replica that does not fail.
    n_physical : int
        Of this replica, before it failed.
    """
    records = np.arange(min(n_physical + 1, n_records))
    even = records % stride(n_records) == 0
    return records[even | ((n_physical < n_records) & (records >= n_physical - N_BEFORE_FAILURE))]


def stride(n_records: int) -> int:
    """Return the distance between the records that are evenly spread."""
    return -(-n_records // MOST_FRAMES)


def saved_runs(folder: str | Path) -> list[SavedRun]:
    """Find the models below the folder of a temperature, default first, reference last of the known names.

    Raises
    ------
    InputError
        No model has been run there.
    """
    found = [SavedRun(path.parent) for path in sorted(Path(folder).glob("*/summary.json"))]
    if not found:
        raise InputError(f"expected runs of models in {folder}, found none; run python -m ase_flatten.md first")
    return sorted(found, key=lambda run: _ORDER.index(run.name) if run.name in _ORDER else len(_ORDER))


def positions_of(frames: list[Atoms]) -> FloatArray:
    """Stack the positions of frames, (n_frames, n_atoms, 3) in Å."""
    return np.array([atoms.positions for atoms in frames])


def forces_of(frames: list[Atoms]) -> FloatArray:
    """Stack the forces that were saved with frames, (n_frames, n_atoms, 3) in eV/Å."""
    return np.array([atoms.calc.results["forces"] for atoms in frames])
