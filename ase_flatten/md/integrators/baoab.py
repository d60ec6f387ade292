"""Langevin dynamics by the BAOAB splitting of Leimkuhler and Matthews, https://doi.org/10.1093/amrx/abs010.

Its positions sample the canonical distribution to a higher order in the time step than its momenta. With
the friction γ, a step of length Δt is

==========================================  ===============================
B  p ← p + F Δt/2                           `Replicas.kick`
A  x ← x + p/m Δt/2                         `Replicas.drift`
O  p ← c p + √(1 - c²) R, c = exp(-γ Δt)    `Conditions.decay` is c
A  x ← x + p/m Δt/2                         `Replicas.drift`
B  p ← p + F(x) Δt/2                        `Replicas.update`, `Replicas.kick`
==========================================  ===============================

R are momenta of the Maxwell-Boltzmann distribution, by `Replicas.thermal_momenta`. The change of the kinetic energy in
O is the heat that the molecule takes from the thermostat.
"""

import numpy as np

from ase_flatten.md.integrators.replicas import Conditions, Replicas


class BAOAB:
    """Integrator of the Langevin equation; see `ase_flatten.md.integrators.Integrator`."""

    def __init__(self, conditions: Conditions) -> None:
        self._timestep, self._decay = conditions.timestep, conditions.decay

    def step(self, replicas: Replicas, alive: np.ndarray) -> dict[int, str]:
        """Make a step."""
        half = 0.5 * self._timestep
        replicas.kick(half)
        replicas.drift(half)
        replicas.heat += replicas.kinetic()
        replicas.momenta *= self._decay
        noise = replicas.thermal_momenta()
        noise *= (1 - self._decay**2) ** 0.5
        replicas.momenta += noise
        replicas.heat -= replicas.kinetic()
        replicas.drift(half)
        problems = replicas.update(alive)
        replicas.kick(half)
        return problems
