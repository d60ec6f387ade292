"""Show whether the verdict of a run depends on its clusters: clusterings of the whole data set.

The held-out errors of a finished run are collected again under other clusterings of the same data: other seeds,
other subsets for Ward linkage, more and fewer geometric clusters, the other rules of assignment. Nothing is
trained or predicted. Below 1, the improved model is better. `ase_flatten.evaluation.other_clusterings` does the same
in seconds for every run, with clusterings of the held-out frames alone.

    python benchmarks/clustering_robustness.py DATASET RUN
"""

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_rand_score

from ase_flatten.clustering.clusters import Clustering, cluster
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.workflow.run_folder import Run

LEAST = 20
"""Least number of held-out frames of a cluster that is judged."""

SCHEMES = ("default", "improved")


def clusterings(dataset: Dataset, n_ward: int) -> Iterator[tuple[str, Clustering]]:
    """Yield ten clusterings, each with what is different about it."""
    choices: list[tuple[str, dict[str, Any]]] = [
        ("other seed", {}),
        ("other seed", {}),
        ("other seed", {}),
        ("a subset of half", {"n_ward": n_ward // 2}),
        ("a subset of a fifth", {"n_ward": n_ward // 5}),
        ("5 geometries", {"n_geometry": 5}),
        ("20 geometries", {"n_geometry": 20}),
        ("no split by energy", {"n_energy": 1}),
        ("10 energies", {"n_energy": 10}),
        ("assigned by Ward's rule", {"assignment": "ward"}),
    ]
    for seed, (what, settings) in enumerate(choices, start=1):
        yield what, cluster(dataset, rng=np.random.default_rng(1000 + seed), **{"n_ward": n_ward, **settings})


def worst(labels: np.ndarray, force_rmse: np.ndarray) -> float:
    """Return the force RMSE of the worst cluster that has enough frames."""
    counts = np.bincount(labels)
    squares = np.bincount(labels, weights=force_rmse**2)
    return float(np.sqrt((squares[counts >= LEAST] / counts[counts >= LEAST]).max()))


def main() -> None:
    """Print one row per clustering, and the spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("run", type=Path)
    arguments = parser.parse_args()
    dataset, run = read_dataset(arguments.dataset), Run(arguments.run)
    with np.load(run.folder / "heldout_errors.npz", allow_pickle=False) as archive:
        frames, errors = archive["frames"], {scheme: archive[f"force_rmse_{scheme}"] for scheme in SCHEMES}
    n_ward = min(run.settings.n_ward, dataset.n_frames)
    ratios = []
    print(f"worst cluster of at least {LEAST} of {len(frames)} held-out frames, kcal/(mol Å)")
    print(f"{'clusters':26s} {'agreement':>9s} {'default':>8s} {'improved':>8s} {'ratio':>6s}")
    for what, found in chain([("of the run", run.clustering)], clusterings(dataset, n_ward)):
        values = [worst(found.labels[frames], errors[scheme]) for scheme in SCHEMES]
        ratios.append(values[1] / values[0])
        agreement = adjusted_rand_score(run.clustering.labels, found.labels)
        print(f"{what:26s} {agreement:9.2f} {values[0]:8.3f} {values[1]:8.3f} {ratios[-1]:6.3f}", flush=True)
    others = np.array(ratios[1:])
    print(f"ratio of the run {ratios[0]:.3f}; of the others {others.mean():.3f} ± {others.std(ddof=1):.3f}, ", end="")
    print(f"{others.min():.3f} to {others.max():.3f}; improved better in {np.sum(others < 1)} of {len(others)}")
    measures = {
        "all frames": lambda values: np.sqrt(np.mean(values**2)),
        "90 % quantile": lambda values: np.quantile(values, 0.9),
        "99 % quantile": lambda values: np.quantile(values, 0.99),
        "mean of the worst tenth": lambda values: np.sort(values)[-len(values) // 10 :].mean(),
    }
    print("without clusters:")
    for what, measure in measures.items():
        values = [float(measure(errors[scheme])) for scheme in SCHEMES]
        print(f"{what:36s} {values[0]:8.3f} {values[1]:8.3f} {values[1] / values[0]:6.3f}")


if __name__ == "__main__":
    main()
