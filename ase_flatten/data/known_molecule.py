"""What the data reveal about a molecule: distances, bonds and the distribution of the potential energy."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_flatten.data.dataset import Dataset
from ase_flatten.geometry.bonds import bond_graphs, bonded_pairs, count_fragments
from ase_flatten.geometry.distance_histograms import count_distances
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.utils.records import read_arrays, understood
from ase_flatten.utils.typing import FloatArray, IntArray

LEAST_FRAMES = 100
"""Least number of frames for moments of the energy: each of twenty blocks needs a few frames."""

_N_BLOCKS = 20


@dataclass(frozen=True, eq=False)
class KnownMolecule:
    """What is known of a molecule; fields that may be None are missing from old run folders.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    lowest_energy, highest_energy : float, eV
    mean_pair_distances : (n_pairs,) array, Å
    shortest_pair_distances, longest_pair_distances : (n_pairs,) arrays, Å, or None
        Over all frames.
    bond_graphs : (n_graphs, n_pairs) bool array, or None
        Minimal sets of bonds that occur; see `ase_flatten.geometry.bonds.bond_graphs`.
    bond_graph_counts : (n_graphs,) int array, or None
        Number of frames of each graph, including those of graphs that contain it.
    longest_bonds : (n_pairs,) array, Å, or None
        Longest distance of each pair while it is bonded; 0 if it never is.
    n_fragments : int, or None
        Largest number of fragments in a frame, by `count_fragments`.
    mean_energy, mean_energy_error : float, eV, or None
        Mean potential energy and its standard error, from averages of twenty blocks in file order.
    energy_variance, energy_variance_error : float, eV², or None
    temperature_K, temperature_error_K : float, K, or None
        Temperature of the configurations, by `data_temperature`.
    pair_distance_counts, bond_length_counts : (n_bins,) int arrays, or None
        Histograms over all frames, see `ase_flatten.geometry.distance_histograms.count_distances`.
    """

    numbers: IntArray
    lowest_energy: float
    highest_energy: float
    mean_pair_distances: FloatArray
    shortest_pair_distances: FloatArray | None = None
    longest_pair_distances: FloatArray | None = None
    bond_graphs: NDArray[np.bool_] | None = None
    bond_graph_counts: IntArray | None = None
    longest_bonds: FloatArray | None = None
    n_fragments: int | None = None
    mean_energy: float | None = None
    mean_energy_error: float | None = None
    energy_variance: float | None = None
    energy_variance_error: float | None = None
    temperature_K: float | None = None  # noqa: N815
    temperature_error_K: float | None = None  # noqa: N815
    pair_distance_counts: IntArray | None = None
    bond_length_counts: IntArray | None = None

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> "KnownMolecule":
        """Create the object from arrays with the names of its fields; missing ones are None."""
        known = {field.name: arrays[field.name] for field in fields(cls) if field.name in arrays}
        known.setdefault("highest_energy", np.max(arrays.get("energies", arrays["lowest_energy"])))
        return cls(**{name: value if np.ndim(value) else np.asarray(value).item() for name, value in known.items()})

    @classmethod
    def of_frames(cls, numbers: IntArray, positions: FloatArray, energies: FloatArray) -> "KnownMolecule":
        """Describe a molecule by geometries that are not a thermal sample, without moments and histograms."""
        return cls(**_of_frames(numbers, pair_distances(positions), energies))

    @classmethod
    def of_dataset(cls, dataset: Dataset) -> "KnownMolecule":
        """Describe a molecule by a data set."""
        numbers, distances = dataset.numbers, dataset.pair_distances
        bonded = bonded_pairs(numbers, distances.mean(axis=0))
        return cls(
            **_of_frames(numbers, distances, dataset.energies),
            **_moments(dataset, distances),
            pair_distance_counts=count_distances(distances),
            bond_length_counts=count_distances(distances[:, bonded]),
        )

    @property
    def arrays(self) -> dict[str, Any]:
        """The fields that are known, by name, for an npz file."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in every.items() if value is not None}


