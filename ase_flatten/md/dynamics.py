"""Run a model in molecular dynamics and write down what it did.

A model's folder, such as ``RUN/md/400K/improved``, holds

``energies.npz``
    time_ps (n,); potential, kinetic and conserved (n, n_replicas), eV, NaN from a replica's first
    unphysical frame on; temperature_K, the thermostat's; kinetic_temperature_K (n, n_replicas).
``replica-00.traj``, ...
    Frames of each replica: every record, or a thousand that are evenly spread, and in either case the unphysical one
    that ended it and the records before it, by `kept_records`.
``summary.json``
    The verdict on the run; `summarize` says what its keys mean, `conservation` those of nve, without a thermostat.
    `ase_flatten.md.analysis.comparison.judge` writes it again when more is known of what the energy should be.
"""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_flatten.md.analysis.stability import summarize
from ase_flatten.md.analysis.time_series import conservation
from ase_flatten.md.criteria import Criteria, kelvin_per_eV
from ase_flatten.md.engines import Engine, make_engine
from ase_flatten.md.integrators.langevin import check_timestep
from ase_flatten.md.protocol import Protocol
from ase_flatten.md.recorder import Recorder
from ase_flatten.utils.atomic_files import write_json, write_npz, writing_folder
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress

CHECKPOINT_SECONDS = 60.0


def run_md(
    calculator: BaseCalculator,
    start: Sequence[Atoms],
    protocol: Protocol,
    folder: str | Path,
    *,
    model: str,
    criteria: Criteria,
    engine: str = "batched",
    seed: int = 0,
    digest: str = "",
    resume: bool = True,
    until: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Run molecular dynamics of every replica and write the folder, whole or not at all.

    A replica ends at its first unphysical frame; the others go on. A folder that was
    finished with the same settings is not run again, one that was stopped goes on.

    Parameters
    ----------
    calculator : ASE calculator
    start : sequence of Atoms
        The first configuration of each replica.
    folder : str or Path
        Where the results go; what was there before is replaced.
    model : str
        The name of the model in tables and figures: default, improved or reference.
    criteria : Criteria
        What the molecule may do; its lowest energy is the zero of the total energy.
    engine : str
        One of `ase_flatten.md.engines.ENGINES`.
    digest : str
        What tells this model from others of the same name, for the decision to run again.
    resume : bool
        Whether an unfinished run of the same settings goes on, or begins anew.
    until : int, optional
        The step to stop at for a look, a multiple of the protocol's interval: the folder is written as after a run of
        that length, and a later call goes on from there, unless `discard_rest` says that none will.

    Returns
    -------
    dict
        The content of ``summary.json``.

    Raises
    ------
    InputError
        Starts that are not one for each replica or are periodic, a time step that the molecule does not
        allow, or a thermostat that the engine does not have.
    """
    _check_start(start, protocol)
    folder = Path(folder)
    last = protocol.n_steps if until is None else min(until, protocol.n_steps)
    settings = {
        **{name: value for name, value in asdict(protocol).items() if name != "looks"},
        "model": model,
        "engine": engine,
        "seed": seed,
        "zero_energy_eV": criteria.lowest_energy,
        "highest_energy_eV": criteria.highest_energy,
        "criteria": criteria.record,
        "digest": digest,
        "start": _fingerprint(start, criteria),
    }
    finished = _finished(folder, settings, last)
    if finished is not None:
        return finished
    recorder = Recorder(_partial(folder), settings, protocol, criteria)
    runner = make_engine(engine, calculator, criteria.numbers, protocol, seed=seed)
    try:
        _run(runner, recorder, start, f"{model} at {protocol.temperature_K:g} K", resume, last, progress)
    finally:
        runner.close()
    n_records = last // protocol.interval + 1
    energies = {name: values[:n_records] for name, values in recorder.energies().items()}
    time_ps = np.arange(n_records) * protocol.interval * protocol.timestep_fs / 1000
    summary = {
        "model": model,
        **{key: settings[key] for key in ("temperature_K", "timestep_fs", "n_steps", "n_replicas", "engine")},
        "n_steps": last,
        **summarize(
            time_ps,
            energies["potential"],
            energies["kinetic"],
            failures=[asdict(failure) for failure in recorder.failures],
            zero_energy_eV=criteria.lowest_energy,
            thermostat=protocol.thermostat,
        ),
        "settings": settings,
    }
    if protocol.thermostat == "none":
        summary["nve"] = conservation(time_ps, energies["potential"], energies["kinetic"], len(criteria.numbers))
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
        write_json(beside / "summary.json", summary)
    if last == protocol.n_steps:
        recorder.remove()
    return summary


def discard_rest(folder: str | Path) -> None:
    """Remove what a run that was stopped for a look would go on from."""
    shutil.rmtree(_partial(Path(folder)), ignore_errors=True)


def _partial(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _run(
    engine: Engine, recorder: Recorder, start: Sequence[Atoms], name: str, resume: bool, last: int, progress: Progress
) -> None:
    """Advance from frame to frame, with a checkpoint every minute, and one at the end if that is not the run's."""
    first = -recorder.protocol.equilibration_steps
    state = recorder.last_state(resume=resume)
    with progress.task(name, last - first) as advance:
        if state is None:
            recorder.take(engine.begin(np.array([atoms.positions for atoms in start])))
        else:
            engine.resume(state)
        advance(recorder.step - first)
        saved = time.monotonic()
        begin = recorder.step
        while not recorder.finished and recorder.step + recorder.steps_to_next <= last:
            before = recorder.step
            recorder.take(engine.advance(recorder.steps_to_next, recorder.alive))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                recorder.checkpoint(engine.state())
                saved = time.monotonic()
            advance(recorder.step - before)
        if last < recorder.protocol.n_steps and recorder.step > begin:
            recorder.checkpoint(engine.state())


def _check_start(start: Sequence[Atoms], protocol: Protocol) -> None:
    if len(start) != protocol.n_replicas:
        raise InputError(
            f"expected a start for each of {protocol.n_replicas} replicas, found {len(start)}; give as many"
        )
    for atoms in start:
        if atoms.pbc.any():
            raise InputError("expected molecules without a cell to start from, found a periodic one; remove the cell")
        check_timestep(protocol.timestep_fs, atoms.numbers)


def _fingerprint(start: Sequence[Atoms], criteria: Criteria) -> str:
    """Digest what else the frames of a run depend on."""
    arrays = [array for atoms in start for array in (atoms.numbers, atoms.positions)] + criteria.arrays
    return sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def _finished(folder: Path, settings: dict[str, Any], last: int) -> dict[str, Any] | None:
    """Read the summary of a run with these settings that has come to step `last`, if there is one."""
    path = folder / "summary.json"
    if not path.is_file() or not (folder / "energies.npz").is_file():
        return None
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    same = isinstance(summary, dict) and summary.get("settings") == settings and summary["n_steps"] >= last
    return summary if same else None
