"""Compare default and improved models of equal size over several seeds.

    python examples/seeds.py DATASET.npz [DATASET.npz ...] -n 6 -i 200 -s 50 --seeds 2 --out runs/seeds
    python examples/seeds.py DATASET.npz --model gap --preset small -n 4 -i 100 -s 50 --seeds 3

Runs improved training once for each data set and seed; runs that were stopped are resumed. Prints the held-out
errors, their mean and spread over seeds, and a p value for each measure over seeds (paired t test on the logarithms of
improved/default), and writes them as a table for the documentation.
"""

import argparse
from pathlib import Path

from ase_flatten.data.io import read_dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.evaluation.claims import Claims
from ase_flatten.evaluation.several_runs import OverRuns, mean_and_spread, over_runs
from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils import console
from ase_flatten.utils.atomic_files import write_text
from ase_flatten.workflow.run_folder import RunSettings
from ase_flatten.workflow.train_run import train

MEASURES = {
    "worst_group": "worst group", "quantile_99": "99 % quantile", "worst_tenth": "worst tenth", "median": "median",
    "overall": "all frames", "unevenness": "unevenness", "energy": "energy",
}  # fmt: skip

HEADS = ["data, measure", "default", "default draws", "improved", "ratio", "better in", "p over seeds", "verdicts"]


def compare(
    path: Path,
    schedule: Schedule,
    n_seeds: int,
    out: Path,
    *,
    family: str = "sgdml",
    preset: str | None = None,
    default_draws: int | None = None,
) -> list[Claims]:
    """Run all seeds on one data set, and return the claims on the held-out errors of each run."""
    dataset = read_dataset(path)
    trainer = {} if preset is None else {"preset": preset}
    found = []
    for seed in range(n_seeds):
        settings = RunSettings(
            family=family, trainer=trainer, schedule=schedule, seed=seed, default_draws=default_draws
        )
        folder = out / f"{path.stem}-seed{seed}"
        run = train(dataset, folder, settings, resume=True, progress=console.progress(False), source=path.name)
        found.append(run.claims)
    return found


def rows(name: str, runs: list[Claims]) -> list[list[str]]:
    """Return a row for each measure: mean and standard deviation over seeds, p over seeds, and verdicts."""
    table = []
    for measure, words in MEASURES.items():
        verdicts = [run.of[measure].verdict for run in runs]
        counted = ", ".join(f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts))
        table.append([f"{name}, {words}", *cells(over_runs(runs, measure)), counted])
    return table


def cells(found: OverRuns) -> list[str]:
    """Format default, range of draws, improved, ratio, the number of runs in which improved is smaller, and p."""
    return [
        mean_and_spread(found.default / KCAL_PER_MOL),
        f"{found.draws.min() / KCAL_PER_MOL:.3f} to {found.draws.max() / KCAL_PER_MOL:.3f} ({len(found.draws)})",
        mean_and_spread(found.improved / KCAL_PER_MOL),
        mean_and_spread(found.ratios, 2),
        f"{found.n_better} of {len(found.default)}",
        "–" if found.p_value is None else f"{found.p_value:.2g}",
    ]


def as_rst(title: str, heads: list[str], table: list[list[str]]) -> str:
    """Format a list table in reStructuredText."""
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
        runs = compare(
            path, schedule, given.seeds, given.out, family=given.model, preset=given.preset,
            default_draws=given.default_draws,
        )  # fmt: skip
        table += rows(path.stem, runs)
    size = schedule.n_train(schedule.n_steps)
    title = (
        f"{given.model} at {size} frames, held-out errors, mean ± s.d. over {given.seeds} seeds: "
        "forces, kcal/(mol Å); energies, kcal/mol"
    )
    console.table(title, HEADS, table)
    write_text(given.out / "seeds.rst", as_rst(title, HEADS, table))
    console.say(f"table: {given.out / 'seeds.rst'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--model", default="sgdml", help="model family [sgdml]")
    parser.add_argument("--preset", help="named set of the family's settings, such as small (gap)")
    parser.add_argument("-n", type=int, default=8, help="steps [8]")
    parser.add_argument("-i", type=int, default=200, help="initial frames [200]")
    parser.add_argument("-s", type=int, default=100, help="frames added in each step [100]")
    parser.add_argument("--default-draws", type=int, help="default training sets of each run [4, 1 for long trainings]")
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds, from 0 [2]")
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"), help="folder of the runs [runs/seeds]")
    console.run_command(main, parser.parse_args())
