"""ASE's own dynamics, one replica after the other."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.constraints import FixCom
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from ase_flatten.md.engines.interface import Frame, State, array_of
from ase_flatten.md.integrators.langevin import langevin, thermal_momenta
from ase_flatten.md.protocol import Protocol
from ase_flatten.models import MODEL_ERRORS
from ase_flatten.utils.typing import FloatArray, IntArray


class ASEEngine:
    """Engine that integrates with `ase.md`; see `Engine`.

    Parameters
    ----------
    calculator : ASE calculator
    numbers : (n_atoms,) int array
    protocol : Protocol
    seed : int
        Each replica's velocities and noise come from its own child of this seed.
    """

    thermostats: ClassVar[tuple[str, ...]] = ("langevin", "svr", "none")
    """ASE's Nosé-Hoover chain does not expose its state, without which a run cannot be resumed."""

    def __init__(self, calculator: BaseCalculator, numbers: IntArray, protocol: Protocol, *, seed: int) -> None:
        self._calculator, self._numbers, self._protocol = calculator, numbers, protocol
        self._rngs = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(protocol.n_replicas)]

    def begin(self, positions: FloatArray, momenta: FloatArray | None = None) -> Frame:
        """Draw momenta unless they are given, and evaluate."""
        if momenta is None:
            momenta = thermal_momenta(self._numbers, self._protocol.temperature_K, self._rngs)
        self._place(-self._protocol.equilibration_steps, positions, momenta)
        return self._frame(np.ones(len(self._replicas), dtype=bool), {})

    def resume(self, state: Mapping[str, Any]) -> None:
        """Resume from positions, momenta and generators."""
        shape = len(self._rngs), len(self._numbers), 3
        positions, momenta = (array_of(state, name, shape) for name in ("positions", "momenta"))
        self._place(int(state["step"]), positions, momenta)
        for rng, generator in zip(self._rngs, json.loads(str(state["generators"])), strict=True):
            rng.bit_generator.state = generator

    def state(self) -> State:
        """Return positions, momenta, and the generators as JSON."""
        return {
            "step": self._step,
            "positions": np.array([atoms.positions for atoms in self._replicas]),
            "momenta": np.array([atoms.get_momenta() for atoms in self._replicas]),
            "generators": json.dumps([rng.bit_generator.state for rng in self._rngs]),
        }

    def advance(self, n_steps: int, alive: np.ndarray) -> Frame:
        """Make the steps of one replica after the other."""
        n_equilibration = min(n_steps, max(0, -self._step))
        problems = {}
        for replica in np.flatnonzero(alive):
            try:
                with np.errstate(all="ignore"):
                    for thermostat, part in (
                        ("langevin", n_equilibration), (self._protocol.thermostat, n_steps - n_equilibration)
                    ):  # fmt: skip
                        dynamics = self._dynamics(replica, thermostat)
                        for _ in range(part):
                            dynamics.step()
            except MODEL_ERRORS as error:
                problems[int(replica)] = f"the model failed: {error}"
        self._step += n_steps
        return self._frame(alive, problems)

    def close(self) -> None:
        """Do nothing: there is no other process."""

    def _place(self, step: int, positions: FloatArray, momenta: FloatArray) -> None:
        self._step = step
        self._replicas = [
            Atoms(self._numbers, x, momenta=p, calculator=self._calculator, constraint=FixCom())
            for x, p in zip(positions, momenta, strict=True)
        ]

    def _dynamics(self, replica: int, thermostat: str) -> VelocityVerlet | Bussi | Langevin:
        atoms, rng, protocol = self._replicas[replica], self._rngs[replica], self._protocol
        if thermostat == "none":
            return VelocityVerlet(atoms, protocol.timestep_fs * units.fs)
        if thermostat == "svr":
            return Bussi(
                atoms, protocol.timestep_fs * units.fs, temperature_K=protocol.temperature_K,
                taut=units.fs / protocol.friction_per_fs, rng=rng,
            )  # fmt: skip
        return langevin(
            atoms, temperature_K=protocol.temperature_K, timestep_fs=protocol.timestep_fs,
            friction_per_fs=protocol.friction_per_fs, rng=rng,
        )  # fmt: skip

    def _frame(self, alive: np.ndarray, problems: dict[int, str]) -> Frame:
        shape = len(self._replicas), len(self._numbers), 3
        forces, potential = np.full(shape, np.nan), np.full(len(self._replicas), np.nan)
        for replica in np.flatnonzero(alive):
            if replica in problems:
                continue
            atoms = self._replicas[replica]
            try:
                potential[replica], forces[replica] = atoms.get_potential_energy(), atoms.get_forces()
            except MODEL_ERRORS as error:
                problems[int(replica)] = f"the model failed: {error}"
        positions, momenta = (
            np.array(arrays) for arrays in zip(*((a.positions, a.get_momenta()) for a in self._replicas), strict=True)
        )
        return Frame(self._step, positions, momenta, forces, potential, np.full(len(potential), np.nan), problems)
