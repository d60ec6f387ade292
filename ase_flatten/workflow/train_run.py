"""Improved training in a run folder that survives being stopped at any moment.

Every file is written beside its place and renamed, a step's model before the line
of history that declares it; a run that goes on finds whole things or nothing.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.clustering.clusters import cluster, representatives
from ase_flatten.clustering.splits import split
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import write_frames
from ase_flatten.data.known_molecule import reference_arrays
from ase_flatten.evaluation.held_out import evaluate
from ase_flatten.evaluation.other_clusterings import OTHER_CLUSTERINGS, other_groups
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.models import Family, LongTrainer, Model, Trainer, Workplace, family
from ase_flatten.models.model_folder import load_model, read_card, save_model, versions
from ase_flatten.selection.flattening import Schedule, Step, flatten
from ase_flatten.selection.quarantine import BEFORE_TRAINING, Quarantine, first_look, set_aside
from ase_flatten.utils.atomic_files import is_empty, write_json, write_npz, write_text
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray
from ase_flatten.workflow.run_folder import FORMAT, Run, RunSettings, write_clusters

N_DEFAULT_DRAWS = 4
"""Default training sets of the final size that are drawn where training is cheap."""

MAX_FRAMES_WRITTEN = 1000
"""Frames in quarantine that are written for viewers."""


def train(
    dataset: Dataset,
    folder: str | Path,
    settings: RunSettings,
    *,
    resume: bool = False,
    on_step: Callable[[Step], None] = lambda step: None,
    progress: Progress = SILENT,
    source: str = "",
) -> Run:
    """Train the improved model and the default one of equal size, and measure both.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    resume : bool
        Go on with a run that is there; only `schedule.n_steps` may have grown.
    on_step : callable
        Told of each step as it is done.
    source : str
        What the data set is called, for the reader of run.json.

    Raises
    ------
    InputError
        A run that is there already without `resume`; one of other data or settings;
        more frames asked for than there are; labels that are wrong beyond doubt;
        a folder that cannot be written.
    """
    run = Run(Path(folder))
    settings = _without_guard_if_begun_so(run, settings)
    unfinished = run.folder / "unfinished"
    made_by = family(settings.family)
    if settings.subset is None:
        settings = replace(settings, subset=made_by.expensive)
    trainer = made_by.trainer(**settings.trainer)
    if settings.default_draws is None:
        costly = made_by.expensive or isinstance(trainer, LongTrainer)
        settings = replace(settings, default_draws=1 if costly else N_DEFAULT_DRAWS)
    content = _checked(run, dataset, settings, made_by, trainer, resume, source)
    descriptors = pair_distances(dataset.positions)
    quarantine = _first_quarantine(run, dataset, descriptors, settings, progress)
    write_json(run.folder / "run.json", content)
    if isinstance(trainer, LongTrainer):
        trainer = trainer.within(Workplace(unfinished, progress))
    if not all((run.folder / name).exists() for name in ("clusters.npz", "splits.npz", "reference.npz")):
        _lay_out(run, dataset, descriptors, settings, progress)
    if quarantine is not None and not (run.folder / "quarantine.json").exists():
        write_json(run.folder / "quarantine.json", quarantine.to_json())
    _grow(run, dataset, descriptors, settings, made_by, trainer, on_step, progress)
    _default_models(run, dataset, settings, made_by, trainer, progress)
    _settle(run, dataset, settings, made_by, trainer, progress)
    _write_quarantined(run, dataset)
    draws = _other_default_draws(run, dataset, settings, made_by, trainer, progress)
    models = _sizes(run, settings.schedule)
    evaluate(run.folder, dataset, run.clustering, run.splits, models, default_draws=draws, progress=progress)
    if not (run.folder / OTHER_CLUSTERINGS).exists():
        groups = other_groups(
            dataset,
            run.splits.heldout,
            rng=np.random.default_rng([settings.seed, 0, 5]),
            n_geometry=settings.n_geometry,
            n_energy=settings.n_energy,
            progress=progress,
        )
        write_npz(run.folder / OTHER_CLUSTERINGS, {"groups": groups})
    shutil.rmtree(unfinished, ignore_errors=True)  # a kill may have left half a file there
    return Run(run.folder)


def _without_guard_if_begun_so(run: Run, settings: RunSettings) -> RunSettings:
    """Go on with runs of before there was a quarantine as they were begun."""
    if (run.folder / "run.json").exists() and "quarantine" not in run.info["settings"]:
        return replace(settings, quarantine="off")
    return settings


def _first_quarantine(
    run: Run, dataset: Dataset, descriptors: FloatArray, settings: RunSettings, progress: Progress
) -> Quarantine | None:
    """Judge all labels, unless the run has done so or the user decided; raise InputError where some are wrong."""
    if settings.quarantine == "off":
        return None
    if (run.folder / "quarantine.json").exists():
        return run.quarantine
    if isinstance(settings.quarantine, tuple):
        return set_aside(settings.quarantine, dataset)
    # No seed of the run: whether data are refused depends on the data alone.
    return first_look(dataset, descriptors, rng=np.random.default_rng(0), progress=progress)


def _checked(
    run: Run,
    dataset: Dataset,
    settings: RunSettings,
    made_by: Family,
    trainer: Trainer,
    resume: bool,
    source: str,
) -> dict[str, Any]:
    """Return the content of run.json, once what is there already was held against what is asked for."""
    content = {
        "format": FORMAT,
        "settings": json.loads(json.dumps(asdict(settings))),
        "trainer": made_by.settings(trainer),
        "dataset": {
            "source": source,
            "digest": dataset.digest,
            "formula": dataset.formula,
            "n_frames": dataset.n_frames,
            "theory": dataset.theory,
        },
        "versions": versions(made_by.distribution),
    }
    if (run.folder / "run.json").exists():
        if not resume:
            raise InputError(
                f"expected a new folder, found a run in {run.folder}; continue it with --resume or choose another --out"
            )
        _hold_against(run, content)
        content["versions"] = {**run.info["versions"], "resumed_with": content["versions"]}
    elif run.folder.is_dir() and not is_empty(run.folder):
        raise InputError(f"expected a new or empty folder, found other files in {run.folder}; choose another --out")
    return content


def _hold_against(run: Run, content: dict[str, Any]) -> None:
    """Refuse to go on with other data or other settings, but for more steps and any number of default draws."""
    if run.info["dataset"]["digest"] != content["dataset"]["digest"]:
        raise InputError(
            f"expected the data that {run.folder} was begun with ({run.info['dataset']['source']}), "
            "found others; give that data set or choose another --out"
        )
    old, new = run.info["settings"], content["settings"]
    for name in sorted(old.keys() - {"default_draws"}):
        before, after = old[name], new[name]
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


def _lay_out(run: Run, dataset: Dataset, descriptors: FloatArray, settings: RunSettings, progress: Progress) -> None:
    """Cluster the data, split them, and keep what later stages need of them."""
    clustering = cluster(
        dataset,
        rng=np.random.default_rng([settings.seed, 0, 1]),
        n_geometry=settings.n_geometry,
        n_energy=settings.n_energy,
        n_ward=settings.n_ward,
        assignment=settings.assignment,
        progress=progress,
    )
    write_clusters(run.folder / "clusters.npz", clustering, descriptors)
    splits = split(clustering, descriptors, rng=np.random.default_rng([settings.seed, 0, 2]), holdout=settings.holdout)
    write_npz(run.folder / "splits.npz", asdict(splits))
    frames = representatives(clustering, descriptors)
    write_npz(run.folder / "reference.npz", reference_arrays(dataset, descriptors, frames))


def _grow(
    run: Run,
    dataset: Dataset,
    descriptors: FloatArray,
    settings: RunSettings,
    made_by: Family,
    trainer: Trainer,
    on_step: Callable[[Step], None],
    progress: Progress,
) -> None:
    """Do the steps that history does not tell of yet."""
    history = run.history
    done = None
    if history:
        last = history[-1]
        frames = np.asarray(last["train_frames"], dtype=np.int64)
        done = last["step"], frames, load_model(run.step_folder(last["step"])).model
    steps = flatten(
        dataset, trainer, run.clustering, run.splits, descriptors, settings.schedule,
        seed=settings.seed, subset=settings.subset_rule if settings.subset else None,
        quarantine=run.quarantine.up_to(done[0] if done else BEFORE_TRAINING), guard=settings.quarantine == "on",
        done=done, progress=progress,
    )  # fmt: skip
    for step in steps:
        save_model(run.step_folder(step.number), step.model, made_by, dataset, step.train_frames)
        if settings.quarantine != "off":
            write_json(run.folder / "quarantine.json", step.quarantine.to_json())
        history.append(_history_entry(step))
        lines = (json.dumps(entry, default=_plain, allow_nan=False) + "\n" for entry in history)
        write_text(run.folder / "history.jsonl", "".join(lines))
        on_step(step)


def _history_entry(step: Step) -> dict[str, Any]:
    return {
        "step": step.number,
        "train_frames": step.train_frames.tolist(),
        "added_frames": step.added_frames.tolist(),
        "cluster_rmse": [float(rmse) if np.isfinite(rmse) else None for rmse in step.errors.rmse],
        "overall_rmse": step.errors.overall_rmse,
        "n_predicted": int(step.errors.counts.sum()),
        "bad_clusters": step.bad_clusters.tolist(),
        "hyper_parameters": dict(step.model.hyper_parameters),
        **step.quarantine.changes(step.number),
        "seconds": step.seconds,
    }


def _sizes(run: Run, schedule: Schedule) -> dict[str, dict[int, Path]]:
    """Return the model folders to compare, by scheme and size: the default ones at the start, midway and in the end."""
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


def _default_models(
    run: Run, dataset: Dataset, settings: RunSettings, made_by: Family, trainer: Trainer, progress: Progress
) -> None:
    """Train default models of the sizes that are compared, with the hyper-parameters of the improved ones.

    Among these are the gradient steps of a network: both models have had the same number.
    """
    schedule = settings.schedule
    for number in _default_step_numbers(schedule):
        folder = run.step_folder(number, scheme="default")
        if folder.exists():
            continue
        rng = np.random.default_rng([settings.seed, number, 1])
        splits = run.trainable(number)
        frames = trainer.default_frames(dataset, splits.pool, schedule.n_train(number), rng=rng)
        improved = load_model(run.step_folder(number)).model
        with progress.task(f"training the default model on {len(frames)} frames", 1) as advance:
            model = trainer.fit(dataset, frames, splits.valid, rng=rng, previous=improved)
            advance(1)
        save_model(folder, model, made_by, dataset, frames)


def _settle(
    run: Run, dataset: Dataset, settings: RunSettings, made_by: Family, trainer: Trainer, progress: Progress
) -> None:
    """Make the two final models, after a last look at their hyper-parameters."""
    last = settings.schedule.n_steps
    final = settings.schedule.n_train(last)
    targets = [run.folder / "improved", run.folder / "default"]
    if all((target / "model.json").exists() and _size(target) == final for target in targets):
        return
    sources = [run.step_folder(last), run.step_folder(last, scheme="default" if last else "improved")]
    saved = [load_model(source) for source in sources]
    valid = run.trainable(last).valid
    trained: list[tuple[IntArray, Model]] = [(one.train_frames, one.model) for one in saved]
    with progress.task("checking the hyper-parameters once more", 1) as advance:
        models = trainer.settle(dataset, trained, valid, rng=np.random.default_rng([settings.seed, last, 2]))
        advance(1)
    for target, (frames, _), model in zip(targets, trained, models, strict=True):
        save_model(target, model, made_by, dataset, frames)


def _other_default_draws(
    run: Run, dataset: Dataset, settings: RunSettings, made_by: Family, trainer: Trainer, progress: Progress
) -> list[Path]:
    """Train default models of the final size on other draws of the training set; give their folders.

    Hyper-parameters are those of the final default model, whose training set is the first draw.
    """
    last = settings.schedule.n_steps
    folders = [run.folder / "default_draws" / f"{number:04d}" for number in range(1, settings.default_draws or 1)]
    default = load_model(run.folder / "default").model
    with progress.task("training default models on other draws", len(folders)) as advance:
        for number, folder in enumerate(folders, 1):
            if not _is_draw_of(folder, run.folder / "default"):
                rng = np.random.default_rng([settings.seed, last, 3, number])
                n_train = settings.schedule.n_train(last)
                splits = run.trainable(last)
                frames = trainer.default_frames(dataset, splits.pool, n_train, rng=rng)
                model = trainer.fit(dataset, frames, splits.valid, rng=rng, previous=default)
                save_model(folder, model, made_by, dataset, frames)
            advance(1)
    return folders


def _is_draw_of(folder: Path, default: Path) -> bool:
    """Return whether a model is there, of the size and the hyper-parameters of the default one."""
    if not (folder / "model.json").exists():
        return False
    card, wanted = read_card(folder), read_card(default)
    return len(card["training_frames"]) == len(wanted["training_frames"]) and (
        card["hyper_parameters"] == wanted["hyper_parameters"]
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
    return len(read_card(folder)["training_frames"])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value.tolist()