@dataclass(frozen=True, eq=False)
class Reference:
    """What later stages need of the data set of a run, the content of reference.npz.

    Parameters
    ----------
    molecule : KnownMolecule
    lowest_positions : (n_atoms, 3) array, Å
        The frame of lowest energy.
    energies : (n_clusters,) array, eV
        Of the representatives of the broad clusters.
    positions : (n_clusters, n_atoms, 3) array, Å
        Of the representatives.
    frames : (n_clusters,) int array, or None
        Their frame numbers in the data set.
    """

    molecule: KnownMolecule
    lowest_positions: FloatArray
    energies: FloatArray
    positions: FloatArray
    frames: IntArray | None = None

    @classmethod
    def of_dataset(cls, dataset: Dataset, frames: IntArray) -> "Reference":
        """Collect what is needed of a data set.

        Parameters
        ----------
        frames : (n_clusters,) int array
            The representatives of the broad clusters.
        """
        return cls(
            KnownMolecule.of_dataset(dataset),
            lowest_positions=dataset.positions[int(np.argmin(dataset.energies))],
            energies=dataset.energies[frames],
            positions=dataset.positions[frames],
            frames=frames,
        )

    @classmethod
    def read(cls, path: Path, *, remedy: str) -> "Reference":
        """Read reference.npz.

        Raises
        ------
        InputError
            The file is missing or damaged; `remedy` says what to do.
        """
        what = "what a run keeps of its data set"
        arrays = read_arrays(path, _NEEDED, what=what, remedy=remedy, shapes=_SHAPES)
        with understood(path, what=what, remedy=remedy):
            n_atoms, n_pairs = len(arrays["numbers"]), len(arrays["mean_pair_distances"])
            if n_pairs != n_atoms * (n_atoms - 1) // 2 or not len(arrays["energies"]):
                raise ValueError(f"{n_pairs} pair distances of {n_atoms} atoms, {len(arrays['energies'])} clusters")
            if not np.isin(arrays["numbers"], np.arange(1, len(chemical_symbols))).all():
                raise ValueError("numbers that are not atomic numbers")
            others = {field.name: arrays.get(field.name) for field in fields(cls) if field.name != "molecule"}
            return cls(KnownMolecule.of_arrays(arrays), **others)  # type: ignore[arg-type]

    @property
    def arrays(self) -> dict[str, Any]:
        """The arrays of reference.npz, by name."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "molecule"}
        return {**self.molecule.arrays, **{name: value for name, value in own.items() if value is not None}}


_NEEDED = ("numbers", "lowest_energy", "mean_pair_distances", "lowest_positions", "energies", "positions")
_SHAPES = {
    "numbers": "int atoms",
    "lowest_energy": "float",
    "highest_energy": "float",
    "mean_pair_distances": "float pairs",
    "shortest_pair_distances": "float pairs",
    "longest_pair_distances": "float pairs",
    "bond_graphs": "bool graphs pairs",
    "bond_graph_counts": "int graphs",
    "longest_bonds": "float pairs",
    "n_fragments": "int",
    "mean_energy": "float",
    "mean_energy_error": "float",
    "energy_variance": "float",
    "energy_variance_error": "float",
    "temperature_K": "float",
    "temperature_error_K": "float",
    "lowest_positions": "float atoms 3",
    "pair_distance_counts": "int bins",
    "bond_length_counts": "int bins",
    "frames": "int clusters",
    "energies": "float clusters",
    "positions": "float clusters atoms 3",
}


def data_temperature(dataset: Dataset, distances: FloatArray) -> tuple[float, float]:
    """Estimate the temperature of the configurations, and its standard error, K.

    For any smooth vector field B of the positions, kT ⟨∇·B⟩ = -⟨F·B⟩ in the canonical distribution (Jepps et al.,
    https://doi.org/10.1103/PhysRevE.62.4757). Here B moves each pair along its line by its deviation from the mean
    distance, in units of the variance. Unlike for the plain virial, the variance of F·B is not dominated by
    the forces of stiff bonds. For data whose rotation and translation were removed although the thermostat acted on
    them, the result is the temperature of the vibrations.
    """
    i, j = np.tril_indices(dataset.n_atoms, -1)
    mean, variance = distances.mean(axis=0), distances.var(axis=0)
    work, divergence = np.zeros((2, dataset.n_frames))
    for pair in np.flatnonzero(variance > 0):
        length = distances[:, pair]
        line = (dataset.positions[:, i[pair]] - dataset.positions[:, j[pair]]) / length[:, None]
        force = np.einsum("fx,fx->f", dataset.forces[:, i[pair]] - dataset.forces[:, j[pair]], line)
        move = (length - mean[pair]) / variance[pair]
        work -= force * move
        divergence += 2 / variance[pair] + 4 * move / length
    temperature = work.mean() / divergence.mean() / units.kB
    linear = (work / units.kB - temperature * divergence) / divergence.mean()
    return float(temperature), _block_error(linear)


def _of_frames(numbers: IntArray, distances: FloatArray, energies: FloatArray) -> dict[str, Any]:
    graphs, counts, longest = bond_graphs(numbers, distances)
    return {
        "numbers": numbers,
        "lowest_energy": float(energies.min()),
        "highest_energy": float(energies.max()),
        "mean_pair_distances": distances.mean(axis=0),
        "shortest_pair_distances": distances.min(axis=0),
        "longest_pair_distances": distances.max(axis=0),
        "bond_graphs": graphs,
        "bond_graph_counts": counts,
        "longest_bonds": longest,
        "n_fragments": int(count_fragments(numbers, distances).max()),
    }


def _moments(dataset: Dataset, distances: FloatArray) -> dict[str, Any]:
    if dataset.n_frames < LEAST_FRAMES:
        return {}
    deviation = dataset.energies - dataset.energies.mean()
    temperature, temperature_error = data_temperature(dataset, distances)
    return {
        "mean_energy": float(dataset.energies.mean()),
        "mean_energy_error": _block_error(dataset.energies),
        "energy_variance": float(np.mean(deviation**2)),
        "energy_variance_error": _block_error(deviation**2),
        "temperature_K": temperature,
        "temperature_error_K": temperature_error,
    }


def _block_error(series: FloatArray) -> float:
    """Estimate the standard error of the mean of a time series from twenty block averages."""
    means = np.array([block.mean() for block in np.array_split(series, _N_BLOCKS)])
    return float(means.std(ddof=1) / np.sqrt(_N_BLOCKS))
