"""The choice of sGDML's length scale by the validation error, on a grid.

Both searches are descents: from the present length scale to the neighbour of the lowest error, as long as the gain is
significant. Every length scale that is tried costs a training, on at most `SEARCH_FRAMES` frames.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.models import Model, Workplace
from ase_flatten.models.sgdml.model import SGDMLModel
from ase_flatten.models.sgdml.single_training import SingleTraining
from ase_flatten.utils.typing import FloatArray, IntArray

log = logging.getLogger(__name__)

LENGTH_SCALES = (2, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200)
FIRST_LENGTH_SCALE = 20

SEARCH_FRAMES = 300
"""Length scales are compared by models of at most this many training frames."""

_VALIDATION_FRAMES = 1000
_N_FIRST = 3
"""Length scales that a descent needs at least: where it begins, and the two neighbours."""

_NEAR_FIRST = 3
"""If the first step chose a length scale within so many places of `FIRST_LENGTH_SCALE`, only neighbours are tried."""


def search(training: SingleTraining, *, rng: np.random.Generator, workplace: Workplace) -> SGDMLModel:
    """Descend the validation error from `FIRST_LENGTH_SCALE`, and train on all frames with the best length scale.

    A step requires a gain of more than one standard error, and for most frames. If a few validation frames are far
    from the training frames, they dominate the mean error, and the shortest length scales seem best because they
    predict forces near zero.
    """
    subset, part = _subset(training.valid, rng), training.part(SEARCH_FRAMES)
    kept: dict[int, SGDMLModel] = {}  # only the best model so far keeps its factor
    first, units = LENGTH_SCALES.index(FIRST_LENGTH_SCALE), workplace.units

    with workplace.progress.task("comparing length scales", _N_FIRST) as advance:

        @cache
        def errors(place: int) -> FloatArray:
            model = part.at(sigma=LENGTH_SCALES[place]).model(keep_factor=True)
            found = squared_errors(model, training.dataset, subset)
            log.info(
                "length scale %g: force RMSE of the validation frames %.3f %s",
                LENGTH_SCALES[place], found.mean() ** 0.5 * units.scale, units.force,
            )  # fmt: skip
            if all(gains(errors(other), found, n_standard_errors=1) for other in kept):
                kept.clear()
                kept[place] = model
            advance(1)
            return found

        best = descend(first, errors, n_standard_errors=1, to_try=lambda n_places: advance(0, total=n_places))
    if part is training and best in kept:
        return kept[best]
    kept.clear()
    return training.at(sigma=LENGTH_SCALES[best]).model(keep_factor=True)


def review(
    trainings: Sequence[SingleTraining],
    models: list[Model],
    *,
    rng: np.random.Generator,
    workplace: Workplace,
) -> list[Model]:
    """Continue the descent from the length scale of several models, for all of them together.

    Parameters
    ----------
    trainings : sequence of SingleTraining
        How each model was trained; all with the same length scale and validation frames.
    models : list of Model

    Returns
    -------
    list of Model
        Models with another length scale if that lowers the sum of their errors by more than two standard errors;
        otherwise `models`. Each length scale is tried on a part of each training set, and the best one on the whole.
        The first step may have chosen from too few frames; therefore `FIRST_LENGTH_SCALE` is tried as well.
    """
    current = LENGTH_SCALES.index(int(trainings[0].sigma))
    dataset, subset = trainings[0].dataset, _subset(trainings[0].valid, rng)
    parts = [training.part(SEARCH_FRAMES) for training in trainings]
    whole = all(part is training for part, training in zip(parts, trainings, strict=True))
    of_parts: dict[int, list[Model]] = {current: models} if whole else {}
    first = LENGTH_SCALES.index(FIRST_LENGTH_SCALE)
    shortcuts = [first] if abs(first - current) > _NEAR_FIRST else []

    with workplace.progress.task("comparing length scales", _N_FIRST + len(shortcuts)) as advance:

        @cache
        def errors(place: int) -> FloatArray:
            if place not in of_parts:
                of_parts[place] = [part.at(sigma=LENGTH_SCALES[place]).model() for part in parts]
            advance(1)
            return _total_errors(of_parts[place], dataset, subset)

        best = descend(
            current, errors, n_standard_errors=2, shortcuts=shortcuts,
            to_try=lambda n_places: advance(0, total=n_places),
        )  # fmt: skip
    if best == current:
        return models
    if not whole:
        of_parts[best] = [training.at(sigma=LENGTH_SCALES[best]).model() for training in trainings]
    others = of_parts[best]
    before, after = (_total_errors(some, dataset, subset) for some in (models, others))
    if not gains(before, after, n_standard_errors=2):
        return models
    log.info("length scale %g instead of %g lowers the validation error", LENGTH_SCALES[best], trainings[0].sigma)
    return others


def descend(
    start: int,
    errors: Callable[[int], FloatArray],
    *,
    n_standard_errors: float,
    shortcuts: Sequence[int] = (),
    to_try: Callable[[int], None] = lambda n_places: None,
) -> int:
    """Descend on the grid of length scales, to the place of the lowest error among those that gain significantly.

    Parameters
    ----------
    start : int
        Place on the grid.
    errors : callable
        Returns the squared error of each validation frame at a place of the grid.
    shortcuts : sequence of int
        Places that a step may lead to from anywhere, in addition to the two neighbours.
    to_try : callable
        Told how many places are needed at least, before each step.
    """
    best, seen = start, {start}
    while True:
        places = {place for place in (best - 1, best + 1, *shortcuts) if 0 <= place < len(LENGTH_SCALES)} - {best}
        seen |= places
        to_try(len(seen))
        better = [
            place for place in sorted(places) if gains(errors(best), errors(place), n_standard_errors=n_standard_errors)
        ]
        if not better:
            return best
        best = min(better, key=lambda place: float(errors(place).mean()))


def gains(errors: FloatArray, others: FloatArray, *, n_standard_errors: float) -> bool:
    """Return whether errors of the same frames are lower: in the mean, significantly, and for most frames."""
    gain = errors - others
    significant = gain.mean() > n_standard_errors * np.std(gain) / np.sqrt(len(gain))
    return bool(significant and np.median(gain) > 0)


def squared_errors(model: Model, dataset: Dataset, frames: IntArray) -> FloatArray:
    """Return the mean squared force error of each frame, (eV/Å)², per component."""
    error = model.predict(dataset.positions[frames]).forces - dataset.forces[frames]
    return np.mean(error**2, axis=(1, 2))


def _total_errors(models: Sequence[Model], dataset: Dataset, frames: IntArray) -> FloatArray:
    return np.sum([squared_errors(model, dataset, frames) for model in models], axis=0)


def _subset(frames: IntArray, rng: np.random.Generator) -> IntArray:
    return frames if len(frames) <= _VALIDATION_FRAMES else np.sort(rng.choice(frames, _VALIDATION_FRAMES, False))
