"""Time sGDML with 1 to 243 permutations, through the factors of their group and one by one, in one run.

    python benchmarks/bench_symmetry.py --data DIR [--frames 200] [--training-frames 60] [--repeats 40]

DIR holds acala3nhme_gfn2_500K.npz, a peptide whose five methyl groups have 3^5 = 243 rotations. All is measured on one
core, in turns, and the shortest processor times count, so that other work on the machine does little harm; ratios are
to one permutation. Errors are those against the sum over permutations one by one.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from ase import Atoms
from bench_clustering import print_machine

from ase_flatten.calculators import FlattenedSGDML
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.geometry.symmetry_group import SymmetryGroup
from ase_flatten.models.sgdml import MODEL_FILE, SGDMLModel, permutation_sums
from ase_flatten.models.sgdml.kernel import Geometries, PlainKernel, pair_orders
from ase_flatten.models.sgdml.predictor import PlainPredictor
from ase_flatten.models.sgdml.product_kernel import ProductKernel
from ase_flatten.models.sgdml.sgdml_package import package as load_package
from ase_flatten.models.sgdml.single_training import SingleTraining
from ase_flatten.utils.cores import one_core
from ase_flatten.utils.typing import FloatArray, IntArray

SIGMA = 20
LAMBDA = 1e-10
PREDICTED = 100
"""Configurations in a batch."""

_FEW = 16
"""At least so many are predicted one by one: with fewer, memory would limit the products of matrices."""

_STEPS = 10
"""Steps of ASE that are timed together."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with acala3nhme_gfn2_500K.npz")
    parser.add_argument("--frames", type=int, default=200, help="training frames of the predictions")
    parser.add_argument("--training-frames", type=int, default=60, help="frames of whole trainings")
    parser.add_argument("--repeats", type=int, default=40)
    given = parser.parse_args()
    print_machine()
    load_package()
    dataset = read_dataset(given.data / "acala3nhme_gfn2_500K.npz")
    frames = np.linspace(0, dataset.n_frames - 1, given.frames + PREDICTED).round().astype(np.int64)
    frames = np.random.default_rng(0).permutation(frames)
    groups = [SymmetryGroup(tuple(rotations(dataset)[:n]), np.arange(dataset.n_atoms)[None]) for n in range(6)]
    with one_core():
        predictions(dataset, frames[: given.frames], frames[given.frames :], groups, given.repeats)
        kernels(dataset, frames[:10], groups, min(given.repeats, 5))
        trainings(dataset, frames[: given.training_frames], frames[given.frames :], groups)


def rotations(dataset: Dataset) -> list[IntArray]:
    """Return the rotations of each methyl group, (3, n_atoms)."""
    first, numbers = dataset.positions[0], dataset.numbers
    distances = np.linalg.norm(first[:, None] - first, axis=2)
    found = []
    for carbon in np.flatnonzero(numbers == 6):
        hydrogens = np.flatnonzero((numbers == 1) & (distances[carbon] < 1.3))
        if len(hydrogens) == 3:
            turns = np.tile(np.arange(dataset.n_atoms), (3, 1))
            turns[:, hydrogens] = [np.roll(hydrogens, k) for k in range(3)]
            found.append(turns)
    return found


def predictions(
    dataset: Dataset, frames: IntArray, predicted: IntArray, groups: list[SymmetryGroup], repeats: int
) -> None:
    """Time batches and steps through ASE, of models with made-up coefficients, which cost as much as others."""
    print(f"\npredictions, {len(frames)} training frames: µs per configuration and training frame; ms per step of ASE")
    print("permutations  factors  one by one  package |  ratio  speed-up |  step  one by one  ratio |  error")
    positions = dataset.positions[predicted]
    one = Model(dataset, frames, groups[0])
    for group in groups:
        model = Model(dataset, frames, group)
        few = positions[: max(_FEW, PREDICTED // len(group))]
        package = package_predictor(model.content)
        calls: list[Callable[[], Any]] = [
            lambda: one.chosen(positions), lambda model=model: model.chosen(positions),
            lambda model=model, few=few: model.plain(few), one.steps, model.steps,
            lambda model=model: model.plain(positions[:1]),
            lambda package=package, few=few: package.predict(few.reshape(len(few), -1)),
        ]  # fmt: skip
        times = shortest(calls, [repeats, repeats, 3, repeats, repeats, 3, 2])
        per = 1e6 / len(frames) / np.array([len(positions), len(positions), len(few), 1, 1, 1, len(few)])
        us = times * per
        found, expected = model.chosen(few), model.plain(few)
        error = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, expected, strict=True))
        print(
            f"{len(group):12d}  {us[1]:7.2f}  {us[2]:10.2f}  {us[6]:7.1f} |  "
            f"{us[1] / us[0]:5.2f}  {us[2] / us[1]:8.1f} |  "
            f"{times[4] / _STEPS * 1e3:4.2f}  {times[5] * 1e3:10.2f}  {times[4] / times[3]:5.2f} |  {error:.0e}",
            flush=True,
        )


