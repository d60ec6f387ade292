"""Time sGDML here against the `sgdml` package, in one run, with the agreement of the results beside each ratio.

    python benchmarks/bench_sgdml.py --data DIR [--quick] [--rows agreement training ...]

DIR holds md17_ethanol.npz, md17_toluene.npz and md17_salicylic.npz. The rows growth, procedure
and memory take minutes to an hour at their full sizes; --quick shows all of them in a few minutes.
"""

import argparse
import logging
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from bench_clustering import peak_GB, print_machine

from ase_flatten.calculators import FlattenedSGDML
from ase_flatten.clustering.clusters import cluster
from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.clustering.splits import split
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.models.model_folder import save_model
from ase_flatten.models.sgdml import FAMILY, SGDMLModel
from ase_flatten.models.sgdml.sgdml_package import find_permutations
from ase_flatten.models.sgdml.sgdml_package import package as load_package
from ase_flatten.models.sgdml.sgdml_package import train as train_by_package
from ase_flatten.models.sgdml.single_training import SingleTraining
from ase_flatten.selection.cluster_errors import frame_errors
from ase_flatten.selection.flattening import Schedule, flatten
from ase_flatten.utils.cores import n_cores
from ase_flatten.utils.typing import FloatArray, IntArray

SIGMA = 20
LAMBDA = 1e-10
PACKAGE_LENGTH_SCALES = range(10, 100, 10)
"""The package's own range; its task stops after the first at which the validation error rises."""


@dataclass(frozen=True)
class Sizes:
    """Sizes of each row.

    Parameters
    ----------
    repeats : int
        Repetitions of measurements that take seconds.
    agreement, training, prediction, memory : int
        Training frames of these rows.
    predicted : int
        Configurations.
    growth : tuple of int
        Initial frames, steps, and frames a step.
    procedure : tuple of int
        Two sizes at which the package is timed.
    """

    repeats: int = 3
    agreement: int = 200
    training: int = 400
    prediction: int = 400
    memory: int = 1000
    predicted: int = 10_000
    growth: tuple[int, int, int] = (200, 8, 100)
    procedure: tuple[int, int] = (200, 400)


