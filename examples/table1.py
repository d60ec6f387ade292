"""Make the paper's Table I: default and improved models of a family at 1,000 frames, over several seeds.

    python examples/table1.py --data DIR [--model schnet] [--molecules ethanol] [--seeds 3] [--seeds-of toluene=1]

DIR holds md17_ethanol.npz, md17_uracil.npz, md17_toluene.npz and md17_salicylic.npz (Fonseca et al. 2021
used MD17's own labels). Runs that were stopped are resumed. Prints the held-out errors beside the paper's, with the
spread over seeds and a p value for each measure over seeds (paired t test on the logarithms of improved/default), and
writes them as a table for the documentation.
"""

import argparse
from pathlib import Path

from seeds import HEADS, as_rst, compare, rows

from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils import console
from ase_flatten.utils.atomic_files import write_text
from ase_flatten.utils.exceptions import InputError

PAPER = {
    "sgdml": {
        "uracil": (0.38, 0.32), "salicylic": (0.44, 0.39), "toluene": (0.21, 0.20), "ethanol": (0.51, 0.50),
    },
    "schnet": {
        "uracil": (0.77, 0.65), "salicylic": (0.99, 1.03), "toluene": (0.78, 0.67), "ethanol": (0.57, 0.47),
    },
}  # fmt: skip
"""Overall force RMSE of the default and the improved model in the paper's Table I, kcal/(mol Å)."""

MOLECULES = ["ethanol", "uracil", "toluene", "salicylic"]
"""In order of their cost, so that the first rows appear soon."""


def exceptions(given: list[str]) -> dict[str, int]:
    """Read MOLECULE=SEEDS."""
    found = {}
    for text in given:
        molecule, _, number = text.partition("=")
        if molecule not in MOLECULES or not number.isdigit() or int(number) < 1:
            raise InputError(f"expected MOLECULE=SEEDS with one of {', '.join(MOLECULES)}, got {text!r}")
        found[molecule] = int(number)
    return found


def main(given: argparse.Namespace) -> None:
    """Run, print and write."""
    console.set_up_logging(quiet=True, verbose=False)
    schedule = Schedule(n_steps=given.n, n_initial=given.i, step_size=given.s)
    size = schedule.n_train(schedule.n_steps)
    title = f"{given.model} at {size} frames, held-out errors, mean ± s.d. over seeds: kcal/(mol Å); energies, kcal/mol"
    n_seeds, table = exceptions(given.seeds_of), []
    for molecule in given.molecules:
        path, seeds = given.data / f"md17_{molecule}.npz", n_seeds.get(molecule, given.seeds)
        runs = compare(path, schedule, seeds, given.out, family=given.model, default_draws=given.default_draws)
        before, after = PAPER[given.model][molecule]
        of_molecule = rows(molecule, runs)
        for cells in of_molecule:
            if cells[0].endswith("all frames"):
                cells[0] += f" (paper: {before:.2f} → {after:.2f})"
        table += of_molecule
        write_text(given.out / "table1.rst", as_rst(title, HEADS, table))
    console.table(title, HEADS, table)
    console.say(f"table: {given.out / 'table1.rst'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with md17_*.npz")
    parser.add_argument("--model", choices=PAPER, default="sgdml", help="model family [sgdml]")
    parser.add_argument("--molecules", nargs="+", choices=MOLECULES, default=MOLECULES)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0 [3]")
    parser.add_argument(
        "--seeds-of",
        nargs="+",
        default=[],
        metavar="MOLECULE=SEEDS",
        help="other numbers of seeds for single molecules",
    )
    parser.add_argument("--default-draws", type=int, default=2, help="default training sets of each run [2]")
    parser.add_argument("-n", type=int, default=8, help="steps [8]")
    parser.add_argument("-i", type=int, default=200, help="initial frames [200]")
    parser.add_argument("-s", type=int, default=100, help="frames added in each step [100]")
    parser.add_argument("--out", type=Path, default=Path("runs/table1"), help="folder of the runs [runs/table1]")
    console.run_command(main, parser.parse_args())
