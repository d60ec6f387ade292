"""Compare default and improved models of equal size in molecular dynamics, over several seeds (Figure 8 of the paper).

    python examples/stability.py DATASET.npz -n 5 -i 50 -s 30 --seeds 3 --T 300 400 500 --ps 10 --replicas 16

Trains both models for each seed and runs them (what was stopped goes on, what was finished is taken as it is).
Prints for each temperature how many replicas lasted, for how long in all, and what their energies say, and writes
that as a table for the documentation. ``--reference tblite:GFN2-xTB`` runs the reference method as well.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from seeds import as_rst

from ase_flatten import console
from ase_flatten.files import write_text
from ase_flatten.flattening import Schedule
from ase_flatten.io import read_dataset
from ase_flatten.md import load_protocol
from ase_flatten.md.validate import Subject, validate
from ase_flatten.run import RunSettings
from ase_flatten.training import train

HEADS = ["T, K", "seed", "model", "lasted", "time in all, ps", "mean energy, kcal/mol", "first failure"]


def row(summary: dict[str, Any], seed: int | str) -> list[str]:
    """Write one run: its replicas, the time that they lasted, and their energies."""
    whole = summary["n_steps"] * summary["timestep_fs"] / 1000
    times = [max(failure["time_ps"], 0.0) for failure in summary["failures"]]
    n_lasting = summary["n_replicas"] - len(times)
    energy = ""
    if summary["mean_total_energy"] is not None:
        energy = f"{summary['mean_total_energy']:.2f} ± {summary['standard_error'] or np.nan:.2f}"
    first = min(summary["failures"], key=lambda failure: failure["step"], default=None)
    return [
        f"{summary['temperature_K']:g}",
        str(seed),
        summary["model"],
        f"{n_lasting} of {summary['n_replicas']}",
        f"{sum(times) + n_lasting * whole:.1f}",
        energy,
        f"{max(first['time_ps'], 0.0):.2f} ps: {first['reason']}" if first else "",
    ]


def main(given: argparse.Namespace) -> None:
    """Train, run, print and write."""
    console.set_up_logging(quiet=True, verbose=False)
    dataset, progress = read_dataset(given.dataset), console.progress(False)
    schedule = Schedule(n_steps=given.n, n_initial=given.i, step_size=given.s)
    protocol = load_protocol("quick")
    protocol = replace(protocol, n_steps=round(given.ps * 1000 / protocol.timestep_fs), n_replicas=given.replicas)
    table = []
    for seed in range(given.seeds):
        settings = RunSettings(schedule=schedule, seed=seed, trainer={"sigma": given.sigma} if given.sigma else {})
        run = train(
            dataset, given.out / f"{given.dataset.stem}-seed{seed}", settings, resume=True, progress=progress,
            source=given.dataset.name,
        )  # fmt: skip
        summaries = validate(
            Subject.of_run(run), given.T, protocol, seed=seed, progress=progress,
            reference=given.reference if seed == 0 else None,
        )  # fmt: skip
        table += [row(summary, seed) for summary in summaries]
    table.sort(key=lambda cells: (float(cells[0]), cells[2], cells[1]))
    title = (
        f"{dataset.formula}, {schedule.n_train(schedule.n_steps)} frames: {given.replicas} replicas of {given.ps:g} ps "
        f"at {protocol.timestep_fs:g} fs"
    )
    console.table(title, HEADS, table)
    write_text(given.out / "stability.rst", as_rst(title, HEADS, table))
    console.say(f"table: {given.out / 'stability.rst'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-n", type=int, default=5, help="steps [5]")
    parser.add_argument("-i", type=int, default=50, help="frames to start with [50]")
    parser.add_argument("-s", type=int, default=30, help="frames a step adds [30]")
    parser.add_argument("--sigma", type=float, help="length scale [chosen on validation frames]")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 [3]")
    parser.add_argument("--T", type=float, nargs="+", default=[300.0, 400.0, 500.0], help="K [300 400 500]")
    parser.add_argument("--ps", type=float, default=10.0, help="time of each replica [10]")
    parser.add_argument("--replicas", type=int, default=16, help="replicas of each model [16]")
    parser.add_argument("--reference", help="also run this method, with the first seed: tblite:GFN2-xTB")
    parser.add_argument("--out", type=Path, default=Path("runs/stability"), help="folder of the runs [runs/stability]")
    console.run_command(main, parser.parse_args())
