"""Improved training: a training set that makes a model equally right everywhere (Fonseca et al. 2021, section III)."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ase_flatten.clustering import Clustering
from ase_flatten.dataset import Dataset, FloatArray, IntArray
from ase_flatten.errors import ClusterErrors
from ase_flatten.exceptions import InputError
from ase_flatten.models import Model, Trainer
from ase_flatten.progress import SILENT, Progress
from ase_flatten.selection import SelectionRule, bad_clusters, select
from ase_flatten.splits import Splits
from ase_flatten.subset import Estimate, SubsetRule, complete, estimate_errors


@dataclass(frozen=True)
class Schedule:
    """Say how a training set grows.

    Parameters
    ----------
    n_steps : int
        Steps after the initial model.
    n_initial : int
        Frames of the initial model, chosen by the family's default scheme.
    step_size : int
        Frames that each step adds.
    rule : SelectionRule
        How they are chosen.
    """

    n_steps: int = 8
    n_initial: int = 200
    step_size: int = 100
    rule: SelectionRule = field(default_factory=SelectionRule)

    def __post_init__(self) -> None:
        for name, least in (("n_steps", 0), ("n_initial", 2), ("step_size", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def n_train(self, step: int) -> int:
        """Give the size of the training set after so many steps."""
        return self.n_initial + step * self.step_size


@dataclass(frozen=True, eq=False)
class Step:
    """Hold one step: its model and what was measured.

    Parameters
    ----------
    number : int
        0 for the initial model.
    model : Model
        Trained on `train_frames`.
    train_frames, added_frames : int arrays
        The training set, in the order of its growth, and what this step added.
    errors : ClusterErrors
        On the frames of the pool that the model was not trained on.
    bad_clusters : int array
        The clusters that the added frames come from; none for the initial model.
    seconds : dict
        Time of each stage.
    """

    number: int
    model: Model
    train_frames: IntArray
    added_frames: IntArray
    errors: ClusterErrors
    bad_clusters: IntArray
    seconds: dict[str, float]


def flatten(
    dataset: Dataset,
    trainer: Trainer,
    clustering: Clustering,
    splits: Splits,
    descriptors: FloatArray,
    schedule: Schedule,
    *,
    seed: int,
    subset: SubsetRule | None = None,
    done: tuple[int, IntArray, Model] | None = None,
    progress: Progress = SILENT,
) -> Iterator[Step]:
    """Train models on a growing training set, each step's frames chosen where the last model is wrong.

    Parameters
    ----------
    descriptors : (n_frames, n_pairs) array, Å
    seed : int
        Every step draws from its own generator, so a continued run ends as an unbroken one.
    subset : SubsetRule, optional
        Estimate the errors of the clusters on random frames of each, and predict all frames
        of the bad ones only; without it all frames are predicted.
    done : (number, train_frames, model), optional
        The last step of an earlier, broken run; the steps begin after it.

    Yields
    ------
    Step
        The initial model's, then one after each growth of the training set.

    Raises
    ------
    InputError
        More frames asked for than the pool holds.
    """
    n_final = schedule.n_train(schedule.n_steps)
    if n_final >= len(splits.pool):
        raise InputError(
            f"the training set was to grow to {n_final} frames, only {len(splits.pool)} of {dataset.n_frames} are left "
            "beside the held-out and validation frames; ask for fewer"
        )

    def estimate(number: int) -> Estimate:
        return estimate_errors(
            model, dataset, clustering, rest, factor=schedule.rule.factor, rule=subset,
            rng=np.random.default_rng([seed, number, 3]), progress=progress,
        )  # fmt: skip

    first = 0
    if done is not None:
        first, train_frames, model = done[0] + 1, *done[1:]
        rest = np.setdiff1d(splits.pool, train_frames, assume_unique=True)
        found = estimate(done[0])
    for number in range(first, schedule.n_steps + 1):
        rng = np.random.default_rng([seed, number])
        clock = _Clock()
        bad = np.empty(0, dtype=np.int64)
        if number == 0:
            added = trainer.default_frames(dataset, splits.pool, schedule.n_initial, rng=rng)
            train_frames, previous = added, None
        else:
            available = np.bincount(clustering.labels[rest], minlength=clustering.n_clusters)
            bad = bad_clusters(found.clusters, available, schedule.step_size, schedule.rule.factor)
            found = complete(found, model, dataset, clustering, rest, bad, progress=progress)
            selection = select(
                found.errors, bad, clustering, descriptors, train_frames, schedule.step_size, schedule.rule,
                rng=rng, progress=progress,
            )  # fmt: skip
            added = selection.frames
            train_frames, previous = np.concatenate([train_frames, added]), model
        clock.lap("select")
        with progress.task(f"training on {len(train_frames)} frames", 1) as advance:
            model = trainer.fit(dataset, train_frames, splits.valid, rng=rng, previous=previous)
            advance(1)
        clock.lap("train")
        rest = np.setdiff1d(splits.pool, train_frames, assume_unique=True)
        found = estimate(number)
        clock.lap("predict")
        yield Step(number, model, train_frames, added, found.clusters, bad, clock.seconds)


class _Clock:
    """Take the time of each stage of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now
