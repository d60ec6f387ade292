"""What the potential energy of the molecule should be at a temperature."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ExpectedEnergy:
    """Hold what the potential energy should be in canonical molecular dynamics.

    Parameters
    ----------
    mean : float, eV
        The absolute potential energy.
    std : float, eV
        Of the instantaneous potential energy.
    error : float, eV
        The standard error of the mean.
    source : str
        What says so, in words.
    """

    mean: float
    std: float
    error: float
    source: str


def expected_energy(known: Mapping[str, np.ndarray], temperature_K: float) -> ExpectedEnergy | None:
    """Return what the data say about the potential energy at a temperature, None where they say nothing."""
    return None
