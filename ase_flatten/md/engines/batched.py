"""All replicas of a molecule in one call of the model a step.

BAOAB splitting of Langevin dynamics (Leimkuhler and Matthews, doi:10.1093/amrx/abs010), whose positions
sample the right distribution to higher order in the time step than its momenta; velocity Verlet with
stochastic velocity rescaling (Bussi, Donadio and Parrinello, doi:10.1063/1.2408420, eq. A7) or a
Nosé-Hoover chain (Martyna, Klein and Tuckerman, doi:10.1063/1.463940), or alone. Noise is drawn for all
replicas whatever became of some, so that none depends on the fate of the others.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ase import units
from ase.calculators.calculator import BaseCalculator
from ase.data import atomic_masses

from ase_flatten.md.engines import Frame, State
from ase_flatten.md.engines.force_evaluation import evaluator
from ase_flatten.md.protocol import Protocol
from ase_flatten.utils.typing import FloatArray, IntArray

CHAIN = 3
"""Links of a Nosé-Hoover chain."""


class BatchedEngine:
    """Integrate all replicas together; see `Engine`.

    Parameters
    ----------
    calculator : ASE calculator
        One with a method `predict` takes all replicas at once; any other takes one after the other.
    numbers : (n_atoms,) int array
    protocol : Protocol
    seed : int
        Of velocities and noise.
    """

    def __init__(self, calculator: BaseCalculator, numbers: IntArray, protocol: Protocol, *, seed: int) -> None:
        self._evaluate = evaluator(calculator, numbers)
        self._protocol = protocol
        self._rng = np.random.default_rng(seed)
        masses = atomic_masses[numbers][:, None]
        self._share = masses / masses.sum()
        self._per_mass = np.tile(1 / masses, 3)
        self._kT = protocol.temperature_K * units.kB
        self._time = protocol.timestep_fs * units.fs
        self._rate = protocol.friction_per_fs / units.fs
        self._freedom = 3 * len(numbers) - 3
        self._thermal = np.sqrt(self._kT / self._per_mass)
        self._decay = float(np.exp(-self._rate * self._time))

    def begin(self, positions: FloatArray, momenta: FloatArray | None = None) -> Frame:
        """Draw momenta unless they are given, and evaluate."""
        n_replicas = len(positions)
        self._step = -self._protocol.equilibration_steps
        self._x = np.array(positions, dtype=float)
        self._p = self._noise() if momenta is None else np.array(momenta)
        self._heat = np.zeros(n_replicas)
        self._chain = np.zeros((2, CHAIN, n_replicas))
        self._f, self._u = np.zeros_like(self._x), np.full(n_replicas, np.nan)
        problems = self._update(np.ones(n_replicas, dtype=bool))
        return self._frame(problems)

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take up a state, the generator's with it."""
        self._step = int(state["step"])
        self._x, self._p, self._f, self._u, self._heat, self._chain = (
            np.array(state[name]) for name in ("positions", "momenta", "forces", "potential", "heat", "chain")
        )
        self._rng.bit_generator.state = json.loads(str(state["generator"]))

    def state(self) -> State:
        """Return all arrays, and the generator as JSON."""
        arrays = {
            "positions": self._x, "momenta": self._p, "forces": self._f, "potential": self._u, "heat": self._heat,
            "chain": self._chain,
        }  # fmt: skip
        return {"step": self._step, **arrays, "generator": json.dumps(self._rng.bit_generator.state)}

    def advance(self, n_steps: int, alive: np.ndarray) -> Frame:
        """Make steps; a replica that the model fails on stays where it is, the others go on."""
        alive = alive.copy()
        problems: dict[int, str] = {}
        with np.errstate(all="ignore"):  # on their way to NaN, which is found by who looks at the frame
            for _ in range(n_steps):
                thermostat = "langevin" if self._step < 0 else self._protocol.thermostat
                found = _STEPS[thermostat](self, alive)
                self._step += 1
                for replica in found:
                    alive[replica] = False
                problems |= found
                if not alive.any():
                    break
        return self._frame(problems)

    def close(self) -> None:
        """Nothing runs beside this process."""

    def _langevin(self, alive: np.ndarray) -> dict[int, str]:
        self._kick()
        self._drift(0.5 * self._time)
        self._heat += self._kinetic()
        self._p *= self._decay
        noise = self._noise()
        noise *= (1 - self._decay**2) ** 0.5
        self._p += noise
        self._heat -= self._kinetic()
        self._drift(0.5 * self._time)
        problems = self._update(alive)
        self._kick()
        return problems

    def _verlet(self, alive: np.ndarray) -> dict[int, str]:
        self._kick()
        self._drift(self._time)
        problems = self._update(alive)
        self._kick()
        return problems

    def _svr(self, alive: np.ndarray) -> dict[int, str]:
        problems = self._verlet(alive)
        kinetic = self._kinetic()
        decay = self._decay
        ratio = (1 - decay) * 0.5 * self._kT / kinetic
        one = self._rng.standard_normal(len(kinetic))
        others = 2 * self._rng.standard_gamma(0.5 * (self._freedom - 1), len(kinetic))
        factor = decay + ratio * (one**2 + others) + 2 * one * np.sqrt(decay * ratio)
        self._p *= np.sqrt(factor)[:, None, None]
        self._heat += (1 - factor) * kinetic
        return problems

    def _nhc(self, alive: np.ndarray) -> dict[int, str]:
        self._half_chain()
        problems = self._verlet(alive)
        self._half_chain()
        return problems

    def _half_chain(self) -> None:
        """Propagate the chain by half a step and scale the momenta; velocities in chain[0], positions in chain[1]."""
        velocity, place = self._chain
        kinetic = self._kinetic()
        target = np.full(CHAIN, self._kT)
        target[0] *= self._freedom
        mass = target / self._rate**2
        before = self._chain_energy()
        half, twice = 0.5 * self._time, 2 * kinetic
        for link in reversed(range(CHAIN)):
            self._push(link, twice, target, mass, half)
        scale = np.exp(-velocity[0] * half)
        self._p *= scale[:, None, None]
        place += velocity * half
        twice = twice * scale**2
        for link in range(CHAIN):
            self._push(link, twice, target, mass, half)
        self._heat += self._chain_energy() - before

    def _push(self, link: int, twice: FloatArray, target: FloatArray, mass: FloatArray, half: float) -> None:
        velocity = self._chain[0]
        energy = twice if link == 0 else mass[link - 1] * velocity[link - 1] ** 2
        drag = np.exp(-0.25 * half * velocity[link + 1]) if link + 1 < CHAIN else 1.0
        velocity[link] = (velocity[link] * drag + 0.5 * half * (energy - target[link]) / mass[link]) * drag

    def _chain_energy(self) -> FloatArray:
        target = np.full(CHAIN, self._kT)
        target[0] *= self._freedom
        velocity, place = self._chain
        energy: FloatArray = target @ (0.5 * (velocity / self._rate) ** 2 + place)
        return energy

    def _kick(self) -> None:
        self._p += (0.5 * self._time) * self._f

    def _drift(self, time: float) -> None:
        self._x += self._p * (time * self._per_mass)

    def _noise(self) -> FloatArray:
        """Draw thermal momenta, the centre of mass at rest."""
        noise = self._rng.standard_normal(self._x.shape)
        noise *= self._thermal
        noise -= noise.sum(axis=1, keepdims=True) * self._share
        return noise

    def _kinetic(self) -> FloatArray:
        return 0.5 * np.einsum("rax,rax->r", self._p, self._p * self._per_mass)

    def _update(self, alive: np.ndarray) -> dict[int, str]:
        """Evaluate the replicas that are alive, net forces taken out."""
        if alive.all():
            self._u, forces, problems = self._evaluate(self._x)
            self._f = forces - forces.sum(axis=1, keepdims=True) * self._share
            return problems
        rows = np.flatnonzero(alive)
        self._u[rows], forces, problems = self._evaluate(self._x[rows])
        self._f[rows] = forces - forces.sum(axis=1, keepdims=True) * self._share
        return {int(rows[row]): words for row, words in problems.items()}

    def _frame(self, problems: dict[int, str]) -> Frame:
        return Frame(
            self._step, self._x.copy(), self._p.copy(), self._f.copy(), self._u.copy(),
            self._u + self._kinetic() + self._heat, problems,
        )  # fmt: skip


_STEPS: dict[str, Callable[[BatchedEngine, np.ndarray], dict[int, str]]] = {
    "langevin": BatchedEngine._langevin,
    "svr": BatchedEngine._svr,
    "nhc": BatchedEngine._nhc,
    "none": BatchedEngine._verlet,
}
