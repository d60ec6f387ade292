"""What a run has recorded so far: kept in chunks beside the folder that it will become."""

import json
import shutil
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.trajectory import Trajectory

from ase_flatten.md.criteria import WINDOW_PS, Criteria
from ase_flatten.md.engines import Frame, State
from ase_flatten.md.protocol import Protocol
from ase_flatten.md.saved_run import N_BEFORE_FAILURE, kept_records
from ase_flatten.utils.atomic_files import write_json, write_npz
from ase_flatten.utils.typing import FloatArray

_RECORDED = ("potential", "kinetic", "conserved")
_DRAWN = ("positions", "momenta", "forces")
_OF_FRAMES = (*_DRAWN, "record", "drawn", "drawn_energy")


@dataclass(frozen=True)
class Failure:
    """Say why a replica ended, and when; steps and times below zero are equilibration."""

    replica: int
    step: int
    time_ps: float
    reason: str


class Recorder:
    """Take frames, judge them, and keep them in chunks of a folder that survives the process.

    Parameters
    ----------
    folder : Path
        Of the unfinished run.
    settings : dict
        All that the frames depend on, as JSON can hold it; chunks of other settings are thrown away.
    protocol : Protocol
    criteria : Criteria

    Attributes
    ----------
    step : int
        The last one taken.
    alive : (n_replicas,) bool array
    failures : list of Failure
    """

    def __init__(self, folder: Path, settings: dict[str, Any], protocol: Protocol, criteria: Criteria) -> None:
        self.folder, self.protocol, self.criteria = folder, protocol, criteria
        self.step = -protocol.equilibration_steps
        self.alive = np.ones(protocol.n_replicas, dtype=bool)
        self.failures: list[Failure] = []
        self._frames: list[dict[str, np.ndarray]] = []
        window = round(1000 * WINDOW_PS / (protocol.timestep_fs * protocol.interval))
        self._potentials: deque[FloatArray] = deque(maxlen=max(1, window))
        self._settings = settings

    def last_state(self, *, resume: bool) -> dict[str, Any] | None:
        """Take up the folder, or begin it anew, and give the state of the engine that it ends with."""
        card = self.folder / "settings.json"
        if not (resume and card.is_file() and json.loads(card.read_text(encoding="utf-8")) == self._settings):
            shutil.rmtree(self.folder, ignore_errors=True)
            write_json(card, self._settings)
        chunks = self._chunks()
        if not chunks:
            return None
        with np.load(chunks[-1], allow_pickle=False) as last:
            self.step, self.alive = int(last["at"]), last["alive"]
            self.failures = [Failure(**failure) for failure in json.loads(str(last["failures"]))]
            for part in self._parts(("potential",)):
                self._potentials.extend(part["potential"])
            return {name.removeprefix("state_"): last[name] for name in last.files if name.startswith("state_")}

    @property
    def steps_to_next(self) -> int:
        """Steps to the next frame that is due; time zero is always one."""
        return self.protocol.interval - self.step % self.protocol.interval

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to run."""
        return self.step + self.steps_to_next > self.protocol.n_steps or not self.alive.any()

    def take(self, frame: Frame) -> None:
        """Judge a frame, and keep it from time zero on."""
        self.step = frame.step
        kept = self.alive.copy()
        reasons = self.criteria.unphysical(frame, self.alive)
        if frame.step >= 0:
            self._potentials.append(np.where(self.alive, frame.potential, np.nan))
            if len(self._potentials) == self._potentials.maxlen:
                reasons = self.criteria.sunk(np.array(self._potentials), self.alive) | reasons
        for replica, reason in sorted(reasons.items()):
            time_ps = frame.step * self.protocol.timestep_fs / 1000
            self.failures.append(Failure(replica, frame.step, time_ps, reason))
            self.alive[replica] = False
        if frame.step < 0:
            return
        with np.errstate(all="ignore"):
            energies = {
                "potential": frame.potential,
                "kinetic": self.criteria.kinetic(frame.momenta),
                "conserved": frame.conserved,
            }
        self._frames.append(
            {
                **{name: np.where(self.alive, values, np.nan) for name, values in energies.items()},
                **{name: getattr(frame, name) for name in _DRAWN},
                "record": np.array(frame.step // self.protocol.interval),
                "drawn_energy": frame.potential,
                # The unphysical frame that ends a replica is drawn as the last of its trajectory.
                "drawn": kept & np.isfinite(frame.positions).all(axis=(1, 2)),
            }
        )

    def checkpoint(self, state: State) -> None:
        """Write what was taken since the last time, and where the engine stands, in one file."""
        failures = json.dumps([asdict(failure) for failure in self.failures])
        write_npz(
            self.folder / f"chunk-{len(self._chunks()):06d}.npz",
            {
                "at": self.step,
                "alive": self.alive,
                "failures": failures,
                **{f"state_{name}": value for name, value in state.items()},
                **{f"frames_{name}": values for name, values in self._stacked().items()},
            },
            writer=np.savez,
        )
        self._frames = []

    def energies(self) -> dict[str, FloatArray]:
        """Return potential, kinetic and conserved energies, (n_records, n_replicas) in eV, NaN after a failure."""
        full = {name: np.full((self.protocol.n_records, len(self.alive)), np.nan) for name in _RECORDED}
        start = 0
        for part in self._parts(_RECORDED):
            stop = start + len(part["potential"])
            for name in _RECORDED:
                full[name][start:stop] = part[name]
            start = stop
        return full

    def write_trajectories(self, folder: Path) -> None:
        """Write ``replica-00.traj``, ..., a chunk at a time, with energies and forces; see `kept_records`."""
        numbers, kept = self.criteria.numbers, self._kept()
        writers = [Trajectory(folder / f"replica-{replica:02d}.traj", "w") for replica in range(len(self.alive))]
        try:
            for part in self._parts(_OF_FRAMES):
                for row, replica in np.argwhere(part["drawn"] & kept[part["record"]]):
                    positions, momenta, forces = (part[name][row, replica] for name in _DRAWN)
                    energy = part["drawn_energy"][row, replica]
                    known = np.isfinite(energy) and np.isfinite(forces).all()
                    results = {"energy": energy, "forces": forces} if known else {}
                    writers[replica].write(Atoms(numbers, positions, momenta=momenta), **results)
        finally:
            for writer in writers:
                writer.close()

    def remove(self) -> None:
        """Remove the chunks: their content is in its final place."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _chunks(self) -> list[Path]:
        return sorted(self.folder.glob("chunk-*.npz"))

    def _parts(self, names: tuple[str, ...]) -> Any:
        """Yield some arrays of each chunk, then of what is not yet written."""
        for path in self._chunks():
            with np.load(path, allow_pickle=False) as chunk:
                if "frames_drawn" in chunk.files:
                    yield {name: chunk[f"frames_{name}"] for name in names}
        if self._frames:
            rest = self._stacked()
            yield {name: rest[name] for name in names}

    def _kept(self) -> np.ndarray:
        """Return which records go into which trajectory, as far as failures are known, (n_records, n_replicas)."""
        n_records = self.protocol.n_records
        n_physical = np.full(len(self.alive), n_records)
        for failure in self.failures:
            n_physical[failure.replica] = max(0, failure.step // self.protocol.interval)
        kept = np.zeros((n_records, len(self.alive)), dtype=bool)
        for replica, n in enumerate(n_physical):
            kept[kept_records(n_records, int(n)), replica] = True
        return kept

    def _stacked(self) -> dict[str, np.ndarray]:
        """Stack the energies of all records, and the frames of those that a trajectory may have in the end."""
        if not self._frames:
            return {}
        records = np.array([frame["record"] for frame in self._frames])
        # The last ones too, since a replica may fail next.
        wanted = self._kept()[records].any(axis=1) | (records > records[-1] - N_BEFORE_FAILURE)
        chosen = [self._frames[row] for row in np.flatnonzero(wanted)]
        return {
            **{name: np.array([frame[name] for frame in self._frames]) for name in _RECORDED},
            **{name: np.array([frame[name] for frame in chosen]) for name in _OF_FRAMES},
        }
