"""Measure how often the 95 % intervals of `ase_flatten.evaluation.claims` contain the true value.

    python benchmarks/bench_coverage.py [RUN DATASET ...] [--simulations 400]

Errors of frames are made up with known truth: lognormal, of moderate (as measured on real molecules) and of heavy
tails, in 30 groups of 20 to 400 held-out frames that are equal, spread, or equal but for one. With a run and its
data, all frames that neither model was trained or validated on are taken as the truth, and held-out sets of the run's
own sizes are drawn from each group of them, with replacement.
"""

import argparse
from pathlib import Path

import numpy as np

from ase_flatten.data.io import read_dataset
from ase_flatten.evaluation.claims import MEASURES, Claims, make_claims
from ase_flatten.evaluation.frame_groups import Groups
from ase_flatten.evaluation.held_out import SCHEMES, HeldoutErrors
from ase_flatten.models.model_folder import load_model
from ase_flatten.selection.cluster_errors import frame_errors
from ase_flatten.utils import console
from ase_flatten.workflow.run_folder import Run

Population = list[np.ndarray]
"""For each group, force RMSE and energy error of both models on its frames, (n_frames, 4)."""

ROWS = (*MEASURES, "single groups")
N_GROUPS = 30
N_TRUE = 20_000


def made_up(kind: str, width: float, rng: np.random.Generator) -> tuple[Population, np.ndarray]:
    """Make frames of known errors: `width` is the standard deviation of ln(MSE) of a frame within its group."""
    sizes = np.exp(rng.uniform(np.log(20), np.log(400), N_GROUPS)).astype(int)
    scales = np.ones((N_GROUPS, 2))
    if kind == "spread":
        scales = np.exp(rng.normal(0, 0.2, (N_GROUPS, 2)))
    elif kind == "one worse":
        scales[0, 0] = 1.6
    groups = []
    for scale in scales:
        common = rng.normal(0, 0.85 * width, N_TRUE)
        mse = np.exp(common[:, None] + rng.normal(0, 0.53 * width, (N_TRUE, 2)))
        rmse = np.sqrt(mse / mse.mean(axis=0)) * scale * [1.0, 0.8]
        groups.append(np.column_stack([rmse, rng.normal(0, 1, (N_TRUE, 2))]))
    return groups, sizes


def measured(run: Run, data: Path) -> tuple[Population, np.ndarray]:
    """Take the errors of the final models on all frames that neither has seen."""
    dataset = read_dataset(data)
    models = [load_model(run.folder / scheme) for scheme in SCHEMES]
    seen = np.concatenate([*(model.train_frames for model in models), run.splits.valid])
    frames = np.setdiff1d(np.arange(dataset.n_frames), seen)
    errors = [frame_errors(model.model, dataset, frames) for model in models]
    columns = [*(one.force_rmse for one in errors), *(one.energy for one in errors)]
    values = np.column_stack(columns)
    of_frame = run.claims.groups.of_cluster[run.clustering.labels[frames]]
    sizes = run.claims.groups.n_heldout
    return [values[of_frame == group] for group in range(len(sizes))], sizes


def held_out(rows: list[np.ndarray], populations: np.ndarray, rng: np.random.Generator, n_resamples: int) -> Claims:
    """Return the claims for these rows of each group."""
    sizes = np.array([len(row) for row in rows])
    values, labels = np.concatenate(rows), np.repeat(np.arange(len(rows)), sizes)
    force, energy = ({scheme: values[:, 2 * kind + place] for place, scheme in enumerate(SCHEMES)} for kind in (0, 1))
    errors = HeldoutErrors(np.arange(len(values)), labels, force, energy)
    groups = Groups(tuple((group,) for group in range(len(rows))), sizes)
    return make_claims(errors, groups, populations, rng=rng, n_resamples=n_resamples)


def coverage(population: Population, sizes: np.ndarray, n_simulations: int, rng: np.random.Generator) -> np.ndarray:
    """Count how often intervals contain the truth, (n_measures + 1, 3): default, improved, ratio; last row: groups."""
    truth = _truth(population, sizes)
    groups = np.array([np.sqrt(np.mean(rows[:, :2] ** 2, axis=0)) for rows in population])
    hits = np.zeros((len(ROWS), 3))
    for _ in range(n_simulations):
        rows = [group[rng.integers(0, len(group), size)] for group, size in zip(population, sizes, strict=True)]
        claims = held_out(rows, sizes, rng, 400)
        for place, name in enumerate(MEASURES):
            estimates = [getattr(claims.of[name], what) for what in (*SCHEMES, "ratio")]
            hits[place] += [one.low <= true <= one.high for one, true in zip(estimates, truth[place], strict=True)]
        for model, scheme in enumerate(SCHEMES):
            low, high = claims.group_interval[scheme]
            hits[-1, model] += np.mean((low <= groups[:, model]) & (groups[:, model] <= high))
        hits[-1, 2] = np.nan
    return hits / n_simulations


def _truth(population: Population, sizes: np.ndarray) -> np.ndarray:
    """Compute the measures over all frames, each group with the weight that it has in the held-out set."""
    values = np.concatenate(population)
    weights = np.concatenate([np.full(len(rows), size / len(rows)) for rows, size in zip(population, sizes)])
    weights /= weights.sum()
    found = []
    for place in range(2):
        rmse, energy = values[:, place], values[:, 2 + place]
        groups = np.array([np.sqrt(np.mean(rows[:, place] ** 2)) for rows in population])
        order = np.argsort(rmse)
        so_far = np.cumsum(weights[order])
        worst = np.clip(so_far - 0.9, 0, weights[order])
        overall = np.sqrt(weights @ rmse**2)
        quantiles = [rmse[order][np.searchsorted(so_far, share)] for share in (0.99, 0.9, 0.5)]
        tenth = np.sqrt(worst @ rmse[order] ** 2 / worst.sum())
        uneven = np.abs(groups - overall) @ (sizes / sizes.sum())
        found.append([groups.max(), tenth, *quantiles, overall, uneven, np.sqrt(weights @ energy**2)])
    default, improved = map(np.array, found)
    return np.column_stack([default, improved, improved / default])


def main(given: argparse.Namespace) -> None:
    """Simulate and print."""
    rng = np.random.default_rng(given.seed)
    cases = {
        f"{kind}, {tails} tails": made_up(kind, width, rng)
        for kind in ("equal", "spread", "one worse")
        for tails, width in (("moderate", 0.5), ("heavy", 0.8))
    }
    for folder, data in zip(given.runs[::2], given.runs[1::2], strict=True):
        cases[folder.name] = measured(Run(folder), data)
    table = []
    for name, (population, sizes) in cases.items():
        found = coverage(population, sizes, given.simulations, rng)
        table += [[name, measure, *(f"{share:.3f}" for share in row)] for measure, row in zip(ROWS, found)]
        console.say(f"{name}: {', '.join(f'{m} {r[0]:.3f}/{r[1]:.3f}/{r[2]:.3f}' for m, r in zip(ROWS, found))}")
    console.table("Coverage of 95 % intervals", ["errors", "measure", *SCHEMES, "ratio"], table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="RUN DATASET, in pairs")
    parser.add_argument("--simulations", type=int, default=400, help="number of simulations [400]")
    parser.add_argument("--seed", type=int, default=0)
    console.run_command(main, parser.parse_args())
