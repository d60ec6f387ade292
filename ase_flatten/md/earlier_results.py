"""Results that lie where a run would write: whether they are of the same run, and how far they have come."""

from contextlib import suppress
from pathlib import Path

from ase_flatten.md.chunks import chunk_files, last_step, what_to_do
from ase_flatten.md.result_files import read_summary
from ase_flatten.md.results import Settings, Summary
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.records import read_record

SETTINGS = "settings.json"

_NAMES = {
    "engine": "the engine", "name": "the protocol", "thermostat": "the thermostat", "seed": "the seed",
    "timestep_fs": "a time step in fs of", "friction_per_fs": "a friction in 1/fs of",
    "n_steps": "a number of steps of", "n_replicas": "a number of replicas of", "interval": "an interval of",
    "equilibration_steps": "a number of equilibration steps of",
}  # fmt: skip


def partial_folder(folder: Path) -> Path:
    """Return the folder beside that of a run in which it is kept until it is finished."""
    return folder.with_name(f"{folder.name}.partial")


def finished(folder: Path, settings: Settings, until: int) -> Summary | None:
    """Read the summary of a run with these settings that has come to step `until`, if there is one."""
    summary = _summary(folder)
    return summary if summary is not None and summary.settings == settings and summary.n_steps >= until else None


def steps_left(folder: Path, settings: Settings) -> int:
    """Return how many steps of a run are left, those of its equilibration included."""
    n_steps = settings.n_steps or 0
    if finished(folder, settings, n_steps) is not None:
        return 0
    done = last_step(partial_folder(folder))
    return n_steps + (settings.equilibration_steps if done is None else -done)


def read_settings(partial: Path) -> Settings:
    """Read the settings of an unfinished run; raise InputError if they are damaged."""
    what = "the settings of an unfinished run"
    return read_record(partial / SETTINGS, Settings, what=what, remedy=what_to_do(partial))


def refuse_others(folder: Path, settings: Settings) -> None:
    """Raise InputError if a folder holds results of other settings, finished or not; damaged ones do not count.

    A damaged unfinished run is refused where it is resumed; to begin anew replaces it.
    """
    summary, partial = _summary(folder), partial_folder(folder)
    earlier = [] if summary is None else [summary.settings]
    if chunk_files(partial) and (partial / SETTINGS).exists():
        with suppress(InputError):
            earlier.append(read_settings(partial))
    for found in earlier:
        if found != settings:
            raise InputError(
                f"expected no results of other settings in {folder}, found some {_difference(found, settings)}; choose "
                "another folder (--out), or replace them (--overwrite)"
            )


def _difference(found: Settings | None, wanted: Settings) -> str:
    """Say in which way settings are not those that are wanted."""
    if found is None:
        return "that do not say with which settings they were made"
    if found.digest != wanted.digest:
        return "of another model"
    differing = [
        f"{_NAMES[name]} {getattr(found, name)} instead of {getattr(wanted, name)}"
        for name in _NAMES
        if getattr(found, name) != getattr(wanted, name)
    ]
    return (
        f"with {' and '.join(differing[:3])}" if differing else "from other starting geometries, or with other limits"
    )


def _summary(folder: Path) -> Summary | None:
    if not (folder / "energies.npz").is_file():
        return None
    try:
        return read_summary(folder / "summary.json")
    except InputError:
        return None  # missing or damaged: the run is made again
