"""Compare default and improved models of equal size over several seeds.

    python examples/seeds.py DATASET.npz [DATASET.npz ...] -n 6 -i 200 -s 50 --seeds 2 --out runs/seeds
    python examples/seeds.py DATASET.npz --model gap --preset small -n 4 -i 100 -s 50 --seeds 3

Runs improved training once for each data set and seed (a run that was stopped goes on), and
prints the held-out errors with their mean and spread, and writes them as a table for the documentation.
"""

import argparse
import statistics
from pathlib import Path

from ase_flatten import console
from ase_flatten.evaluation import Curve
from ase_flatten.files import write_text
from ase_flatten.flattening import Schedule
from ase_flatten.io import read_dataset
from ase_flatten.run import RunSettings
from ase_flatten.training import train

QUANTITIES = ("worst", "force_rmse", "energy_rmse")


def compare(
    path: Path, schedule: Schedule, n_seeds: int, out: Path, *, family: str = "sgdml", preset: str | None = None
) -> list[tuple[Curve, Curve]]:
    """Run all seeds on one data set; give the final default and improved errors of each."""
    dataset = read_dataset(path)
    finals = []
    for seed in range(n_seeds):
        folder = out / f"{path.stem}-seed{seed}"
        trainer = {} if preset is None else {"preset": preset}
        settings = RunSettings(family=family, trainer=trainer, schedule=schedule, seed=seed)
        run = train(dataset, folder, settings, resume=True, progress=console.progress(False), source=path.name)
        finals.append(run.evaluation.final)
    return finals


def rows(name: str, finals: list[tuple[Curve, Curve]]) -> list[list[str]]:
    """Give a row for each seed, and the mean and standard deviation of each column."""
    numbers = [
        [getattr(curve, quantity) for quantity in QUANTITIES for curve in (default, improved)]
        for default, improved in finals
    ]
    table = [[f"{name}, seed {seed}", *(f"{value:.3f}" for value in row)] for seed, row in enumerate(numbers)]
    if len(numbers) > 1:
        columns = list(zip(*numbers, strict=True))
        spread = [f"{statistics.mean(column):.3f} ± {statistics.stdev(column):.3f}" for column in columns]
        table.append([f"{name}, mean ± s.d.", *spread])
    return table


def as_rst(title: str, heads: list[str], table: list[list[str]]) -> str:
    """Write a list table of reStructuredText."""
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for cells in (heads, *table):
        lines += [f"   {'* -' if number == 0 else '  -'} {cell}" for number, cell in enumerate(cells)]
    return "\n".join(lines) + "\n"


def main(given: argparse.Namespace) -> None:
    """Run and print."""
    console.set_up_logging(quiet=True, verbose=False)
    schedule = Schedule(n_steps=given.n, n_initial=given.i, step_size=given.s)
    table: list[list[str]] = []
    for path in given.datasets:
        table += rows(
            path.stem, compare(path, schedule, given.seeds, given.out, family=given.model, preset=given.preset)
        )
    heads = ["data"]
    heads += [f"{what}, {scheme}" for what in ("worst", "forces", "energy") for scheme in ("default", "improved")]
    size = schedule.n_train(schedule.n_steps)
    title = (
        f"{given.model} at {size} frames, held-out RMSE: forces (worst cluster, all), kcal/(mol Å); energies, kcal/mol"
    )
    console.table(title, heads, table)
    write_text(given.out / "seeds.rst", as_rst(title, heads, table))
    console.say(f"table: {given.out / 'seeds.rst'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--model", default="sgdml", help="model family [sgdml]")
    parser.add_argument("--preset", help="settings of the family under one name, such as small (gap)")
    parser.add_argument("-n", type=int, default=8, help="steps [8]")
    parser.add_argument("-i", type=int, default=200, help="frames to start with [200]")
    parser.add_argument("-s", type=int, default=100, help="frames a step adds [100]")
    parser.add_argument("--seeds", type=int, default=2, help="how many seeds, from 0 [2]")
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"), help="folder of the runs [runs/seeds]")
    console.run_command(main, parser.parse_args())
