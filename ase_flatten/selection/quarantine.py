"""Frames in quarantine: their labels contradict the model and near frames, so they are not trained on.

Every judgement of a frame is a look, which belongs to a step. A frame is in quarantine while its last look is not
"sound". The looks up to a step are what an interrupted run knew at that step.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np

from ase_flatten.checking.labels import LabelJudgement, QuickModels, Thresholds, judge_labels, quick_training_size
from ase_flatten.data.dataset import Dataset
from ase_flatten.geometry.pair_distances import squared_distances
from ase_flatten.models import Model
from ase_flatten.utils.blocks import blocks
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.records import read_record, understood
from ase_flatten.utils.typing import FloatArray, IntArray

FORMAT = 1
BEFORE_TRAINING = -1
"""The step of looks that were taken before the initial model."""

GUARD = Thresholds(contradiction=(0.1, 0.6), spread=(3.5, 7.0), local_spread=(3.5, 6.0), disagreement=(1.5, 3.0))
"""Stricter than the thresholds for whole data sets: setting a sound frame aside for a while costs little."""

GUARD_TRAINED = Thresholds(contradiction=(0.1, 0.6), spread=(2.75, 7.0), local_spread=(2.75, 6.0))
"""For training frames whose coefficients are already unusually large."""

SOUND = "sound"
LISTED = "listed"
"""The level of frames that the user set aside."""

N_NEAR = 16
"""Near frames that a model predicts in addition to each frame that it judges."""

N_EVERYWHERE = 300
"""Frames from the whole data set that it predicts as well."""

N_NEAR_ALARM = 5
WORSE = 2.0
"""Factor of errors that raises an alarm; on sound data the errors of near frames grow by at most 1.04 times."""

STRAINED = 3.5
"""Coefficients of a training frame this many times as large as their median make it a suspect."""

MAX_SUSPECTS = 20

LEARNT = 0.7
"""A label is no longer doubtful once the force error of the frame has fallen to this fraction of its first value.

