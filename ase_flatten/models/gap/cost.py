"""What a fit of `gap_fit` needs in time and memory.

Both are dominated by the derivatives of the SOAP vectors: three for each atom and each of its neighbours, which are
kept at once and multiplied with the sparse points of their element.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.models import Cost
from ase_flatten.models.gap.native import soap_dimensions
from ase_flatten.utils.typing import IntArray

_SECONDS_PER_OPERATION = 4e-10
"""Measured with `gap_fit` 0.10 on one core of 2024: 10 to 100 frames of 9 and 16 atoms, both presets."""

_START_SECONDS = 1.0
_START_BYTES = 10**8

_SAMPLED_FRAMES = 100


def fit_cost(dataset: Dataset, n_frames: int, settings: Mapping[str, Any]) -> Cost:
    """Estimate a fit of `n_frames` frames that are like those of a data set, with the settings of `GAPTrainer`."""
    some = np.linspace(0, dataset.n_frames - 1, min(dataset.n_frames, _SAMPLED_FRAMES)).astype(np.int64)
    n_derivatives = _n_derivatives(dataset, some, settings["cutoff"]) * n_frames / len(some)
    populations = np.unique(dataset.numbers, return_counts=True)[1] / dataset.n_atoms
    n_points = n_frames * dataset.n_atoms * populations
    products = n_derivatives * np.sum(populations * np.minimum(n_points, settings["n_sparse"]))
    operations = 2.0 * products * _dimensions(dataset, settings)
    return Cost(
        _START_SECONDS + _SECONDS_PER_OPERATION * float(operations),
        _START_BYTES + int(_bytes(dataset, n_frames, n_derivatives, settings)),
    )


def fit_bytes(dataset: Dataset, frames: IntArray, settings: Mapping[str, Any]) -> float:
    """Compute the memory for the matrices of a fit of these frames, bytes."""
    return _bytes(dataset, len(frames), _n_derivatives(dataset, frames, settings["cutoff"]), settings)


def _bytes(dataset: Dataset, n_frames: int, n_derivatives: float, settings: Mapping[str, Any]) -> float:
    n_species = len(np.unique(dataset.numbers))
    n_values = n_frames * (3 * dataset.n_atoms + 1)
    return 8.0 * (_dimensions(dataset, settings) * n_derivatives + 2 * n_species * settings["n_sparse"] * n_values)


def _dimensions(dataset: Dataset, settings: Mapping[str, Any]) -> int:
    return soap_dimensions(len(np.unique(dataset.numbers)), settings["n_max"], settings["l_max"])


def _n_derivatives(dataset: Dataset, frames: IntArray, cutoff: float) -> float:
    """Count the derivatives of SOAP vectors with respect to Cartesian coordinates."""
    n_neighbours = 2 * np.sum(pair_distances(dataset.positions[frames]) < cutoff)
    return 3.0 * (n_neighbours + len(frames) * dataset.n_atoms)
