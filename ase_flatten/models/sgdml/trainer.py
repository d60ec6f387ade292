"""sGDML (Chmiela et al. 2018, doi:10.1038/s41467-018-06169-2): kernel models whose training grows.

The factor of the kernel matrix grows with the training set, so that all steps together cost as much as one training
at the final size. Model files are those of the `sgdml` package.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.stratified_sampling import energy_bins, stratified_sample
from ase_flatten.models import Cost, Model, Trainer, check_settings
from ase_flatten.models.sgdml import length_scale, sgdml_package
from ase_flatten.models.sgdml.cost import training_cost
from ase_flatten.models.sgdml.length_scale import LENGTH_SCALES
from ase_flatten.models.sgdml.model import MODEL_FILE, SGDMLModel, load_model_file, text_of
from ase_flatten.models.sgdml.single_training import LARGEST_REGULARISATION, SingleTraining, fingerprint
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import IntArray

_SYMMETRY_FRAMES = 1000


@dataclass(frozen=True)
class SGDMLTrainer(Trainer):
    """Trainer of sGDML models.

    Parameters
    ----------
    sigma : float, optional
        Length scale of the kernel; by default, it is chosen on the validation frames.
    regularisation : float
        Added to the kernel's diagonal (the package's `lam`); raised tenfold if the matrix is not positive definite.
    symmetries : bool
        Whether to search for permutations (sGDML) or not (GDML).
    """

    sigma: float | None = None
    regularisation: float = 1e-10
    symmetries: bool = True

    def __post_init__(self) -> None:
        if self.sigma is not None and self.sigma <= 0:
            raise InputError(f"the length scale sigma must be positive, got {self.sigma}")
        if not 0 <= self.regularisation <= LARGEST_REGULARISATION:
            raise InputError(
                f"the regularisation must lie between 0 and {LARGEST_REGULARISATION:g}, got {self.regularisation}"
            )

    def default_frames(self, dataset: Dataset, pool: IntArray, n_frames: int, *, rng: np.random.Generator) -> IntArray:
        """Draw a sample stratified by energy, as the `sgdml` package does."""
        bins = energy_bins(dataset.energies[pool], n_frames)
        return pool[stratified_sample(bins, n_frames, rng=rng)]

    def cost(self, dataset: Dataset, n_frames: int) -> Cost:
        """Estimate the cost of `fit` as for a molecule without symmetries; see `training_cost`."""
        return training_cost(
            dataset.n_atoms, n_frames, searched_frames=0 if self.sigma else length_scale.SEARCH_FRAMES,
            matched_frames=_SYMMETRY_FRAMES if self.symmetries else 0,
        )  # fmt: skip

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

        Permutations and length scale are those of `previous`. Without it, permutations are found by the matching of
        the `sgdml` package, and the length scale is chosen on the validation frames. If `frames` begins with the
        training frames of `previous`, its factor is taken from it and grows; the result is the same as from scratch.
        """
        if previous is not None:
            return _continued(dataset, frames, valid, previous)
        permutations = self._find_permutations(dataset, frames, rng)
        sigma = length_scale.FIRST_LENGTH_SCALE if self.sigma is None else self.sigma
        training = SingleTraining(dataset, frames, valid, permutations, sigma, self.regularisation)
        if self.sigma is not None:
            return training.model(keep_factor=True)
        return length_scale.search(training, rng=rng, progress=self.workplace.progress)

    def settle(
        self, dataset: Dataset, trained: list[tuple[IntArray, Model]], valid: IntArray, *, rng: np.random.Generator
    ) -> list[Model]:
        """Use the same regularisation for all models, and another length scale if it improves them significantly.

        See `length_scale.review`; a length scale that the user chose is kept.
        """
        trainings = [_training_of(dataset, frames, valid, model) for frames, model in trained]
        most = max(training.regularisation for training in trainings)
        trainings = [replace(training, regularisation=most) for training in trainings]
        models: list[Model] = [
            model if model.hyper_parameters["lambda"] == most else training.model()
            for training, (_, model) in zip(trainings, trained, strict=True)
        ]
        if self.sigma is not None or trainings[0].sigma not in LENGTH_SCALES:
            return models
        return length_scale.review(trainings, models, rng=rng, progress=self.workplace.progress)

    def _find_permutations(self, dataset: Dataset, frames: IntArray, rng: np.random.Generator) -> IntArray:
        if not self.symmetries:
            return np.arange(dataset.n_atoms)[None]
        some = frames if len(frames) <= _SYMMETRY_FRAMES else rng.choice(frames, _SYMMETRY_FRAMES, replace=False)
        return sgdml_package.find_permutations(dataset.positions[some], dataset.numbers)


class SGDMLFamily:
    """The sGDML family."""

    name = "sgdml"
    distribution = "sgdml"
    units: Mapping[str, str] = MappingProxyType({"energy": "kcal/mol", "length": "Ang"})
    expensive = False

    def trainer(self, **settings: Any) -> SGDMLTrainer:
        """Return a trainer; see `SGDMLTrainer` for the settings."""
        check_settings(settings, SGDMLTrainer)
        return SGDMLTrainer(**settings)

    def settings(self, trainer: SGDMLTrainer) -> dict[str, Any]:
        """Return the settings of a trainer, serialisable as JSON."""
        return asdict(trainer)

    def load(self, folder: Path) -> SGDMLModel:
        """Load `model.npz` from a model folder, without unpickling."""
        path = folder / MODEL_FILE if folder.is_dir() else folder
        return load_model_file(path)


FAMILY = SGDMLFamily()


def _training_of(dataset: Dataset, frames: IntArray, valid: IntArray, model: Model) -> SingleTraining:
    """Return the training on other frames with the settings of a model."""
    settings = model.hyper_parameters
    return SingleTraining(dataset, frames, valid, model.permutations, settings["sigma"], settings["lambda"])


def _continued(dataset: Dataset, frames: IntArray, valid: IntArray, previous: Model) -> SGDMLModel:
    """Train with the settings of `previous`; its factor grows if `frames` begins with its training frames."""
    training = _training_of(dataset, frames, valid, previous)
    if not isinstance(previous, SGDMLModel) or not _leads(previous, dataset, frames):
        return training.model()  # not part of the growing sequence: no factor to take or to keep
    # Taken from the model, so that it is in memory once; another growth from `previous` gives the same from scratch.
    factor, previous.factor = previous.factor, None
    return training.model(grown_from=factor, keep_factor=True)


def _leads(model: SGDMLModel, dataset: Dataset, frames: IntArray) -> bool:
    """Return whether `frames` begins with the frames that a model was trained on."""
    if text_of(model.content.get("md5_train", "")) != text_of(fingerprint(dataset)):
        return False
    before = np.asarray(model.content["idxs_train"])
    return np.array_equal(frames[: len(before)], before)
