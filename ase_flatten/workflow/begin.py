"""Begin a run or resume it: what is found in its folder decides whether the training may go on there."""

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec

from ase_flatten.data.dataset import Dataset
from ase_flatten.models.model_folder import versions
from ase_flatten.utils.atomic_files import is_empty
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.workflow.plan import PlannedRun
from ase_flatten.workflow.run_folder import CLUSTERS, DataFile, DatasetInfo, Run, RunInfo, RunSettings

log = logging.getLogger(__name__)

LOG = "train.log"

_BEFORE_FIRST_STEP = (CLUSTERS, "splits.npz", "reference.npz", "quarantine.json", "history.jsonl", "run.json")
"""Files that a run has before its first step is finished, run.json last: it is removed last."""

_MAY_CHANGE = {"n_steps", "default_draws"}
"""Settings that may be others when a run is resumed; the number of steps may only grow."""


def make_way(run: Run, *, resume: bool) -> None:
    """Refuse a folder that a training may not write to, and remove what a run without a finished step has left.

    Raises
    ------
    InputError
        A run with finished steps, without `resume`; other files, without a run; a damaged run.
    """
    folder = run.folder
    if not (folder / "run.json").exists():
        if not is_empty(folder, ignore=LOG if _is_log(folder / LOG) else None):
            raise InputError(f"expected a new or empty folder, found other files in {folder}; choose another --out")
        return
    _ = run.info  # only what a run has written is removed
    if resume:
        return
    n_steps = len(run.history)
    if n_steps:
        raise InputError(
            f"expected a new folder, found a run with {n_steps} finished step{'s' if n_steps > 1 else ''} in {folder}; "
            f"add --resume, or choose another --out"
        )
    log.info("%s holds a run without a finished step: it is begun anew", folder)
    shutil.rmtree(folder / "unfinished", ignore_errors=True)
    shutil.rmtree(run.step_folder(0), ignore_errors=True)
    with suppress(OSError):  # not empty, or not there
        (folder / "steps").rmdir()
    for name in _BEFORE_FIRST_STEP:
        (folder / name).unlink(missing_ok=True)


def as_begun(run: Run, settings: RunSettings) -> RunSettings:
    """Take from a run that is resumed what the settings leave open."""
    if not (run.folder / "run.json").exists():
        return settings
    begun = run.settings
    if "quarantine" not in run.info.settings:  # begun before there was one
        settings = replace(settings, quarantine="off")
    return replace(
        settings, n_geometry=settings.n_geometry or begun.n_geometry, n_energy=settings.n_energy or begun.n_energy
    )


def describe_run(
    run: Run, dataset: Dataset, planned: PlannedRun, *, source: str = "", file: DataFile | None = None
) -> RunInfo:
    """Return the content of run.json; raise InputError if it contradicts a run that is resumed."""
    info = RunInfo(
        settings=in_full(planned.settings),
        trainer=planned.made_by.settings(planned.trainer),
        dataset=DatasetInfo.of(dataset, file, source=source),
        versions=versions(planned.made_by.distribution),
    )
    if not (run.folder / "run.json").exists():
        return info
    _hold_against(run, info)
    data = replace(info.dataset, file=file or run.info.dataset.file)
    return replace(info, dataset=data, versions={**run.info.versions, "resumed_with": info.versions})


def in_full(settings: RunSettings) -> dict[str, Any]:
    """Return settings as JSON has them, defaults included, which msgspec leaves out of objects that it has read."""
    content: dict[str, Any] = msgspec.to_builtins(asdict(settings))
    return content


def _hold_against(run: Run, asked: RunInfo) -> None:
    """Refuse to resume with other data or settings, except for more steps and any number of default draws."""
    if run.info.dataset.digest != asked.dataset.digest:
        raise InputError(
            f"expected the data that {run.folder} was begun with ({printable(run.info.dataset.source)}), found others"
            f"{f' in {asked.dataset.file.path}' if asked.dataset.file else ''}; give that data set "
            f"(ase-flatten train DATASET --resume --out {run.folder}), or choose another --out"
        )
    # A run of an earlier version says nothing on settings that it did not have.
    begun = {name: value for name, value in in_full(run.settings).items() if name in run.info.settings}
    new = {name: value for name, value in asked.settings.items() if name in begun}
    n_begun, n_asked = begun["schedule"]["n_steps"], new["schedule"]["n_steps"]
    if n_asked < n_begun:
        raise InputError(
            f"{run.folder} was begun with {n_begun} steps, {n_asked} were asked for; a run can grow but not shrink"
        )
    changed = list(_changes(begun, new))
    if changed:
        raise InputError(
            f"{run.folder} was begun with other settings ({'; '.join(changed)}); "
            "leave these as they were, or choose another --out"
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Name each setting that differs, such as "sigma: 20 before, 10 now"."""
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if old == new or name in _MAY_CHANGE:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(old, new)
        else:
            yield f"{printable(name)}: {_shown(old)} before, {_shown(new)} now"


def _shown(value: Any) -> str:
    return "not set" if value is None else printable(value)


def _is_log(path: Path) -> bool:
    """Return whether a file is the log of a training that was killed before it wrote anything else."""
    try:
        with path.open(encoding="utf-8") as stream:
            return "  ase-flatten " in stream.readline(1000)
    except (OSError, UnicodeDecodeError):
        return False
