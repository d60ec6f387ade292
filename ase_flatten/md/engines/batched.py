"""All replicas of a molecule in one call of the model per step, by `ase_flatten.md.integrators`."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import BaseCalculator

from ase_flatten.md.engines.force_evaluation import BatchCalculator, evaluator
from ase_flatten.md.engines.interface import Frame, State, array_of
from ase_flatten.md.integrators import INTEGRATORS
from ase_flatten.md.integrators.replicas import CHAIN_LINKS, Conditions, Replicas
from ase_flatten.md.protocol import Protocol
from ase_flatten.utils.typing import FloatArray, IntArray


class BatchedEngine:
    """Engine that integrates all replicas together; see `Engine`.

    Parameters
    ----------
    calculator : ASE calculator
        A `BatchCalculator` takes all replicas at once; any other takes one after the other.
    numbers : (n_atoms,) int array
    protocol : Protocol
    seed : int
        Of velocities and noise.
    """

    thermostats: ClassVar[tuple[str, ...]] = tuple(INTEGRATORS)

    def __init__(
        self, calculator: BaseCalculator | BatchCalculator, numbers: IntArray, protocol: Protocol, *, seed: int
    ) -> None:
        conditions = Conditions.of(
            protocol.temperature_K, protocol.timestep_fs, protocol.friction_per_fs, len(numbers)
        )  # fmt: skip
        self._n_replicas, self._equilibration_steps = protocol.n_replicas, protocol.equilibration_steps
        self._replicas = Replicas(
            evaluator(calculator, numbers), numbers, conditions.kT, np.random.default_rng(seed)
        )  # fmt: skip
        self._equilibrate = INTEGRATORS["langevin"](conditions)
        self._integrate = INTEGRATORS[protocol.thermostat](conditions)

    def begin(self, positions: FloatArray, momenta: FloatArray | None = None) -> Frame:
        """Draw momenta unless they are given, and evaluate."""
        self._step = -self._equilibration_steps
        return self._frame(self._replicas.place(positions, momenta))

    def resume(self, state: Mapping[str, Any]) -> None:
        """Resume from a state, with that of the generator."""
        replicas, n_replicas = self._replicas, self._n_replicas
        shape = n_replicas, len(replicas.numbers), 3
        step = int(state["step"])
        replicas.rng.bit_generator.state = json.loads(str(state["generator"]))
        replicas.positions, replicas.momenta, replicas.forces = (
            array_of(state, name, shape) for name in ("positions", "momenta", "forces")
        )
        replicas.potential, replicas.heat = (array_of(state, name, (n_replicas,)) for name in ("potential", "heat"))
        replicas.chain = array_of(state, "chain", (2, CHAIN_LINKS, n_replicas))
        self._step = step

    def state(self) -> State:
        """Return all arrays, and the generator as JSON."""
        replicas = self._replicas
        names = ("positions", "momenta", "forces", "potential", "heat", "chain")
        return {
            "step": self._step,
            **{name: getattr(replicas, name) for name in names},
            "generator": json.dumps(replicas.rng.bit_generator.state),
        }

    def advance(self, n_steps: int, alive: np.ndarray) -> Frame:
        """Make steps; a replica for which the model fails stays where it is, and the others continue."""
        alive = alive.copy()
        problems: dict[int, str] = {}
        with np.errstate(all="ignore"):  # on the way to NaN, which the criteria find in the frame
            for _ in range(n_steps):
                integrator = self._equilibrate if self._step < 0 else self._integrate
                found = integrator.step(self._replicas, alive)
                self._step += 1
                for replica in found:
                    alive[replica] = False
                problems |= found
                if not alive.any():
                    break
        return self._frame(problems)

    def close(self) -> None:
        """Do nothing: there is no other process."""

    def _frame(self, problems: dict[int, str]) -> Frame:
        now = self._replicas
        return Frame(
            self._step, now.positions.copy(), now.momenta.copy(), now.forces.copy(), now.potential.copy(),
            now.potential + now.kinetic() + now.heat, problems,
        )  # fmt: skip