For 165 wrong labels (of another method, ethanol, six runs) it fell no lower than 0.71, and for rare frames below 0.66.
"""

_SHOWN = 10


@runtime_checkable
class KernelModel(Protocol):
    """The additional interface of a `Model` whose coefficients belong to training frames."""

    @property
    def coefficient_sizes(self) -> FloatArray:
        """The sizes of the coefficients, (n_train,), in the order of the training frames, in any unit."""


@dataclass(frozen=True)
class Look:
    """One judgement of the label of a frame.

    Parameters
    ----------
    step : int
        The step it belongs to; `BEFORE_TRAINING` for the quick models that judge all frames first.
    frame : int
    level : str
        "sound", "doubtful" or "wrong" as in `LabelJudgement`, or "listed" where the user set the frame aside.
    score : float
        1 is doubtful, 2 beyond doubt.
    reason : str
    force_error : float or None
        Root-mean-square difference between the forces of the label and those predicted, eV/Å. None where
        no model judged the frame, and in runs made before it was kept.
    """

    step: int
    frame: int
    level: str
    score: float
    reason: str
    force_error: float | None = None


@dataclass(frozen=True)
class Alarm:
    """A training frame whose label looks wrong once a model was trained on it."""

    step: int
    frame: int
    reason: str


@dataclass(frozen=True)
class Quarantine:
    """All looks and alarms of a run, in the order in which they came."""

    looks: tuple[Look, ...] = ()
    alarms: tuple[Alarm, ...] = ()

    @property
    def last_looks(self) -> dict[int, Look]:
        """The last look at each frame, by frame."""
        return {look.frame: look for look in self.looks}

    @property
    def frames(self) -> IntArray:
        """The frames in quarantine, ascending."""
        inside = [frame for frame, look in self.last_looks.items() if look.level != SOUND]
        return np.array(sorted(inside), dtype=np.int64)

    def up_to(self, step: int) -> "Quarantine":
        """Return what was known when a step was done."""
        return Quarantine(
            tuple(look for look in self.looks if look.step <= step),
            tuple(alarm for alarm in self.alarms if alarm.step <= step),
        )

    def joined(self, looks: Iterable[Look] = (), alarms: Iterable[Alarm] = ()) -> "Quarantine":
        """Return the quarantine with further looks and alarms."""
        return Quarantine((*self.looks, *looks), (*self.alarms, *alarms))

    def changes(self, step: int) -> dict[str, list[int]]:
        """Return the frames that entered, that were released and that raised an alarm in a step."""
        before, after = self.up_to(step - 1).frames, self.up_to(step).frames
        return {
            "quarantined_frames": np.setdiff1d(after, before).tolist(),
            "released_frames": np.setdiff1d(before, after).tolist(),
            "alarm_frames": [alarm.frame for alarm in self.alarms if alarm.step == step],
        }

    def to_json(self) -> dict[str, Any]:
        """Return the content of quarantine.json: one entry per frame, with all looks at it, and the alarms."""
        looks: dict[int, list[Look]] = {}
        for look in self.looks:
            looks.setdefault(look.frame, []).append(look)
        return {
            "format": FORMAT,
            "frames": [_entry(frame, looks[frame]) for frame in sorted(looks)],
            "alarms": [asdict(alarm) for alarm in self.alarms],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Quarantine":
        """Rebuild what `to_json` made; raise ValueError if it is something else."""
        saved = msgspec.convert(content, _Saved)
        looks = [
            msgspec.convert({**look, "frame": entry.frame}, Look) for entry in saved.frames for look in entry.looks
        ]
        looks.sort(key=lambda look: look.step)
        return cls(tuple(looks), tuple(saved.alarms))


@dataclass(frozen=True)
class _SavedFrame:
    frame: int
    looks: list[dict[str, Any]]


@dataclass(frozen=True)
class _Saved:
    """The part of quarantine.json that the rest follows from."""

    frames: list[_SavedFrame]
    alarms: list[Alarm]


def read_quarantine(path: Path, *, remedy: str) -> Quarantine:
    """Read quarantine.json; raise InputError if it is missing, damaged or of a later format."""
    what = "the quarantine of a run"
    content = read_record(path, dict[str, Any], what=what, remedy=remedy, version=FORMAT)
    with understood(path, what=what, remedy=remedy):
        return Quarantine.from_json(content)


def _entry(frame: int, looks: Sequence[Look]) -> dict[str, Any]:
    last = looks[-1]
    bad = [look for look in looks if look.level != SOUND]
    return {
        "frame": frame,
        "entered": bad[0].step if bad else None,
        "released": last.step if last.level == SOUND else None,
        "score": bad[-1].score if bad else last.score,
        "reason": bad[-1].reason if bad else last.reason,
        "looks": [{name: value for name, value in asdict(look).items() if name != "frame"} for look in looks],
    }


def quick_models_of(dataset: Dataset, *, progress: Progress = SILENT) -> QuickModels:
    """Return the quick models that take the first look; they depend on the data alone, not on the seed of a run."""
    return QuickModels(dataset, rng=np.random.default_rng(0), progress=progress)


def first_look(dataset: Dataset, quick_models: QuickModels) -> Quarantine:
    """Judge the labels of all frames before any training, by quick models.

    Data are refused if labels are wrong by the usual thresholds, as in `ase-flatten check`; frames that are doubtful by
    the stricter thresholds of the guard are set aside.

    Raises
    ------
    InputError
        Labels that are wrong beyond doubt.
    """
    judgement = quick_models.judge(GUARD)
    usual = quick_models.judge() if len(judgement.with_level("wrong")) else judgement
    wrong = usual.with_level("wrong")
    if len(wrong):
        reason = usual.reasons[usual.levels.index("wrong")]
        shown = ", ".join(map(str, wrong[:_SHOWN])) + (", ..." if len(wrong) > _SHOWN else "")
        raise InputError(
            f"labels must agree with those of near frames, found {len(wrong)} of {dataset.n_frames} frames that are "
            f"wrong beyond doubt (frames {shown}; of the first, {reason}); remove them with: ase-flatten clean DATASET "
            "-o CLEAN, or train on them anyway with --quarantine off"
        )
    return Quarantine(contradictions(judgement, BEFORE_TRAINING))


def set_aside(frames: Sequence[int], dataset: Dataset) -> Quarantine:
    """Put the frames that the user lists in quarantine.

    Raises
    ------
    InputError
        A frame that the data set does not have.
    """
    wrong = [frame for frame in frames if not 0 <= frame < dataset.n_frames]
    if wrong:
        raise InputError(
            f"expected frames from 0 to {dataset.n_frames - 1} to set aside, found {wrong[0]}; "
            "give the list that belongs to this data set"
        )
    reason = "named in the list that was given"
    return Quarantine(tuple(Look(BEFORE_TRAINING, frame, LISTED, 0.0, reason) for frame in sorted(set(frames))))


def judge_by_model(
    model: Model,
    dataset: Dataset,
    frames: IntArray,
    others: IntArray,
    *,
    thresholds: Thresholds = GUARD,
) -> LabelJudgement:
    """Judge the labels of frames by a model that was not trained on them.

    The model predicts near frames as well: if it is inaccurate for all of them, it has not learnt this region, and the
    label is not at fault. Frames from the whole data set show how accurate it is overall.

    Parameters
    ----------
    others : int array
        Frames to compare with, none of which the model was trained on.
    """
    everywhere = others[np.linspace(0, len(others) - 1, min(N_EVERYWHERE, len(others))).astype(np.int64)]
    near = near_frames(dataset.pair_distances, frames, others, N_NEAR)
    asked = np.unique(np.concatenate([frames, near.ravel(), everywhere]))
    predictions = [model.predict(dataset.positions[asked])]
    judgement = judge_labels(dataset, asked, predictions, thresholds=thresholds)
    rows = np.searchsorted(asked, frames)
    return LabelJudgement(
        frames,
        judgement.scores[rows],
        tuple(judgement.levels[row] for row in rows),
        tuple(judgement.reasons[row] for row in rows),
        judgement.force_differences[rows],
        judgement.force_errors[rows],
        judgement.energy_residuals[rows],
    )


def contradictions(judgement: LabelJudgement, step: int, known: Quarantine = Quarantine()) -> tuple[Look, ...]:
    """Return the looks at the frames whose labels are contradicted, except for those that the model has learnt."""
    return tuple(look for look in _looks(judgement, step) if look.level != SOUND and not _is_learnt(look, known))


def look_again(
    quarantine: Quarantine,
    step: int,
    model: Model,
    train_frames: IntArray,
    dataset: Dataset,
    others: IntArray,
) -> tuple[Look, ...]:
    """Judge the frames in quarantine anew, now that the model has learnt more; listed ones stay as they are.

    A model trained on fewer frames than the quick models would judge no better than these. A frame also counts as sound
    once its force error has fallen to `LEARNT` times its first value: a model that learns the surroundings of a rare
    frame comes closer to its label, but not to a wrong one.
    """
    if len(train_frames) < quick_training_size(dataset.n_atoms):
        return ()
    last = quarantine.last_looks
    frames = np.array([frame for frame in quarantine.frames if last[frame].level != LISTED], dtype=np.int64)
    frames = np.setdiff1d(frames, train_frames)
    if not len(frames):
        return ()
    judgement = judge_by_model(model, dataset, frames, np.setdiff1d(others, frames))
    looks = [look for look in _looks(judgement, step) if np.isfinite(look.score)]
    return tuple(replace(look, level=SOUND) if _is_learnt(look, quarantine) else look for look in looks)


def _is_learnt(look: Look, known: Quarantine) -> bool:
    """Return whether the force error has fallen to `LEARNT` times its value when a step first doubted the label."""
    first = next(
        (one for one in known.looks if one.frame == look.frame and one.step > BEFORE_TRAINING and one.level != SOUND),
        None,
    )
    if first is None or first.force_error is None or look.force_error is None:
        return False
    return look.force_error <= LEARNT * first.force_error


def alarms(
    step: int,
    added: IntArray,
    before: Model,
    after: Model,
    dataset: Dataset,
    others: IntArray,
) -> tuple[Alarm, ...]:
    """Find frames whose labels look wrong once a model was trained on them.

    A label that fits the others lowers the errors of near frames. A wrong one, which the last model
    contradicted more than those of near frames, is either not reproduced, or, by a model that interpolates,
    reproduced at the cost of what is near.

    Parameters
    ----------
    added : int array
        The frames that `after` was trained on and `before` was not.
    others : int array
        Frames that neither was trained on.
    """
    near = near_frames(dataset.pair_distances, added, others, N_NEAR_ALARM)
    asked = np.unique(np.concatenate([added, near.ravel()]))
    old, new = (_force_rmse(model, dataset, asked) for model in (before, after))
    own_old, own_new = (rmse[np.searchsorted(asked, added)] for rmse in (old, new))
    near_old, near_new = (np.median(rmse[np.searchsorted(asked, near)], axis=1) for rmse in (old, new))
    typical = np.median(near_new)
    suspect = own_old > WORSE * near_old
    spoils = suspect & (near_new > WORSE * near_old) & (near_new > typical)
    misfits = suspect & (own_new > WORSE * np.maximum(near_new, typical))
    return tuple(
        Alarm(
            step,
            int(added[row]),
            f"training on it raised the force error of near frames {near_new[row] / near_old[row]:.1f} times"
            if spoils[row]
            else f"although it was trained on, its force error is {own_new[row] / near_new[row]:.1f} times that of "
            "near frames",
        )
        for row in np.flatnonzero(spoils | misfits)
    )


def strained(
    step: int,
    model: Model,
    train_frames: IntArray,
    fit: Callable[[IntArray], Model],
    dataset: Dataset,
    others: IntArray,
) -> tuple[Look, ...]:
    """Find training frames whose labels a model contradicts that was trained without them.

    A kernel model that interpolates reproduces a wrong label by large coefficients. If some coefficients stand out,
    one more model is trained without these frames and judges them. For other models nothing is returned.

    Parameters
    ----------
    fit : callable
        Trains as `model` was trained, on given frames.
    others : int array
        Frames of the pool that the model was not trained on.
    """
    if not isinstance(model, KernelModel):
        return ()
    sizes = model.coefficient_sizes
    largest = np.argsort(-sizes, kind="stable")[:MAX_SUSPECTS]
    suspects = np.sort(train_frames[largest[sizes[largest] > STRAINED * np.median(sizes)]])
    if not len(suspects):
        return ()
    without = fit(train_frames[~np.isin(train_frames, suspects)])
    judgement = judge_by_model(without, dataset, suspects, others, thresholds=GUARD_TRAINED)
    return contradictions(judgement, step)


def near_frames(descriptors: FloatArray, frames: IntArray, others: IntArray, n_near: int) -> IntArray:
    """Return the `n_near` nearest of the other frames to each frame, (n_frames, n_near), without the frame itself."""
    n_near = min(n_near, len(others) - 1)
    nearest = np.empty((len(frames), n_near), dtype=np.int64)
    for block in blocks(len(frames), 8 * (2 * len(others) + descriptors.shape[1])):
        squared = squared_distances(descriptors[frames[block]], descriptors[others])
        squared[frames[block, None] == others] = np.inf
        nearest[block] = others[np.argpartition(squared, n_near, axis=1)[:, :n_near]]
    return nearest


def _force_rmse(model: Model, dataset: Dataset, frames: IntArray) -> FloatArray:
    error = model.predict(dataset.positions[frames]).forces - dataset.forces[frames]
    return np.sqrt(np.mean(error**2, axis=(1, 2)))


def _looks(judgement: LabelJudgement, step: int) -> tuple[Look, ...]:
    found = zip(
        judgement.frames.tolist(),
        judgement.levels,
        judgement.scores,
        judgement.reasons,
        judgement.force_errors,
        strict=True,
    )
    return tuple(
        Look(step, frame, level, round(float(score), 3), why, round(float(error), 4) if np.isfinite(error) else None)
        for frame, level, score, why, error in found
    )


def read_frame_list(path: Path) -> tuple[int, ...]:
    """Read the list of frames to set aside.

    Parameters
    ----------
    path : Path
        The quarantine.json of a run, for the frames in quarantine at its end; a CSV file with a column `frame`; or
        numbers, separated by white space or commas.

    Raises
    ------
    InputError
        No such file, or none of these.
    """
    if path.suffix == ".json":
        return tuple(read_quarantine(path, remedy="give the quarantine.json of a run").frames.tolist())
    try:
        text = path.read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if lines and "frame" in (header := [name.strip() for name in lines[0].split(",")]):
            return tuple(sorted({int(row["frame"]) for row in csv.DictReader(lines[1:], fieldnames=header)}))
        return tuple(sorted({int(number) for line in lines for number in line.replace(",", " ").split()}))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"expected on, off or a list of frames to set aside (numbers, a CSV file with a column frame, or a run's "
            f"quarantine.json), could not read {printable(path)}: {printable(error)}"
        ) from error
