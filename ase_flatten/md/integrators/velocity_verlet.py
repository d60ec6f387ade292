"""Velocity Verlet: dynamics without a thermostat, which conserve the energy.

Swope et al., https://doi.org/10.1063/1.442716. A step of length Δt is

====================  ==========================
p ← p + F Δt/2        `Replicas.kick`
x ← x + p/m Δt        `Replicas.drift`
F ← F(x)              `Replicas.update`
p ← p + F Δt/2        `Replicas.kick`
====================  ==========================
"""

import numpy as np

from ase_flatten.md.integrators.replicas import Conditions, Replicas


class VelocityVerlet:
    """Integrator of Newton's equations of motion; see `ase_flatten.md.integrators.Integrator`."""

    def __init__(self, conditions: Conditions) -> None:
        self._timestep = conditions.timestep

    def step(self, replicas: Replicas, alive: np.ndarray) -> dict[int, str]:
        """Make a step."""
        replicas.kick(0.5 * self._timestep)
        replicas.drift(self._timestep)
        problems = replicas.update(alive)
        replicas.kick(0.5 * self._timestep)
        return problems
