"""Calibrate the extrapolation of the calculators: on frames with large errors, on the others, on stretched bonds.

    python benchmarks/bench_extrapolation.py DATA.npz --frames 100 --set sigma=20 [--family F] [--dynamics CALC]

Trains a model by the default scheme of its family, and compares three signals with the errors on held-out
frames:

old     the distance to the nearest training geometry over the largest such distance within the training set, with equal
        weights of all pair distances: the former definition;
95, 99  the present definition with its units at the 95 % and the 99 % quantile of the training geometries; the
        calculators use 95.

Then bonds outside rings are stretched in unseen frames by moving the end with fewer atoms, and the frames with a signal
above 1 are counted. With ``--dynamics CALC``, geometries of the model's own dynamics at 400 K are compared with that
calculator as well, with the same held-out RMSE.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import rankdata, spearmanr

from ase_flatten.calculators import load_calculator
from ase_flatten.clustering.clusters import Clustering
from ase_flatten.clustering.splits import split
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.geometry.bonds import bonded_pairs
from ase_flatten.geometry.extrapolation import training_region
from ase_flatten.geometry.pair_distances import pair_distances, pair_permutation, squared_distances
from ase_flatten.md.engines import make_engine
from ase_flatten.md.protocol import Protocol
from ase_flatten.models import Model, family
from ase_flatten.models.model_folder import save_model
from ase_flatten.selection.cluster_errors import frame_errors
from ase_flatten.utils import console
from ase_flatten.utils.typing import FloatArray, IntArray

N_TESTED, N_STRETCHED = 2000, 20
STRETCHES = (("X-H by 0.3 Å", 0.3, True), ("X-H by 0.5 Å", 0.5, True), ("others by 0.3 Å", 0.3, False))
REPLICAS, STEPS, EVERY = 8, 1000, 200

Signal = Callable[[FloatArray], FloatArray]


def main(given: argparse.Namespace) -> None:
    """Train, measure and print."""
    console.set_up_logging(quiet=True, verbose=False)
    for path in given.data:
        dataset = read_dataset(path)
        everything = Clustering(np.zeros(dataset.n_frames, dtype=np.int64))
        splits = split(everything, pair_distances(dataset.positions), rng=np.random.default_rng(given.seed))
        rng = np.random.default_rng(given.seed)
        trainer = family(given.family).trainer(**dict(given.set))
        train_frames = trainer.default_frames(dataset, splits.pool, given.frames, rng=rng)
        start = time.perf_counter()
        model = trainer.fit(dataset, train_frames, splits.valid[:300], rng=rng)
        seconds = time.perf_counter() - start
        tested = np.sort(rng.choice(splits.heldout, min(N_TESTED, len(splits.heldout)), replace=False))
        error = frame_errors(model, dataset, tested).force_rmse
        rmse = float(np.sqrt(np.mean(error**2)))
        training = dataset.positions[train_frames]
        console.say(
            f"{path.stem}, {given.family}, {given.frames} frames, {len(model.permutations)} permutations, trained in "
            f"{seconds:.0f} s: force RMSE {rmse / KCAL_PER_MOL:.2f} kcal/(mol Å) on {len(tested)} held-out frames, "
            f"{np.sum(error > 2 * rmse)} above twice that"
        )
        measured = list(signals(training, model))
        unseen = dataset.positions[tested]
        table(f"{path.stem}, {given.family}: held-out frames", measured, unseen, error, rmse)
        stretched(f"{path.stem}, {given.family}", measured, dataset, rng.permutation(unseen)[:N_STRETCHED])
        if given.dynamics:
            positions = dynamics(model, dataset, train_frames, given)
            true = reference_errors(model, dataset, positions, given.dynamics)
            table(f"{path.stem}, {given.family}: its own dynamics, 400 K", measured, positions, true, rmse)
        look(measured[-1][1], unseen, training, model)


def signals(training: FloatArray, model: Model) -> Iterator[tuple[str, Signal]]:
    """Return the signals by name."""
    yield "old", largest_gap_signal(training, model)
    for quantile in (0.95, 0.99):
        region = training_region(training, model.permutations, quantile=quantile)
        assert region is not None
        yield f"{100 * quantile:.0f}", region.extrapolation


def largest_gap_signal(training: FloatArray, model: Model) -> Signal:
    """Return the signal of the former definition."""
    distances = pair_distances(training)
    images = [pair_permutation(permutation) for permutation in model.permutations]
    gaps = np.full(len(distances), np.inf)
    for image in images:
        squared = squared_distances(distances[:, image], distances)
        np.fill_diagonal(squared, np.inf)
        np.minimum(gaps, squared.min(axis=1), out=gaps)

    def signal(positions: FloatArray) -> FloatArray:
        found = pair_distances(positions)
        nearest = [squared_distances(found[:, image], distances).min(axis=1) for image in images]
        return np.asarray(np.sqrt(np.min(nearest, axis=0) / gaps.max()))

    return signal


def table(
    title: str, measured: list[tuple[str, Signal]], positions: FloatArray, error: FloatArray, rmse: float
) -> None:
    """Print how well the signals tell frames with errors above twice the RMSE from the others."""
    wrong = error > 2 * rmse
    rows = []
    for name, signal in measured:
        values = signal(positions)
        above = values > 1
        rows.append(
            (
                name, share(above[wrong]), share(~above[~wrong]), share(values > 2), f"{auc(values, wrong):.2f}",
                f"{spearmanr(values, error).statistic:.2f}",
            )
        )  # fmt: skip
    heads = ("signal", f"above 1, of {wrong.sum()} wrong", f"at most 1, of {np.sum(~wrong)} others", "above 2, of all",
             "AUC", "Spearman")  # fmt: skip
    console.table(title, heads, rows)


def share(mask: np.ndarray) -> str:
    """Format the share of the frames, or a dash if there are none."""
    return f"{mask.mean():.1%}" if len(mask) else "-"


def auc(values: FloatArray, wrong: np.ndarray) -> float:
    """Compute the probability that a wrong frame has a larger signal than another one."""
    n_wrong = int(wrong.sum())
    if not 0 < n_wrong < len(wrong):
        return float("nan")
    ranks = rankdata(values)[wrong].sum() - n_wrong * (n_wrong + 1) / 2
    return float(ranks / (n_wrong * (len(wrong) - n_wrong)))


def stretched(title: str, measured: list[tuple[str, Signal]], dataset: Dataset, positions: FloatArray) -> None:
    """Print the share of stretched geometries above 1, and the median of the signal."""
    rows = []
    for what, by, hydrogen in STRETCHES:
        moved = [stretch(positions, bond, by) for bond in acyclic_bonds(dataset, hydrogen)]
        if not moved:
            continue
        values = [signal(np.concatenate(moved)) for _, signal in measured]
        rows.append((what, len(moved), *(f"{share(some > 1)}, {np.median(some):.1f}" for some in values)))
    heads = ("stretched", "bonds", *(f"{name}: above 1, median" for name, _ in measured))
    console.table(f"{title}: stretched bonds, {len(positions)} frames each", heads, rows)


def acyclic_bonds(dataset: Dataset, hydrogen: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Return the bonds outside rings, with hydrogen or without: the atom that stays, and those that move."""
    numbers = dataset.numbers
    bonded = bonded_pairs(numbers, pair_distances(dataset.positions[::20]).mean(axis=0))
    i, j = (end[bonded] for end in np.tril_indices(len(numbers), -1))
    for bond in range(len(i)):
        ends = i[bond], j[bond]
        others = np.arange(len(i)) != bond
        graph = coo_array((np.ones(others.sum()), (i[others], j[others])), shape=(len(numbers), len(numbers)))
        labels = connected_components(graph, directed=False)[1]
        if labels[ends[0]] == labels[ends[1]] or (1 in numbers[list(ends)]) != hydrogen:
            continue
        light, heavy = sorted(ends, key=lambda end: np.sum(labels == labels[end]))
        hanging = np.flatnonzero(labels == labels[light])
        yield heavy, np.concatenate([[light], hanging[hanging != light]])


