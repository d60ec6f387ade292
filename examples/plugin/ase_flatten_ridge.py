"""Ridge regression on inverse distances: a family of models for `ase-flatten` in one module.

With q the inverse distances of all pairs of atoms, shifted and scaled by their mean and standard
deviation over the training frames, the energy is E = c + Σ_a w_a f_a(q), where the f_a are all q_i and
all products q_i q_j. The weights are fitted to the forces -∂E/∂x by least squares with a ridge; c follows
from the mean of the energies. The model is fast for small molecules: there are p (p + 3) / 2 functions
of p pairs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.models import Model, Prediction, Trainer, check_settings
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray

FILE = "ridge.npz"


@dataclass(frozen=True, eq=False)
class RidgeModel:
    """A model with weights of functions of the inverse distances.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    mean, scale : (n_pairs,) arrays, 1/Å
    weights : (n_functions,) array, eV
    constant : float, eV
    regularisation : float
    """

    numbers: IntArray
    mean: FloatArray
    scale: FloatArray
    weights: FloatArray
    constant: float
    regularisation: float

    @property
    def permutations(self) -> IntArray:
        """The identity: this model has no permutational symmetry."""
        return np.arange(len(self.numbers))[None]

    @property
    def hyper_parameters(self) -> Mapping[str, Any]:
        """The ridge."""
        return {"regularisation": float(self.regularisation)}

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict energies and forces of configurations, (n_frames, n_atoms, 3) in Å."""
        n_pairs = len(self.mean)
        linear, products = self.weights[:n_pairs], np.zeros((n_pairs, n_pairs))
        products[np.triu_indices(n_pairs)] = self.weights[n_pairs:]
        q, gradients = _inverse_distances(positions, self.mean, self.scale)
        energies = self.constant + q @ linear + np.einsum("fp,pq,fq->f", q, products, q)
        slopes = linear + q @ (products + products.T)
        return Prediction(energies, -np.einsum("fp,fpax->fax", slopes, gradients))

    def save(self, folder: Path) -> None:
        """Write ridge.npz."""
        np.savez(folder / FILE, **vars(self))


@dataclass(frozen=True)
class RidgeTrainer(Trainer):
    """Trainer of ridge models.

    Parameters
    ----------
    regularisation : float
        The ridge, relative to the mean of the diagonal to which it is added.
    """

    regularisation: float = 1e-8

    def __post_init__(self) -> None:
        if self.regularisation <= 0:
            raise InputError(f"the regularisation must be positive, got {self.regularisation}")

    def fit(
        self,
        dataset: Dataset,
        frames: IntArray,
        valid: IntArray,
        *,
        rng: np.random.Generator,
        previous: Model | None = None,
    ) -> RidgeModel:
        """Solve the normal equations of the forces of `frames`."""
        positions, forces = dataset.positions[frames], dataset.forces[frames]
        raw, _ = _inverse_distances(positions, np.zeros(1), np.ones(1))
        mean, scale = raw.mean(axis=0), raw.std(axis=0)
        first, second = np.triu_indices(len(mean))
        n_functions = len(mean) + len(first)
        matrix, right = np.zeros((n_functions, n_functions)), np.zeros(n_functions)
        for q, gradient, force in zip(*_inverse_distances(positions, mean, scale), forces, strict=True):
            gradient = gradient.reshape(len(mean), -1)
            of_products = q[first, None] * gradient[second] + q[second, None] * gradient[first]
            jacobian = np.concatenate([gradient, of_products])
            matrix += jacobian @ jacobian.T
            right -= jacobian @ force.ravel()
        matrix[np.diag_indices(n_functions)] += self.regularisation * matrix.trace() / n_functions
        weights = np.linalg.solve(matrix, right)
        blank = RidgeModel(dataset.numbers, mean, scale, weights, 0.0, self.regularisation)
        constant = float(np.mean(dataset.energies[frames] - blank.predict(positions).energies))
        return RidgeModel(dataset.numbers, mean, scale, weights, constant, self.regularisation)


class RidgeFamily:
    """The family, as `ase_flatten.models.Family` describes it."""

    name = "ridge"
    distribution = "ase-flatten-ridge"
    units: Mapping[str, str] = MappingProxyType({"energy": "eV", "length": "Ang"})
    expensive = False

    def trainer(self, **settings: Any) -> RidgeTrainer:
        """Return a trainer; see `RidgeTrainer` for the settings."""
        check_settings(settings, RidgeTrainer)
        return RidgeTrainer(**settings)

    def settings(self, trainer: RidgeTrainer) -> dict[str, Any]:
        """Return the settings of a trainer."""
        return asdict(trainer)

    def load(self, folder: Path) -> RidgeModel:
        """Load ridge.npz."""
        with np.load(folder / FILE, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        return RidgeModel(**{name: array if array.ndim else float(array) for name, array in arrays.items()})


FAMILY = RidgeFamily()


def _inverse_distances(positions: FloatArray, mean: FloatArray, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return q, (n_frames, n_pairs), and its gradients, (n_frames, n_pairs, n_atoms, 3) in 1/Å."""
    first, second = np.tril_indices(positions.shape[1], -1)
    difference = positions[:, first] - positions[:, second]
    inverse = 1 / np.linalg.norm(difference, axis=2)
    slope = -difference * (inverse**3 / scale)[:, :, None]
    pairs = np.arange(len(first))
    gradients = np.zeros((len(positions), len(first), positions.shape[1], 3))
    gradients[:, pairs, first] = slope
    gradients[:, pairs, second] = -slope
    return (inverse - mean) / scale, gradients
