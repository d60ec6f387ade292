"""Stochastic velocity rescaling of Bussi, Donadio and Parrinello, https://doi.org/10.1063/1.2408420.

After a step of velocity Verlet the momenta are scaled by α (eq. A7 of the paper), with the kinetic energy K, its
canonical mean K̄ = N_f kT/2 of N_f degrees of freedom, c = exp(-Δt/τ), a Gaussian number R and the sum S of the
squares of N_f - 1 others:

α² = c + (1 - c) K̄/(N_f K) (R² + S) + 2 R √(c (1 - c) K̄/(N_f K))

=================  ==================================================
c                  `Conditions.decay`, with 1/τ the friction
(1 - c) K̄/(N_f K)  ``ratio``
R                  ``gaussian``
S                  ``squares``, twice a gamma variate of (N_f - 1)/2
α²                 ``factor``
=================  ==================================================
"""

import numpy as np

from ase_flatten.md.integrators.replicas import Conditions, Replicas
from ase_flatten.md.integrators.velocity_verlet import VelocityVerlet


class VelocityRescaling:
    """Integrator with stochastic velocity rescaling; see `ase_flatten.md.integrators.Integrator`."""

    def __init__(self, conditions: Conditions) -> None:
        self._verlet = VelocityVerlet(conditions)
        self._kT, self._decay, self._n_freedom = conditions.kT, conditions.decay, conditions.n_freedom

    def step(self, replicas: Replicas, alive: np.ndarray) -> dict[int, str]:
        """Make a step."""
        problems = self._verlet.step(replicas, alive)
        kinetic = replicas.kinetic()
        decay = self._decay
        ratio = (1 - decay) * 0.5 * self._kT / kinetic
        gaussian = replicas.rng.standard_normal(len(kinetic))
        squares = 2 * replicas.rng.standard_gamma(0.5 * (self._n_freedom - 1), len(kinetic))
        factor = decay + ratio * (gaussian**2 + squares) + 2 * gaussian * np.sqrt(decay * ratio)
        replicas.momenta *= np.sqrt(factor)[:, None, None]
        replicas.heat += (1 - factor) * kinetic
        return problems
