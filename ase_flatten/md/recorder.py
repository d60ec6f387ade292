"""The frames of an unfinished run, kept in a folder beside that of the finished run."""

import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.trajectory import Trajectory

from ase_flatten.md.chunks import (
    DRAWN,
    RECORDED,
    Chunk,
    Frames,
    chunk_files,
    damaged,
    read_chunk,
    stack,
    write_chunk,
)
from ase_flatten.md.criteria import WINDOW_PS, Criteria
from ase_flatten.md.earlier_results import SETTINGS, read_settings
from ase_flatten.md.engines import Frame, State
from ase_flatten.md.protocol import Protocol
from ase_flatten.md.results import Failure, Settings
from ase_flatten.md.saved_run import N_BEFORE_FAILURE, kept_records, stride
from ase_flatten.utils.exceptions import printable
from ase_flatten.utils.records import write_record
from ase_flatten.utils.typing import FloatArray


class Recorder:
    """A recorder that judges frames and keeps them in chunks, in a folder from which a run can be resumed.

    Parameters
    ----------
    folder : Path
        Of the unfinished run.
    settings : Settings
        Everything that the frames depend on; chunks of other settings are discarded.
    protocol : Protocol
    criteria : Criteria

    Attributes
    ----------
    step : int
        The last one taken.
    alive : (n_replicas,) bool array
    failures : list of Failure
    """

    def __init__(self, folder: Path, settings: Settings, protocol: Protocol, criteria: Criteria) -> None:
        self.folder, self.protocol, self.criteria = folder, protocol, criteria
        self.step = -protocol.equilibration_steps
        self.alive = np.ones(protocol.n_replicas, dtype=bool)
        self.failures: list[Failure] = []
        self._frames: list[dict[str, np.ndarray]] = []
        window = round(1000 * WINDOW_PS / (protocol.timestep_fs * protocol.interval))
        self._potentials: deque[FloatArray] = deque(maxlen=max(1, window))
        self._settings = settings

    def last_state(self, *, resume: bool) -> Mapping[str, Any] | None:
        """Resume from the folder, or begin it anew; return the last state of the engine in it.

        Raises
        ------
        InputError
            A file in the folder is damaged.
        """
        card = self.folder / SETTINGS
        if not (resume and card.exists() and read_settings(self.folder) == self._settings):
            shutil.rmtree(self.folder, ignore_errors=True)
            write_record(card, self._settings)
        last, n_records = None, 0
        for last in self._chunks():
            self.step, self.alive, self.failures = last.at, last.alive, list(last.failures)
            if last.frames is not None:
                self._potentials.extend(last.frames.potential)
                n_records += len(last.frames.potential)
        if last is None:
            return None
        if n_records != max(0, self.step // self.protocol.interval + 1) or self.step > self.protocol.n_steps:
            raise damaged(self.last_chunk, ValueError(f"{n_records} records up to step {self.step}"))
        return last.state

    @property
    def last_chunk(self) -> Path:
        """The file of the last checkpoint."""
        return chunk_files(self.folder)[-1]

    @property
    def steps_to_next(self) -> int:
        """Steps to the next frame; there is always one at time zero."""
        return self.protocol.interval - self.step % self.protocol.interval

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to run."""
        return self.step + self.steps_to_next > self.protocol.n_steps or not self.alive.any()

    def take(self, frame: Frame) -> None:
        """Judge a frame, and keep it unless it belongs to equilibration."""
        self.step = frame.step
        kept = self.alive.copy()
        reasons = self.criteria.unphysical(frame, self.alive)
        if frame.step >= 0:
            self._potentials.append(np.where(self.alive, frame.potential, np.nan))
            if len(self._potentials) == self._potentials.maxlen:
                reasons = self.criteria.sunk(np.array(self._potentials), self.alive) | reasons
        for replica, reason in sorted(reasons.items()):
            time_ps = frame.step * self.protocol.timestep_fs / 1000
            self.failures.append(Failure(replica, frame.step, time_ps, printable(reason)))
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
                **{name: getattr(frame, name) for name in DRAWN},
                "record": np.array(frame.step // self.protocol.interval),
                "drawn_energy": frame.potential,
                # The unphysical frame that ends a replica is the last one of its trajectory.
                "drawn": kept & np.isfinite(frame.positions).all(axis=(1, 2)),
            }
        )

    def checkpoint(self, state: State) -> None:
        """Write the frames since the last checkpoint and the state of the engine to one file."""
        chunk = Chunk(self.step, self.alive, tuple(self.failures), state, self._stacked())
        write_chunk(self.folder, chunk)
        self._frames = []

    def energies(self) -> dict[str, FloatArray]:
        """Return potential, kinetic and conserved energies, (n_records, n_replicas) in eV, NaN after a failure."""
        full = {name: np.full((self.protocol.n_records, len(self.alive)), np.nan) for name in RECORDED}
        start = 0
        for part in self._parts():
            stop = start + len(part.potential)
            for name in RECORDED:
                full[name][start:stop] = getattr(part, name)
            start = stop
        return full

    def positions(self, most: int) -> FloatArray:
        """Return physical configurations, a limited number of each replica, evenly over time: (n, n_atoms, 3), Å."""
        spread, n_physical = stride(self.protocol.n_records), self._n_physical()
        n_even = -(-self.protocol.n_records // spread)
        every = spread * -(-n_even // most)
        found = [
            part.positions[(part.record % every == 0)[:, None] & (part.record[:, None] < n_physical)]
            for part in self._parts()
        ]
        return np.concatenate(found) if found else np.empty((0, len(self.criteria.numbers), 3))

    def write_trajectories(self, folder: Path) -> None:
        """Write ``replica-00.traj``, ..., a chunk at a time, with energies and forces; see `kept_records`."""
        numbers, kept = self.criteria.numbers, self._kept()
        writers = [Trajectory(folder / f"replica-{replica:02d}.traj", "w") for replica in range(len(self.alive))]
        try:
            for part in self._parts():
                for row, replica in np.argwhere(part.drawn & kept[part.record]):
                    positions, momenta, forces = (getattr(part, name)[row, replica] for name in DRAWN)
                    energy = part.drawn_energy[row, replica]
                    known = np.isfinite(energy) and np.isfinite(forces).all()
                    results = {"energy": energy, "forces": forces} if known else {}
                    writers[replica].write(Atoms(numbers, positions, momenta=momenta), **results)
        finally:
            for writer in writers:
                writer.close()

    def remove(self) -> None:
        """Remove the chunks: their content is in its final place."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _chunks(self) -> Iterator[Chunk]:
        for path in chunk_files(self.folder):
            yield read_chunk(
                path,
                n_replicas=self.protocol.n_replicas,
                n_atoms=len(self.criteria.numbers),
                n_records=self.protocol.n_records,
            )

    def _parts(self) -> Iterator[Frames]:
        """Yield the frames of each chunk, then those that are not yet written."""
        for chunk in self._chunks():
            if chunk.frames is not None:
                yield chunk.frames
        rest = self._stacked()
        if rest is not None:
            yield rest

    def _n_physical(self) -> np.ndarray:
        """Count the records of each replica before it failed, as far as failures are known, (n_replicas,)."""
        n_physical = np.full(len(self.alive), self.protocol.n_records)
        for failure in self.failures:
            n_physical[failure.replica] = max(0, failure.step // self.protocol.interval)
        return n_physical

    def _kept(self) -> np.ndarray:
        """Return which records go into which trajectory, as far as failures are known, (n_records, n_replicas)."""
        n_records, n_physical = self.protocol.n_records, self._n_physical()
        kept = np.zeros((n_records, len(self.alive)), dtype=bool)
        for replica, n in enumerate(n_physical):
            kept[kept_records(n_records, int(n)), replica] = True
        return kept

    def _stacked(self) -> Frames | None:
        """Stack the energies of all records, and the frames of those that may become part of a trajectory."""
        if not self._frames:
            return None
        records = np.array([frame["record"] for frame in self._frames])
        # The last ones too, since a replica may fail next.
        wanted = self._kept()[records].any(axis=1) | (records > records[-1] - N_BEFORE_FAILURE)
        return stack(self._frames, [self._frames[row] for row in np.flatnonzero(wanted)])
