"""Replicas of one molecule, and the operations that their integrators consist of."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from ase import units
from ase.data import atomic_masses

from ase_flatten.utils.typing import FloatArray, IntArray

Evaluate = Callable[[FloatArray], tuple[FloatArray, FloatArray, dict[int, str]]]
"""Maps positions, (n, n_atoms, 3) in Å, to potential energies, (n,) in eV, forces, (n, n_atoms, 3) in eV/Å, and the
message for each configuration that failed, by its row."""

CHAIN_LINKS = 3
"""Links of a Nosé-Hoover chain."""


@dataclass(frozen=True)
class Conditions:
    """Conditions of a run in ASE's units.

    Parameters
    ----------
    kT : float, eV
    timestep : float, ASE's unit of time
    friction : float, per ASE's unit of time
        Also the inverse time constant of velocity rescaling and of a Nosé-Hoover chain.
    n_freedom : int
        Degrees of freedom that move: 3 n_atoms - 3, the centre of mass at rest.
    """

    kT: float  # noqa: N815
    timestep: float
    friction: float
    n_freedom: int

    @classmethod
    def of(cls, temperature_K: float, timestep_fs: float, friction_per_fs: float, n_atoms: int) -> "Conditions":
        """Convert from K and fs."""
        return cls(
            temperature_K * units.kB, timestep_fs * units.fs, friction_per_fs / units.fs, 3 * n_atoms - 3
        )  # fmt: skip

    @property
    def decay(self) -> float:
        """The part of a momentum that friction leaves after a step, exp(-friction timestep)."""
        return float(np.exp(-self.friction * self.timestep))


@dataclass(eq=False)
class Replicas:
    """Replicas of one molecule in molecular dynamics: their state, which integrators change in place.

    Parameters
    ----------
    evaluate : callable
        See `Evaluate`.
    numbers : (n_atoms,) int array
    kT : float, eV
        Of the momenta that `thermal_momenta` draws.
    rng : np.random.Generator
        The noise of all replicas. It is drawn for failed ones as well, so that no replica depends on the failure of
        another.
    positions, momenta, forces : (n_replicas, n_atoms, 3) arrays, Å, ASE's unit of momentum, eV/Å
    potential : (n_replicas,) array, eV
    heat : (n_replicas,) array, eV
        Energy given to the thermostat: potential, kinetic energy and heat together are conserved.
    chain : (2, CHAIN_LINKS, n_replicas) array
        Velocities and positions of the links of Nosé-Hoover chains; 0 with any other thermostat.
    """

    evaluate: Evaluate
    numbers: IntArray
    kT: float  # noqa: N815
    rng: np.random.Generator
    positions: FloatArray = field(init=False)
    momenta: FloatArray = field(init=False)
    forces: FloatArray = field(init=False)
    potential: FloatArray = field(init=False)
    heat: FloatArray = field(init=False)
    chain: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        masses = atomic_masses[self.numbers][:, None]
        self._share = masses / masses.sum()
        self._per_mass = np.tile(1 / masses, 3)
        self._thermal = np.sqrt(self.kT / self._per_mass)

    def place(self, positions: FloatArray, momenta: FloatArray | None) -> dict[int, str]:
        """Set the initial positions, draw momenta unless they are given, and evaluate; see `update`."""
        n_replicas = len(positions)
        self.positions = np.array(positions, dtype=float)
        self.momenta = self.thermal_momenta() if momenta is None else np.array(momenta)
        self.heat = np.zeros(n_replicas)
        self.chain = np.zeros((2, CHAIN_LINKS, n_replicas))
        self.forces, self.potential = np.zeros_like(self.positions), np.full(n_replicas, np.nan)
        return self.update(np.ones(n_replicas, dtype=bool))

    def kick(self, time: float) -> None:
        """Change the momenta by the forces: p ← p + F time."""
        self.momenta += time * self.forces

    def drift(self, time: float) -> None:
        """Change the positions by the velocities: x ← x + p/m time."""
        self.positions += self.momenta * (time * self._per_mass)

    def update(self, alive: np.ndarray) -> dict[int, str]:
        """Evaluate the replicas that are alive, and remove net forces; return a message for each that failed."""
        if alive.all():
            self.potential, forces, problems = self.evaluate(self.positions)
            self.forces = forces - forces.sum(axis=1, keepdims=True) * self._share
            return problems
        rows = np.flatnonzero(alive)
        self.potential[rows], forces, problems = self.evaluate(self.positions[rows])
        self.forces[rows] = forces - forces.sum(axis=1, keepdims=True) * self._share
        return {int(rows[row]): words for row, words in problems.items()}

    def kinetic(self) -> FloatArray:
        """Compute the kinetic energies, (n_replicas,) in eV."""
        return 0.5 * np.einsum("rax,rax->r", self.momenta, self.momenta * self._per_mass)

    def thermal_momenta(self) -> FloatArray:
        """Draw momenta from the Maxwell-Boltzmann distribution, with the centre of mass at rest."""
        noise = self.rng.standard_normal(self.positions.shape)
        noise *= self._thermal
        noise -= noise.sum(axis=1, keepdims=True) * self._share
        return noise
