"""The command `python -m ase_flatten.md`."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import typer

from ase_flatten import console


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ase_flatten.md",
        description="Run default and improved models in molecular dynamics and compare their stability.",
        epilog="Example: python -m ase_flatten.md runs/demo --T 300 400",
    )
    parser.add_argument("run", nargs="?", type=Path, help="the run folder [the newest below runs/]")
    parser.add_argument("--T", nargs="+", type=float, default=[300.0, 400.0], metavar="K", help="temperatures, K")
    parser.add_argument("--protocol", default="quick", help="a TOML file, or one of the package's own by name [quick]")
    parser.add_argument("--timestep", type=float, help="time step, fs [the protocol's]")
    parser.add_argument("--steps", type=int, help="steps of each replica [the protocol's]")
    parser.add_argument("--replicas", type=int, help="replicas of each model [the protocol's]")
    parser.add_argument("--engine", choices=["ase"], default="ase", help="what integrates [ase]")
    parser.add_argument("--reference", help="also run this method: tblite:GFN2-xTB or ase:module:factory")
    parser.add_argument("--seed", type=int, default=0, help="seed of velocities and noise [0]")
    parser.add_argument("--strict", action="store_true", help="exit with 1 unless the improved model is stable")
    parser.add_argument("-q", "--quiet", action="store_true", help="show results and errors only")
    parser.add_argument("-v", "--verbose", action="store_true", help="show more of what is done")
    return parser


@console.user_errors
def _run(given: argparse.Namespace) -> None:
    from ase_flatten.md import load_protocol, verdict
    from ase_flatten.md.compare import comparisons
    from ase_flatten.md.validate import validate
    from ase_flatten.run import open_run

    console.set_up_logging(quiet=given.quiet, verbose=given.verbose)
    options = {"timestep_fs": given.timestep, "n_steps": given.steps, "n_replicas": given.replicas}
    protocol = replace(
        load_protocol(given.protocol), **{name: value for name, value in options.items() if value is not None}
    )
    run = open_run(given.run)
    summaries = validate(
        run, given.T, protocol, reference=given.reference, seed=given.seed, progress=console.progress(given.quiet)
    )
    console.table(
        "Total energy, kcal/mol above the data's lowest potential energy",
        ("T, K", "model", "mean", "standard error", "drift per ps", "failed", "stable"),
        [
            (
                f"{summary['temperature_K']:g}", summary["model"], _number(summary["mean_total_energy"]),
                _number(summary["standard_error"]), _number(summary["drift"]),
                f"{summary['n_failed']} of {summary['n_replicas']}", "yes" if summary["stable"] else "no",
            )
            for summary in summaries
        ],
    )  # fmt: skip
    for summary in summaries:
        for reason in summary["reasons"]:
            console.say(f"{summary['temperature_K']:g} K, {summary['model']}, {reason}")
    console.say(verdict(summaries, comparisons(run.folder / "md")))
    console.say(f"energies, trajectories and figures: {run.folder / 'md'}")
    if given.strict and not all(summary["stable"] for summary in summaries if summary["model"] == "improved"):
        raise typer.Exit(1)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    """Run the command line."""
    try:
        _run(_parser().parse_args())
    except typer.Exit as finished:
        sys.exit(finished.exit_code)


if __name__ == "__main__":
    main()
