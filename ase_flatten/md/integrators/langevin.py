"""Langevin dynamics of a molecule with ASE, initial velocities, and sensible limits of the settings.

With `fixcm=True`, its default, ASE's `Langevin` removes the centre of mass from its
noise and scales the rest up by √(N/(N−1)), so that N atoms have the kinetic energy of
3N degrees of freedom, though only 3N − 3 are left to move. Each of these is too
hot by N/(N−1): a dimer's bond by a factor of two, 16 atoms by 7 %, while 2K/3NkB looks
right. Here the noise is therefore left as it is, and the constraint `FixCom` projects the
motion of the centre of mass out of positions and momenta.
"""

import math
from collections.abc import Sequence

import numpy as np
from ase import Atoms, units
from ase.constraints import FixCom
from ase.md.langevin import Langevin

from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray

LONGEST_TIMESTEP_FS = 4.0
"""The longest time step of a molecule without hydrogen, fs."""

LONGEST_TIMESTEP_WITH_HYDROGEN_FS = 1.0
"""A tenth of the period of an O-H or C-H vibration, about 10 fs: the longest time step with hydrogen, fs."""

HIGHEST_TEMPERATURE_K = 10_000.0
"""Above this temperature no molecule stays intact, K."""


def langevin(
    atoms: Atoms, *, temperature_K: float, timestep_fs: float, friction_per_fs: float, rng: np.random.Generator
) -> Langevin:
    """Return Langevin dynamics that keeps the centre of mass at rest and samples the canonical ensemble.

    Replaces the constraints of `atoms` by `FixCom`; the propagator is that of
    Vanden-Eijnden and Ciccotti, https://doi.org/10.1016/j.cplett.2006.07.086, eq. 23.
    """
    atoms.set_constraint(FixCom())
    return Langevin(
        atoms,
        timestep_fs * units.fs,
        temperature_K=temperature_K,
        friction=friction_per_fs / units.fs,
        fixcm=False,
        rng=rng,
    )


def draw_momenta(atoms: Atoms, temperature_K: float, rng: np.random.Generator) -> None:
    """Draw the momenta of `atoms` from the Maxwell-Boltzmann distribution, with the centre of mass at rest.

    The angular momentum is left as drawn: friction and noise act on the rotation as on
    every other motion, so the ensemble that is sampled has it.
    """
    atoms.set_constraint(FixCom())
    scale = np.sqrt(atoms.get_masses() * units.kB * temperature_K)
    atoms.set_momenta(scale[:, None] * rng.standard_normal((len(atoms), 3)))


def thermal_momenta(numbers: IntArray, temperature_K: float, rngs: Sequence[np.random.Generator]) -> FloatArray:
    """Draw momenta as `draw_momenta` does, for each replica with its own generator.

    Returns
    -------
    (n_replicas, n_atoms, 3) array, ASE's unit of momentum
    """
    momenta = []
    for rng in rngs:
        atoms = Atoms(numbers)
        draw_momenta(atoms, temperature_K, rng)
        momenta.append(atoms.get_momenta())
    return np.array(momenta)


def check_thermostat(*, temperature_K: float, friction_per_fs: float) -> None:
    """Raise InputError for a temperature or a friction that makes no sense."""
    if not 0 < temperature_K <= HIGHEST_TEMPERATURE_K:
        raise InputError(
            f"the temperature must be above 0 and at most {HIGHEST_TEMPERATURE_K:g} K, got {temperature_K:g} K; "
            "300 to 500 K are usual"
        )
    if not 0 < friction_per_fs <= 1:
        raise InputError(
            f"the friction must be above 0 and at most 1 per fs, got {friction_per_fs:g} per fs; 0.01 per fs is usual"
        )


def check_timestep(timestep_fs: float, numbers: IntArray | None = None) -> None:
    """Raise InputError for a time step that the fastest vibration does not allow.

    Parameters
    ----------
    timestep_fs : float
    numbers : (n_atoms,) int array, optional
        Atomic numbers; without them only time steps that are too long for any molecule are refused.

    Raises
    ------
    InputError
        The time step is not positive, above 4 fs, or above 1 fs with hydrogen.
    """
    if not (math.isfinite(timestep_fs) and timestep_fs > 0):
        raise InputError(f"the time step must be above 0 fs, got {timestep_fs:g} fs; 0.5 fs is usual")
    if numbers is not None and 1 in numbers and timestep_fs > LONGEST_TIMESTEP_WITH_HYDROGEN_FS:
        raise InputError(
            f"a molecule with hydrogen needs a time step of at most {LONGEST_TIMESTEP_WITH_HYDROGEN_FS:g} fs, a tenth "
            f"of the period of its fastest vibration, got {timestep_fs:g} fs; use 0.5 fs"
        )
    if timestep_fs > LONGEST_TIMESTEP_FS:
        raise InputError(
            f"a molecule needs a time step of at most {LONGEST_TIMESTEP_FS:g} fs (1 fs with hydrogen), "
            f"got {timestep_fs:g} fs; use 0.5 fs"
        )
