"""Improved training in a run folder that survives being stopped at any moment.

Every file is written beside its place and renamed, and a step's model is written before the line
of history that lists it, so a resumed run finds complete files or none.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ase_flatten.checking.labels import QuickModels
from ase_flatten.clustering.clusters import cluster
from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.clustering.splits import split
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import write_frames
from ase_flatten.data.known_molecule import Reference
from ase_flatten.evaluation.held_out import evaluate
from ase_flatten.evaluation.other_clusterings import OTHER_CLUSTERINGS, other_groups
from ase_flatten.models import Family, Model, Trainer, Workplace, family
from ase_flatten.models.model_folder import load_model, read_card, save_model, versions
from ase_flatten.selection.flattening import Schedule, Step, flatten
from ase_flatten.selection.quarantine import BEFORE_TRAINING, Quarantine, first_look, quick_models_of, set_aside
from ase_flatten.utils.atomic_files import is_empty, write_json, write_npz
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.locks import lock_folder
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.records import write_record
from ase_flatten.utils.typing import IntArray
from ase_flatten.workflow.history import HistoryLine, write_history
from ase_flatten.workflow.run_folder import DatasetInfo, Run, RunInfo, RunSettings, write_clusters

N_DEFAULT_DRAWS = 4
"""Default training sets of the final size where training is fast."""

MAX_FRAMES_WRITTEN = 1000
"""Maximum number of frames in quarantine that are written as structures."""


@dataclass(frozen=True)
class _Training:
    """What every stage of a training needs.

    Parameters
    ----------
    run : Run
        The run folder.
    data : PreparedData
    settings : RunSettings
    made_by : Family
        The family of the models.
    trainer : Trainer
    progress : Progress
    """

    run: Run
    data: PreparedData
    settings: RunSettings
    made_by: Family
    trainer: Trainer
    progress: Progress

    @property
    def n_final(self) -> int:
        """The size of the final training sets."""
        return self.settings.schedule.n_train(self.settings.schedule.n_steps)

    def rng(self, *stage: int) -> np.random.Generator:
        """Return the generator of a stage."""
        return np.random.default_rng([self.settings.seed, *stage])

    def save(self, folder: Path, model: Model, train_frames: IntArray) -> None:
        """Write a model folder."""
        save_model(folder, model, self.made_by, self.data.dataset, train_frames)

    def default_model(self, step: int, previous: Model, rng: np.random.Generator) -> tuple[Model, IntArray]:
        """Train a default model of the size of a step; return its training set as well."""
        splits, dataset = self.run.trainable(step), self.data.dataset
        frames = self.trainer.default_frames(dataset, splits.pool, self.settings.schedule.n_train(step), rng=rng)
        return self.trainer.fit(dataset, frames, splits.valid, rng=rng, previous=previous), frames


def train(
    dataset: Dataset,
    folder: str | Path,
    settings: RunSettings | None = None,
    *,
    resume: bool = False,
    on_step: Callable[[Step], None] = lambda step: None,
    quick_models: QuickModels | None = None,
    progress: Progress = SILENT,
    source: str = "",
) -> Run:
    """Train the improved model and the default one of equal size, and measure both.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    settings : RunSettings, optional
        The model family, the sizes of the training sets, the seed, and so on.
    resume : bool
        Resume an existing run; only `schedule.n_steps` and `default_draws` may change.
    on_step : callable
        Called with each step when it is done.
    quick_models : QuickModels, optional
        `quick_models_of` the data set, where these have judged its labels already.
    source : str
        Name of the data set, for run.json.

    Raises
    ------
    InputError
        An existing run without `resume`, or with other data or settings; more frames asked for than are available;
        labels that are wrong beyond doubt; a folder that cannot be written.

    Examples
    --------
    >>> from ase_flatten import RunSettings, Schedule, read_dataset, train
    >>> data = read_dataset("examples/data/salicylic_gfn2_500K.npz")
    >>> settings = RunSettings(
    ...     family="sgdml",
    ...     trainer={"sigma": 20, "symmetries": False},
    ...     schedule=Schedule(n_steps=1, n_initial=10, step_size=5),
    ...     n_geometry=3,
    ...     n_energy=2,
    ... )
    >>> train(data, "runs/mine", settings)
    <Run runs/mine: family sgdml, molecule C7H6O3, ... state 1 of 1 steps, force RMSE, default ...>
    """
    run, settings = Run(Path(folder)), settings or RunSettings()
    with lock_folder(run.folder):
        settings = _without_guard_if_begun_so(run, settings)
        unfinished = run.folder / "unfinished"
        made_by = family(settings.family)
        _ = settings.schedule.rule.selector  # an unknown one is refused before anything is written
        if settings.subset is None:
            settings = replace(settings, subset=made_by.expensive)
        trainer = made_by.trainer(**settings.trainer)
        if settings.default_draws is None:
            costly = made_by.expensive or (isinstance(trainer, Trainer) and trainer.trains_long)
            settings = replace(settings, default_draws=1 if costly else N_DEFAULT_DRAWS)
        info = _checked(run, dataset, settings, made_by, trainer, resume, source)
        quarantine = _first_quarantine(
            run, dataset, settings, quick_models or quick_models_of(dataset, progress=progress)
        )
        write_record(run.folder / "run.json", info)
        if isinstance(trainer, Trainer):  # a plugin's need not be
            trainer = trainer.within(Workplace(unfinished, progress))
        data = _prepared(run, dataset, settings, progress)
        if quarantine is not None and not (run.folder / "quarantine.json").exists():
            write_json(run.folder / "quarantine.json", quarantine.to_json())
        training = _Training(run, data, settings, made_by, trainer, progress)
        _grow(training, on_step)
        _train_default_models(training)
        _settle(training)
        _write_quarantined(run, dataset)
        draws = _other_default_draws(training)
        models = _sizes(run, settings.schedule)
        evaluate(run.folder, dataset, data.clustering, data.splits, models, default_draws=draws, progress=progress)
        if not (run.folder / OTHER_CLUSTERINGS).exists():
            groups = other_groups(
                dataset, data.splits.heldout, rng=training.rng(0, 5), n_geometry=settings.n_geometry,
                n_energy=settings.n_energy, progress=progress,
            )  # fmt: skip
            write_npz(run.folder / OTHER_CLUSTERINGS, {"groups": groups})
        shutil.rmtree(unfinished, ignore_errors=True)  # a kill may have left half a file there
        return Run(run.folder)


def _without_guard_if_begun_so(run: Run, settings: RunSettings) -> RunSettings:
    """Resume runs that were begun before there was a quarantine without one."""
    if (run.folder / "run.json").exists() and "quarantine" not in run.info.settings:
        return replace(settings, quarantine="off")
    return settings


def _first_quarantine(
    run: Run, dataset: Dataset, settings: RunSettings, quick_models: QuickModels
) -> Quarantine | None:
    """Judge all labels unless the run has done so or the user has decided; raise InputError if some are wrong."""
    if settings.quarantine == "off":
        return None
    if (run.folder / "quarantine.json").exists():
        return run.quarantine
    if isinstance(settings.quarantine, tuple):
        return set_aside(settings.quarantine, dataset)
    return first_look(dataset, quick_models)


def _checked(
    run: Run,
    dataset: Dataset,
    settings: RunSettings,
    made_by: Family,
    trainer: Trainer,
    resume: bool,
    source: str,
) -> RunInfo:
    """Return the content of run.json; raise InputError if it contradicts an existing run."""
    info = RunInfo(
        settings=_in_full(settings),
        trainer=made_by.settings(trainer),
        dataset=DatasetInfo(
            source=source,
            digest=dataset.digest,
            formula=dataset.formula,
            n_frames=dataset.n_frames,
            theory=dataset.theory,
        ),
        versions=versions(made_by.distribution),
    )
    if (run.folder / "run.json").exists():
        if not resume:
            raise InputError(
                f"expected a new folder, found a run in {run.folder}; add --resume, or choose another --out"
            )
        _hold_against(run, info)
        info = replace(info, versions={**run.info.versions, "resumed_with": info.versions})
    elif run.folder.is_dir() and not is_empty(run.folder):
        raise InputError(f"expected a new or empty folder, found other files in {run.folder}; choose another --out")
    return info


def _in_full(settings: RunSettings) -> dict[str, Any]:
    """Return settings as JSON has them, defaults included, which msgspec leaves out of objects that it has read."""
    content: dict[str, Any] = msgspec.to_builtins(asdict(settings))
    return content


def _hold_against(run: Run, asked: RunInfo) -> None:
    """Refuse to resume with other data or settings, except for more steps and any number of default draws."""
    if run.info.dataset.digest != asked.dataset.digest:
        raise InputError(
            f"expected the data that {run.folder} was begun with ({run.info.dataset.source}), "
            "found others; give that data set or choose another --out"
        )
    begun, new = _in_full(run.settings), asked.settings
    for name in sorted(run.info.settings.keys() - {"default_draws"}):
        before, after = begun[name], new[name]
        if name == "schedule":
            if after["n_steps"] < before["n_steps"]:
                raise InputError(
                    f"{run.folder} was begun with {before['n_steps']} steps, {after['n_steps']} were asked for; "
                    "a run can grow but not shrink"
                )
            before = {**before, "n_steps": after["n_steps"]}
        if before != after:
            raise InputError(
                f"{run.folder} was begun with {name} {before}, now {after} was asked for; "
                "give the same settings or choose another --out"
            )


def _prepared(run: Run, dataset: Dataset, settings: RunSettings, progress: Progress) -> PreparedData:
    """Cluster the data and split them, and keep what later stages need of them, unless the run has done so."""
    if all((run.folder / name).exists() for name in ("clusters.npz", "splits.npz", "reference.npz")):
        return PreparedData(dataset, run.clustering, run.splits)
    clustering = cluster(
        dataset,
        rng=np.random.default_rng([settings.seed, 0, 1]),
        n_geometry=settings.n_geometry,
        n_energy=settings.n_energy,
        n_ward=settings.n_ward,
        assignment=settings.assignment,
        progress=progress,
    )
    rng = np.random.default_rng([settings.seed, 0, 2])
    splits = split(clustering, dataset.pair_distances, rng=rng, holdout=settings.holdout)
    data = PreparedData(dataset, clustering, splits)
    write_clusters(run.folder / "clusters.npz", clustering, data.representatives)
    write_npz(run.folder / "splits.npz", asdict(splits))
    write_npz(run.folder / "reference.npz", Reference.of_dataset(dataset, data.representatives).arrays)
    return data


def _grow(training: _Training, on_step: Callable[[Step], None]) -> None:
    """Do the steps that history does not list yet."""
    run, settings = training.run, training.settings
    history = run.history
    done = None
    if history:
        last = history[-1]
        frames = np.array(last.train_frames, dtype=np.int64)
        done = last.step, frames, load_model(run.step_folder(last.step)).model
    steps = flatten(
        training.data, training.trainer, settings.schedule,
        seed=settings.seed, subset=settings.subset_rule if settings.subset else None,
        quarantine=run.quarantine.up_to(done[0] if done else BEFORE_TRAINING), guard=settings.quarantine == "on",
        done=done, progress=training.progress,
    )  # fmt: skip
    for step in steps:
        training.save(run.step_folder(step.number), step.model, step.train_frames)
        if settings.quarantine != "off":
            write_json(run.folder / "quarantine.json", step.quarantine.to_json())
        history.append(HistoryLine.of_step(step))
        write_history(run.folder / "history.jsonl", history)
        on_step(step)


def _sizes(run: Run, schedule: Schedule) -> dict[str, dict[int, Path]]:
    """Return the model folders to compare, by scheme and size: default ones at the start, midway and at the end."""
    steps = range(schedule.n_steps + 1)
    improved = {schedule.n_train(step): run.step_folder(step) for step in steps}
    default = {schedule.n_train(0): run.step_folder(0)}
    for step in _default_step_numbers(schedule):
        default[schedule.n_train(step)] = run.step_folder(step, scheme="default")
    final = schedule.n_train(schedule.n_steps)
    improved[final], default[final] = run.folder / "improved", run.folder / "default"
    return {"default": default, "improved": improved}


def _default_step_numbers(schedule: Schedule) -> list[int]:
    return sorted({schedule.n_steps // 2, schedule.n_steps} - {0})


def _train_default_models(training: _Training) -> None:
    """Train default models of the sizes that are compared, with the hyper-parameters of the improved ones.

    For a network these include the number of gradient steps, which is the same for both models.
    """
    run, schedule = training.run, training.settings.schedule
    for number in _default_step_numbers(schedule):
        folder = run.step_folder(number, scheme="default")
        if folder.exists():
            continue
        improved = load_model(run.step_folder(number)).model
        what = f"training the default model on {schedule.n_train(number)} frames"
        with training.progress.task(what, 1) as advance:
            model, frames = training.default_model(number, improved, training.rng(number, 1))
            advance(1)
        training.save(folder, model, frames)


def _settle(training: _Training) -> None:
    """Make the two final models, after a last check of their hyper-parameters."""
    run, last = training.run, training.settings.schedule.n_steps
    targets = [run.folder / "improved", run.folder / "default"]
    if all((target / "model.json").exists() and _size(target) == training.n_final for target in targets):
        return
    sources = [run.step_folder(last), run.step_folder(last, scheme="default" if last else "improved")]
    saved = [load_model(source) for source in sources]
    valid = run.trainable(last).valid
    trained: list[tuple[IntArray, Model]] = [(one.train_frames, one.model) for one in saved]
    with training.progress.task("checking the hyper-parameters again", 1) as advance:
        models = training.trainer.settle(training.data.dataset, trained, valid, rng=training.rng(last, 2))
        advance(1)
    for target, (frames, _), model in zip(targets, trained, models, strict=True):
        training.save(target, model, frames)


def _other_default_draws(training: _Training) -> list[Path]:
    """Train default models of the final size on other draws of the training set; return their folders.

    Hyper-parameters are those of the final default model, whose training set is the first draw.
    """
    run, settings = training.run, training.settings
    last = settings.schedule.n_steps
    folders = [run.folder / "default_draws" / f"{number:04d}" for number in range(1, settings.default_draws or 1)]
    default = load_model(run.folder / "default").model
    with training.progress.task("training default models on other draws", len(folders)) as advance:
        for number, folder in enumerate(folders, 1):
            if not _is_draw_of(folder, run.folder / "default"):
                training.save(folder, *training.default_model(last, default, training.rng(last, 3, number)))
            advance(1)
    return folders


def _is_draw_of(folder: Path, default: Path) -> bool:
    """Return whether a model is there, of the size and the hyper-parameters of the default one."""
    if not (folder / "model.json").exists():
        return False
    card, wanted = read_card(folder), read_card(default)
    return len(card.training_frames) == len(wanted.training_frames) and (
        card.hyper_parameters == wanted.hyper_parameters
    )


def _write_quarantined(run: Run, dataset: Dataset) -> None:
    """Write the frames in quarantine, and those that raised an alarm, with the improved model's forces."""
    quarantine = run.quarantine
    last, alarms = quarantine.last_looks, {alarm.frame: alarm.reason for alarm in quarantine.alarms}
    listed = sorted(quarantine.frames.tolist(), key=lambda frame: -last[frame].score)
    frames = np.array([*listed, *(frame for frame in alarms if frame not in listed)][:MAX_FRAMES_WRITTEN], dtype=int)
    if not len(frames):
        return
    forces = load_model(run.folder / "improved").model.predict(dataset.positions[frames]).forces
    reasons = np.array([alarms.get(frame) or last[frame].reason for frame in frames.tolist()])
    write_frames(run.folder / "quarantine.extxyz", dataset, frames, arrays={"model_forces": forces}, reason=reasons)


def _size(folder: Path) -> int:
    return len(read_card(folder).training_frames)
