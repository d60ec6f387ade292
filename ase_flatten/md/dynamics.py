"""Run a model in molecular dynamics and write the results.

A model's folder, such as ``RUN/md/400K/improved``, holds

``energies.npz``
    time_ps (n,); potential, kinetic and conserved (n, n_replicas), eV, NaN from a replica's first
    unphysical frame on; temperature_K, the thermostat's; kinetic_temperature_K (n, n_replicas).
``replica-00.traj``, ...
    Frames of each replica: every record, or a thousand that are evenly spread, and in either case the unphysical one
    that ended it and the records before it (see `kept_records`).
``summary.json``
    The verdict on the run, an `ase_flatten.md.results.Summary`. `ase_flatten.md.analysis.comparison.judge` writes it
    again when more is known of the expected energy.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_flatten.calculators import FlattenedCalculator
from ase_flatten.md.analysis.stability import summarize
from ase_flatten.md.analysis.time_series import conservation
from ase_flatten.md.chunks import damaged
from ase_flatten.md.criteria import Criteria, kelvin_per_eV
from ase_flatten.md.earlier_results import finished, partial_folder
from ase_flatten.md.engines import Engine, make_engine
from ase_flatten.md.integrators.langevin import check_timestep
from ase_flatten.md.protocol import Protocol
from ase_flatten.md.recorder import Recorder
from ase_flatten.md.results import FORMAT, Settings, Summary
from ase_flatten.utils.atomic_files import write_npz, writing_folder
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.records import write_record
from ase_flatten.utils.typing import FloatArray

CHECKPOINT_SECONDS = 60.0


N_HELD_AGAINST_TRAINING = 100
"""Frames of each replica that are compared with the model's training geometries."""


@dataclass(frozen=True, eq=False)
class Plan:
    """One run of one model: everything that its frames depend on, except for the model itself.

    Parameters
    ----------
    model : str
        The name of the model in tables and figures: default, improved or reference.
    start : sequence of Atoms
        The first configuration of each replica.
    protocol : Protocol
    criteria : Criteria
        The criteria for physical frames; their lowest energy is the zero of the total energy.
    engine : str
        One of `ase_flatten.md.engines.ENGINES`.
    seed : int
    digest : str
        Distinguishes this model from others of the same name: if it differs, the run is made again.

    Raises
    ------
    InputError
        Not one start for each replica, periodic starts, or a time step that is too long for the molecule.
    """

    model: str
    start: Sequence[Atoms]
    protocol: Protocol
    criteria: Criteria
    engine: str = "batched"
    seed: int = 0
    digest: str = ""

    def __post_init__(self) -> None:
        if len(self.start) != self.protocol.n_replicas:
            raise InputError(
                f"expected a start for each of {self.protocol.n_replicas} replicas, found {len(self.start)}; "
                "give one for each"
            )
        for atoms in self.start:
            if atoms.pbc.any():
                raise InputError(
                    "expected molecules without a cell to start from, found a periodic one; remove the cell"
                )
            check_timestep(self.protocol.timestep_fs, atoms.numbers)

    @cached_property
    def settings(self) -> Settings:
        """All that the frames depend on, as it is written down."""
        of_protocol = {field.name: getattr(self.protocol, field.name) for field in fields(Protocol)}
        del of_protocol["looks"]  # which only say when a run may end
        return Settings(
            **of_protocol,
            model=self.model,
            engine=self.engine,
            seed=self.seed,
            zero_energy_eV=self.criteria.lowest_energy,
            highest_energy_eV=self.criteria.highest_energy,
            criteria=self.criteria.record,
            digest=self.digest,
            start=self._fingerprint(),
        )

    def _fingerprint(self) -> str:
        """Digest the starting geometries, and the limits that are not in `Criteria.record`."""
        arrays = [array for atoms in self.start for array in (atoms.numbers, atoms.positions)] + self.criteria.arrays
        return sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def run_md(
    calculator: BaseCalculator,
    plan: Plan,
    folder: str | Path,
    *,
    resume: bool = True,
    until: int | None = None,
    progress: Progress = SILENT,
) -> Summary:
    """Run molecular dynamics of every replica and write the folder, completely or not at all.

    A replica ends at its first unphysical frame; the others continue. A folder that was
    finished with the same plan is not run again, an unfinished run is resumed. Where `progress` stops the run between
    two frames (Ctrl-C), nothing is lost.

    Parameters
    ----------
    calculator : ASE calculator
    plan : Plan
    folder : str or Path
        Folder of the results; its previous content is replaced.
    resume : bool
        Whether an unfinished run of the same plan is resumed, or begins anew.
    until : int, optional
        The step to stop at for a look, a multiple of the protocol's interval: the folder is written as after a run of
        that length, and a later call continues from there, unless `discard_rest` was called.

    Returns
    -------
    Summary
        The content of ``summary.json``.

    Raises
    ------
    InputError
        A thermostat that the engine does not have, or a damaged file of the unfinished run.
    """
    folder, protocol = Path(folder), plan.protocol
    last = protocol.n_steps if until is None else min(until, protocol.n_steps)
    earlier = finished(folder, plan.settings, last)
    if earlier is not None:
        return earlier
    recorder = Recorder(partial_folder(folder), plan.settings, protocol, plan.criteria)
    engine = make_engine(plan.engine, calculator, plan.criteria.numbers, protocol, seed=plan.seed)
    try:
        _start(engine, recorder, plan, resume=resume)
        with progress.task(f"{plan.model} at {protocol.temperature_K:g} K", last - recorder.step) as advance:
            for n_steps in _frames(engine, recorder, last):
                try:
                    advance(n_steps)
                except KeyboardInterrupt:
                    recorder.checkpoint(engine.state())
                    raise
    finally:
        engine.close()
    summary = _write(folder, recorder, plan, last, _outside_training(calculator, recorder))
    if last == protocol.n_steps:
        recorder.remove()
    return summary


