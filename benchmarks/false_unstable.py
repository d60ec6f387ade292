"""Count verdicts on models in molecular dynamics that should be stable.

    python benchmarks/false_unstable.py examples/data/salicylic_gfn2_500K.npz --seeds 3 --dynamics 5

Trains default and improved models (100 frames, from 40 by 3 steps of 20) for several seeds and runs each by the
quick protocol at 300, 400 and 500 K with several seeds of starting velocities and noise. Prints every verdict that is
not "stable" with its reasons, and how many there were of each.
"""

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ase_flatten.data.io import read_dataset
from ase_flatten.md import load_protocol
from ase_flatten.md.results import STABLE
from ase_flatten.md.validate import Subject, Validation, validate
from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils import console
from ase_flatten.workflow.run_folder import RunSettings
from ase_flatten.workflow.train_run import train

TEMPERATURES_K = (300.0, 400.0, 500.0)


def main(given: argparse.Namespace) -> None:
    """Train, run and count."""
    console.set_up_logging(quiet=True, verbose=False)
    dataset, protocol, counts = read_dataset(given.dataset), load_protocol("quick"), Counter[str]()
    for seed in range(given.seeds):
        settings = RunSettings(schedule=Schedule(n_steps=3, n_initial=40, step_size=20), seed=seed, default_draws=1)
        run = train(dataset, given.out / f"seed{seed}", settings, resume=True)
        for dynamics in range(given.dynamics):
            subject = replace(Subject.of_run(run), folder=given.out / f"seed{seed}-dynamics{dynamics}")
            for summary in validate(subject, Validation(TEMPERATURES_K, protocol, seed=dynamics)):
                counts[summary.verdict] += 1
                if summary.verdict != STABLE:
                    what = f"{summary.model}, seed {seed}, dynamics {dynamics}, {summary.temperature_K:g} K"
                    console.say(f"{what}: {summary.verdict}, {'; '.join(summary.why)}")
    console.say(", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--seeds", type=int, default=3, help="seeds of training [3]")
    parser.add_argument("--dynamics", type=int, default=5, help="seeds of dynamics for each [5]")
    parser.add_argument("--out", type=Path, default=Path("runs/false_unstable"), help="folder of the runs")
    console.run_command(main, parser.parse_args())
