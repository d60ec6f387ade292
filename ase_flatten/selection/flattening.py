"""Improved training: a training set that makes a model equally right everywhere (Fonseca et al. 2021, section III)."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.models import Model, Trainer
from ase_flatten.selection.cluster_errors import ClusterErrors, FrameErrors, frame_errors
from ase_flatten.selection.frame_selection import SelectionRule, bad_clusters, candidates_of, select
from ase_flatten.selection.quarantine import (
    BEFORE_TRAINING,
    Alarm,
    Quarantine,
    alarms,
    contradictions,
    judge_by_model,
    look_again,
    strained,
)
from ase_flatten.selection.sampled_errors import Estimate, SubsetRule, complete, estimate_errors
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import IntArray

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """How a training set grows.

    Parameters
    ----------
    n_steps : int
        Steps after the initial model.
    n_initial : int
        Frames of the initial model, chosen by the family's default scheme.
    step_size : int
        Frames that each step adds.
    rule : SelectionRule
        How these frames are chosen.

    Examples
    --------
    >>> from ase_flatten import Schedule
    >>> Schedule(n_steps=8, n_initial=200, step_size=100).n_train(8)
    1000
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
        """Return the size of the training set after a number of steps."""
        return self.n_initial + step * self.step_size


@dataclass(frozen=True, eq=False)
class Step:
    """One step: its model and what was measured.

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
    quarantine : Quarantine
        Frames with doubtful labels, as known when the step is done.
    """

    number: int
    model: Model
    train_frames: IntArray
    added_frames: IntArray
    errors: ClusterErrors
    bad_clusters: IntArray
    seconds: dict[str, float]
    quarantine: Quarantine = field(default_factory=Quarantine)


