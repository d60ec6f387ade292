"""Run a model in molecular dynamics, replica by replica, and write down what it did.

A model's folder, such as ``RUN/md/400K/improved``, holds

``energies.npz``
    time_ps (n,); potential and kinetic (n, n_replicas), eV, NaN from a replica's first
    unphysical frame on; temperature_K, the thermostat's; kinetic_temperature_K (n, n_replicas).
``replica-00.traj``, ...
    The recorded frames of each replica, the unphysical one that ended it among them.
``summary.json``
    The verdict on the run; `summarize` says what its keys mean.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_flatten.exceptions import InputError
from ase_flatten.files import write_json, write_npz, writing_folder
from ase_flatten.md.analysis import summarize
from ase_flatten.md.geometry import Bonds
from ase_flatten.md.langevin import check_timestep
from ase_flatten.md.protocol import Protocol
from ase_flatten.md.replica import kelvin_per_eV, run_replica
from ase_flatten.progress import SILENT, Progress


def run_md(
    calculator: BaseCalculator | Callable[[], BaseCalculator],
    start: Sequence[Atoms],
    protocol: Protocol,
    folder: str | Path,
    *,
    model: str,
    bonds: Bonds,
    zero_energy_eV: float,
    seed: int = 0,
    digest: str = "",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Run Langevin dynamics of every replica and write the folder, whole or not at all.

    A replica ends at its first unphysical frame; the others go on. A folder that was
    finished with the same settings is not run again.

    Parameters
    ----------
    calculator : ASE calculator, or a function that makes one
        A function is called once for each replica.
    start : sequence of Atoms
        The first configuration of each replica.
    folder : str or Path
        Where the results go; what was there before is replaced.
    model : str
        The name of the model in tables and figures: default, improved or reference.
    bonds : Bonds
        Of the reference data, see `reference_bonds`.
    zero_energy_eV : float
        The lowest potential energy of the reference data.
    seed : int
        Each replica's velocities and noise come from its own child of this seed.
    digest : str
        What tells this model from others of the same name, for the decision to run again.

    Returns
    -------
    dict
        The content of ``summary.json``.

    Raises
    ------
    InputError
        Starts that are not one for each replica or are periodic, or a time step that the molecule does not allow.
    """
    _check_start(start, protocol)
    folder = Path(folder)
    settings = {
        **asdict(protocol),
        "model": model,
        "seed": seed,
        "zero_energy_eV": float(zero_energy_eV),
        "digest": digest,
        "start": _fingerprint(start, bonds),
    }
    finished = _finished(folder, settings)
    if finished is not None:
        return finished
    seeds = np.random.SeedSequence(seed).spawn(protocol.n_replicas)
    recorded = []
    with writing_folder(folder) as beside:
        n_steps = protocol.n_replicas * (protocol.equilibration_steps + protocol.n_steps)
        with progress.task(f"{model} at {protocol.temperature_K:g} K", n_steps) as advance:
            for replica, atoms in enumerate(start):
                atoms = Atoms(atoms.numbers, atoms.positions)
                atoms.calc = calculator() if callable(calculator) else calculator
                path = beside / f"replica-{replica:02d}.traj"
                rng = np.random.default_rng(seeds[replica])
                recorded.append(run_replica(atoms, protocol, bonds, rng, path, replica=replica, advance=advance))
        time_ps = np.arange(protocol.n_records) * protocol.interval * protocol.timestep_fs / 1000
        potential = np.column_stack([replica.potential for replica in recorded])
        kinetic = np.column_stack([replica.kinetic for replica in recorded])
        failures = [asdict(replica.failure) for replica in recorded if replica.failure is not None]
        summary = {
            "model": model,
            **{key: settings[key] for key in ("temperature_K", "timestep_fs", "n_steps", "n_replicas")},
            **summarize(time_ps, potential, kinetic, failures=failures, zero_energy_eV=zero_energy_eV),
            "settings": settings,
        }
        energies = {
            "time_ps": time_ps,
            "potential": potential,
            "kinetic": kinetic,
            "temperature_K": protocol.temperature_K,
            "kinetic_temperature_K": kinetic * kelvin_per_eV(len(start[0])),
        }
        write_npz(beside / "energies.npz", energies)
        write_json(beside / "summary.json", summary)
    return summary


def _check_start(start: Sequence[Atoms], protocol: Protocol) -> None:
    if len(start) != protocol.n_replicas:
        raise InputError(
            f"expected a start for each of {protocol.n_replicas} replicas, found {len(start)}; give as many"
        )
    for atoms in start:
        if atoms.pbc.any():
            raise InputError("expected molecules without a cell to start from, found a periodic one; remove the cell")
        check_timestep(protocol.timestep_fs, atoms.numbers)


def _fingerprint(start: Sequence[Atoms], bonds: Bonds) -> str:
    """Digest what else the frames of a run depend on."""
    arrays = [array for atoms in start for array in (atoms.numbers, atoms.positions)] + [bonds.pairs, bonds.lengths]
    return sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def _finished(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Read the summary of a run that was finished with these settings, if there is one."""
    path = folder / "summary.json"
    if not path.is_file() or not (folder / "energies.npz").is_file():
        return None
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return summary if isinstance(summary, dict) and summary.get("settings") == settings else None
