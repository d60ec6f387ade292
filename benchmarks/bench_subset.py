"""Compare cluster errors from subsets with those of all frames: whether the same clusters are bad, and the cost.

    python benchmarks/bench_subset.py DATASET.npz --seeds 5

Trains an sGDML model, predicts all frames, and estimates the errors of the clusters on subsets with
several seeds. A cluster nearer to the threshold than the resolution of the rule is judged by its
estimate, so the answers may differ; the table shows how near the clusters that differ are.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np

from ase_flatten.clustering.clusters import cluster
from ase_flatten.data.io import read_dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.models import family
from ase_flatten.selection.cluster_errors import by_cluster, frame_errors
from ase_flatten.selection.frame_selection import SelectionRule
from ase_flatten.selection.sampled_errors import SubsetRule, estimate_errors
from ase_flatten.utils import console

N_VALID = 500


def main(given: argparse.Namespace) -> None:
    """Measure and print."""
    console.set_up_logging(quiet=True, verbose=False)
    dataset, rule, factor = read_dataset(given.dataset), SubsetRule(), SelectionRule.factor
    clustering = cluster(dataset, rng=np.random.default_rng(0))
    rng = np.random.default_rng(0)
    trainer, everything = family("sgdml").trainer(sigma=given.sigma), np.arange(dataset.n_frames)
    train_frames = trainer.default_frames(dataset, everything, given.frames, rng=rng)
    rest = np.setdiff1d(everything, train_frames)
    model = trainer.fit(dataset, train_frames, rng.choice(rest, N_VALID, replace=False), rng=rng)
    exact = by_cluster(frame_errors(model, dataset, rest), clustering)
    bad = exact.above(factor)
    distance = np.abs(exact.rmse / (factor * exact.overall_rmse) - 1)
    n_bad_frames = int(exact.counts[bad].sum())
    console.say(
        f"{len(rest)} frames in {clustering.n_clusters} clusters, {len(bad)} of them bad (with {n_bad_frames} frames), "
        f"{np.sum(distance < rule.resolution)} within {rule.resolution:.0%} of the threshold; "
        f"force RMSE {exact.overall_rmse / KCAL_PER_MOL:.3f} kcal/(mol Å)"
    )
    rows = []
    for seed in range(given.seeds):
        errors_of = partial(frame_errors, model, dataset)
        found = estimate_errors(errors_of, clustering, rest, factor=factor, rule=rule, rng=np.random.default_rng(seed))
        clusters = found.clusters
        wrong = np.setxor1d(clusters.above(factor), bad)
        whole = clusters.counts.sum() + np.sum((exact.counts - clusters.counts)[clusters.above(factor)])
        rows.append(
            (
                seed, f"{clusters.counts.sum() / len(rest):.1%}", f"{whole / len(rest):.1%}",
                f"{clustering.n_clusters - len(wrong)} of {clustering.n_clusters}",
                " ".join(f"{value:.1%}" for value in np.sort(distance[wrong])),
                f"{clusters.overall_rmse / KCAL_PER_MOL:.3f} ± {clusters.overall_half_width / KCAL_PER_MOL:.3f}",
            )
        )  # fmt: skip
    heads = (
        "seed",
        "predicted",
        "with all of the bad",
        "same verdict",
        "others' distance to the threshold",
        "force RMSE",
    )
    console.table(f"Estimates, {rule}", heads, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--frames", type=int, default=100, help="frames of the sGDML model [100]")
    parser.add_argument("--sigma", type=float, default=20, help="its length scale [20]")
    parser.add_argument("--seeds", type=int, default=5, help="number of estimates, from seed 0 [5]")
    console.run_command(main, parser.parse_args())