def discard_rest(folder: str | Path) -> None:
    """Remove the checkpoints from which a run that was stopped for a look would continue."""
    shutil.rmtree(partial_folder(Path(folder)), ignore_errors=True)


def _start(engine: Engine, recorder: Recorder, plan: Plan, *, resume: bool) -> None:
    """Begin the dynamics, or resume them from a checkpoint."""
    state = recorder.last_state(resume=resume)
    if state is None:
        recorder.take(engine.begin(np.array([atoms.positions for atoms in plan.start])))
    else:
        try:
            engine.resume(state)
        except InputError:
            raise
        except (ValueError, TypeError, LookupError, SyntaxError) as error:
            raise damaged(recorder.last_chunk, error) from error


def _frames(engine: Engine, recorder: Recorder, last: int) -> Iterator[int]:
    """Advance from frame to frame, and yield the steps of each, with a checkpoint every minute.

    There is a checkpoint at the end, too, if that is not the end of the run.
    """
    saved, begin = time.monotonic(), recorder.step
    while not recorder.finished and recorder.step + recorder.steps_to_next <= last:
        before = recorder.step
        recorder.take(engine.advance(recorder.steps_to_next, recorder.alive))
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            recorder.checkpoint(engine.state())
            saved = time.monotonic()
        yield recorder.step - before
    if last < recorder.protocol.n_steps and recorder.step > begin:
        recorder.checkpoint(engine.state())


def _write(folder: Path, recorder: Recorder, plan: Plan, last: int, outside_training: float | None) -> Summary:
    """Write the folder of a run up to a step, and return its summary."""
    protocol, criteria = plan.protocol, plan.criteria
    n_records = last // protocol.interval + 1
    energies = {name: values[:n_records] for name, values in recorder.energies().items()}
    time_ps = np.arange(n_records) * protocol.interval * protocol.timestep_fs / 1000
    assessed = summarize(
        time_ps,
        energies["potential"],
        energies["kinetic"],
        failures=recorder.failures,
        zero_energy_eV=criteria.lowest_energy,
        thermostat=protocol.thermostat,
    )
    summary = Summary(
        **vars(assessed),
        format=FORMAT,
        model=plan.model,
        temperature_K=protocol.temperature_K,
        timestep_fs=protocol.timestep_fs,
        n_steps=last,
        n_replicas=protocol.n_replicas,
        engine=plan.engine,
        outside_training=outside_training,
        settings=plan.settings,
        nve=conservation(time_ps, energies["potential"], energies["kinetic"], len(criteria.numbers))
        if protocol.thermostat == "none"
        else None,
    )
    with writing_folder(folder) as beside:
        recorder.write_trajectories(beside)
        write_npz(
            beside / "energies.npz",
            {
                "time_ps": time_ps,
                **energies,
                "temperature_K": protocol.temperature_K,
                "kinetic_temperature_K": energies["kinetic"] * kelvin_per_eV(len(criteria.numbers)),
            },
        )
        write_record(beside / "summary.json", summary)
    return summary


def _outside_training(calculator: BaseCalculator, recorder: Recorder) -> float | None:
    """Return the fraction of frames outside the model's training geometries; None for other calculators."""
    if not isinstance(calculator, FlattenedCalculator):
        return None
    found: FloatArray = calculator.extrapolation_of(recorder.positions(N_HELD_AGAINST_TRAINING))
    return float(np.mean(found > 1)) if found.size and np.isfinite(found).all() else None
