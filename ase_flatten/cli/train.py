"""The command ``train``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from ase_flatten.cli.command import DATA, MODEL, OUTPUT, TRAINING_SET
from ase_flatten.cli.options import (
    Data,
    DataArgument,
    EnergyKey,
    EnergyUnit,
    ForcesKey,
    LengthUnit,
    NEnergy,
    NGeometry,
    Quiet,
    Seed,
    Subset,
    Units,
    Verbose,
    one_path,
    read,
    repeated,
)
from ase_flatten.cli.report import conclude
from ase_flatten.utils import console
from ase_flatten.utils.exceptions import InputError, keeping, printable
from ase_flatten.utils.progress import duration

if TYPE_CHECKING:
    from ase_flatten.selection.flattening import Step
    from ase_flatten.workflow.run_folder import DataFile


@console.user_errors
def train(
    dataset: DataArgument = None,
    data: Data = None,
    model: Annotated[
        str | None, typer.Option(help="Model family: sgdml, schnet or gap [sgdml].", rich_help_panel=MODEL)
    ] = None,
    n_steps: Annotated[
        int | None, typer.Option("-n", "--steps", min=0, help="Steps [8].", rich_help_panel=TRAINING_SET)
    ] = None,
    n_initial: Annotated[
        int | None, typer.Option("-i", "--initial", min=2, help="Initial frames [200].", rich_help_panel=TRAINING_SET)
    ] = None,
    step_size: Annotated[
        int | None,
        typer.Option("-s", "--step-size", min=1, help="Frames added in each step [100].", rich_help_panel=TRAINING_SET),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder [runs/NAME-MODEL-seedN].", rich_help_panel=OUTPUT)
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(help="Share of frames held out to measure errors on [0.2].", rich_help_panel=TRAINING_SET),
    ] = None,
    test: Annotated[
        Path | None,
        typer.Option(
            help="External test set of the same molecule, on which both final models are judged.", rich_help_panel=DATA
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            help="Selector of the frames to add: largest-error, population, centroid, random, farthest-point, or one "
            "of another package [largest-error].",
            rich_help_panel=TRAINING_SET,
        ),
    ] = None,
    pick: Annotated[
        str | None,
        typer.Option(
            help="Frame taken first from a fine cluster: largest-error, centroid or random [largest-error].",
            rich_help_panel=TRAINING_SET,
        ),
    ] = None,
    share: Annotated[
        str | None,
        typer.Option(
            help="Frames taken from a fine cluster: one, or by population [one].", rich_help_panel=TRAINING_SET
        ),
    ] = None,
    n_fine: Annotated[
        int | None, typer.Option(min=1, help="Fine clusters [twice the step size].", rich_help_panel=TRAINING_SET)
    ] = None,
    factor: Annotated[
        float | None,
        typer.Option(
            help="Clusters are bad above this multiple of the overall error [1.1].", rich_help_panel=TRAINING_SET
        ),
    ] = None,
    protocol: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with the settings of a run; options given here override it.", rich_help_panel=TRAINING_SET
        ),
    ] = None,
    subset: Subset = None,
    quarantine: Annotated[
        str | None,
        typer.Option(
            help="Set aside frames with contradicted labels: on, off, or a FILE that lists frames [on].",
            rich_help_panel=TRAINING_SET,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="A named set of the family's settings, such as small for a laptop (gap, schnet).",
            rich_help_panel=MODEL,
        ),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE, a setting of the family, such as sigma=20.", rich_help_panel=MODEL),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            help="Resume a run with its own data and settings; with no other argument, the newest one.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    default_draws: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Default training sets of the final size [4, or 1 if training is slow].",
            rich_help_panel=TRAINING_SET,
        ),
    ] = None,
    n_geometry: NGeometry = None,
    n_energy: NEnergy = None,
    strict: Annotated[
        bool,
        typer.Option(
            help="Exit with 1 unless the improved model is better in the worst group beyond noise.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    units: Units = "kcal/mol",
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train an improved and a default model of equal size.

    Both are compared on held-out frames, and a report is written.
    """
    from dataclasses import asdict, astuple, replace

    from ase_flatten.checking.check import WRONG_LABELS, check_up
    from ase_flatten.data.units import output_units
    from ase_flatten.evaluation.claims import BETTER
    from ase_flatten.report.page import verdict_sentences, write_report
    from ase_flatten.selection.quarantine import quick_models_of
    from ase_flatten.workflow.plan import plan_run
    from ase_flatten.workflow.run_folder import DataFile, Run, RunSettings, read_protocol
    from ase_flatten.workflow.test_set import TestSet, agreed_test_set
    from ase_flatten.workflow.time_left import TimeTable
    from ase_flatten.workflow.train_run import train as train_run

    console.set_up_logging(quiet=quiet, verbose=verbose)
    unit, progress = output_units(units), console.progress(quiet)
    base = read_protocol(protocol) if protocol else RunSettings()
    if resume and dataset is None and data is None:
        folder, file = _resumed(out)
        if out is None and not quiet:
            console.say(f"resuming the newest run, {folder}")
        path = Path(file.path)
    else:
        path = one_path(dataset, data)
        folder = out or Path("runs") / f"{path.stem}-{model or base.family}-seed{base.seed if seed is None else seed}"
        file = DataFile(path=str(path.resolve()))
        if resume:
            file = _as_read_before(folder, file)
    file = _changed(
        file, energy_unit=energy_unit, length_unit=length_unit, energy_key=energy_key, forces_key=forces_key
    )
    if protocol is None and resume and (folder / "run.json").exists():
        base = Run(folder).settings
    rule = base.schedule.rule.changed(select=select, pick=pick, share=share, n_fine=n_fine, factor=factor)
    schedule = _changed(base.schedule, n_steps=n_steps, n_initial=n_initial, step_size=step_size, rule=rule)
    settings = _changed(
        base, family=model, schedule=schedule, holdout=holdout, seed=seed, subset=subset, default_draws=default_draws,
        n_geometry=n_geometry, n_energy=n_energy,
        quarantine=_quarantine(quarantine), trainer={**base.trainer, **_settings(setting, preset)},
    )  # fmt: skip
    content = read(**{**asdict(file), "path": path})
    test_set = None
    if test is not None:
        test_file = replace(file, path=str(test.resolve()))
        test_set = TestSet(read(**asdict(test_file)), test_file)
    test_set = agreed_test_set(Run(folder), content, test_set, resume=resume)
    planned = plan_run(content, settings)
    times = TimeTable(planned, content)
    if not quiet:
        console.say(f"{planned.describe(content)}{_about(times.in_total())}; results: {folder}")
    quick_models = quick_models_of(content, progress=progress)
    rng = np.random.default_rng(settings.seed)
    found = check_up(content, rng=rng, quick_models=quick_models, progress=progress)
    refused = [one for one in found.refused if settings.quarantine == "on" or one.what != WRONG_LABELS]
    if refused:
        command = f"ase-flatten clean {repeated(path, *astuple(file)[1:])} -o CLEAN"
        way_out = "" if found.whole_set else f"; or leave those frames out with: {command}"
        raise InputError(f"{refused[0].message}{way_out}")

    def tell(step: "Step") -> None:
        if not quiet:
            overall, worst = step.errors.overall_rmse, step.errors.rmse[step.errors.worst]
            seconds = sum(step.seconds.values())
            console.say(
                f"step {step.number} of {schedule.n_steps}: {len(step.train_frames)} frames, force RMSE "
                f"{overall * unit.scale:.3f}, worst cluster {worst * unit.scale:.3f} {unit.force} "
                f"({duration(seconds)}{_about(times.left_after(Run(folder).history), ' left')})"
            )

    with keeping(lambda: _how_to_go_on(folder)):
        run = train_run(
            content, folder, settings, resume=resume, on_step=tell, quick_models=quick_models, progress=progress,
            units=unit, file=file, test=test_set,
        )  # fmt: skip
        page = write_report(run, units=unit)
    conclude(page, verdict_sentences(run, units=unit))
    if strict and run.claims.of["worst_group"].verdict != BETTER:
        raise typer.Exit(1)


