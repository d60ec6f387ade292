"""The command `python -m ase_flatten.md`."""

from ase_flatten.utils.start import starting

with starting():
    import argparse
    import sys
    from dataclasses import replace
    from pathlib import Path

    from ase_flatten.md.engines import ENGINES
    from ase_flatten.md.protocol import THERMOSTATS, Protocol
    from ase_flatten.models.reference_methods import is_reference
    from ase_flatten.utils import console
    from ase_flatten.utils.exceptions import InputError

STARTS = ("clusters", "worst", "minimum")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ase_flatten.md",
        description="Run models in molecular dynamics and compare their stability.",
        epilog="Example: python -m ase_flatten.md runs/demo --T 300 400",
    )
    what = parser.add_argument_group("what is run")
    what.add_argument("run", nargs="?", type=Path, help="the run folder [the newest below runs/]")
    what.add_argument(
        "--models",
        nargs="+",
        type=_model,
        metavar="DIR",
        help="model folders, tblite:METHOD or ase:module:factory, instead of a run",
    )
    what.add_argument("--reference", help="also run this method: tblite:GFN2-xTB or ase:module:factory")
    what.add_argument("--reference-ps", type=float, help="its time at most, ps [as the models]")
    what.add_argument("--start", choices=STARTS, default=STARTS[0], help="from low clusters, the worst, or the minimum")
    what.add_argument("--out", type=Path, help="folder of the results of --models [runs/md]")
    how = parser.add_argument_group("how (without these, as the protocol says)")
    how.add_argument(
        "--protocol", default="quick", help="a TOML file or a name: quick; auto runs on until it is decided [quick]"
    )
    how.add_argument("--T", nargs="+", type=float, metavar="K", help="temperatures, K [300 400]")
    how.add_argument("--timestep", type=float, help="time step, fs")
    length = how.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="steps of each replica")
    length.add_argument("--ps", type=float, help="time of each replica, ps; with auto at most")
    how.add_argument("--replicas", type=int, help="replicas of each model")
    how.add_argument("--friction", type=float, help="friction of the thermostat, 1/fs")
    how.add_argument("--thermostat", choices=THERMOSTATS, help="from time zero on")
    how.add_argument(
        "--nve", type=float, default=0.0, metavar="PS", help="run so long without a thermostat besides, ps"
    )
    how.add_argument("--engine", choices=list(ENGINES), default="batched", help="what integrates [batched]")
    how.add_argument("--seed", type=int, default=0, help="seed of velocities and noise [0]")
    parser.add_argument("--no-resume", action="store_false", dest="resume", help="begin anew what was stopped")
    parser.add_argument("--resume", action="store_true", default=True, help="go on with what was stopped [it does]")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 unless the improved model's verdict is stable",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show results and errors only")
    parser.add_argument("-v", "--verbose", action="store_true", help="show more of what is done")
    return parser


def _run(given: argparse.Namespace) -> None:
    from ase_flatten.md import load_protocol, verdict
    from ase_flatten.md.analysis.comparison import comparisons
    from ase_flatten.md.analysis.stability import STABLE, verdict_of
    from ase_flatten.md.analysis.verdict import HEADS, table
    from ase_flatten.md.validate import Subject, validate
    from ase_flatten.workflow.run_folder import open_run

    console.set_up_logging(quiet=given.quiet, verbose=given.verbose)
    protocol = _changed(load_protocol(given.protocol), given)
    if given.reference_ps is not None and given.reference is None:
        raise InputError("expected --reference METHOD with --reference-ps, found none; name the method")
    if given.models:
        if given.run is not None or given.start != "clusters":
            raise InputError("expected a run or --models, which start from their training geometries, got more; choose")
        subject = Subject.of_models(given.models, given.out or Path("runs/md"))
    else:
        subject = Subject.of_run(open_run(given.run), start=given.start)
    summaries = validate(
        subject, given.T or [300.0, 400.0], protocol, engine=given.engine, nve_ps=given.nve,
        reference=given.reference, reference_ps=given.reference_ps, seed=given.seed, resume=given.resume,
        progress=console.progress(given.quiet),
    )  # fmt: skip
    title = "Energies in kcal/mol above the data's lowest, drift of the total energy in kcal/mol/ps, lifetime in ps"
    console.table(title, HEADS, table(summaries))
    for summary in summaries:
        for reason in summary["reasons"]:
            console.say(f"{summary['temperature_K']:g} K, {summary['model']}, {reason}")
    console.say(verdict(summaries, comparisons(subject.folder)))
    console.say(f"energies, trajectories and figures: {subject.folder}")
    if given.strict and not all(
        verdict_of(summary) == STABLE for summary in summaries if summary["model"] == "improved"
    ):
        sys.exit(1)


def _model(text: str) -> str | Path:
    return text if is_reference(text) else Path(text)


def _changed(protocol: Protocol, given: argparse.Namespace) -> Protocol:
    """Change a protocol by what was given."""
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
