"""sGDML (Chmiela et al. 2018, doi:10.1038/s41467-018-06169-2): kernel models whose training grows.

The factor of the kernel matrix grows with the training set, so all steps together cost one
training at the last size. Model files are those of the `sgdml` package, which loads them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.stratified_sampling import energy_bins, stratified_sample
from ase_flatten.models import Model, check_settings
from ase_flatten.models.sgdml import sgdml_package
from ase_flatten.models.sgdml.factor import KernelFactor
from ase_flatten.models.sgdml.model import MODEL_FILE, SGDMLModel, load_model_file, text_of
from ase_flatten.models.sgdml.training import LARGEST_REGULARISATION, Task, fingerprint
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray

log = logging.getLogger(__name__)

LENGTH_SCALES = (2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200)
FIRST_LENGTH_SCALE = 20
_VALIDATION_FRAMES = 1000
_SYMMETRY_FRAMES = 1000
_SEARCH_FRAMES = 300
"""Length scales are compared by models on so many training frames at most."""
_NEAR_FIRST = 3
"""A length scale chosen within so many places of the first one is left to its neighbours to correct."""


@dataclass(frozen=True)
class SGDMLTrainer:
    """Train sGDML models.

    Parameters
    ----------
    sigma : float, optional
        Length scale of the kernel; without it, it is chosen on the validation frames.
    regularisation : float
        Added to the kernel's diagonal (the package's `lam`); raised tenfold where the
        matrix is not positive definite.
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
        Where the frames of `previous` lead `frames`, its factor is taken from it and grows;
        the result is the same as from all frames at once.
        """
        if previous is not None:
            return _continued(dataset, frames, valid, previous)
        permutations = self._find_permutations(dataset, frames, rng)
        sigma = FIRST_LENGTH_SCALE if self.sigma is None else self.sigma
        task = Task(dataset, frames, valid, permutations, sigma, self.regularisation)
        return _search(task, rng) if self.sigma is None else _trained(task, keep=True)

    def settle(
        self, dataset: Dataset, trained: list[tuple[IntArray, Model]], valid: IntArray, *, rng: np.random.Generator
    ) -> list[Model]:
        """Walk on over the length scales from the one that the first step chose.

        It changes where all models together gain by more than two standard errors. Each length scale is tried
        on a part of each training set, and the one that helps there once on the whole. The first step may have
        chosen from too few frames, so that the walk also tries the length scale that searches begin with.
        """
        tasks = [_task_of(dataset, frames, valid, model) for frames, model in trained]
        most = max(task.regularisation for task in tasks)
        tasks = [replace(task, regularisation=most) for task in tasks]
        models: list[Model] = [
            model if model.hyper_parameters["lambda"] == most else _trained(task)
            for task, (_, model) in zip(tasks, trained, strict=True)
        ]
        if self.sigma is not None or tasks[0].sigma not in LENGTH_SCALES:
            return models
        subset, current = _subset(valid, rng), LENGTH_SCALES.index(int(tasks[0].sigma))
        parts = [task.part(_SEARCH_FRAMES) for task in tasks]
        whole = all(part is task for part, task in zip(parts, tasks, strict=True))
        of_parts: dict[int, list[Model]] = {current: models} if whole else {}

        @cache
        def errors(place: int) -> FloatArray:
            if place not in of_parts:
                of_parts[place] = [_trained(part.at(sigma=LENGTH_SCALES[place])) for part in parts]
            return _total_errors(of_parts[place], dataset, subset)

        first = LENGTH_SCALES.index(FIRST_LENGTH_SCALE)
        shortcuts = [first] if abs(first - current) > _NEAR_FIRST else []
        best = _walk(current, errors, n_standard_errors=2, shortcuts=shortcuts)
        if best == current:
            return models
        if not whole:
            of_parts[best] = [_trained(task.at(sigma=LENGTH_SCALES[best])) for task in tasks]
        others = of_parts[best]
        before, after = (_total_errors(some, dataset, subset) for some in (models, others))
        if not _gains(before, after, n_standard_errors=2):
            return models
        log.info("length scale %g instead of %g lowers the validation error", LENGTH_SCALES[best], tasks[0].sigma)
        return others

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
        """Return the settings of a trainer, as JSON can hold them."""
        return asdict(trainer)

    def load(self, folder: Path) -> SGDMLModel:
        """Load `model.npz` from a model folder, never unpickling."""
        path = folder / MODEL_FILE if folder.is_dir() else folder
        return load_model_file(path)


FAMILY = SGDMLFamily()


def _trained(task: Task, *, grown_from: KernelFactor | None = None, keep: bool = False) -> SGDMLModel:
    """Train, and keep the factor with the model where it will be of use."""
    content, factor = task.train(grown_from=grown_from)
    model = SGDMLModel(content)
    if keep:
        model.factor = factor
    return model


def _task_of(dataset: Dataset, frames: IntArray, valid: IntArray, model: Model) -> Task:
    """Return the task of training other frames as a model was trained."""
    settings = model.hyper_parameters
    return Task(dataset, frames, valid, model.permutations, settings["sigma"], settings["lambda"])


def _continued(dataset: Dataset, frames: IntArray, valid: IntArray, previous: Model) -> SGDMLModel:
    """Train with the settings of `previous`, building upon its factor if its frames lead."""
    task = _task_of(dataset, frames, valid, previous)
    if not isinstance(previous, SGDMLModel) or not _leads(previous, dataset, frames):
        return _trained(task)  # nothing will grow from it, as nothing grew into it
    # Taken, so that it is alive but once; another growth from `previous` begins anew, to the same end.
    factor, previous.factor = previous.factor, None
    return _trained(task, grown_from=factor, keep=True)


def _leads(model: SGDMLModel, dataset: Dataset, frames: IntArray) -> bool:
    """Return whether the frames that a model was trained on come first in `frames`."""
    if text_of(model.content.get("md5_train", "")) != text_of(fingerprint(dataset)):
        return False
    before = np.asarray(model.content["idxs_train"])
    return np.array_equal(frames[: len(before)], before)


def _search(task: Task, rng: np.random.Generator) -> SGDMLModel:
    """Walk down the validation error over the grid of length scales, from the first one.

    A step needs a gain beyond one standard error, and for most frames: where a few validation frames are far
    from the training frames, these decide the mean, and forces near zero, as the shortest length scales give,
    seem best.
    """
    subset, part = _subset(task.valid, rng), task.part(_SEARCH_FRAMES)
    kept: dict[int, SGDMLModel] = {}  # one at a time keeps its factor

    @cache
    def errors(index: int) -> FloatArray:
        model = _trained(part.at(sigma=LENGTH_SCALES[index]), keep=True)
        found = _squared_errors(model, task.dataset, subset)
        log.info("length scale %g: validation error %.4g eV/Å", LENGTH_SCALES[index], found.mean() ** 0.5)
        if all(_gains(errors(other), found, n_standard_errors=1) for other in kept):
            kept.clear()
            kept[index] = model
        return found

    best = _walk(LENGTH_SCALES.index(FIRST_LENGTH_SCALE), errors, n_standard_errors=1)
    if part is task and best in kept:
        return kept[best]
    kept.clear()
    return _trained(task.at(sigma=LENGTH_SCALES[best]), keep=True)


def _walk(
    start: int, errors: Callable[[int], FloatArray], *, n_standard_errors: float, shortcuts: Sequence[int] = ()
) -> int:
    """Walk over the grid of length scales, to the neighbour of least error while one gains beyond noise.

    Parameters
    ----------
    errors : callable
        Returns the squared error of each validation frame at a place of the grid.
    shortcuts : sequence of int
        Places that a step may lead to from anywhere.
    """
    best = start
    while True:
        places = {place for place in (best - 1, best + 1, *shortcuts) if 0 <= place < len(LENGTH_SCALES)} - {best}
        better = [
            place
            for place in sorted(places)
            if _gains(errors(best), errors(place), n_standard_errors=n_standard_errors)
        ]
        if not better:
            return best
        best = min(better, key=lambda place: float(errors(place).mean()))


def _gains(errors: FloatArray, others: FloatArray, *, n_standard_errors: float) -> bool:
    """Return whether errors of the same frames are lower: in the mean beyond noise, and for most frames."""
    gain = errors - others
    beyond_noise = gain.mean() > n_standard_errors * np.std(gain) / np.sqrt(len(gain))
    return bool(beyond_noise and np.median(gain) > 0)


def _total_errors(models: list[Model], dataset: Dataset, frames: IntArray) -> FloatArray:
    return np.sum([_squared_errors(model, dataset, frames) for model in models], axis=0)


def _squared_errors(model: Model, dataset: Dataset, frames: IntArray) -> FloatArray:
    """Return the mean squared force error of each frame, (eV/Å)², per component."""
    error = model.predict(dataset.positions[frames]).forces - dataset.forces[frames]
    return np.mean(error**2, axis=(1, 2))


def _subset(frames: IntArray, rng: np.random.Generator) -> IntArray:
    return frames if len(frames) <= _VALIDATION_FRAMES else np.sort(rng.choice(frames, _VALIDATION_FRAMES, False))
