"""The command `python -m ase_flatten.md`."""

from ase_flatten.utils.start import starting

with starting():
    import argparse
    import sys
    from dataclasses import replace
    from pathlib import Path

    from ase_flatten.md.engines import ENGINES
    from ase_flatten.md.protocol import THERMOSTATS, Protocol
    from ase_flatten.utils import console
    from ase_flatten.utils.exceptions import InputError, keeping

STARTS = ("clusters", "worst", "minimum")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ase_flatten.md",
        description="Run models in molecular dynamics and compare their stability.",
        epilog="Example: python -m ase_flatten.md runs/demo --T 300 400",
    )
    what = parser.add_argument_group("models")
    what.add_argument("run", nargs="?", type=Path, help="the run folder [the newest below runs/]")
    what.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="models instead of a run: model folders or files, schnetpack:FILE:UNIT, tblite:METHOD, ase:MODULE:FACTORY",
    )
    what.add_argument("--reference", help="also run this method, such as tblite:GFN2-xTB or ase:MODULE:FACTORY")
    what.add_argument("--reference-ps", type=float, help="longest time of its replicas, ps [that of the models]")
    what.add_argument(
        "--start",
        choices=STARTS,
        default=STARTS[0],
        help="start from low-energy clusters, the worst clusters, or the minimum [clusters]",
    )
    what.add_argument("--out", type=Path, help="folder of the results of --models [runs/md]")
    how = parser.add_argument_group("settings (by default those of the protocol)")
    how.add_argument(
        "--protocol",
        default="quick",
        help="a TOML file or the name of a protocol; auto runs until the verdict is decided [quick]",
    )
    how.add_argument("--T", nargs="+", type=float, metavar="K", help="temperatures, K [300 400]")
    how.add_argument("--timestep", type=float, help="time step, fs")
    length = how.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="steps of each replica")
    length.add_argument("--ps", type=float, help="time of each replica, ps; with auto the longest time")
    how.add_argument("--replicas", type=int, help="replicas of each model")
    how.add_argument("--friction", type=float, help="friction of the thermostat, 1/fs")
    how.add_argument("--thermostat", choices=THERMOSTATS, help="thermostat after equilibration")
    how.add_argument(
        "--nve", type=float, default=0.0, metavar="PS", help="also run without a thermostat for this time, ps"
    )
    how.add_argument(
        "--engine",
        choices=list(ENGINES),
        default="batched",
        help="program that integrates the equations of motion [batched]",
    )
    how.add_argument("--seed", type=int, default=0, help="seed of velocities and noise [0]")
    parser.add_argument(
        "--no-resume", action="store_false", dest="resume", help="restart interrupted runs from the beginning"
    )
    parser.add_argument("--resume", action="store_true", default=True, help="resume interrupted runs [default]")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 unless the improved model's verdict is stable",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show results and errors only")
    parser.add_argument("-v", "--verbose", action="store_true", help="show more messages")
    return parser


def _run(given: argparse.Namespace) -> None:
    from ase_flatten.md import load_protocol, verdict
    from ase_flatten.md.analysis.comparison import comparisons
    from ase_flatten.md.analysis.verdict import HEADS, table
    from ase_flatten.md.results import STABLE
    from ase_flatten.md.validate import Subject, Validation, validate
    from ase_flatten.workflow.run_folder import open_run

    console.set_up_logging(quiet=given.quiet, verbose=given.verbose)
    protocol = _changed(load_protocol(given.protocol), given)
    if given.reference_ps is not None and given.reference is None:
        raise InputError("expected --reference METHOD with --reference-ps, found none; name the method")
    if given.models:
        if given.run is not None or given.start != "clusters":
            raise InputError("expected either a run, or --models without --start, got both; choose one")
        subject = Subject.of_models(given.models, given.out or Path("runs/md"))
    else:
        subject = Subject.of_run(open_run(given.run), start=given.start)
    validation = Validation(
        given.T or [300.0, 400.0], protocol, engine=given.engine, nve_ps=given.nve,
        reference=given.reference, reference_ps=given.reference_ps, seed=given.seed,
    )  # fmt: skip
    with keeping(f"the trajectories up to now are kept below {subject.folder}; resume with the same command"):
        summaries = validate(subject, validation, resume=given.resume, progress=console.progress(given.quiet))
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
    if given.strict and not all(summary.verdict == STABLE for summary in summaries if summary.model == "improved"):
        sys.exit(1)


def _changed(protocol: Protocol, given: argparse.Namespace) -> Protocol:
    """Return the protocol with the settings that were given."""
    options = {
        "timestep_fs": given.timestep, "n_steps": given.steps, "n_replicas": given.replicas,
        "friction_per_fs": given.friction, "thermostat": given.thermostat,
    }  # fmt: skip
    changed = replace(protocol, **{name: value for name, value in options.items() if value is not None})
    return changed if given.ps is None else changed.lasting(given.ps)


def main() -> None:
    """Run the command line."""
    console.run_command(_run, _parser().parse_args())


if __name__ == "__main__":
    main()