def flatten(
    data: PreparedData,
    trainer: Trainer,
    schedule: Schedule,
    *,
    seed: int,
    subset: SubsetRule | None = None,
    quarantine: Quarantine | None = None,
    guard: bool = False,
    done: tuple[int, IntArray, Model] | None = None,
    progress: Progress = SILENT,
) -> Iterator[Step]:
    """Train models on a growing training set, each step's frames chosen where the last model is wrong.

    Parameters
    ----------
    data : PreparedData
    seed : int
        Every step draws from its own generator, so a resumed run gives the same result as an uninterrupted one.
    subset : SubsetRule, optional
        Estimate the errors of the clusters from random frames of each, and predict all frames
        of the bad clusters only; by default all frames are predicted.
    quarantine : Quarantine, optional
        Frames that are set aside: neither trained on nor validated on, and left out of the errors.
    guard : bool
        Whether each step judges the labels of the frames that it is about to choose, and of those in quarantine.
    done : (number, train_frames, model), optional
        The last step of an interrupted run; the steps begin after it.

    Yields
    ------
    Step
        The initial step, then one for each growth of the training set.

    Raises
    ------
    InputError
        More frames asked for than the pool holds.

    Examples
    --------
    >>> import numpy as np
    >>> from ase_flatten import PreparedData, cluster, flatten, read_dataset
    >>> from ase_flatten.clustering.splits import split
    >>> from ase_flatten.models import family
    >>> from ase_flatten.selection.flattening import Schedule
    >>> rng = np.random.default_rng(0)
    >>> data = read_dataset("examples/data/salicylic_gfn2_500K.npz")
    >>> clusters = cluster(data, rng=rng)
    >>> prepared = PreparedData(data, clusters, split(clusters, data.pair_distances, rng=rng))
    >>> schedule = Schedule(n_steps=2, n_initial=10, step_size=5)
    >>> for step in flatten(prepared, family("sgdml").trainer(sigma=20), schedule, seed=0):
    ...     print(step.number, len(step.train_frames))
    0 10
    1 15
    2 20
    """
    dataset, clustering, splits = data.dataset, data.clustering, data.splits
    selector, known = schedule.rule.selector, quarantine or Quarantine()
    check_final_size(schedule, len(np.setdiff1d(splits.pool, known.frames)), dataset.n_frames)
    valid = np.setdiff1d(splits.valid, known.up_to(BEFORE_TRAINING).frames)

    def left() -> IntArray:
        return np.setdiff1d(splits.pool, np.concatenate([train_frames, known.frames]))

    def errors_of(frames: IntArray) -> FrameErrors:
        return frame_errors(model, dataset, frames, progress=progress)

    def estimate(number: int) -> Estimate:
        rng = np.random.default_rng([seed, number, 3])
        return estimate_errors(errors_of, clustering, rest, factor=schedule.rule.factor, rule=subset, rng=rng)

    def contradicted(frames: IntArray) -> NDArray[np.bool_]:
        nonlocal known
        looks = contradictions(judge_by_model(model, dataset, frames, rest), number, known)
        known = known.joined(looks)
        return np.isin(frames, [look.frame for look in looks])

    def without_some(frames: IntArray) -> Model:
        return trainer.fit(dataset, frames, valid, rng=np.random.default_rng([seed, number, 4]), previous=model)

    first = 0
    if done is not None:
        first, train_frames, model = done[0] + 1, *done[1:]
        rest = left()
        found = estimate(done[0])
    for number in range(first, schedule.n_steps + 1):
        rng = np.random.default_rng([seed, number])
        clock = _Clock()
        bad = np.empty(0, dtype=np.int64)
        if number == 0:
            added = trainer.default_frames(
                dataset, np.setdiff1d(splits.pool, known.frames), schedule.n_initial, rng=rng
            )
            train_frames, previous = added, None
        else:
            # Frames of the last training set that were found wrong are replaced.
            train_frames = train_frames[~np.isin(train_frames, known.frames)]
            n_added = schedule.n_train(number) - len(train_frames)
            available = np.bincount(clustering.labels[rest], minlength=clustering.n_clusters)
            bad = bad_clusters(found.clusters, available, n_added, schedule.rule.factor)
            found = complete(found, errors_of, clustering, rest, bad)
            added = select(
                candidates_of(found.errors, bad, data, train_frames), n_added, selector,
                rng=rng, contradicted=contradicted if guard else None, progress=progress,
            )  # fmt: skip
            train_frames, previous = np.concatenate([train_frames, added]), model
        clock.lap("select")
        with progress.task(f"training on {len(train_frames)} frames", 1) as advance:
            model = trainer.fit(dataset, train_frames, valid, rng=rng, previous=previous)
            advance(1)
        clock.lap("train")
        if guard:
            others = left()
            known = known.joined(look_again(known, number, model, train_frames, dataset, others))
            if previous is not None:
                known = known.joined(alarms=alarms(number, added, previous, model, dataset, others))
            doubts = strained(number, model, train_frames, without_some, dataset, others)
            known = known.joined(doubts, [Alarm(number, look.frame, look.reason) for look in doubts])
            _tell(known, number)
        rest = left()
        clock.lap("judge")
        found = estimate(number)
        clock.lap("predict")
        yield Step(number, model, train_frames, added, found.clusters, bad, clock.seconds, known)


def check_final_size(schedule: Schedule, n_usable: int, n_frames: int) -> None:
    """Raise InputError if a training set is to grow to more frames than can be chosen from `n_frames` of a data set."""
    n_final = schedule.n_train(schedule.n_steps)
    if n_final >= n_usable:
        raise InputError(
            f"the training set was to grow to {n_final} frames, but only {n_usable} of {n_frames} are left besides the "
            "held-out and validation frames and those in quarantine; ask for fewer with -n, -i or -s"
        )


def _tell(quarantine: Quarantine, number: int) -> None:
    """Log the changes of the quarantine in a step."""
    changes = quarantine.changes(number)
    for frame in changes["quarantined_frames"]:
        log.info("step %d: frame %d goes to quarantine: %s", number, frame, quarantine.last_looks[frame].reason)
    for frame in changes["released_frames"]:
        log.info("step %d: frame %d is released from quarantine", number, frame)
    for alarm in quarantine.alarms:
        if alarm.step == number:
            log.warning("the label of training frame %d may be wrong: %s", alarm.frame, alarm.reason)


class _Clock:
    """A clock that measures the time of each stage of a step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 3)
        self._last = now
