"""The expected potential energy of a molecule at a temperature, from the canonical distribution of the data."""

import math
from dataclasses import dataclass

from ase import units

from ase_flatten.data.known_molecule import KnownMolecule

CANONICAL = (0.6, 1.7)
"""Range of the data's heat capacity relative to equipartition; other data are not a canonical sample (NVE: 0.5)."""


@dataclass(frozen=True)
class ExpectedEnergy:
    """Expected potential energy in canonical molecular dynamics.

    Parameters
    ----------
    mean : float, eV
        The absolute potential energy.
    std : float, eV
        Of the instantaneous potential energy.
    error : float, eV
        The standard error of the mean.
    source : str
        Description of its origin.
    """

    mean: float
    std: float
    error: float
    source: str


def expected_energy(known: KnownMolecule, temperature_K: float) -> ExpectedEnergy | None:
    """Extrapolate the potential energy from the data's temperature to another.

    The data's fluctuations give the heat capacity C = Var(U) / (k T0²), which is taken as constant:
    mean(T) = mean(T0) + C (T - T0), σ²(T) = k T² C. The error adds those of the mean, of T0 and of C, and half of C's
    difference from equipartition's (3 n_atoms - 6) k / 2, since C changes with the temperature.

    Parameters
    ----------
    known : KnownMolecule

    Returns
    -------
    ExpectedEnergy or None
        None if the moments are not known, as in old run folders, or if the data are not a canonical sample.
    """
    if known.mean_energy is None or known.temperature_K is None or known.energy_variance is None:
        return None
    at, variance = known.temperature_K, known.energy_variance
    equipartition = 0.5 * max(1, 3 * len(known.numbers) - 6) * units.kB
    if not at > 0:
        return None
    capacity = variance / (units.kB * at**2)
    if not CANONICAL[0] <= capacity / equipartition <= CANONICAL[1]:
        return None
    away = temperature_K - at
    relative = (known.energy_variance_error or 0.0) / variance
    error = math.hypot(
        known.mean_energy_error or 0.0,
        capacity * (known.temperature_error_K or 0.0),
        away * math.hypot(capacity * relative, 0.5 * (capacity - equipartition)),
    )
    return ExpectedEnergy(
        known.mean_energy + capacity * away,
        temperature_K * math.sqrt(units.kB * capacity),
        error,
        f"the data at {at:.0f} K",
    )