def kernels(dataset: Dataset, frames: IntArray, groups: list[SymmetryGroup], repeats: int) -> None:
    """Time the assembly of the kernel matrix."""
    print("\nkernel: ms per block of two frames\npermutations  factors  one by one |  ratio  speed-up |  error")
    geometries = Geometries.of(dataset.positions[frames])
    one = assembly(PlainKernel(groups[0].permutations), geometries)
    for group in groups[1:]:
        chosen, plain = (assembly(kind, geometries) for kind in (ProductKernel(group), PlainKernel(group.permutations)))
        times = shortest([one, chosen, plain], [repeats, repeats, 1])
        found, expected = chosen(), plain()
        ms = times / len(frames) ** 2 * 1e3
        error = np.abs(found - expected).max() / np.abs(expected).max()
        print(
            f"{len(group):12d}  {ms[1]:7.2f}  {ms[2]:10.2f} |  "
            f"{ms[1] / ms[0]:5.2f}  {ms[2] / ms[1]:8.1f} |  {error:.0e}",
            flush=True,
        )


def trainings(dataset: Dataset, frames: IntArray, valid: IntArray, groups: list[SymmetryGroup]) -> None:
    """Time whole trainings, and compare the errors of the models on other frames."""
    print(f"\ntraining on {len(frames)} frames: seconds, and the force RMSE on {len(valid)} others, eV/Å")
    print("permutations  seconds  ratio |  RMSE")
    first = 0.0
    for group in groups:
        training = SingleTraining(dataset, frames, valid, group.permutations, SIGMA, LAMBDA)
        start = time.process_time()
        model = training.model()
        seconds = time.process_time() - start
        first = first or seconds
        error = model.predict(dataset.positions[valid]).forces - dataset.forces[valid]
        print(
            f"{len(group):12d}  {seconds:7.1f}  {seconds / first:5.2f} |  {np.sqrt(np.mean(error**2)):.3f}", flush=True
        )


class Model:
    """A model with made-up coefficients: its predictors, and a step of ASE."""

    def __init__(self, dataset: Dataset, frames: IntArray, group: SymmetryGroup) -> None:
        descriptors = Geometries.of(dataset.positions[frames]).descriptors
        coefficients = np.random.default_rng(0).normal(size=descriptors.shape)
        orders = pair_orders(group.permutations)
        self.content = {
            "type": "m", "z": dataset.numbers, "sig": SIGMA, "lam": LAMBDA, "R_desc": descriptors.T,
            "R_d_desc_alpha": coefficients, "c": 0.0, "std": 1.0, "perms": group.permutations,
            "tril_perms_lin": (orders + orders.shape[1] * np.arange(len(orders))[:, None]).flatten("F"),
        }  # fmt: skip
        self.chosen = permutation_sums.predictor_of(descriptors, coefficients, group.permutations, SIGMA)
        self.plain = PlainPredictor(descriptors, coefficients, orders, SIGMA)
        self._atoms = Atoms(dataset.numbers, dataset.positions[0])
        with tempfile.TemporaryDirectory() as folder:
            SGDMLModel(self.content).save(Path(folder))
            self._atoms.calc = FlattenedSGDML(Path(folder) / MODEL_FILE)

    def steps(self) -> None:
        """Move the atoms and compute forces, several times: the first finds nothing in the cache."""
        for _ in range(_STEPS):
            self._atoms.positions += 1e-6
            self._atoms.get_forces()


def assembly(kernel: PlainKernel | ProductKernel, geometries: Geometries) -> Callable[[], FloatArray]:
    """Return a function that assembles the matrix of some frames."""
    adapted = kernel.adapt(geometries)
    size = len(adapted) * adapted.n_modes

    def assemble() -> FloatArray:
        out = np.empty((size, size))
        kernel.assemble(adapted, adapted, SIGMA, distances=kernel.distances(adapted, adapted), out=out)
        return out

    return assemble


def package_predictor(content: dict[str, Any]) -> Any:
    """Return the predictor of the `sgdml` package, in one process."""
    from sgdml.predict import GDMLPredict

    return GDMLPredict(content, max_processes=1)


def shortest(calls: list[Callable[[], Any]], repeats: list[int]) -> FloatArray:
    """Return the shortest time of each call, s; they are called in turns."""
    times = np.full(len(calls), np.inf)
    for turn in range(max(repeats)):
        for number, call in enumerate(calls):
            if turn < repeats[number]:
                start = time.process_time()
                call()
                times[number] = min(times[number], time.process_time() - start)
    return times


if __name__ == "__main__":
    main()
