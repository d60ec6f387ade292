"""Improved training in a run folder that survives being stopped at any moment.

Every file is written beside its place and renamed, and a step's model is written before the line
of history that lists it, so a resumed run finds complete files or none.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ase_flatten.checking.labels import QuickModels
from ase_flatten.clustering.clusters import cluster
from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.clustering.splits import split
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import write_frames
from ase_flatten.data.known_molecule import Reference
from ase_flatten.data.units import FIELD_UNITS, OutputUnits
from ase_flatten.evaluation.distinctions import DISTINCTIONS, distinguish, write_distinctions
from ase_flatten.evaluation.held_out import evaluate
from ase_flatten.evaluation.other_clusterings import OTHER_CLUSTERINGS, other_groups
from ase_flatten.models import Family, Model, Trainer, Workplace
from ase_flatten.models.model_folder import load_model, read_card, save_model
from ase_flatten.selection.flattening import Schedule, Step, flatten
from ase_flatten.selection.quarantine import BEFORE_TRAINING, Quarantine, first_look, quick_models_of, set_aside
from ase_flatten.utils.atomic_files import write_json, write_npz
from ase_flatten.utils.locks import lock_folder
from ase_flatten.utils.log_files import FILE_ONLY, log_to
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.records import write_record
from ase_flatten.utils.typing import IntArray
from ase_flatten.workflow.begin import LOG, as_begun, describe_run, make_way
from ase_flatten.workflow.history import HistoryLine, write_history
from ase_flatten.workflow.plan import default_steps, plan_run
from ase_flatten.workflow.run_folder import DataFile, Run, RunSettings, write_clusters
from ase_flatten.workflow.test_set import TestSet, agreed_test_set, judge_on_test_set
from ase_flatten.workflow.upgrades import former_defaults

log = logging.getLogger(__name__)
said = logging.getLogger(FILE_ONLY)

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
    units: OutputUnits = FIELD_UNITS,
    source: str = "",
    file: DataFile | None = None,
    test: TestSet | None = None,
) -> Run:
    """Train the improved model and the default one of equal size, and measure both; `train.log` keeps the log.

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
    units : OutputUnits
        Of the errors in the log.
    source : str
        Name of the data set, for run.json; by default that of its file.
    file : DataFile, optional
        Where the data set was read from, so that the run can be resumed without naming it.
    test : TestSet, optional
        An external test set, on which both final models are judged; by default the one that an existing run remembers.

    Raises
    ------
    InputError
        An existing run with finished steps without `resume`, or with other data or settings; more frames asked for
        than are available; labels that are wrong beyond doubt; a test set of another molecule, or another one than
        before; a missing package; a folder that cannot be written.

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
    planned = plan_run(dataset, settings)  # what cannot be done is refused before there is a folder
    begun = resume and (run.folder / "run.json").exists()
    if isinstance(planned.trainer, Trainer) and not begun:
        planned.trainer.check(dataset)
    with lock_folder(run.folder):
        make_way(run, resume=resume)
        with _log_of(run.folder):
            workplace = Workplace(run.folder / "unfinished", progress, units)
            return _train(Run(run.folder), dataset, settings, on_step, quick_models, workplace, source, file, test)


@contextmanager
def _log_of(folder: Path) -> Iterator[None]:
    """Keep a log in a folder, unless the training ends before it has written anything else."""
    try:
        with log_to(folder / LOG):
            yield
    finally:
        if not (folder / "run.json").exists():
            (folder / LOG).unlink(missing_ok=True)


def _train(
    run: Run,
    dataset: Dataset,
    settings: RunSettings,
    on_step: Callable[[Step], None],
    quick_models: QuickModels | None,
    workplace: Workplace,
    source: str,
    file: DataFile | None,
    test: TestSet | None,
) -> Run:
    """Train in a folder that is locked."""
    progress = workplace.progress
    former = former_defaults(run.info.trainer) if (run.folder / "run.json").exists() else {}
    planned = plan_run(dataset, as_begun(run, settings), former=former)
    settings, made_by, trainer = planned.settings, planned.made_by, planned.trainer
    test = agreed_test_set(run, dataset, test, resume=True)  # of what is left in the folder
    info = replace(describe_run(run, dataset, planned, source=source, file=file), test=test.info if test else None)
    said.info("%s", planned.describe(dataset))
    quarantine = _first_quarantine(run, dataset, settings, quick_models or quick_models_of(dataset, progress=progress))
    write_record(run.folder / "run.json", info)
    if isinstance(trainer, Trainer):  # a plugin's need not be
        trainer = trainer.within(workplace)
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
    if test is not None:
        judge_on_test_set(run, data, test, rng=training.rng(0, 6), progress=progress)
    if not (run.folder / OTHER_CLUSTERINGS).exists():
        groups = other_groups(
            dataset, data.splits.heldout, rng=training.rng(0, 5), **_n_clusters(settings), progress=progress
        )
        write_npz(run.folder / OTHER_CLUSTERINGS, {"groups": groups})
    done = Run(run.folder)
    if not (run.folder / DISTINCTIONS).exists():
        found = distinguish(dataset, data.clustering, done.claims.groups, progress=progress)
        write_distinctions(run.folder / DISTINCTIONS, found)
    if workplace.folder is not None:
        shutil.rmtree(workplace.folder, ignore_errors=True)  # a kill may have left half a file there
    return done


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


def _prepared(run: Run, dataset: Dataset, settings: RunSettings, progress: Progress) -> PreparedData:
    """Cluster the data and split them, and keep what later stages need of them, unless the run has done so."""
    if all((run.folder / name).exists() for name in ("clusters.npz", "splits.npz", "reference.npz")):
        return PreparedData(dataset, run.clustering, run.splits)
    clustering = cluster(
        dataset,
        rng=np.random.default_rng([settings.seed, 0, 1]),
        **_n_clusters(settings),
        n_ward=settings.n_ward,
        assignment=settings.assignment,
        progress=progress,
    )
    rng = np.random.default_rng([settings.seed, 0, 2])
    splits = split(clustering, dataset.pair_distances, rng=rng, holdout=settings.holdout)
    log.info(
        "%d clusters of %d geometries; %d frames to choose from, %d for validation, %d held out",
        clustering.n_clusters, clustering.geometry.max() + 1, len(splits.pool), len(splits.valid), len(splits.heldout),
    )  # fmt: skip
    data = PreparedData(dataset, clustering, splits)
    write_clusters(run.folder / "clusters.npz", clustering, data.representatives)
    write_npz(run.folder / "splits.npz", asdict(splits))
    write_npz(run.folder / "reference.npz", Reference.of_dataset(dataset, data.representatives).arrays)
    return data


def _n_clusters(settings: RunSettings) -> dict[str, int]:
    """Return the numbers of clusters, which the plan has decided."""
    assert settings.n_geometry is not None and settings.n_energy is not None
    return {"n_geometry": settings.n_geometry, "n_energy": settings.n_energy}


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
    for step in default_steps(schedule):
        default[schedule.n_train(step)] = run.step_folder(step, scheme="default")
    final = schedule.n_train(schedule.n_steps)
    improved[final], default[final] = run.folder / "improved", run.folder / "default"
    return {"default": default, "improved": improved}


def _train_default_models(training: _Training) -> None:
    """Train default models of the sizes that are compared, with the hyper-parameters of the improved ones.

    For a network these include the number of gradient steps, which is the same for both models.
    """
    run, schedule = training.run, training.settings.schedule
    for number in default_steps(schedule):
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