QUICK = Sizes(2, 50, 100, 100, 200, 1000, (40, 8, 20), (50, 100))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with md17_*.npz")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--molecules", nargs="+", default=None, help="molecules [those of each row]")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a first look")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--frames", type=int, help="training frames of the rows memory, training and prediction")
    parser.add_argument("--only-memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    if arguments.frames:
        sizes = replace(sizes, memory=arguments.frames, training=arguments.frames, prediction=arguments.frames)
    if arguments.repeats:
        sizes = replace(sizes, repeats=arguments.repeats)
    data = Data(arguments.data)
    if arguments.only_memory:
        train_and_report(data, arguments.only_memory, sizes)
        return
    print_machine()
    logging.getLogger("ase_flatten").setLevel(logging.ERROR)  # that a path leaves the training set is no news here
    load_package()
    print_versions()
    for name in arguments.rows:
        run, molecules = ROWS[name]
        print(f"\n{name}: {(run.__doc__ or '').strip()}", flush=True)
        for molecule in arguments.molecules or molecules:
            run(data, molecule, sizes)
            sys.stdout.flush()


class Data:
    """Data sets and their permutations, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dataset = cache(self._dataset)
        self.permutations = cache(self._permutations)

    def _dataset(self, molecule: str) -> Dataset:
        return read_dataset(self.folder / f"md17_{molecule}.npz")

    def _permutations(self, molecule: str) -> IntArray:
        dataset = self.dataset(molecule)
        every = max(1, dataset.n_frames // 250)
        return find_permutations(dataset.positions[::every], dataset.numbers)

    def task(self, molecule: str, n_frames: int, *, sigma: float = SIGMA) -> SingleTraining:
        """Return the training on evenly spread frames."""
        dataset = self.dataset(molecule)
        frames = np.linspace(0, dataset.n_frames - 1, n_frames).round().astype(np.int64)
        return SingleTraining(
            dataset, frames, self.test_frames(molecule, 200), self.permutations(molecule), sigma, LAMBDA
        )

    def test_frames(self, molecule: str, n_frames: int) -> IntArray:
        """Return frames of which nearly none is a training frame of `task`."""
        n_all = self.dataset(molecule).n_frames
        return (np.linspace(0, n_all - 1, n_frames) + 7).astype(np.int64) % n_all


def agreement(data: Data, molecule: str, sizes: Sizes) -> None:
    """Compare coefficients and forces with the package, at the same frames and length scale."""
    task = data.task(molecule, sizes.agreement)
    ours, package = task.train()[0], train_by_package(task.entries(LAMBDA))
    print(f"{label(task, molecule)} {differences(ours, package, task)}")


def training(data: Data, molecule: str, sizes: Sizes) -> None:
    """Train once, at one length scale."""
    task = data.task(molecule, sizes.training)
    seconds = [timed(lambda: data.task(molecule, sizes.training).train())[0] for _ in range(sizes.repeats)]
    ours = task.train()[0]
    package_seconds, package = timed(lambda: train_by_package(task.entries(LAMBDA)))
    print(
        f"{label(task, molecule)} here {spread(seconds)} s, package {package_seconds:.1f} s (once): "
        f"{package_seconds / np.median(seconds):.1f} times; {differences(ours, package, task)}"
    )


def growth(data: Data, molecule: str, sizes: Sizes) -> None:
    """Grow a training set by improved training, against one training at the last size."""
    steps, seconds = improved(data, molecule, sizes.growth)
    last = steps[-1]
    task = replace(data.task(molecule, 2, sigma=SIGMA), frames=last.train_frames, permutations=last.model.permutations)
    permutations = len(task.permutations)
    del steps
    last.model.factor = None  # the one training must not find memory taken
    once, (content, _) = timed(task.train)
    same = np.array_equal(content["R_d_desc_alpha"], last.model.content["R_d_desc_alpha"])
    total = {stage: sum(one[stage] for one in seconds) for stage in seconds[0]}
    n_initial, n_steps, step_size = sizes.growth
    print(
        f"{molecule:<10s} {n_initial} + {n_steps} x {step_size} frames, {permutations} permutations: "
        f"all steps {sum(total.values()):.1f} s ("
        + ", ".join(f"{stage} {value:.1f}" for stage, value in total.items())
        + f"), one training {once:.1f} s: {sum(total.values()) / once:.2f} times, of training alone "
        f"{total['train'] / once:.2f}; coefficients equal to the last bit: {same}"
    )


def procedure(data: Data, molecule: str, sizes: Sizes) -> None:
    """Grow a training set, against the package's whole task at every step (extrapolated from two measured sizes)."""
    _, seconds = improved(data, molecule, sizes.growth)
    ours = sum(sum(one.values()) for one in seconds)
    n_scales = package_length_scales(data, molecule, sizes.procedure[0])
    measured, validation = [], []
    for n_frames in sizes.procedure:
        task = data.task(molecule, n_frames)
        spent, content = timed(lambda task=task: train_by_package(task.entries(LAMBDA)))
        measured.append(spent)
        validation.append(package_prediction_seconds(content, task.dataset.positions[task.valid]) * 1000)
    n_initial, n_steps, step_size = sizes.growth
    stages = [n_initial + step * step_size for step in range(n_steps + 1)]
    # Seconds a n² + b n³: assembly and factorisation; predictions are linear in n.
    square, cube = np.linalg.solve([[n**2, n**3] for n in sizes.procedure], measured)
    cube = max(cube, 0.0)
    train = sum(square * n**2 + cube * n**3 for n in stages)
    validate = sum(validation[-1] / sizes.procedure[-1] * n for n in stages)
    theirs = n_scales * (train + validate)
    print(
        f"{molecule:<10s} here {ours:.0f} s measured; package, measured at one length scale: "
        + ", ".join(f"{n} frames {spent:.1f} s" for n, spent in zip(sizes.procedure, measured, strict=True))
        + f", validation of 1,000 {validation[-1]:.1f} s;\n           extrapolated over {len(stages)} steps up to "
        f"{stages[-1]} frames (a n² + b n³, validation as n) and {n_scales} length scales (until the error rises): "
        f"{theirs:.0f} s: {theirs / ours:.0f} times, of training alone {n_scales * train / ours:.0f}"
    )


def prediction(data: Data, molecule: str, sizes: Sizes) -> None:
    """Predict many configurations at once."""
    task = data.task(molecule, sizes.prediction)
    content = task.train()[0]
    model = SGDMLModel(content)
    positions = task.dataset.positions[data.test_frames(molecule, sizes.predicted)]
    model.predict(positions[:500])
    seconds = [timed(lambda: model.predict(positions))[0] for _ in range(sizes.repeats)]
    ours = model.predict(positions).forces / KCAL_PER_MOL
    best, found = {}, {}
    flat = positions.reshape(len(positions), -1)
    for name, predictor in package_predictors(content).items():
        some = len(flat) if name == "workers" else min(len(flat), 500)
        spent, (_, forces) = timed(lambda predictor=predictor, some=some: predictor.predict(flat[:some]))
        best[name] = spent * len(flat) / some
        found[name] = difference(ours[:some].reshape(some, -1), forces)
    fastest = min(best, key=best.__getitem__)
    n_images = sizes.prediction * len(task.permutations)
    rate = 8 * n_images * content["R_desc"].shape[0] * len(positions) / np.median(seconds) / 1e9
    print(
        f"{label(task, molecule)} {len(positions)} configurations: here {spread(seconds)} s ({rate:.0f} GFLOP/s), "
        "package "
        + ", ".join(f"{name} {spent:.1f} s" for name, spent in best.items())
        + " (torch timed on 500)"
        + f": {best[fastest] / np.median(seconds):.1f} times; forces differ by {found[fastest]:.1e}"
    )


def step(data: Data, molecule: str, sizes: Sizes) -> None:
    """Predict one configuration after the other, by the ASE calculators."""
    from sgdml.intf.ase_calc import SGDMLCalculator

    task = data.task(molecule, sizes.prediction)
    model = SGDMLModel(task.train()[0])
    path = task.dataset.positions[: 50 * sizes.repeats]
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", model, FAMILY, task.dataset, task.frames)
        calculators = {
            "here": FlattenedSGDML(Path(folder) / "model"),
            "package": SGDMLCalculator(str(Path(folder) / "model" / "model.npz")),
        }
    found: dict[str, list[float]] = {}
    forces = {}
    for name, calculator in calculators.items():
        atoms = Atoms(task.dataset.numbers, path[0], calculator=calculator)
        atoms.get_forces()
        found[name] = []
        for positions in path[1:]:  # at the first, results are there already
            atoms.positions = positions
            found[name].append(timed(atoms.get_forces)[0] * 1e3)
        forces[name] = atoms.get_forces()
    ratio = np.median(found["package"]) / np.median(found["here"])
    print(
        f"{label(task, molecule)} here {spread(found['here'])} ms, package {spread(found['package'])} ms: "
        f"{ratio:.1f} times; forces differ by {difference(forces['here'], forces['package']):.1e}"
    )


def memory(data: Data, molecule: str, sizes: Sizes) -> None:
    """Measure the peak of memory of one training, in a process of its own."""
    command = [sys.executable, __file__, "--data", str(data.folder), "--frames", str(sizes.memory)]
    done = subprocess.run([*command, "--only-memory", molecule], check=True, capture_output=True, text=True)
    print(done.stdout.strip())


def train_and_report(data: Data, molecule: str, sizes: Sizes) -> None:
    """Train once, and print the peak of memory."""
    dataset = data.dataset(molecule)
    frames = np.linspace(0, dataset.n_frames - 1, sizes.memory).round().astype(np.int64)
    task = SingleTraining(dataset, frames, frames[:0], np.arange(dataset.n_atoms)[None], SIGMA, LAMBDA)
    before = peak_GB()
    seconds, (content, factor) = timed(task.train)
    error = force_rmse(content, dataset, data.test_frames(molecule, 200))
    size = 3 * dataset.n_atoms * sizes.memory
    print(
        f"{molecule:<10s} {sizes.memory} frames, {size} unknowns: peak {peak_GB() * 1e9 / 2**30:.1f} GiB (before it "
        f"{before * 1e9 / 2**30:.1f}; the factor {factor.nbytes / 2**30 if factor else 0:.1f}; the full square matrix "
        f"would be {8 * size**2 / 2**30:.1f}); {seconds:.0f} s; force RMSE of 200 frames {error:.2f} kcal/(mol Å)"
    )


ROWS: dict[str, tuple[Callable[[Data, str, Sizes], None], tuple[str, ...]]] = {
    "agreement": (agreement, ("ethanol", "toluene", "salicylic")),
    "training": (training, ("ethanol", "toluene")),
    "growth": (growth, ("ethanol",)),
    "procedure": (procedure, ("ethanol",)),
    "prediction": (prediction, ("ethanol", "toluene", "salicylic")),
    "step": (step, ("ethanol", "toluene", "salicylic")),
    "memory": (memory, ("salicylic",)),
}


@cache
def improved(data: Data, molecule: str, sizes: tuple[int, int, int]) -> tuple[list[Any], list[dict[str, float]]]:
    """Run improved training; return its last step, and the seconds of each stage."""
    dataset = data.dataset(molecule)
    clustering = cluster(dataset, rng=np.random.default_rng(0))
    splits = split(clustering, dataset.pair_distances, rng=np.random.default_rng(0))
    prepared = PreparedData(dataset, clustering, splits)
    n_initial, n_steps, step_size = sizes
    schedule = Schedule(n_steps=n_steps, n_initial=n_initial, step_size=step_size)
    last, seconds = None, []
    for last in flatten(prepared, FAMILY.trainer(sigma=SIGMA), schedule, seed=0):
        seconds.append(last.seconds)
    return [last], seconds


def package_length_scales(data: Data, molecule: str, n_frames: int) -> int:
    """Count the length scales that the package's task would train: up to the first at which the error rises."""
    previous = np.inf
    for number, sigma in enumerate(PACKAGE_LENGTH_SCALES, start=1):
        task = data.task(molecule, n_frames, sigma=sigma)
        error = force_rmse(task.train()[0], task.dataset, task.valid)
        if error > previous:
            return number
        previous = error
    return len(PACKAGE_LENGTH_SCALES)


def package_predictors(content: dict[str, Any]) -> dict[str, Any]:
    """Make the package's predictors, each with the best setting that it finds itself, for 1,000 configurations."""
    from sgdml.predict import GDMLPredict

    workers = GDMLPredict(with_objects(content), max_processes=n_cores())
    workers.prepare_parallel(n_bulk=1000)
    return {"workers": workers, "torch": GDMLPredict(with_objects(content), use_torch=True)}


def package_prediction_seconds(content: dict[str, Any], positions: FloatArray) -> float:
    """Time the package's predictions, seconds each."""
    predictor = package_predictors(content)["workers"]
    return timed(lambda: predictor.predict(positions.reshape(len(positions), -1)))[0] / len(positions)


def with_objects(content: dict[str, Any]) -> dict[str, Any]:
    """Add the entries of a model file that only the package needs."""
    return {"f_err": {}, "e_err": {}, "md5_test": None, **content}


def differences(ours: dict[str, Any], package: dict[str, Any], task: SingleTraining) -> str:
    """Format the differences of two models in coefficients and forces."""
    frames = task.valid
    forces = [SGDMLModel(one).predict(task.dataset.positions[frames]).forces for one in (ours, package)]
    error = force_rmse(ours, task.dataset, frames)
    return (
        f"coefficients differ by {difference(ours['alphas_F'], package['alphas_F']):.1e} (along the descriptor "
        f"{difference(ours['R_d_desc_alpha'], package['R_d_desc_alpha']):.1e}), forces by {difference(*forces):.1e}; "
        f"force RMSE {error:.3f} kcal/(mol Å)"
    )


def difference(one: FloatArray, other: FloatArray) -> float:
    """Return |one - other| / |other|."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def force_rmse(content: dict[str, Any], dataset: Dataset, frames: IntArray) -> float:
    """Return the force RMSE of some frames, kcal/(mol Å)."""
    return float(np.sqrt(frame_errors(SGDMLModel(content), dataset, frames).force_mse.mean()) / KCAL_PER_MOL)


def label(task: SingleTraining, molecule: str) -> str:
    """Return the label of a task."""
    return f"{molecule:<10s} {len(task.frames)} frames, {len(task.permutations)} permutations:"


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def spread(values: list[float]) -> str:
    """Format the median, the minimum and the maximum."""
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g}, {len(values)} times)"


def print_versions() -> None:
    """Print what else the times depend on."""
    names = ", ".join(f"{name} {version(name)}" for name in ("ase-flatten", "sgdml", "torch", "threadpoolctl"))
    busy = f"; load {Path('/proc/loadavg').read_text().split()[0]}" if platform.system() == "Linux" else ""
    print(f"{names}{busy}")


if __name__ == "__main__":
    main()
