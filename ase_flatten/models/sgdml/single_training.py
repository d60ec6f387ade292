"""One training of an sGDML model, from its frames to the content of a model file."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import psutil

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.models.sgdml import sgdml_package
from ase_flatten.models.sgdml.cholesky import NotPositiveDefiniteError
from ase_flatten.models.sgdml.factor import Coefficients, KernelFactor, TrainingGeometries, bytes_to_factorise
from ase_flatten.models.sgdml.kernel import pair_orders
from ase_flatten.models.sgdml.model import SYMMETRIES, SGDMLModel
from ase_flatten.models.sgdml.permutation_sums import predictor_of
from ase_flatten.models.sgdml.predictor import Predictor
from ase_flatten.utils.exceptions import BackendError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import IntArray

log = logging.getLogger(__name__)

LARGEST_REGULARISATION = 1e-6
_LEAST_RAISED = 1e-12
_MARGIN = 2**30
"""Memory left to everything else, bytes."""


@dataclass(frozen=True, eq=False)
class SingleTraining:
    """All that determines one training.

    Parameters
    ----------
    dataset : Dataset
    frames, valid : int arrays
        Training frames, and validation frames for the integration constant.
    permutations : (n_permutations, n_atoms) int array
    sigma : float
        Length scale.
    regularisation : float
        Added to the kernel's diagonal; raised tenfold if the matrix is not positive definite.
    symmetries : sequence of str or None
        Where the permutations come from, a line for each generator of the group; None if it is not known.
    progress : Progress
    """

    dataset: Dataset
    frames: IntArray
    valid: IntArray
    permutations: IntArray
    sigma: float
    regularisation: float
    symmetries: Sequence[str] | None = None
    progress: Progress = SILENT
    _shared: dict[str, TrainingGeometries] = field(default_factory=dict, repr=False)

    def at(self, *, sigma: float) -> "SingleTraining":
        """Return the same training with another length scale; geometries and distances are computed once for all."""
        return replace(self, sigma=sigma)

    def part(self, n_frames: int) -> "SingleTraining":
        """Return the training on `n_frames` evenly spread frames, or itself if it has no more."""
        if len(self.frames) <= n_frames:
            return self
        places = np.linspace(0, len(self.frames) - 1, n_frames).round().astype(np.int64)
        return replace(self, frames=self.frames[places], _shared={})

    def model(self, *, grown_from: KernelFactor | None = None, keep_factor: bool = False) -> SGDMLModel:
        """Train, and return the model; with `keep_factor`, it keeps the factor for a larger training set."""
        content, factor = self.train(grown_from=grown_from)
        model = SGDMLModel(content)
        if keep_factor:
            model.factor = factor
        return model

    def train(self, *, grown_from: KernelFactor | None = None) -> tuple[dict[str, Any], KernelFactor | None]:
        """Train.

        Parameters
        ----------
        grown_from : KernelFactor, optional
            The factor of the first frames, which is taken over and grows.

        Returns
        -------
        content : dict
            The entries of a model file of the `sgdml` package.
        factor : KernelFactor or None
            For a larger training set; None if it does not fit into memory.

        Raises
        ------
        BackendError
            The kernel matrix is not positive definite, however regularised.
        """
        available = available_bytes() + (grown_from.nbytes if grown_from else 0)
        needed = bytes_to_factorise(self.dataset.n_atoms, len(self.frames))
        if needed > available:
            if grown_from is not None:
                grown_from.release()
            log.warning(
                "training on %d frames needs %.1f GB of memory, %.1f GB are free: the iterative solver of the sgdml "
                "package is used instead, which takes longer and is less accurate",
                len(self.frames), needed / 1e9, available / 1e9,
            )  # fmt: skip
            content = sgdml_package.train(self.entries(self.regularisation), memory=available)
            content |= self._notes
            predictor = predictor_of(
                content["R_desc"].T, content["R_d_desc_alpha"] * content["std"], content["perms"], self.sigma
            )
            return {**content, "c": self._integration_constant(predictor)}, None
        factor = self._factorise(grown_from)
        found = factor.solve(self.dataset.forces[self.frames] / KCAL_PER_MOL)
        return self._content(factor, found), factor

    def _factorise(self, grown_from: KernelFactor | None) -> KernelFactor:
        regularisation = self.regularisation
        while True:
            try:
                if grown_from is None:
                    return KernelFactor(self._geometries, self.sigma, regularisation, progress=self.progress)
                grown_from.grow(self.dataset.positions[self.frames[len(grown_from) :]], progress=self.progress)
                return grown_from
            except NotPositiveDefiniteError as error:
                if grown_from is not None:
                    grown_from.release()
                    grown_from = None
                raised = max(10 * regularisation, _LEAST_RAISED)
                if raised > LARGEST_REGULARISATION * 1.01:
                    raise self._hopeless(regularisation) from error
                log.warning(
                    "the kernel matrix of %d frames is not positive definite: regularisation %g instead of %g",
                    len(self.frames), raised, regularisation,
                )  # fmt: skip
                regularisation = raised
            except np.linalg.LinAlgError as error:
                raise self._hopeless(regularisation) from error

    def _hopeless(self, regularisation: float) -> BackendError:
        return BackendError(
            f"expected a positive definite kernel matrix of {len(self.frames)} training frames, found none up to a "
            f"regularisation of {regularisation:g}; check the data for coincident atoms and values that are not finite"
        )

    @property
    def _geometries(self) -> TrainingGeometries:
        if "all" not in self._shared:
            self._shared["all"] = TrainingGeometries(self.dataset.positions[self.frames], self.permutations)
        return self._shared["all"]

    def entries(self, regularisation: float) -> dict[str, Any]:
        """Return the entries of a task of the package."""
        return {
            "type": "t",
            "code_version": version("sgdml"),
            "dataset_name": np.array(self.dataset.name or "unnamed"),
            "dataset_theory": np.array(self.dataset.theory or "unknown"),
            "z": self.dataset.numbers.astype(np.uint8),
            "R_train": self.dataset.positions[self.frames],
            "F_train": self.dataset.forces[self.frames] / KCAL_PER_MOL,
            "E_train": self.dataset.energies[self.frames] / KCAL_PER_MOL,
            "idxs_train": self.frames,
            "md5_train": fingerprint(self.dataset),
            "idxs_valid": self.valid,
            "md5_valid": fingerprint(self.dataset),
            # An integer remains an integer: the package writes it into file names.
            "sig": int(self.sigma) if float(self.sigma).is_integer() else self.sigma,
            "lam": regularisation,
            "use_E": True,
            "use_E_cstr": False,
            "use_sym": len(self.permutations) > 1,
            "perms": self.permutations,
            "r_unit": "Ang",
            "e_unit": "kcal/mol",
        }

    def _content(self, factor: KernelFactor, found: Coefficients) -> dict[str, Any]:
        """Return the entries of a model file of the package."""
        task = self.entries(factor.regularisation)
        kept = (
            "code_version", "dataset_name", "dataset_theory", "z", "idxs_train", "md5_train", "idxs_valid",
            "md5_valid", "sig", "lam", "perms", "use_E", "r_unit", "e_unit",
        )  # fmt: skip
        descriptors, orders = factor.training.descriptors, pair_orders(self.permutations)
        predictor = predictor_of(descriptors, found.descriptor_alphas * found.std, self.permutations, self.sigma)
        n_pairs = orders.shape[1]
        return {
            "type": "m",
            **{key: task[key] for key in kept},
            **self._notes,
            "solver_name": "analytic",
            "n_test": 0,
            "R_desc": descriptors.T,
            "R_d_desc_alpha": found.descriptor_alphas,
            "alphas_F": found.alphas.ravel(),
            "std": found.std,
            "c": self._integration_constant(predictor),
            "tril_perms_lin": (orders + n_pairs * np.arange(len(orders))[:, None]).flatten("F"),
        }

    @property
    def _notes(self) -> dict[str, Any]:
        """Return the entry of a model file that its package does not know."""
        return {} if self.symmetries is None else {SYMMETRIES: np.array(self.symmetries, dtype=np.str_)}

    def _integration_constant(self, predictor: Predictor) -> float:
        """Return the mean of reference minus predicted energy over the validation frames, kcal/mol.

        The package takes the mean over the training frames. In improved training these are not representative: they
        are chosen where the model errs most. They are used only if there are no validation frames.
        """
        frames = self.valid if len(self.valid) else self.frames
        return float(
            np.mean(self.dataset.energies[frames] / KCAL_PER_MOL - predictor(self.dataset.positions[frames])[0])
        )


def available_bytes() -> int:
    """Return the memory that a training may take, bytes."""
    return max(0, psutil.virtual_memory().available - _MARGIN)


def fingerprint(dataset: Dataset) -> bytes:
    """Return the identification of a data set in model files."""
    return dataset.digest[:32].encode()
