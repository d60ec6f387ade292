"""Follow salicylic acid's shared proton, a rare event, through improved training.

    python examples/shared_proton.py examples/data/salicylic_gfn2_500K.npz runs/demo

Prints where the frames with a shared proton rank by the initial model's error, which fine
cluster of the first step holds them, and how the final models treat those that neither has seen.
"""

import sys
from pathlib import Path

import numpy as np

from ase_flatten import PreparedData, read_dataset
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.models.model_folder import load_model
from ase_flatten.selection.cluster_errors import by_cluster, frame_errors
from ase_flatten.selection.fine_cluster_selector import fine_clusters_by_error
from ase_flatten.selection.frame_selection import bad_clusters, candidates_of
from ase_flatten.utils import console
from ase_flatten.utils.typing import IntArray
from ase_flatten.workflow.run_folder import Run

SHARED = 0.3
"""The proton is shared if its distances to donor and acceptor differ by at most this, Å."""

N_FINE = 200
"""Number of fine clusters, as in section III of the paper."""

HYDROGEN, OXYGEN = 1, 8


def shared_proton_frames(dataset: Dataset) -> IntArray:
    """Find the frames in which a proton lies about halfway between two oxygen atoms."""
    hydrogens, oxygens = np.flatnonzero(dataset.numbers == HYDROGEN), np.flatnonzero(dataset.numbers == OXYGEN)
    shared = np.zeros(dataset.n_frames, dtype=bool)
    for hydrogen in hydrogens:
        to_oxygens = np.linalg.norm(dataset.positions[:, oxygens] - dataset.positions[:, [hydrogen]], axis=2)
        nearest = np.sort(to_oxygens, axis=1)
        shared |= (nearest[:, 1] - nearest[:, 0] <= SHARED) & (nearest[:, 1] < 1.6)
    return np.flatnonzero(shared)


def fine_clusters_of_step(run: Run, dataset: Dataset, step: int) -> tuple[IntArray, IntArray, IntArray]:
    """Return the frames of a step's bad clusters, their fine clusters, and the fine clusters from the worst on."""
    saved = load_model(run.step_folder(step))
    rest = np.setdiff1d(np.arange(dataset.n_frames), saved.train_frames)
    errors = frame_errors(saved.model, dataset, rest)
    schedule = run.settings.schedule
    available = np.bincount(run.clustering.labels[rest], minlength=run.clustering.n_clusters)
    clusters = by_cluster(errors, run.clustering)
    bad = bad_clusters(clusters, available, schedule.step_size, schedule.rule.factor)
    data = PreparedData(dataset, run.clustering, run.splits)
    candidates = candidates_of(errors, bad, data, saved.train_frames)
    rng = np.random.default_rng([run.settings.seed, step])
    labels, order = fine_clusters_by_error(candidates, N_FINE, rng=rng)
    return candidates.frames, labels, order


def main(data: Path, folder: Path) -> None:
    """Print the three findings."""
    dataset, run = read_dataset(data), Run(folder)
    shared = shared_proton_frames(dataset)
    say = console.say
    say(f"{len(shared)} of {dataset.n_frames} frames have a shared proton (O-H distances within {SHARED} Å)")

    initial = load_model(run.step_folder(0))
    frames = np.setdiff1d(np.arange(dataset.n_frames), initial.train_frames)
    errors = frame_errors(initial.model, dataset, frames)
    ranks = np.empty(len(frames), dtype=int)
    ranks[np.argsort(-errors.force_mse)] = 1 + np.arange(len(frames))
    mine = np.isin(frames, shared)
    say(f"their ranks by force error of the initial model, of {len(frames)}: {np.sort(ranks[mine]).tolist()}")

    for step in range(run.settings.schedule.n_steps):
        candidates, fine, worst_first = fine_clusters_of_step(run, dataset, step)
        found = [
            f"number {1 + np.flatnonzero(worst_first == label)[0]} by error, "
            f"{np.isin(candidates[fine == label], shared).sum()} of its {np.sum(fine == label)} frames"
            for label in np.unique(fine[np.isin(candidates, shared)])
        ]
        say(
            f"after step {step}, the bad clusters hold {np.isin(candidates, shared).sum()} of them; "
            f"of {len(worst_first)} fine clusters they are in: {'; '.join(found) or 'none'}"
        )

    chosen = load_model(folder / "improved").train_frames
    say(f"trained on: {np.isin(chosen, shared).sum()} by the improved model, "
        f"{np.isin(load_model(folder / 'default').train_frames, shared).sum()} by the default one")  # fmt: skip
    unseen = shared
    for scheme in ("default", "improved"):
        unseen = np.setdiff1d(unseen, load_model(folder / scheme).train_frames)
    for scheme in ("default", "improved"):
        if len(unseen):
            rmse = frame_errors(load_model(folder / scheme).model, dataset, unseen).force_rmse / KCAL_PER_MOL
            numbers = ", ".join(f"{value:.2f}" for value in rmse)
            say(f"{scheme} model, force RMSE on the {len(unseen)} that neither trained on: {numbers} kcal/(mol Å)")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        console.say(__doc__ or "")
        sys.exit(2)
    console.run_command(main, Path(sys.argv[1]), Path(sys.argv[2]))
