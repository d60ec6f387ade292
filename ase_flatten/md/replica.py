"""One replica of a run: Langevin dynamics until its end or its first unphysical frame."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory
from ase.md.langevin import Langevin

from ase_flatten.dataset import FloatArray
from ase_flatten.md.geometry import Bonds
from ase_flatten.md.langevin import draw_momenta, langevin
from ase_flatten.md.protocol import Protocol
from ase_flatten.progress import Advance

LOWEST_TEMPERATURE_K = 0.1
HIGHEST_TEMPERATURE_K = 100_000.0
"""Outside these limits a kinetic temperature is unphysical, K."""

_MODEL_ERRORS = (RuntimeError, ArithmeticError, np.linalg.LinAlgError)
"""What calculators raise for configurations far from any they know; ASE's CalculatorError is one of them."""


@dataclass(frozen=True)
class Failure:
    """Say why a replica ended, and when; steps and times below zero are equilibration."""

    replica: int
    step: int
    time_ps: float
    reason: str


@dataclass(frozen=True, eq=False)
class Recorded:
    """Recorded energies of one replica, (n,) in eV, NaN after its end."""

    potential: FloatArray
    kinetic: FloatArray
    failure: Failure | None


def run_replica(
    atoms: Atoms,
    protocol: Protocol,
    bonds: Bonds,
    rng: np.random.Generator,
    path: Path,
    *,
    replica: int,
    advance: Advance,
) -> Recorded:
    """Run one replica, `atoms` with a calculator, and write its trajectory to `path`."""
    recorded = Recorded(np.full(protocol.n_records, np.nan), np.full(protocol.n_records, np.nan), None)
    draw_momenta(atoms, protocol.temperature_K, rng)
    dynamics = langevin(
        atoms,
        temperature_K=protocol.temperature_K,
        timestep_fs=protocol.timestep_fs,
        friction_per_fs=protocol.friction_per_fs,
        rng=rng,
    )
    first = -protocol.equilibration_steps
    # A model far from what it knows may overflow on its way to NaN, which is found below.
    with Trajectory(path, "w") as trajectory, np.errstate(all="ignore"):
        for step in range(first, protocol.n_steps + 1):
            due = step % protocol.interval == 0
            unanswered = _advance(atoms, dynamics if step > first else None)
            reason = _unphysical(atoms, bonds) if due and unanswered is None else unanswered
            if step >= 0 and (due or reason is not None) and np.isfinite(atoms.positions).all():
                trajectory.write(_labelled(atoms) if unanswered is None else _unlabelled(atoms))
            if reason is not None:
                advance(protocol.n_steps - max(step - 1, first))
                return replace(recorded, failure=Failure(replica, step, step * protocol.timestep_fs / 1000, reason))
            if step >= 0 and due:
                recorded.potential[step // protocol.interval] = atoms.get_potential_energy()
                recorded.kinetic[step // protocol.interval] = atoms.get_kinetic_energy()
            if step > first:
                advance(1)
    return recorded


def _advance(atoms: Atoms, dynamics: Langevin | None) -> str | None:
    """Make a step, or none, and say what is wrong with the model's answer if anything is."""
    try:
        if dynamics is not None:
            dynamics.step()
        answer = np.append(atoms.get_forces(apply_constraint=False), atoms.get_potential_energy())
    except _MODEL_ERRORS as error:
        return f"the model failed: {error}"
    if not (np.isfinite(answer).all() and np.isfinite(atoms.positions).all()):
        return "energy, forces or positions are no longer numbers"
    return None


def _unphysical(atoms: Atoms, bonds: Bonds) -> str | None:
    """Say what is unphysical about a frame, if anything is."""
    broken = bonds.broken(atoms.positions)
    if broken is not None:
        i, j, length = broken
        return f"the bond {atoms.symbols[i]}{i}-{atoms.symbols[j]}{j} is {length:.2f} Å long"
    temperature = atoms.get_kinetic_energy() * kelvin_per_eV(len(atoms))
    if not LOWEST_TEMPERATURE_K <= temperature <= HIGHEST_TEMPERATURE_K:
        return f"the temperature is {temperature:.3g} K"
    return None


def _unlabelled(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, momenta=atoms.get_momenta())


def _labelled(atoms: Atoms) -> Atoms:
    """Copy a frame for the trajectory, without the constraint and with energy and forces."""
    frame = _unlabelled(atoms)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
    frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
    return frame


def kelvin_per_eV(n_atoms: int) -> float:
    """Give the temperature of one eV of kinetic energy, the centre of mass at rest."""
    return 2 / ((3 * n_atoms - 3) * units.kB)
