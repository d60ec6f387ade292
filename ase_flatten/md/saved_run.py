"""Runs that `run_md` has written, read for the analysis."""

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io.trajectory import TrajectoryReader

from ase_flatten.md.result_files import read_summary, remedy
from ase_flatten.md.results import Settings, Summary
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.records import read_arrays
from ase_flatten.utils.typing import FloatArray, IntArray

MOST_FRAMES = 1000
"""Evenly spread records of a replica in its trajectory: all records of a long run would fill the disk."""

N_BEFORE_FAILURE = 10
"""Number of records before a failure that are all in the trajectory."""

_LARGEST = 1e12
"""Largest plausible energy in eV, time in ps or temperature in K."""

_ORDER = ("default", "improved", "reference")


@dataclass(frozen=True, eq=False)
class Energies:
    """Energies of a run by its records: the content of energies.npz.

    Parameters
    ----------
    time_ps : (n,) array
    potential, kinetic : (n, n_replicas) arrays, eV
        NaN from a replica's first unphysical frame on.
    kinetic_temperature_K : (n, n_replicas) array
    """

    time_ps: FloatArray
    potential: FloatArray
    kinetic: FloatArray
    kinetic_temperature_K: FloatArray  # noqa: N815


@dataclass(frozen=True)
class SavedRun:
    """The folder of a model's run, such as ``RUN/md/400K/improved``, whose files are read when they are needed.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    InputError
        From any property that reads a file: it is missing or damaged.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The model's name."""
        return self.folder.name

    @cached_property
    def summary(self) -> Summary:
        """The content of summary.json."""
        return read_summary(self.folder / "summary.json")

    @cached_property
    def settings(self) -> Settings:
        """Everything that the frames of the run depend on."""
        if self.summary.settings is None:
            raise InputError(
                f"expected the settings of a run in {self.folder / 'summary.json'}, found none; {remedy(self.folder)}"
            )
        return self.summary.settings

    @cached_property
    def energies(self) -> Energies:
        """The content of energies.npz."""
        path, what = self.folder / "energies.npz", "the energies of a molecular dynamics run"
        arrays = read_arrays(path, [field.name for field in fields(Energies)], what=what, remedy=remedy(self.folder))
        found = Energies(**{field.name: arrays[field.name] for field in fields(Energies)})
        wrong = _wrong(found, self.summary)
        if wrong:
            raise InputError(f"expected {what} in {path}, found {wrong}; {remedy(self.folder)}")
        return found

    @property
    def duration_ps(self) -> float:
        """The duration of a replica that does not fail."""
        return float(self.energies.time_ps[-1])

    @property
    def n_planned(self) -> int:
        """Number of records of a replica by the protocol; a run that was stopped at a look has fewer."""
        settings = self.summary.settings
        if settings is None or settings.n_steps is None or settings.interval is None:
            return len(self.energies.time_ps)
        return settings.n_steps // settings.interval + 1

    @property
    def n_physical(self) -> np.ndarray:
        """Number of recorded frames of each replica before it failed, (n_replicas,)."""
        return np.asarray(np.isfinite(self.energies.potential).sum(axis=0))

    @property
    def survivors(self) -> np.ndarray:
        """The numbers of the replicas that did not fail."""
        failed = {failure.replica for failure in self.summary.failures}
        return np.array([replica for replica in range(self.summary.n_replicas) if replica not in failed], dtype=int)

    def frames(self, replica: int, most: int = MOST_FRAMES) -> list[Atoms]:
        """Read a limited number of frames of a replica before it failed, evenly spread over its time."""
        n_records, n_physical = self.n_planned, int(self.n_physical[replica])
        spread = stride(n_records)
        # The frames that lead to a failure are also in the trajectory, one record apart.
        kept = (
            kept_records(n_records, n_physical) if replica not in self.survivors else np.arange(0, n_physical, spread)
        )
        even = np.flatnonzero((kept % spread == 0) & (kept < n_physical))
        if not len(even):
            return []
        chosen = even[np.unique(np.linspace(0, len(even) - 1, min(most, len(even))).astype(int))]
        return _read_frames(self.folder / f"replica-{replica:02d}.traj", chosen)


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
    """Find the models below the folder of a temperature: default first, and reference last among the known names.

    Raises
    ------
    InputError
        No model has been run there.
    """
    found = [SavedRun(path.parent) for path in summary_files(folder)]
    if not found:
        raise InputError(f"expected runs of models in {folder}, found none; run ase-flatten md first")
    return sorted(found, key=lambda run: _ORDER.index(run.name) if run.name in _ORDER else len(_ORDER))


