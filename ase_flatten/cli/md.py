"""The command ``md``, and ``python -m ase_flatten.md``."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ase_flatten.cli.command import DYNAMICS, MODEL, OUTPUT
from ase_flatten.cli.options import Quiet, Verbose
from ase_flatten.utils import console
from ase_flatten.utils.exceptions import InputError, keeping

if TYPE_CHECKING:
    from ase_flatten.md.protocol import Protocol
    from ase_flatten.md.validate import Subject


log = logging.getLogger("ase_flatten.md")


@console.user_errors
def md(
    run: Annotated[Path | None, typer.Argument(help="The run folder [the newest below runs/].")] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            help="Models instead of a run, one or more: model folders or files, schnetpack:FILE:UNIT, tblite:METHOD, "
            "ase:MODULE:FACTORY.",
            metavar="MODEL ...",
            rich_help_panel=MODEL,
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Also run this method, such as tblite:GFN2-xTB or ase:MODULE:FACTORY.",
            metavar="METHOD",
            rich_help_panel=MODEL,
        ),
    ] = None,
    reference_ps: Annotated[
        float | None,
        typer.Option(
            help="Longest time of its replicas, ps [that of the models].", metavar="PS", rich_help_panel=MODEL
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            help="Start from clusters of low energy (clusters), the clusters with the largest errors (worst), or the "
            "minimum.",
            metavar="FROM",
            rich_help_panel=MODEL,
        ),
    ] = "clusters",
    protocol: Annotated[
        str,
        typer.Option(
            help="A TOML file or the name of a protocol, whose settings the following options change; auto runs until "
            "the verdict is decided.",
            metavar="PROTOCOL",
            rich_help_panel=DYNAMICS,
        ),
    ] = "quick",
    temperatures: Annotated[
        list[float] | None,
        typer.Option("--T", help="Temperatures, K [300 400].", metavar="K ...", rich_help_panel=DYNAMICS),
    ] = None,
    timestep: Annotated[
        float | None, typer.Option(help="Time step, fs.", metavar="FS", rich_help_panel=DYNAMICS)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of each replica.", metavar="N", rich_help_panel=DYNAMICS)
    ] = None,
    ps: Annotated[
        float | None,
        typer.Option(
            help="Time of each replica instead of --steps, ps; with auto the longest time.",
            metavar="PS",
            rich_help_panel=DYNAMICS,
        ),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Replicas of each model.", metavar="N", rich_help_panel=DYNAMICS)
    ] = None,
    friction: Annotated[
        float | None, typer.Option(help="Friction of the thermostat, 1/fs.", metavar="F", rich_help_panel=DYNAMICS)
    ] = None,
    thermostat: Annotated[
        str | None,
        typer.Option(
            help="Thermostat after equilibration: langevin, svr, nhc or none.", metavar="NAME", rich_help_panel=DYNAMICS
        ),
    ] = None,
    nve: Annotated[
        float,
        typer.Option(
            help="Also run without a thermostat for this time, ps.",
            metavar="PS",
            show_default=False,
            rich_help_panel=DYNAMICS,
        ),
    ] = 0.0,
    engine: Annotated[
        str,
        typer.Option(
            help="Program that integrates the equations of motion: batched, ase or ipi.",
            metavar="NAME",
            rich_help_panel=DYNAMICS,
        ),
    ] = "batched",
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of velocities and noise.", metavar="N", rich_help_panel=DYNAMICS)
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results [RUN/md, or runs/md for --models].", metavar="DIR", rich_help_panel=OUTPUT
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of other settings.", rich_help_panel=OUTPUT)
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Resume interrupted runs, or restart them from the beginning.", rich_help_panel=OUTPUT)
    ] = True,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 1 unless the improved model's verdict is stable.", rich_help_panel=OUTPUT
        ),
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run models in molecular dynamics and compare their stability.

    Results of the same settings are reused. Those of other settings are kept: such a run is refused without --overwrite
    or another --out.
    """
    from ase_flatten.md import load_protocol, verdict
    from ase_flatten.md.analysis.comparison import comparisons
    from ase_flatten.md.analysis.verdict import HEADS, table
    from ase_flatten.md.results import STABLE
    from ase_flatten.md.validate import Validation, validate

    console.set_up_logging(quiet=quiet, verbose=verbose)
    if reference_ps is not None and reference is None:
        raise InputError("expected --reference METHOD with --reference-ps, found none; name the method")
    if steps is not None and ps is not None:
        raise InputError("expected the length of a replica once, found --steps and --ps; give one of them")
    changes = {
        "timestep_fs": timestep, "n_steps": steps, "n_replicas": replicas, "friction_per_fs": friction,
        "thermostat": thermostat,
    }  # fmt: skip
    validation = Validation(
        temperatures or [300.0, 400.0], _changed(load_protocol(protocol), changes, ps), engine=engine, nve_ps=nve,
        reference=reference, reference_ps=reference_ps, seed=seed,
    )  # fmt: skip
    subject = _subject(run, models or [], start, out)
    again = "the same command" + ("" if resume else " without --no-resume")
    with keeping(f"the trajectories up to now are kept below {subject.folder}; resume with {again}"):
        summaries = validate(
            subject, validation, resume=resume, overwrite=overwrite, progress=console.progress(quiet)
        )  # fmt: skip
    title = "Energies in kcal/mol above the data's lowest, drift of the total energy in kcal/mol/ps, lifetime in ps"
    console.table(title, HEADS, table(summaries))
    for summary in summaries:
        for reason in summary.reasons:
            console.say(f"{summary.temperature_K:g} K, {summary.model}, {reason}")
        if summary.outside_training is not None:
            console.say(
                f"{summary.temperature_K:g} K, {summary.model}: {summary.outside_training:.0%} of the frames lie "
                "outside the training geometries"
            )
    console.say(verdict(summaries, comparisons(subject.folder)))
    console.say(f"energies, trajectories and figures: {subject.folder}")
    if strict and not all(summary.verdict == STABLE for summary in summaries if summary.model == "improved"):
        raise typer.Exit(1)


def _subject(run: Path | None, models: list[str], start: str, out: Path | None) -> "Subject":
    """Return what is run: the models that are named, or those of a run."""
    from ase_flatten.md.validate import Subject
    from ase_flatten.workflow.run_folder import open_run

    if not models:
        found = open_run(run)
        if run is None:
            log.info("no run was given, this takes the newest one: %s", found.folder)
        subject = Subject.of_run(found, start=start)
        return subject if out is None else replace(subject, folder=out)
    if run is not None or start != "clusters":
        raise InputError("expected either a run, or --models without --start, got both; choose one")
    return Subject.of_models(models, out or Path("runs/md"))


def _changed(protocol: "Protocol", changes: dict[str, float | str | None], ps: float | None) -> "Protocol":
    """Return the protocol with the settings that were given."""
    changed = replace(protocol, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]
    return changed if ps is None else changed.lasting(ps)
