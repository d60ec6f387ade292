"""Judge the labels of each frame by models that were not trained on it.

A wrong label contradicts independent models. So does a sound one in a region that they do not know, but there they are
inaccurate for near frames as well, whereas a wrong label stands out among its neighbours. Each residual is
therefore compared with an absolute level, with the residuals of the whole set, and with those of near frames; a label
is doubtful only if all of these are exceeded. Of several models, the one that agrees best with the label counts, so
that a wrong label in one training set does not make sound frames look wrong.

The thresholds are based on sound reference data (MD17, Langevin trajectories of three molecules, subsets of these down
to 100 frames), with a margin to the largest value observed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.energy_force_consistency import work_residuals
from ase_flatten.data.units import KCAL_PER_MOL, LENGTH_UNITS
from ase_flatten.geometry.pair_distances import neighbours
from ase_flatten.models import Prediction
from ase_flatten.models.sgdml.cholesky import NotPositiveDefiniteError
from ase_flatten.models.sgdml.factor import KernelFactor, TrainingGeometries
from ase_flatten.models.sgdml.kernel import n_modes_of
from ase_flatten.models.sgdml.permutation_sums import predictor_of
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray

MIN_FRAMES = 50
"""Least number of frames that can be judged by each other."""

CONTRADICTION = (0.4, 0.6)
"""Thresholds, for doubtful and wrong, of the difference of label and prediction relative to the larger of the two."""
SPREAD = (5.0, 7.0)
"""The same, in robust standard deviations of the logarithm of that difference over all frames."""
LOCAL_SPREAD = (5.0, 6.0)
"""The same for its ratio to the median over near frames."""
DISAGREEMENT = (3.5, 4.5)
"""The same for the difference relative to the largest one between the models: at most 2.7 in sound data."""
ENERGY_SPREAD = (5.0, 8.0)
"""The same for energy residuals relative to the error that is expected for the frame (`_energy_evidence`)."""
ENERGY_SHARE = (0.2, 0.4)
"""The same for energy residuals in robust standard deviations of the energies themselves."""
ENERGY_WORK = (8.0, 14.0)
"""The same for the deviation from the work of the forces between a frame and the near frame that agrees best, in robust
standard deviations over pairs that are equally far apart: at most 7.0 in sound data."""
EXPLAINED = 4.0
"""An explanation holds if it reduces the difference to this many robust standard deviations or less ..."""
REMAINS = 0.65
"""... and leaves at most this fraction of it: correcting the sign leaves 0.4 to 0.59 for the inaccurate quick models of
a peptide; reversing forces whose sign is right increases the difference to 1.5 times its value."""

_N_NEIGHBOURS = 16
_N_CLOSE = 4
_N_MODELS = 3
_SIGMA = 20.0
_REGULARISATION = 1e-10
_MAX_TRAIN = 100
_MIN_TRAIN = 50
_UNKNOWNS = 3000
_FACTORS = {
    "kcal/mol where eV are expected": 1 / KCAL_PER_MOL,
    "eV where kcal/mol are expected": KCAL_PER_MOL,
    "energy per Å where energy per Bohr is expected": 1 / LENGTH_UNITS["Bohr"],
    "energy per Bohr where energy per Å is expected": LENGTH_UNITS["Bohr"],
    "kJ/mol where kcal/mol are expected": 4.184,
    "kcal/mol where kJ/mol are expected": 1 / 4.184,
}


@dataclass(frozen=True)
class Thresholds:
    """Thresholds beyond which forces are doubtful and wrong; all of them must be exceeded.

    Parameters
    ----------
    contradiction, spread, local_spread, disagreement : (float, float)
        See `CONTRADICTION`, `SPREAD`, `LOCAL_SPREAD` and `DISAGREEMENT`.
    """

    contradiction: tuple[float, float] = CONTRADICTION
    spread: tuple[float, float] = SPREAD
    local_spread: tuple[float, float] = LOCAL_SPREAD
    disagreement: tuple[float, float] = DISAGREEMENT


@dataclass(frozen=True, eq=False)
class LabelJudgement:
    """Judgement of the labels of each frame.

    Parameters
    ----------
    frames : (n,) int array
        The frames of the data set that were judged.
    scores : (n,) array
        Dimensionless, on a logarithmic scale: doubtful from 1, wrong from 2.
        NaN if no model could judge the frame.
    levels : tuple of {"sound", "doubtful", "wrong"}
        "wrong" means beyond doubt.
    reasons : tuple of str
        What contradicts the labels; empty if they are sound.
    force_differences : (n,) array
        Difference between the forces and the best prediction, relative to the larger of the two.
    force_errors : (n,) array, eV/Å
        Root-mean-square difference between the forces and the best prediction.
    energy_residuals : (n,) array, eV
        Predicted energy minus that of the label, minus the median over frames: the smallest one of all models.
    """

    frames: IntArray
    scores: FloatArray
    levels: tuple[str, ...]
    reasons: tuple[str, ...]
    force_differences: FloatArray
    force_errors: FloatArray
    energy_residuals: FloatArray

    def with_level(self, level: str) -> IntArray:
        """List the frames of a level, ascending as in `frames`."""
        return self.frames[[one == level for one in self.levels]]


def check_labels(
    dataset: Dataset,
    *,
    rng: np.random.Generator,
    thresholds: Thresholds = Thresholds(),
    progress: Progress = SILENT,
) -> LabelJudgement:
    """Judge all frames by quick sGDML models, see `QuickModels.judge`."""
    return QuickModels(dataset, rng=rng, progress=progress).judge(thresholds)


class QuickModels:
    """Quick sGDML models of disjoint random sets of frames, which judge the labels of all frames.

    They are trained at the first judgement, and not again for judgements with other thresholds.

    Parameters
    ----------
    dataset : Dataset
    rng : Generator
        Every judgement starts from its state after the first training, so that their order does not matter.
    """

    def __init__(self, dataset: Dataset, *, rng: np.random.Generator, progress: Progress = SILENT) -> None:
        self._dataset, self._rng, self._progress = dataset, rng, progress
        self._first: tuple[list[Prediction], NDArray[np.int64], Any] | None = None

    def judge(self, thresholds: Thresholds = Thresholds()) -> LabelJudgement:
        """Judge the labels of all frames.

        If a suspect was among the training frames, other models are trained without the suspects.

        Returns
        -------
        LabelJudgement
            Of all frames; if there are fewer than `MIN_FRAMES`, all are sound with scores of NaN.
        """
        dataset = self._dataset
        frames = np.arange(dataset.n_frames)
        if dataset.n_frames < MIN_FRAMES or not np.any(dataset.forces):
            return _nothing_to_say(frames)
        with self._progress.task("judging the labels", 2 * _N_MODELS) as advance:
            predictions, trained = self._first_predictions(frames, advance)
            found = judge_labels(dataset, frames, predictions, thresholds=thresholds)
            suspect = found.scores >= 1
            if suspect[trained].any() and np.sum(~suspect) >= MIN_FRAMES:
                predictions, _ = _cross_predictions(dataset, np.flatnonzero(~suspect), self._rng, advance)
                found = judge_labels(dataset, frames, predictions, thresholds=thresholds)
            else:
                advance(_N_MODELS)
        return _with_work(found, dataset)

    def _first_predictions(self, frames: IntArray, advance: Any) -> tuple[list[Prediction], NDArray[np.int64]]:
        """Train, once, without excluding frames, and set the generator to its state after that."""
        if self._first is None:
            predictions, trained = _cross_predictions(self._dataset, frames, self._rng, advance)
            self._first = predictions, trained, self._rng.bit_generator.state
        else:
            advance(_N_MODELS)
        predictions, trained, self._rng.bit_generator.state = self._first
        return predictions, trained


def _with_work(found: LabelJudgement, dataset: Dataset) -> LabelJudgement:
    """Compare energies with the work of the forces, which is more accurate than a model if frames are close."""
    ratios, residuals = work_residuals(dataset, neighbours(dataset.pair_distances, _N_CLOSE))
    _, natural = _centre_and_scale(dataset.energies)
    by_work = np.minimum(_scale(ratios, ENERGY_WORK), _scale(residuals / natural, ENERGY_SHARE))
    worse = by_work > np.nan_to_num(found.scores, nan=-np.inf)
    scores = np.where(worse, by_work, found.scores)
    reasons = [
        f"the energy differs from those of near frames and the work of the forces (by {residual:.3g} eV)"
        if worse[frame] and score >= 1 and not reason
        else reason
        for frame, (score, residual, reason) in enumerate(zip(scores, residuals, found.reasons, strict=True))
    ]
    return replace(found, scores=scores, levels=_levels(scores), reasons=tuple(reasons))


def _levels(scores: FloatArray) -> tuple[str, ...]:
    return tuple("wrong" if score >= 2 else "doubtful" if score >= 1 else "sound" for score in scores)


def judge_labels(
    dataset: Dataset,
    frames: IntArray,
    predictions: Sequence[Prediction],
    *,
    thresholds: Thresholds = Thresholds(),
) -> LabelJudgement:
    """Judge labels by predictions of models of any kind.

    Parameters
    ----------
    frames : (n,) int array
        The frames to judge.
    predictions : sequence of Prediction
        Each over `frames`; NaN if the model was trained on the frame. Energies may be off by a constant.
    thresholds : Thresholds
        Of the forces.
    """
    energies = np.array([one.energies for one in predictions]) - dataset.energies[frames]
    known = np.isfinite(energies).any(axis=0)
    if known.sum() < MIN_FRAMES:
        return _nothing_to_say(frames)
    rows = np.flatnonzero(known)
    part = replace(dataset.take(frames[rows]), name=dataset.name)
    near = neighbours(dataset.pair_distances[frames[rows]], min(_N_NEIGHBOURS, len(rows) // 6))
    predicted = np.array([one.forces[rows] for one in predictions])
    typical = float(np.median(_size(part.forces)))
    force_scores, force_reasons, difference, errors = _judge_forces(part.forces, predicted, near, typical, thresholds)
    energy_scores, energy_reasons, residuals = _judge_energies(
        part.energies, energies[:, rows], part.forces, predicted, near
    )
    scores, force_differences, force_errors, energy_residuals = (np.full(len(frames), np.nan) for _ in range(4))
    scores[rows] = np.maximum(force_scores, energy_scores)
    force_differences[rows], force_errors[rows], energy_residuals[rows] = difference, errors, residuals
    reasons = [""] * len(frames)
    for row, force, energy, about_forces, about_energy in zip(
        rows, force_scores, energy_scores, force_reasons, energy_reasons, strict=True
    ):
        told = (about_forces if force >= 1 else "", about_energy if energy >= 1 else "")
        reasons[row] = ", and ".join(reason for reason in told if reason)
    return LabelJudgement(
        frames, scores, _levels(scores), tuple(reasons), force_differences, force_errors, energy_residuals
    )


def _judge_forces(
    forces: FloatArray, predicted: FloatArray, near: IntArray, typical: float, thresholds: Thresholds
) -> tuple[FloatArray, list[str], FloatArray, FloatArray]:
    """Score forces, and return what contradicts or explains them.

    Parameters
    ----------
    forces : (n, n_atoms, 3) array, eV/Å
    predicted : (n_models, n, n_atoms, 3) array, eV/Å
    near : (n, n_neighbours) int array
    typical : float, eV/Å
        Size that smaller forces are compared with.
    """
    difference, best = _contradiction(forces, predicted, typical)
    logarithm = np.log(np.maximum(difference, 1e-12))
    centre, scale = _centre_and_scale(logarithm)
    spread = (logarithm - centre) / scale
    local = logarithm - np.median(logarithm[near], axis=1)
    local_centre, local_scale = _centre_and_scale(local)
    local_spread = (local - local_centre) / local_scale
    whole = np.minimum(_scale(difference, thresholds.contradiction), _scale(spread, thresholds.spread))
    scores = np.minimum(whole, _scale(local_spread, thresholds.local_spread))
    errors = _size(best - forces)
    scores = np.minimum(scores, _scale(errors / _disagreement(predicted), thresholds.disagreement))
    usual = np.exp(centre + EXPLAINED * scale)
    reasons = [""] * len(forces)
    suspects = np.flatnonzero((whole >= 1) | ~forces.any(axis=(1, 2)))
    for row in suspects:
        prediction = best[row]
        explanation = _explain_forces(forces[row], prediction, typical, usual, difference[row])
        if explanation:
            scores[row] = max(scores[row], 2.0)
        reasons[row] = explanation or f"the forces differ from those predicted (by {difference[row]:.0%} of their size)"
    _find_owners(forces, best, typical, usual, scores, reasons)
    return scores, reasons, difference, errors


def _explain_forces(forces: FloatArray, prediction: FloatArray, typical: float, usual: float, difference: float) -> str:
    """Return the mistake that turns the predicted forces into these, or an empty string if there is none."""
    if not forces.any():
        return "all forces are zero" if _size(prediction) > 0.2 * typical else ""
    options = {"the forces have the wrong sign": -1.0}
    options |= {f"the forces look like {words}": factor for words, factor in _FACTORS.items()}
    found = {
        words: float(_contradiction(forces[None] / factor, prediction[None, None], typical)[0][0])
        for words, factor in options.items()
    }
    words = min(found, key=lambda one: found[one])
    return words if found[words] < min(usual, REMAINS * difference) else ""


def _find_owners(
    forces: FloatArray, best: FloatArray, typical: float, usual: float, scores: FloatArray, reasons: list[str]
) -> None:
    """Find suspects whose labels were exchanged with one another."""
    suspects = np.flatnonzero(scores >= 1)
    for row in suspects:
        if scores[row] >= 2 and "differ" not in reasons[row]:
            continue
        others = suspects[suspects != row]
        if not len(others):
            return
        difference = _contradiction(forces[others], np.broadcast_to(best[row], (1, *forces[others].shape)), typical)[0]
        if difference.min() < min(usual, 0.5):
            scores[row] = max(scores[row], 2.0)
            reasons[row] = "the labels are those of another frame"


def _judge_energies(
    energies: FloatArray, residuals: FloatArray, forces: FloatArray, predicted: FloatArray, near: IntArray
) -> tuple[FloatArray, list[str], FloatArray]:
    """Score energies by residuals, (n_models, n) in eV, relative to the error that is expected for each frame."""
    # Models are aligned with each other: with two zeros of energy in the labels, each model may have its own median.
    residuals = residuals - np.nanmedian(residuals - residuals[:1], axis=1, keepdims=True)
    residuals -= np.nanmedian(residuals)
    rows = np.arange(residuals.shape[1])
    smallest = residuals[np.nanargmin(np.abs(residuals), axis=0), rows]
    excess, expected = _energy_evidence(smallest, residuals, forces, predicted, near)
    _, natural = _centre_and_scale(energies)
    scores = np.minimum(
        _scale(np.abs(excess) / expected, ENERGY_SPREAD), _scale(np.abs(smallest) / natural, ENERGY_SHARE)
    )
    reasons = [
        f"the energy is {'higher' if value < 0 else 'lower'} than predicted (by {abs(value):.3g} eV)"
        for value in smallest
    ]
    return scores, reasons, smallest


def _energy_evidence(
    smallest: FloatArray, residuals: FloatArray, forces: FloatArray, predicted: FloatArray, near: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Compare energy residuals with those of near frames.

    The error that is expected for a frame combines three contributions: the residuals of near frames, the disagreement
    of the models, and one in proportion to the error of the forces.
    """
    around = smallest[near]
    excess = smallest - np.median(around, axis=1)
    beyond = 1.5 * np.quantile(np.abs(around), 0.8, axis=1)
    disagreement = np.nanmax(residuals, axis=0) - np.nanmin(residuals, axis=0)
    force_errors = np.nanmin(_size(predicted - forces), axis=0)
    usual = 1.4826 * np.median(np.abs(smallest))
    # Wrong forces must not make a wrong energy look expected.
    by_forces = usual * np.minimum(force_errors / np.median(force_errors), 5)
    return excess, np.sqrt(by_forces**2 + beyond**2 + disagreement**2) + 1e-12


def _contradiction(forces: FloatArray, predicted: FloatArray, typical: float) -> tuple[FloatArray, FloatArray]:
    """Compare forces with the best of the predictions.

    Returns
    -------
    difference : (n,) array
        Relative to the larger of the two, or to the typical size if that is larger: 0 to 2.
    best : (n, n_atoms, 3) array, eV/Å
        The prediction that differs least.
    """
    size = np.maximum(np.maximum(_size(forces), _size(predicted)), typical)
    difference = _size(predicted - forces) / size
    model = np.nanargmin(difference, axis=0)
    rows = np.arange(len(forces))
    return difference[model, rows], predicted[model, rows]


def _disagreement(predicted: FloatArray) -> FloatArray:
    """Measure the largest difference between the forces of two models, (n,) in eV/Å; almost zero for a single one."""
    largest = np.full(predicted.shape[1], 1e-12)
    for one, other in combinations(predicted, 2):
        largest = np.fmax(largest, _size(one - other))  # NaN if one of them was trained on the frame
    return largest


def _size(forces: FloatArray) -> FloatArray:
    return np.asarray(np.sqrt(np.mean(forces**2, axis=(-1, -2))))


def _centre_and_scale(values: FloatArray) -> tuple[float, float]:
    """Return the median and the robust standard deviation."""
    centre = float(np.median(values))
    return centre, max(1.4826 * float(np.median(np.abs(values - centre))), 1e-12)


def _scale(evidence: FloatArray, thresholds: tuple[float, float]) -> FloatArray:
    """Put evidence on the scale of the scores: 1 at the first threshold, 2 at the second, logarithmic."""
    doubtful, wrong = thresholds
    return np.asarray(1 + np.log(np.maximum(evidence, 1e-12) / doubtful) / np.log(wrong / doubtful))


def quick_training_size(n_atoms: int) -> int:
    """Return how many frames a quick model is trained on, where there are enough."""
    return min(_MAX_TRAIN, max(_MIN_TRAIN, _UNKNOWNS // n_modes_of(n_atoms)))


def _cross_predictions(
    dataset: Dataset, pool: IntArray, rng: np.random.Generator, advance: Any
) -> tuple[list[Prediction], NDArray[np.int64]]:
    """Train on disjoint random frames of the pool and predict all frames; return the training frames as well."""
    n_train = min(quick_training_size(dataset.n_atoms), len(pool) // _N_MODELS)
    sets = rng.permutation(pool)[: _N_MODELS * n_train].reshape(_N_MODELS, n_train)
    predictions = []
    for frames in sets:
        predictions += _predictions(dataset, np.sort(frames))
        advance(1)
    if not predictions:
        nothing = np.full(dataset.n_frames, np.nan)
        predictions = [Prediction(nothing, np.full(dataset.forces.shape, np.nan))]
    return predictions, sets.ravel()


def _predictions(dataset: Dataset, frames: IntArray) -> list[Prediction]:
    """Predict all frames by a model trained on some, NaN for these; none if the equations have no solution."""
    identity = np.arange(dataset.n_atoms)[None]
    training = TrainingGeometries(dataset.positions[frames], identity)
    try:
        solution = KernelFactor(training, _SIGMA, _REGULARISATION).solve(dataset.forces[frames])
    except NotPositiveDefiniteError:
        return []
    alphas = solution.descriptor_alphas * solution.std
    energies, forces = predictor_of(training.descriptors, alphas, identity, _SIGMA)(dataset.positions)
    energies[frames], forces[frames] = np.nan, np.nan
    return [Prediction(energies, forces)]


def _nothing_to_say(frames: IntArray) -> LabelJudgement:
    n = len(frames)
    unknown = np.full(n, np.nan)
    return LabelJudgement(frames, unknown, ("sound",) * n, ("",) * n, unknown, unknown, unknown)