def _wrong(energies: Energies, summary: Summary) -> str:
    """Return what is wrong with the energies of a run, in words; nothing for those that `run_md` writes."""
    n_records = len(energies.time_ps) if energies.time_ps.ndim == 1 else 0
    shape = n_records, summary.n_replicas
    for field in fields(Energies):
        array = getattr(energies, field.name)
        if array.dtype.kind != "f" or (field.name != "time_ps" and array.shape != shape) or not array.size:
            return f"{field.name} of shape {array.shape} and type {array.dtype}"
    if not (np.isfinite(energies.time_ps).all() and (np.diff(energies.time_ps) > 0).all()):
        return "times that do not increase"
    with np.errstate(invalid="ignore"):
        known = np.isfinite(energies.potential)
        alike = [np.isfinite(part) == known for part in (energies.kinetic, energies.kinetic_temperature_K)]
        sound = [~(np.abs(getattr(energies, field.name)) > _LARGEST).any() for field in fields(Energies)]
    if not all(sound):
        return "values that no molecule has"
    if not all(part.all() for part in alike) or (known[1:] & ~known[:-1]).any():
        return "values that are not finite before others that are"
    failed = {failure.replica for failure in summary.failures}
    lost = [int(replica) for replica in np.flatnonzero(~known[-1]) if replica not in failed]
    return f"no energies at the end of replica {lost[0]}, which summary.json does not say has failed" if lost else ""


def _read_frames(path: Path, frames: IntArray) -> list[Atoms]:
    """Read frames of a trajectory, with their energy and forces; raise InputError if it is damaged."""
    try:
        if not path.is_file():
            raise ValueError("no such file")
        with open(path, "rb") as stream:  # ASE leaves a damaged file open
            trajectory = TrajectoryReader(stream)
            found = [trajectory[int(frame)] for frame in frames]
        for atoms in found:
            results = atoms.calc.results
            values = atoms.positions, results["forces"], np.array(results["energy"], dtype=float)
            if not all(np.isfinite(array).all() for array in values) or values[1].shape != values[0].shape:
                raise ValueError("a frame with values that are not finite or not of its atoms")
            if not np.array_equal(atoms.numbers, found[0].numbers):
                raise ValueError("frames of different molecules")
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        EOFError,
        MemoryError,
        RuntimeError,
        SyntaxError,
    ) as error:  # fmt: skip  (ASE raises all of these on damaged files)
        reason = printable(error) or type(error).__name__
        raise InputError(
            f"expected the trajectory of a replica in {path}, could not read it: {reason}; {remedy(path.parent)}"
        ) from error
    return found


def summary_files(folder: str | Path) -> list[Path]:
    """List the summary.json of each model below the folder of a temperature, by name."""
    return sorted(Path(folder).glob("*/summary.json"))


def positions_of(frames: list[Atoms]) -> FloatArray:
    """Stack the positions of frames, (n_frames, n_atoms, 3) in Å."""
    return np.array([atoms.positions for atoms in frames])


def forces_of(frames: list[Atoms]) -> FloatArray:
    """Stack the forces that were saved with frames, (n_frames, n_atoms, 3) in eV/Å."""
    return np.array([atoms.calc.results["forces"] for atoms in frames])
