"""Integrators of the equations of motion for all replicas of a molecule at once, one for each thermostat."""

from typing import Protocol

import numpy as np

from ase_flatten.md.integrators.baoab import BAOAB
from ase_flatten.md.integrators.nose_hoover_chain import NoseHooverChain
from ase_flatten.md.integrators.replicas import Conditions, Replicas
from ase_flatten.md.integrators.velocity_rescaling import VelocityRescaling
from ase_flatten.md.integrators.velocity_verlet import VelocityVerlet


class Integrator(Protocol):
    """Integrator that propagates replicas step by step."""

    def __init__(self, conditions: Conditions) -> None: ...

    def step(self, replicas: Replicas, alive: np.ndarray) -> dict[int, str]:
        """Make a step.

        Parameters
        ----------
        alive : (n_replicas,) bool array
            Replicas for which the model is evaluated; the values of the others are meaningless.

        Returns
        -------
        dict
            The message of the model for each replica that it failed on, by the number of the replica.
        """


INTEGRATORS: dict[str, type[Integrator]] = {
    "langevin": BAOAB,
    "svr": VelocityRescaling,
    "nhc": NoseHooverChain,
    "none": VelocityVerlet,
}
"""Integrators by the name of the thermostat in a protocol; none conserves the energy."""
