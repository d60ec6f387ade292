"""sGDML through the `sgdml` package (Chmiela et al. 2018, doi:10.1038/s41467-018-06169-2).

The package finds the permutations and trains. Predictions are matrix products over
all training frames and permutations at once, and agree with the package's.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np
import psutil

from ase_flatten.dataset import Dataset, FloatArray, IntArray
from ase_flatten.descriptors import BLOCK_BYTES, pair_permutation
from ase_flatten.exceptions import InputError
from ase_flatten.files import reading_npz, write_npz
from ase_flatten.models import Model, Prediction, unknown_setting
from ase_flatten.strata import energy_bins, stratified_sample
from ase_flatten.units import KCAL_PER_MOL, energy_in_eV, length_in_angstrom

log = logging.getLogger(__name__)

MODEL_FILE = "model.npz"
LENGTH_SCALES = (2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200)
FIRST_LENGTH_SCALE = 20
_VALIDATION_FRAMES = 1000
_SYMMETRY_FRAMES = 1000
_UNTESTED = {"mae": np.nan, "rmse": np.nan}
# Entries that the package expects and unpickles: written for it, never read here.
_OBJECTS: dict[str, Any] = {"f_err": _UNTESTED, "e_err": _UNTESTED, "md5_test": None}
_NEEDED = ("z", "R_desc", "R_d_desc_alpha", "c", "std", "sig", "lam", "perms")


class SGDMLModel:
    """Predict with an sGDML model file.

    Parameters
    ----------
    content : mapping
        The entries of a model file of the `sgdml` package.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = {key: value for key, value in content.items() if key not in _OBJECTS}
        self.numbers: IntArray = np.asarray(content["z"], dtype=np.int64)
        self.permutations: IntArray = np.asarray(content["perms"], dtype=np.int64)
        self.sigma = float(content["sig"])
        self._energy = energy_in_eV(_text(content.get("e_unit", "kcal/mol")))
        self._length = length_in_angstrom(_text(content.get("r_unit", "Ang")))
        self._q = np.sqrt(5.0) / self.sigma
        self._std, self._constant = float(content["std"]), float(content["c"])
        self._pairs = np.tril_indices(len(self.numbers), -1)
        orders = np.array([pair_permutation(permutation) for permutation in self.permutations])
        # All images of all training frames, and the coefficients that go with them.
        self._images = np.asarray(content["R_desc"]).T[:, orders].reshape(-1, orders.shape[1])
        self._alphas = np.asarray(content["R_d_desc_alpha"])[:, orders].reshape(-1, orders.shape[1])
        self._centre = self._images.mean(axis=0)
        self._images = self._images - self._centre
        self._image_norms = np.einsum("md,md->m", self._images, self._images)
        self._image_dot_alphas = np.einsum("md,md->m", self._images, self._alphas)

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Length scale, regularisation and number of permutations."""
        return {
            "sigma": self.sigma,
            "lambda": float(self.content["lam"]),
            "n_permutations": len(self.permutations),
        }

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict energies and forces.

        Parameters
        ----------
        positions : (n_frames, n_atoms, 3) array, Å

        Returns
        -------
        Prediction
        """
        n_frames = len(positions)
        energies, forces = np.empty(n_frames), np.empty(positions.shape)
        step = max(1, BLOCK_BYTES // (8 * 6 * len(self._images)))
        for start in range(0, n_frames, step):
            block = slice(start, start + step)
            energies[block], forces[block] = self._predict(positions[block] / self._length)
        energies *= self._energy
        forces *= self._energy / self._length
        return Prediction(energies, forces)

    def _predict(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Evaluate the Matérn kernel's force field (Chmiela et al. 2018, eq. 3) and its integral."""
        i, j = self._pairs
        difference = positions[:, i] - positions[:, j]
        inverse = 1.0 / np.sqrt(np.einsum("fpx,fpx->fp", difference, difference))
        x = inverse - self._centre

        scaled = x @ self._images.T
        scaled *= -2
        scaled += np.einsum("fp,fp->f", x, x)[:, None]
        scaled += self._image_norms
        np.maximum(scaled, 0, out=scaled)
        np.sqrt(scaled, out=scaled)
        scaled *= self._q
        dot = x @ self._alphas.T
        dot -= self._image_dot_alphas
        dot *= self._q
        decay = np.exp(-scaled)
        decay *= 5 / (3 * self.sigma**2)
        scaled += 1
        scaled *= decay
        dot_decay = np.multiply(decay, dot, out=decay)

        gradient = (dot_decay.sum(axis=1)[:, None] * x - dot_decay @ self._images) * self._q
        gradient -= scaled @ self._alphas
        gradient *= -self._std * inverse**3
        energies = np.einsum("fm,fm->f", scaled, dot) * (self._std / self._q) + self._constant

        n_atoms = len(self.numbers)
        weights = np.zeros((len(positions), n_atoms, n_atoms))
        weights[:, i, j] = weights[:, j, i] = gradient
        forces = weights.sum(axis=2)[:, :, None] * positions - weights @ positions
        return energies, forces

    def save(self, folder: Path) -> None:
        """Write the model file that the `sgdml` package loads."""
        write_npz(folder / MODEL_FILE, {**self.content, **_OBJECTS})

    def __reduce__(self) -> tuple[type["SGDMLModel"], tuple[dict[str, Any]]]:
        return SGDMLModel, (self.content,)


@dataclass(frozen=True)
class SGDMLTrainer:
    """Train sGDML models with the `sgdml` package.

    Parameters
    ----------
    sigma : float, optional
        Length scale of the kernel; without it, it is chosen on the validation frames.
    regularisation : float
        Added to the kernel's diagonal (the package's `lam`).
    symmetries : bool
        Whether to search for permutations (sGDML) or not (GDML).
    """

    sigma: float | None = None
    regularisation: float = 1e-10
    symmetries: bool = True

    def __post_init__(self) -> None:
        if self.sigma is not None and self.sigma <= 0:
            raise InputError(f"the length scale sigma must be positive, got {self.sigma}")

    def default_frames(self, dataset: Dataset, pool: IntArray, n_frames: int, *, rng: np.random.Generator) -> IntArray:
        """Draw a sample stratified by energy, as the `sgdml` package does."""
        bins = energy_bins(dataset.energies[pool], n_frames)
        return pool[stratified_sample(bins, n_frames, rng=rng)]

    def fit(
        self,
        dataset: Dataset,
        frames: IntArray,
        valid: IntArray,
        *,
        rng: np.random.Generator,
        previous: Model | None = None,
    ) -> SGDMLModel:
        """Train on `frames`; see `ase_flatten.models.Trainer`.

        Permutations and the length scale come from `previous`, or are found here:
        the first by the package's matching, the second on the validation frames.
        """
        if previous is not None:
            return self._train(dataset, frames, valid, previous.permutations, previous.hyper_parameters["sigma"])
        permutations = self._find_permutations(dataset, frames, rng)
        if self.sigma is not None:
            return self._train(dataset, frames, valid, permutations, self.sigma)
        return self._search(dataset, frames, valid, permutations, rng)

    def settle(
        self, dataset: Dataset, trained: list[tuple[IntArray, Model]], valid: IntArray, *, rng: np.random.Generator
    ) -> list[Model]:
        """Try the neighbouring length scales for all models; change it where all together gain beyond noise."""
        models = [model for _, model in trained]
        current = float(models[0].hyper_parameters["sigma"])
        if self.sigma is not None or current not in LENGTH_SCALES:
            return models
        valid = _subset(valid, rng)
        errors = np.sum([_squared_errors(model, dataset, valid) for model in models], axis=0)
        at = LENGTH_SCALES.index(int(current))
        for sigma in LENGTH_SCALES[max(at - 1, 0) : at] + LENGTH_SCALES[at + 1 : at + 2]:
            others: list[Model] = [
                self._train(dataset, frames, valid, model.permutations, sigma) for frames, model in trained
            ]
            gain = errors - np.sum([_squared_errors(model, dataset, valid) for model in others], axis=0)
            noise = np.std(gain) / np.sqrt(len(gain))
            if gain.mean() > 2 * noise:
                log.info("length scale %g instead of %g lowers the validation error", sigma, current)
                return others
        return models

    def _search(
        self, dataset: Dataset, frames: IntArray, valid: IntArray, permutations: IntArray, rng: np.random.Generator
    ) -> SGDMLModel:
        """Walk down the validation error over the grid of length scales."""
        subset = _subset(valid, rng)
        found: dict[int, tuple[float, SGDMLModel]] = {}

        def error(index: int) -> float:
            if not 0 <= index < len(LENGTH_SCALES):
                return np.inf
            if index not in found:
                model = self._train(dataset, frames, valid, permutations, LENGTH_SCALES[index])
                found[index] = (float(_squared_errors(model, dataset, subset).mean()), model)
                log.info("length scale %g: validation error %.4g eV/Å", LENGTH_SCALES[index], found[index][0] ** 0.5)
            return found[index][0]

        best = LENGTH_SCALES.index(FIRST_LENGTH_SCALE)
        while True:
            nearer = min((best, best - 1, best + 1), key=error)
            if nearer == best:
                return found[best][1]
            best = nearer

    def _find_permutations(self, dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> IntArray:
        if not self.symmetries:
            return np.arange(dataset.n_atoms)[None]
        some = frames if len(frames) <= _SYMMETRY_FRAMES else rng.choice(frames, _SYMMETRY_FRAMES, replace=False)
        package = _package()
        found = package.perm.find_perms(dataset.positions[some].copy(), dataset.numbers, max_processes=1)
        return np.asarray(found, dtype=np.int64)

    def _train(
        self, dataset: Dataset, frames: IntArray, valid: IntArray, permutations: IntArray, sigma: float
    ) -> SGDMLModel:
        package = _package()
        # A whole number stays one: the package writes it into file names.
        sigma = int(sigma) if float(sigma).is_integer() else sigma
        fingerprint = dataset.digest[:32].encode()
        task = {
            "type": "t",
            "code_version": package.version,
            "dataset_name": np.array(dataset.name or "unnamed"),
            "dataset_theory": np.array(dataset.theory or "unknown"),
            "z": dataset.numbers.astype(np.uint8),
            "R_train": dataset.positions[frames],
            "F_train": dataset.forces[frames] / KCAL_PER_MOL,
            "E_train": dataset.energies[frames] / KCAL_PER_MOL,
            "idxs_train": frames,
            "md5_train": fingerprint,
            "idxs_valid": valid,
            "md5_valid": fingerprint,
            "sig": sigma,
            "lam": self.regularisation,
            "use_E": True,
            "use_E_cstr": False,
            "use_sym": len(permutations) > 1,
            "perms": permutations,
            "r_unit": "Ang",
            "e_unit": "kcal/mol",
        }
        return SGDMLModel(package.trainer.train(task))


class SGDMLFamily:
    """The sGDML family."""

    name = "sgdml"
    distribution = "sgdml"
    units: Mapping[str, str] = MappingProxyType({"energy": "kcal/mol", "length": "Ang"})

    def trainer(self, **settings: Any) -> SGDMLTrainer:
        """Give a trainer; see `SGDMLTrainer` for the settings."""
        known = [field.name for field in fields(SGDMLTrainer)]
        for name in settings:
            if name not in known:
                raise unknown_setting(name, known)
        return SGDMLTrainer(**settings)

    def settings(self, trainer: SGDMLTrainer) -> dict[str, Any]:
        """Give the settings of a trainer, as JSON can hold them."""
        return asdict(trainer)

    def load(self, folder: Path) -> SGDMLModel:
        """Load `model.npz` from a model folder, never unpickling."""
        path = folder / MODEL_FILE if folder.is_dir() else folder
        return load_model_file(path)


def load_model_file(path: Path) -> SGDMLModel:
    """Load a model file of the `sgdml` package, never unpickling.

    Raises
    ------
    InputError
        The file is missing, damaged or no sGDML model, or holds a periodic cell or energy constraints.
    """
    with reading_npz(path, "an sGDML model") as archive:
        missing = [key for key in _NEEDED if key not in archive.files]
        if missing:
            raise InputError(f"expected an sGDML model in {path}, found no entry {missing[0]}; is it a data set?")
        for unsupported in ("lattice", "alphas_E"):
            if unsupported in archive.files:
                raise InputError(f"expected a plain sGDML model in {path}, found {unsupported}: not supported")
        return SGDMLModel({key: archive[key] for key in archive.files if key not in _OBJECTS})


FAMILY = SGDMLFamily()


@dataclass(frozen=True)
class _Package:
    """The parts of the `sgdml` package in use."""

    trainer: Any
    perm: ModuleType
    version: str


@cache
def _package() -> _Package:
    """Import the package without what it does to everybody's logging, and make its one trainer."""
    import torch  # noqa: F401  (first, or its loggers are made by the class that sgdml puts in place)

    logger_class = logging.getLoggerClass()
    try:
        import sgdml
        from sgdml.train import GDMLTrain
        from sgdml.utils import perm
    finally:
        logging.setLoggerClass(logger_class)
    for name in ("sgdml", "sgdml.train", "sgdml.predict", "sgdml.solvers.analytic", "sgdml.solvers.iterative"):
        logging.getLogger(name).setLevel(logging.ERROR)
    memory = psutil.virtual_memory().available // 2**30
    return _Package(GDMLTrain(max_memory=memory, max_processes=_n_cores()), perm, sgdml.__version__)


def _n_cores() -> int:
    """Count the cores that this process may use, which on a shared machine are not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _squared_errors(model: Model, dataset: Dataset, frames: IntArray) -> FloatArray:
    """Give the mean squared force error of each frame, (eV/Å)², per component."""
    error = model.predict(dataset.positions[frames]).forces - dataset.forces[frames]
    return np.mean(error**2, axis=(1, 2))


def _subset(frames: IntArray, rng: np.random.Generator) -> IntArray:
    return frames if len(frames) <= _VALIDATION_FRAMES else np.sort(rng.choice(frames, _VALIDATION_FRAMES, False))


def _text(value: Any) -> str:
    value = value.item() if isinstance(value, np.ndarray) else value
    return value.decode() if isinstance(value, bytes) else str(value)
