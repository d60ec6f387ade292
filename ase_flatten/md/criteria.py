"""When a frame of molecular dynamics is unphysical."""

from dataclasses import dataclass

import numpy as np
from ase import units
from ase.data import atomic_masses, chemical_symbols

from ase_flatten.dataset import FloatArray, IntArray
from ase_flatten.md.engines import Frame
from ase_flatten.md.geometry import BROKEN, Bonds

LOWEST_TEMPERATURE_K = 0.1
HIGHEST_TEMPERATURE_K = 100_000.0
"""Outside these limits a kinetic temperature is unphysical, K (torch-sim's and MDsim's limits)."""


@dataclass(frozen=True, eq=False)
class Criteria:
    """Say what a molecule may do in molecular dynamics.

    A frame is unphysical when it holds values that are not finite, when a bond is more than 0.5 Å from its mean
    length in the reference data, when the kinetic temperature leaves [0.1, 100000] K, or when the potential energy
    is below or above all reference energies by more than the range of these.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    bonds : Bonds
        Of the reference data.
    lowest_energy, highest_energy : float, eV
        Of the reference data.
    """

    numbers: IntArray
    bonds: Bonds
    lowest_energy: float
    highest_energy: float

    def kinetic(self, momenta: FloatArray) -> FloatArray:
        """Give the kinetic energies, (n_replicas,) in eV."""
        energies: FloatArray = 0.5 * np.einsum("rax,rax,a->r", momenta, momenta, 1 / atomic_masses[self.numbers])
        return energies

    def unphysical(self, frame: Frame, alive: np.ndarray) -> dict[int, str]:
        """Say what is unphysical about the replicas that are alive, by the number of the replica."""
        found = {replica: words for replica, words in frame.problems.items() if alive[replica]}
        margin = self.highest_energy - self.lowest_energy
        with np.errstate(all="ignore"):
            temperatures = self.kinetic(frame.momenta) * kelvin_per_eV(len(self.numbers))
            stretched = self.bonds.deviations(frame.positions)
            # Written so that NaN is not fine.
            finite = np.isfinite(frame.forces) & np.isfinite(frame.positions)
            fine = np.asarray(finite.all(axis=(1, 2)))
            whole: np.ndarray = stretched.max(axis=1, initial=0) <= BROKEN
            warm: np.ndarray = (temperatures >= LOWEST_TEMPERATURE_K) & (temperatures <= HIGHEST_TEMPERATURE_K)
            within = np.abs(frame.potential - 0.5 * (self.lowest_energy + self.highest_energy)) <= 1.5 * margin
        for replica in np.flatnonzero(alive & ~(fine & whole & warm & within)):
            if replica in found:
                continue
            if not fine[replica] or not np.isfinite(frame.potential[replica]):
                words = "energy, forces or positions are no longer numbers"
            elif not whole[replica]:
                words = self._bond(frame.positions[replica], int(stretched[replica].argmax()))
            elif not warm[replica]:
                words = f"the temperature is {temperatures[replica]:.3g} K"
            else:
                words = (
                    f"the potential energy is {frame.potential[replica] - self.lowest_energy:+.2f} eV from the data's "
                    f"lowest, beyond their range of {margin:.2f} eV by more than as much again"
                )
            found[int(replica)] = words
        return found

    def _bond(self, positions: FloatArray, bond: int) -> str:
        i, j = self.bonds.pairs[bond]
        names = [f"{chemical_symbols[self.numbers[atom]]}{atom}" for atom in (i, j)]
        return f"the bond {'-'.join(names)} is {np.linalg.norm(positions[i] - positions[j]):.2f} Å long"


def kelvin_per_eV(n_atoms: int) -> float:
    """Give the temperature of one eV of kinetic energy, the centre of mass at rest."""
    return 2 / ((3 * n_atoms - 3) * units.kB)
