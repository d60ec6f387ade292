"""sGDML (Chmiela et al. 2018, doi:10.1038/s41467-018-06169-2): kernel models whose training grows.

The factor of the kernel matrix grows with the training set, so that all steps together cost as much as one training
at the final size. Model files are those of the `sgdml` package.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.stratified_sampling import energy_bins, stratified_sample
from ase_flatten.models import Cost, Model, Trainer, check_settings, is_number
from ase_flatten.models.sgdml import length_scale, sgdml_package, symmetries
from ase_flatten.models.sgdml.cost import training_cost
from ase_flatten.models.sgdml.length_scale import LENGTH_SCALES
from ase_flatten.models.sgdml.model import MODEL_FILE, SGDMLModel, load_model_file, text_of
from ase_flatten.models.sgdml.single_training import LARGEST_REGULARISATION, SingleTraining, fingerprint
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import IntArray

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SGDMLTrainer(Trainer):
    """Trainer of sGDML models.

    Parameters
    ----------
    sigma : float, optional
        Length scale of the kernel; by default, it is chosen on the validation frames.
    regularisation : float
        Added to the kernel's diagonal (the package's `lam`); raised tenfold if the matrix is not positive definite.
    symmetries : str
        Where permutations of like atoms come from: graph, matching, none (GDML), or the name of a file; see
        `ase_flatten.models.sgdml.symmetries`. As in earlier versions, true means matching and false none.
    """

    reuses_work = True

    sigma: float | None = None
    regularisation: float = 1e-10
    symmetries: str | bool = symmetries.GRAPH

    def __post_init__(self) -> None:
        if self.sigma is not None and not (is_number(self.sigma) and self.sigma > 0):
            raise InputError(f"the length scale sigma must be a positive number, got {self.sigma!r}")
        if not is_number(self.regularisation) or not 0 <= self.regularisation <= LARGEST_REGULARISATION:
            raise InputError(
                f"the regularisation must be a number from 0 to {LARGEST_REGULARISATION:g}, got {self.regularisation!r}"
            )
        if not isinstance(self.symmetries, str | bool):
            choices = ", ".join(symmetries.CHOICES)
            raise InputError(f"symmetries must be {choices} or a file of permutations, got {self.symmetries!r}")

    def check(self, dataset: Dataset) -> None:
        """Refuse a file of permutations that does not fit the molecule."""
        if self._symmetries not in symmetries.CHOICES:
            symmetries.read_permutations(Path(self._symmetries), dataset.numbers)

    def default_frames(self, dataset: Dataset, pool: IntArray, n_frames: int, *, rng: np.random.Generator) -> IntArray:
        """Draw a sample stratified by energy, as the `sgdml` package does."""
        bins = energy_bins(dataset.energies[pool], n_frames)
        return pool[stratified_sample(bins, n_frames, rng=rng)]

    def cost(self, dataset: Dataset, n_frames: int) -> Cost:
        """Estimate a training with a given length scale, as for a molecule without symmetries; see `training_cost`."""
        return training_cost(
            dataset.n_atoms, n_frames,
            matched_frames=symmetries.MATCHED_FRAMES if self._symmetries == symmetries.MATCHING else 0,
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

        Permutations and length scale are those of `previous`. Without it, permutations are found among the training
        and validation frames, and the length scale is chosen on the validation frames. If `frames` begins with the
        training frames of `previous`, its factor is taken from it and grows; the result is the same as from scratch.
        """
        if previous is not None:
            return _continued(self._training_of(dataset, frames, valid, previous), previous)
        found = symmetries.find(self._symmetries, dataset, frames, valid, rng=rng)
        for line in found.kept:
            log.info("symmetry: %s", line)
        if found.left_out:
            log.info("symmetries left out: %d, such as the %s", len(found.left_out), found.left_out[0])
        sigma = length_scale.FIRST_LENGTH_SCALE if self.sigma is None else self.sigma
        training = SingleTraining(
            dataset,
            frames,
            valid,
            found.permutations,
            sigma,
            self.regularisation,
            symmetries=found.kept,
            progress=self.workplace.progress,
        )
        if self.sigma is not None:
            return training.model(keep_factor=True)
        return length_scale.search(training, rng=rng, workplace=self.workplace)

    def trial_sizes(self, n_frames: int) -> list[int]:
        """Return the sizes of the trainings at four length scales, unless the user chose one."""
        if self.sigma is not None:
            return []
        most = length_scale.SEARCH_FRAMES  # with fewer frames, the model itself is one of the four
        return [n_frames] * 3 if n_frames <= most else [most] * 4

    def settle(
        self, dataset: Dataset, trained: list[tuple[IntArray, Model]], valid: IntArray, *, rng: np.random.Generator
    ) -> list[Model]:
        """Use the same regularisation for all models, and another length scale if it improves them significantly.

        See `length_scale.review`; a length scale that the user chose is kept.
        """
        trainings = [self._training_of(dataset, frames, valid, model) for frames, model in trained]
        most = max(training.regularisation for training in trainings)
        trainings = [replace(training, regularisation=most) for training in trainings]
        models: list[Model] = [
            model if model.hyper_parameters["lambda"] == most else training.model()
            for training, (_, model) in zip(trainings, trained, strict=True)
        ]
        if self.sigma is not None or trainings[0].sigma not in LENGTH_SCALES:
            return models
        return length_scale.review(trainings, models, rng=rng, workplace=self.workplace)

    def _training_of(self, dataset: Dataset, frames: IntArray, valid: IntArray, model: Model) -> SingleTraining:
        """Return the training on other frames with the settings of a model."""
        settings, progress = model.hyper_parameters, self.workplace.progress
        return SingleTraining(
            dataset, frames, valid, model.permutations, settings["sigma"], settings["lambda"],
            symmetries=settings.get("symmetries"), progress=progress,
        )  # fmt: skip

    @property
    def _symmetries(self) -> str:
        if isinstance(self.symmetries, bool):
            return symmetries.MATCHING if self.symmetries else symmetries.NONE
        return self.symmetries


class SGDMLFamily:
    """The sGDML family."""

    name = "sgdml"
    distribution = "sgdml"
    units: Mapping[str, str] = MappingProxyType({"energy": "kcal/mol", "length": "Ang"})
    expensive = False

    def trainer(self, **settings: Any) -> SGDMLTrainer:
        """Return a trainer; see `SGDMLTrainer` for the settings.

        Raises
        ------
        InputError
            An unknown setting or a wrong value; or the `sgdml` package is missing, which is checked before a long run.
        """
        check_settings(settings, SGDMLTrainer)
        trainer = SGDMLTrainer(**settings)
        sgdml_package.require()
        return trainer

    def settings(self, trainer: SGDMLTrainer) -> dict[str, Any]:
        """Return the settings of a trainer, serialisable as JSON."""
        return asdict(trainer)

    def load(self, folder: Path) -> SGDMLModel:
        """Load `model.npz` from a model folder, without unpickling."""
        path = folder / MODEL_FILE if folder.is_dir() else folder
        return load_model_file(path)


FAMILY = SGDMLFamily()


def _continued(training: SingleTraining, previous: Model) -> SGDMLModel:
    """Train with the settings of `previous`; its factor grows if the frames begin with its training frames."""
    if not isinstance(previous, SGDMLModel) or not _leads(previous, training.dataset, training.frames):
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