def _resumed(out: Path | None) -> "tuple[Path, DataFile]":
    """Return the run folder to resume and the file of its data set; without a folder, those of the newest run."""
    from dataclasses import astuple

    from ase_flatten.workflow.run_folder import open_run

    run = open_run(out)
    file = run.info.dataset.file
    declared = (None,) * 4 if file is None else astuple(file)[1:]
    how = f"give the data set: ase-flatten train {repeated(Path('DATASET'), *declared)} --resume --out {run.folder}"
    if file is None:
        raise InputError(
            f"expected the file of the data set in {run.folder}/run.json, found none there, as in runs that were begun "
            f"from Python or by an earlier version; {how}"
        )
    if not Path(file.path).exists():
        raise InputError(f"expected the data set of {run.folder} in {printable(file.path)}, found no such file; {how}")
    return run.folder, file


def _as_read_before(folder: Path, file: "DataFile") -> "DataFile":
    """Return the same file with the units that a run read it with, if it did."""
    from ase_flatten.workflow.run_folder import Run

    before = Run(folder).info.dataset.file if (folder / "run.json").exists() else None
    return before if before is not None and before.path == file.path else file


def _how_to_go_on(folder: Path) -> str:
    """Return what is kept of a training that is stopped, and what to type to resume it."""
    if not (folder / "run.json").exists():
        return "nothing was written; repeat the same command"
    return f"finished steps are kept; go on with: ase-flatten train --resume --out {folder}"


def _about(seconds: float | None, what: str = "") -> str:
    """Return an estimated time, after a comma; nothing if there is no estimate."""
    return "" if seconds is None else f", about {duration(max(1, seconds))}{what}"


def _changed(base: Any, **changes: Any) -> Any:
    """Replace the fields of a settings object that were given."""
    from dataclasses import replace

    return replace(base, **{name: value for name, value in changes.items() if value is not None})


def _quarantine(asked: str | None) -> str | tuple[int, ...] | None:
    """Read a list of frames unless on, off or nothing is asked for."""
    from ase_flatten.selection.quarantine import read_frame_list

    return asked if asked in (None, "on", "off") else read_frame_list(Path(asked))


def _settings(pairs: list[str] | None, preset: str | None) -> dict[str, Any]:
    """Read NAME=VALUE pairs, values as JSON where possible and as text otherwise."""
    settings: dict[str, Any] = {} if preset is None else {"preset": preset}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"expected NAME=VALUE after --set, got {pair!r}")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings
