"""A chain of Nosé-Hoover thermostats: Martyna, Klein and Tuckerman, https://doi.org/10.1063/1.463940.

Half a step of the chain, velocity Verlet, half a step of the chain (the splitting of Martyna et al.,
https://doi.org/10.1080/00268979600100761). The links have velocities v_k and positions ξ_k, the first one acts on the
momenta, and each of the others on the one before:

============================  ========================================================
dv_1/dt = (2K - N_f kT)/Q_1   ``twice_kinetic``, ``target[0]``, ``mass[0]``
dv_k/dt = (Q v_{k-1}² - kT)/Q_k, less v_k v_{k+1}, in `_push`
dξ_k/dt = v_k                 ``position``
dp/dt = F - v_1 p             ``scale``
Q_1 = N_f kT τ², Q_k = kT τ²  ``mass``, with 1/τ the friction
============================  ========================================================

Σ_k (Q_k v_k²/2 + N_f kT ξ_1 or kT ξ_k) is the energy of the chain, which is conserved with that of the molecule.
"""

import numpy as np

from ase_flatten.md.integrators.replicas import CHAIN_LINKS, Conditions, Replicas
from ase_flatten.md.integrators.velocity_verlet import VelocityVerlet
from ase_flatten.utils.typing import FloatArray


class NoseHooverChain:
    """Integrator with a Nosé-Hoover chain for each replica; see `ase_flatten.md.integrators.Integrator`."""

    def __init__(self, conditions: Conditions) -> None:
        self._verlet = VelocityVerlet(conditions)
        self._half, self._friction = 0.5 * conditions.timestep, conditions.friction
        self._target = np.full(CHAIN_LINKS, conditions.kT)
        self._target[0] *= conditions.n_freedom
        self._mass = self._target / conditions.friction**2

    def step(self, replicas: Replicas, alive: np.ndarray) -> dict[int, str]:
        """Make a step."""
        self._half_step(replicas)
        problems = self._verlet.step(replicas, alive)
        self._half_step(replicas)
        return problems

    def _half_step(self, replicas: Replicas) -> None:
        """Propagate the chain by half a step and scale the momenta."""
        velocity, position = replicas.chain
        twice_kinetic = 2 * replicas.kinetic()
        before = self._energy(replicas.chain)
        for link in reversed(range(CHAIN_LINKS)):
            self._push(velocity, link, twice_kinetic)
        scale = np.exp(-velocity[0] * self._half)
        replicas.momenta *= scale[:, None, None]
        position += velocity * self._half
        twice_kinetic = twice_kinetic * scale**2
        for link in range(CHAIN_LINKS):
            self._push(velocity, link, twice_kinetic)
        replicas.heat += self._energy(replicas.chain) - before

    def _push(self, velocity: FloatArray, link: int, twice_kinetic: FloatArray) -> None:
        """Accelerate a link for a quarter of a step, slowed down by the next link."""
        half, mass = self._half, self._mass
        energy = twice_kinetic if link == 0 else mass[link - 1] * velocity[link - 1] ** 2
        drag = np.exp(-0.25 * half * velocity[link + 1]) if link + 1 < CHAIN_LINKS else 1.0
        velocity[link] = (velocity[link] * drag + 0.5 * half * (energy - self._target[link]) / mass[link]) * drag

    def _energy(self, chain: FloatArray) -> FloatArray:
        """Compute the energy of each chain, (n_replicas,) in eV."""
        velocity, position = chain
        energy: FloatArray = self._target @ (0.5 * (velocity / self._friction) ** 2 + position)
        return energy