def stretch(positions: FloatArray, bond: tuple[int, np.ndarray], by: float) -> FloatArray:
    """Lengthen a bond in every frame, by Å."""
    heavy, moving = bond
    direction = positions[:, moving[0]] - positions[:, heavy]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    moved = positions.copy()
    moved[:, moving] += by * direction[:, None]
    return moved


def dynamics(model: Model, dataset: Dataset, train_frames: IntArray, given: argparse.Namespace) -> FloatArray:
    """Run Langevin dynamics with the model, from training geometries; return a frame of each replica every 0.1 ps."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", model, family(given.family), dataset, train_frames)
        calculator = load_calculator(Path(folder) / "model")
    protocol = Protocol("bench", 400.0, 0.5, 0.01, STEPS, REPLICAS, EVERY)
    engine = make_engine("batched", calculator, dataset.numbers, protocol, seed=given.seed)
    engine.begin(dataset.positions[train_frames[:REPLICAS]])
    alive, found = np.ones(REPLICAS, dtype=bool), []
    for _ in range(STEPS // EVERY):
        frame = engine.advance(EVERY, alive)
        alive[list(frame.problems)] = False
        found.append(frame.positions[alive])
    return np.concatenate(found)


def reference_errors(model: Model, dataset: Dataset, positions: FloatArray, spec: str) -> FloatArray:
    """Compute the force RMSE of each geometry by a calculator, eV/Å; infinite if it fails."""
    calculator = load_calculator(spec)
    predicted = model.predict(positions).forces
    errors = np.full(len(positions), np.inf)
    for row, one in enumerate(positions):
        try:
            forces = Atoms(dataset.numbers, one, calculator=calculator).get_forces()
        except Exception as error:  # a geometry far beyond chemistry
            console.say(f"geometry {row}: {error}")
            continue
        errors[row] = np.sqrt(np.mean((predicted[row] - forces) ** 2))
    return errors


def look(signal: Signal, unseen: FloatArray, training: FloatArray, model: Model) -> None:
    """Print the time of one evaluation, and of the preparation."""
    times = []
    for one in unseen[:200, None]:
        start = time.perf_counter()
        signal(one)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    training_region(training, model.permutations)
    console.say(f"one evaluation {1e3 * np.median(times):.2f} ms; preparation {time.perf_counter() - start:.2f} s")


def setting(text: str) -> tuple[str, object]:
    """Read NAME=VALUE, the value as JSON or else as text."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--family", default="sgdml", help="model family [sgdml]")
    parser.add_argument("--frames", type=int, default=100, help="training frames [100]")
    parser.add_argument(
        "--set", type=setting, nargs="+", default=[], metavar="NAME=VALUE", help="the trainer's settings"
    )
    parser.add_argument("--dynamics", metavar="CALC", help="compare the model with this calculator in its own dynamics")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices [0]")
    console.run_command(main, parser.parse_args())
