"""When a frame of molecular dynamics is unphysical."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import units
from ase.data import atomic_masses, chemical_symbols
from numpy.typing import NDArray
from scipy.special import gammainccinv

from ase_flatten.data.known_molecule import KnownMolecule
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.geometry.bonds import bonded_pairs, count_fragments, radius_sums
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.md.engines import Frame
from ase_flatten.md.expected_energy import ExpectedEnergy, expected_energy
from ase_flatten.md.results import Limits
from ase_flatten.utils.typing import FloatArray, IntArray

RULES = 2
"""The version of the criteria; runs made under others are run again."""

LOWEST_TEMPERATURE_K = 0.1
HIGHEST_TEMPERATURE_K = 100_000.0
"""Outside these limits a kinetic temperature is unphysical, K (torch-sim's and MDsim's limits)."""

STRETCH = 0.3
"""By how much a bond may exceed its largest length in the data, Å: several standard deviations of a bond at 500 K."""

MEAN_STRETCH = 0.5
"""How far a bond may deviate from its mean length if only that is known, Å (MDsim's criterion)."""

CLOSER = 0.85
"""How close two atoms may come, relative to the shortest distance of their elements in the data ..."""

FAR = 2.0
"""... but beyond this distance they are never too close, Å: some elements may occur only far apart in the data."""

NEW_BOND = 1.15
"""Two atoms that are never bonded in the data have a new bond below this multiple of their radii's sum ..."""

NEW_BOND_MARGIN = 0.3
"""... if they are also closer than their shortest distance in the data by this much, Å."""

N_SIGMA = 6.0
"""How far the potential energy may be below its mean, in standard deviations: a Gaussian has a probability of 1e-9
beyond it, and less lies at low energies, which have a minimum; 32 replicas of a nanosecond are 6e6 records."""

TAIL = 1e-12
"""The probability beyond the upper limit. High energies are more frequent than in a Gaussian: the energy of harmonic
modes follows a gamma distribution."""

N_SIGMA_WINDOW = 3.0
WINDOW_PS = 1.0
"""An average over this time, ps, may be this many standard deviations below the mean. Fast fluctuations average out,
slow changes of conformation do not: the means of the two halves of data sets differed by 0.6 to 1.3."""

_BEYOND_DATA = 2.0
_BEYOND_DATA_WINDOW = 1.0
"""The lowest and highest energy of the data are physical, and this many standard deviations beyond them are allowed."""


@dataclass(frozen=True)
class EnergyLimits:
    """Limits of the potential energy of a replica, eV.

    Parameters
    ----------
    low, high : float
        Of one frame.
    window_low : float
        Of the average over `WINDOW_PS`.
    expected : ExpectedEnergy, optional
        Where the limits come from; without it they are the range of the data, widened on both sides by its width.
    """

    low: float
    high: float
    window_low: float = -math.inf
    expected: ExpectedEnergy | None = None


@dataclass(frozen=True, eq=False)
class Criteria:
    """Criteria for an unphysical frame of molecular dynamics.

    A frame is unphysical

    - if it holds values that are not finite, or its kinetic temperature is outside 0.1 to 100000 K;
    - if no bond graph of the data fits: each has a bond longer than in any frame of the data by more than 0.3 Å, or the
      molecule has more fragments than any frame of the data;
    - if two atoms are closer than 2 Å and than 85 % of the shortest distance of their elements in the data, or two
      atoms that are never bonded in the data have a bond;
    - if its potential energy is outside the canonical distribution at the temperature of the run, by
      `energy_limits`; its average over 1 ps has a closer limit.

    If less is known, as in old run folders, bonds are those of the mean distances and may deviate by 0.5 Å from
    these, and the energy may lie outside the range of the data by up to the width of that range.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    graphs : (n_graphs, n_pairs) bool array
        Sets of bonds, in the order of `pair_distances`.
    longest : (n_pairs,) array, Å
        Limits of the bonds.
    shortest : (n_pairs,) array, Å
        Limits of all pairs.
    n_fragments : int
    lowest_energy, highest_energy : float, eV
        Of the data; the lowest is the zero of tables and figures.
    energy : EnergyLimits
    """

    numbers: IntArray
    graphs: NDArray[np.bool_]
    longest: FloatArray
    shortest: FloatArray
    n_fragments: int
    lowest_energy: float
    highest_energy: float
    energy: EnergyLimits

    @classmethod
    def of_molecule(cls, known: KnownMolecule, temperature_K: float) -> "Criteria":
        """Derive the criteria at a temperature from what is known of a molecule."""
        numbers, means = known.numbers, known.mean_pair_distances
        if known.bond_graphs is None or known.longest_bonds is None or known.shortest_pair_distances is None:
            usual = bonded_pairs(numbers, means)
            graphs, longest = usual[None], np.where(usual, means + MEAN_STRETCH, np.inf)
            shortest = np.where(usual, means - MEAN_STRETCH, 0.0)
        else:
            graphs, longest = known.bond_graphs, known.longest_bonds + STRETCH
            shortest = _closest(numbers, known.shortest_pair_distances, known.longest_bonds > 0)
        return cls(
            numbers, graphs, longest, shortest, known.n_fragments or len(numbers),
            float(known.lowest_energy), float(known.highest_energy), energy_limits(known, temperature_K),
        )  # fmt: skip

    @property
    def record(self) -> Limits:
        """The limits, for the settings in summary.json."""
        return Limits(
            rules=RULES,
            n_bond_graphs=len(self.graphs),
            stretch=STRETCH,
            closer=CLOSER,
            n_fragments=self.n_fragments,
            lowest_potential_eV=self.energy.low,
            highest_potential_eV=self.energy.high,
            lowest_window_mean_eV=None if math.isinf(self.energy.window_low) else self.energy.window_low,
            energy_source="the range of the data" if self.energy.expected is None else self.energy.expected.source,
        )

    @property
    def arrays(self) -> list[np.ndarray]:
        """The limits that are arrays, which `record` lacks."""
        return [self.graphs, self.longest, self.shortest]

    def kinetic(self, momenta: FloatArray) -> FloatArray:
        """Compute the kinetic energies, (n_replicas,) in eV."""
        energies: FloatArray = 0.5 * np.einsum("rax,rax,a->r", momenta, momenta, 1 / atomic_masses[self.numbers])
        return energies

    def unphysical(self, frame: Frame, alive: np.ndarray) -> dict[int, str]:
        """Return what is unphysical about the replicas that are alive, by the number of the replica."""
        found = {replica: words for replica, words in frame.problems.items() if alive[replica]}
        with np.errstate(all="ignore"):
            temperatures = self.kinetic(frame.momenta) * kelvin_per_eV(len(self.numbers))
            distances = pair_distances(frame.positions)
            # Written so that NaN is unphysical.
            fine = np.isfinite(np.sum(frame.forces + frame.positions, axis=(1, 2))) & np.isfinite(frame.potential)
            whole = self._fits(distances)
            apart = np.asarray((distances >= self.shortest).all(axis=1))
            warm = (temperatures >= LOWEST_TEMPERATURE_K) & (temperatures <= HIGHEST_TEMPERATURE_K)
            within = (frame.potential >= self.energy.low) & (frame.potential <= self.energy.high)
        for replica in np.flatnonzero(alive & fine & whole) if self._loose else ():
            whole[replica] = bool(self._fragments(distances[replica]) <= self.n_fragments)
        for replica in np.flatnonzero(alive & ~(fine & whole & apart & warm & within)):
            if replica in found:
                continue
            if not fine[replica]:
                words = "energy, forces or positions are not finite"
            elif not whole[replica]:
                words = self._broken(distances[replica])
            elif not apart[replica]:
                words = self._collapsed(distances[replica])
            elif not warm[replica]:
                words = f"the temperature is {temperatures[replica]:.3g} K"
            else:
                words = self._energetic(float(frame.potential[replica]))
            found[int(replica)] = words
        return found

    def sunk(self, window: FloatArray, alive: np.ndarray) -> dict[int, str]:
        """Return which replicas have fallen too far below the expected energy.

        Parameters
        ----------
        window : (n_records, n_replicas) array, eV
            The potential energies of the last `WINDOW_PS`.
        """
        expected, means = self.energy.expected, window.mean(axis=0)
        if expected is None:
            return {}
        return {
            int(replica): f"the potential energy averaged over the last {WINDOW_PS:g} ps is "
            f"{(expected.mean - means[replica]) / KCAL_PER_MOL:.1f} kcal/mol below the mean expected from "
            f"{expected.source}"
            for replica in np.flatnonzero(alive & (means < self.energy.window_low))
        }

    def _fits(self, distances: FloatArray) -> NDArray[np.bool_]:
        """Return which replicas have all bonds of any graph."""
        too_long = ~(distances[:, self._bonds] <= self.longest[self._bonds])
        return np.asarray((too_long.astype(float) @ self.graphs[:, self._bonds].T == 0).any(axis=1))

    def _broken(self, distances: FloatArray) -> str:
        # The graph that is violated least says which bond it is.
        excess = np.where(self.graphs, distances - self.longest, -np.inf)
        graph = int(excess.max(axis=1).argmin())
        pair = int(excess[graph].argmax())
        if excess[graph, pair] <= 0:
            return f"the molecule has come apart into {self._fragments(distances)} fragments"
        return f"the bond {self._name(pair)} is {distances[pair]:.2f} Å long"

    def _collapsed(self, distances: FloatArray) -> str:
        pair = int((distances - self.shortest).argmin())
        return (
            f"the atoms {self._name(pair)} are {distances[pair]:.2f} Å apart, closer than {self.shortest[pair]:.2f} Å"
        )

    def _energetic(self, potential: float) -> str:
        expected = self.energy.expected
        if expected is None:
            return (
                f"the potential energy is {potential - self.lowest_energy:+.2f} eV relative to the lowest of the data, "
                f"outside their range of {self.highest_energy - self.lowest_energy:.2f} eV by more than its width"
            )
        away = potential - expected.mean
        return (
            f"the potential energy is {abs(away) / KCAL_PER_MOL:.1f} kcal/mol {'above' if away > 0 else 'below'} the "
            f"mean expected from {expected.source}, {abs(away) / expected.std:.1f} standard deviations"
        )

    def _fragments(self, distances: FloatArray) -> int:
        return int(count_fragments(self.numbers, distances[None])[0])

    def _name(self, pair: int) -> str:
        i, j = np.tril_indices(len(self.numbers), -1)
        return "-".join(f"{chemical_symbols[self.numbers[atom]]}{atom}" for atom in (i[pair], j[pair]))

    @cached_property
    def _bonds(self) -> IntArray:
        """The pairs that any graph bonds."""
        return np.flatnonzero(self.graphs.any(axis=0))

    @cached_property
    def _loose(self) -> bool:
        """Whether a frame that fits a graph may still have more fragments than the data, as in a complex."""
        graphs = np.where(self.graphs, 0.0, np.inf)
        return bool(count_fragments(self.numbers, graphs).max() > self.n_fragments)


def energy_limits(known: KnownMolecule, temperature_K: float) -> EnergyLimits:
    """Derive the limits of the potential energy at a temperature.

    The lower one is six standard deviations below the mean by `expected_energy`. The upper one has a probability of
    1e-12 beyond it in the gamma distribution of harmonic modes with the data's heat capacity. Both are widened by twice
    the error of the mean, and to two standard deviations beyond the extremes of the data, since runs start within
    these. Without an expected energy, the range of the data is widened on both sides by its width.
    """
    lowest, highest = float(known.lowest_energy), float(known.highest_energy)
    expected = expected_energy(known, temperature_K)
    if expected is None:
        margin = highest - lowest
        return EnergyLimits(lowest - margin, highest + margin)
    kT = temperature_K * units.kB
    half_modes = (expected.std / kT) ** 2
    tail = kT * (float(gammainccinv(half_modes, TAIL)) - half_modes)
    mean, std, unsure = expected.mean, expected.std, 2 * expected.error
    return EnergyLimits(
        min(mean - N_SIGMA * std - unsure, lowest - _BEYOND_DATA * std),
        max(mean + tail + unsure, highest + _BEYOND_DATA * std),
        min(mean - N_SIGMA_WINDOW * std - unsure, lowest - _BEYOND_DATA_WINDOW * std),
        expected,
    )


def kelvin_per_eV(n_atoms: int) -> float:
    """Return the temperature of one eV of kinetic energy, with the centre of mass at rest."""
    return 2 / ((3 * n_atoms - 3) * units.kB)


def _closest(numbers: IntArray, shortest: FloatArray, bonded: NDArray[np.bool_]) -> FloatArray:
    """Derive how close each pair of atoms may come, (n_pairs,) in Å."""
    i, j = np.tril_indices(len(numbers), -1)
    elements = np.sort(np.column_stack([numbers[i], numbers[j]]), axis=1)
    limits = np.empty(len(shortest))
    for kind in np.unique(elements, axis=0):
        same = (elements == kind).all(axis=1)
        limits[same] = min(CLOSER * shortest[same].min(), FAR)
    formed = np.minimum(NEW_BOND * radius_sums(numbers), shortest - NEW_BOND_MARGIN)
    return np.where(bonded, limits, np.maximum(limits, formed))
