"""What `run_md` has left of a model: read for the analysis."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.trajectory import Trajectory

from ase_flatten.dataset import FloatArray
from ase_flatten.exceptions import InputError
from ase_flatten.files import reading_npz

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
    def n_physical(self) -> np.ndarray:
        """Number of recorded frames of each replica before it failed, (n_replicas,)."""
        return np.asarray(np.isfinite(self.arrays["potential"]).sum(axis=0))

    @property
    def survivors(self) -> np.ndarray:
        """The numbers of the replicas that did not fail."""
        failed = {failure["replica"] for failure in self.summary["failures"]}
        return np.array([replica for replica in range(self.summary["n_replicas"]) if replica not in failed], dtype=int)

    def frames(self, replica: int, most: int) -> list[Atoms]:
        """Read at most so many frames of a replica before it failed, evenly spread from the first to the last."""
        n_frames = int(self.n_physical[replica])
        if not n_frames:
            return []
        chosen = np.unique(np.linspace(0, n_frames - 1, min(most, n_frames)).astype(int))
        with Trajectory(self.folder / f"replica-{replica:02d}.traj") as trajectory:
            return [trajectory[int(frame)] for frame in chosen]


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
