"""What the data know of a molecule: its distances, its bonds and the distribution of its potential energy."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from ase import units
from numpy.typing import NDArray

from ase_flatten.data.dataset import Dataset
from ase_flatten.geometry.bonds import bond_graphs, bonded_pairs, count_fragments
from ase_flatten.geometry.distance_histograms import count_distances
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.utils.typing import FloatArray, IntArray

LEAST_FRAMES = 100
"""Of fewer frames the moments of the energy are not taken: twenty blocks need a few frames each."""

_N_BLOCKS = 20


@dataclass(frozen=True, eq=False)
class KnownMolecule:
    """Hold what is known of a molecule; old run folders lack what may be None.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    lowest_energy, highest_energy : float, eV
    mean_pair_distances : (n_pairs,) array, Å
    shortest_pair_distances, longest_pair_distances : (n_pairs,) arrays, Å, or None
        Over all frames.
    bond_graphs : (n_graphs, n_pairs) bool array, or None
        The sets of bonds that occur, each once, without those that contain another one; see `bonds.bond_graphs`.
    bond_graph_counts : (n_graphs,) int array, or None
        Frames of each graph, those of a graph that contains it among them.
    longest_bonds : (n_pairs,) array, Å, or None
        The longest distance of each pair while it is bonded; 0 where it never is.
    n_fragments : int, or None
        The most fragments of a frame, by `bonds.count_fragments`.
    mean_energy, mean_energy_error : float, eV, or None
        Of the potential energy, and its standard error by averages of twenty blocks in the order of the file.
    energy_variance, energy_variance_error : float, eV², or None
    temperature_K, temperature_error_K : float, K, or None
        That the configurations have, by `data_temperature`.
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

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> "KnownMolecule":
        """Take what `Run.reference` reads; entries that are missing are None."""
        known = {field.name: arrays[field.name] for field in fields(cls) if field.name in arrays}
        known.setdefault("highest_energy", np.max(arrays.get("energies", arrays["lowest_energy"])))
        return cls(**{name: value if np.ndim(value) else np.asarray(value).item() for name, value in known.items()})

    @classmethod
    def of_frames(cls, numbers: IntArray, positions: FloatArray, energies: FloatArray) -> "KnownMolecule":
        """Take geometries that are no thermal sample: the moments of their energy say nothing."""
        return cls(**_of_frames(numbers, pair_distances(positions), energies))

    @classmethod
    def of_dataset(cls, dataset: Dataset, distances: FloatArray) -> "KnownMolecule":
        """Take a data set and its (n_frames, n_pairs) pair distances, Å."""
        return cls(**_of_frames(dataset.numbers, distances, dataset.energies), **_moments(dataset, distances))

    @property
    def arrays(self) -> dict[str, Any]:
        """What is known, by name, for an npz file."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in every.items() if value is not None}


def reference_arrays(dataset: Dataset, distances: FloatArray, frames: IntArray) -> dict[str, Any]:
    """Collect the content of reference.npz, as `Run.reference` describes it.

    Parameters
    ----------
    distances : (n_frames, n_pairs) array, Å
    frames : (n_clusters,) int array
        The representatives of the broad clusters.
    """
    bonded = bonded_pairs(dataset.numbers, distances.mean(axis=0))
    return {
        **KnownMolecule.of_dataset(dataset, distances).arrays,
        "lowest_positions": dataset.positions[int(np.argmin(dataset.energies))],
        "pair_distance_counts": count_distances(distances),
        "bond_length_counts": count_distances(distances[:, bonded]),
        "frames": frames,
        "energies": dataset.energies[frames],
        "positions": dataset.positions[frames],
    }


def data_temperature(dataset: Dataset, distances: FloatArray) -> tuple[float, float]:
    """Estimate the temperature of the configurations, and its standard error, K.

    For any smooth vector field B of the positions, kT ⟨∇·B⟩ = -⟨F·B⟩ in the canonical distribution (Jepps et al.,
    https://doi.org/10.1103/PhysRevE.62.4757). Here B moves each pair along its line by its deviation from the mean
    distance, in units of the variance. Unlike that of the plain virial, the variance of F·B is not
    dominated by the pull of stiff bonds. Data whose thermostat also acted on a
    rotation and translation that were removed come out as hot as their vibrations are.
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
    """Estimate the standard error of the mean of a series in time order by twenty block averages."""
    means = np.array([block.mean() for block in np.array_split(series, _N_BLOCKS)])
    return float(means.std(ddof=1) / np.sqrt(_N_BLOCKS))
