"""Compare SchNet here with SchNetPack: one step of dynamics, predictions in batches, a training, and flattening.

    python benchmarks/bench_schnet.py DATASET.npz [--epochs 30] [--rows step batch training flattening]

Both sides have the same weights (``step``), or the same network, frames and batch size (``training``: `spktrain`
writes its validation errors, and trainings here of growing length are run until one reaches its best). DATASET is
of one molecule, such as ``md17_ethanol.npz``.
"""

import argparse
import csv
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.md.verlet import VelocityVerlet
from ase.units import fs
from bench_clustering import print_machine

from ase_flatten.calculators import FlattenedSchNet
from ase_flatten.clustering.clusters import cluster
from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.clustering.splits import split
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.md import Protocol
from ase_flatten.md.engines import make_engine
from ase_flatten.models.model_folder import save_model
from ase_flatten.models.schnet import FAMILY, SchNetModel, as_schnetpack
from ase_flatten.selection.cluster_errors import frame_errors
from ase_flatten.selection.flattening import Schedule, flatten

CUTOFF = 5.0
N_TRAIN, N_VALID = 800, 200
N_REPLICAS = 32
SPKTRAIN = (
    "from ase_flatten.models.schnet import native; from schnetpack.cli import train; train()"  # the shim before it
)


def main() -> None:
    """Run the rows that are asked for."""
    rows = {"step": step, "batch": batch, "training": training, "flattening": flattening}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--rows", nargs="+", choices=rows, default=list(rows))
    parser.add_argument("--epochs", type=int, default=30, help="epochs of spktrain [30]")
    parser.add_argument("--device", help="cpu or cuda [a GPU if there is one]")
    given = parser.parse_args()
    print_machine()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; load {os.getloadavg()[0]:.1f}")
    dataset = read_dataset(given.dataset)
    for row in given.rows:
        rows[row](dataset, given)


def step(dataset: Dataset, given: argparse.Namespace) -> None:
    """Time steps of ASE's dynamics with either calculator on the same weights, and of replicas in a batch."""
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # or SpkCalculator could not read what SchNetPack writes
    from schnetpack.interfaces import SpkCalculator
    from schnetpack.transform import ASENeighborList

    with tempfile.TemporaryDirectory() as folder:
        path = small_model(dataset, Path(folder), given)
        torch.save(as_schnetpack(path), Path(folder) / "best_model")
        for dtype in (torch.float32, torch.float64):
            own = FlattenedSchNet(path, device=given.device, dtype=dtype)
            peer = SpkCalculator(
                str(Path(folder) / "best_model"), ASENeighborList(cutoff=CUTOFF), energy_unit="kcal/mol", dtype=dtype,
                device=own.model.network.weight.device,
            )  # fmt: skip
            forces, times = [], []
            for calculator, n_steps in ((own, 500), (peer, 100)):
                atoms = Atoms(dataset.numbers, dataset.positions[0], calculator=calculator)
                forces.append(atoms.get_forces())
                dynamics = VelocityVerlet(atoms, 0.5 * fs)
                dynamics.run(20)
                times.append([1e3 * seconds(lambda n=n_steps, d=dynamics: d.run(n)) / n_steps for _ in range(5)])
            ours, theirs = (float(np.median(one)) for one in times)
            print(
                f"one step, {dataset.formula}, {dtype}: {ours:.2f} ms here, {theirs:.2f} ms with SpkCalculator: "
                f"{theirs / ours:.1f} times; forces differ by {np.abs(forces[0] - forces[1]).max():.1e} eV/Å"
            )
            rate = replica_steps_a_second(own, dataset)
            print(
                f"{N_REPLICAS} replicas in a batch, {dtype}: {rate:.0f} replica-steps a second, {1e3 / theirs:.0f} "
                f"with SpkCalculator: {rate * theirs / 1e3:.1f} times"
            )


def replica_steps_a_second(calculator: FlattenedSchNet, dataset: Dataset) -> float:
    """Time the batched engine of molecular dynamics."""
    n_steps, alive = 200, np.ones(N_REPLICAS, dtype=bool)
    protocol = Protocol("bench", 300.0, 0.5, 0.01, n_steps, N_REPLICAS, 10)
    engine = make_engine("batched", calculator, dataset.numbers, protocol, seed=0)
    engine.begin(dataset.positions[:N_REPLICAS])
    engine.advance(20, alive)
    return N_REPLICAS * n_steps / float(np.median([seconds(lambda: engine.advance(n_steps, alive)) for _ in range(5)]))


def batch(dataset: Dataset, given: argparse.Namespace) -> None:
    """Time the configurations of all replicas at once, and one at a time."""
    with tempfile.TemporaryDirectory() as folder:
        path = small_model(dataset, Path(folder), given)
        for dtype in ("float32", "float64"):
            calculator = FlattenedSchNet(path, device=given.device, dtype=dtype)
            positions = dataset.positions[:N_REPLICAS]
            times = []
            for n_at_once in (N_REPLICAS, 1):
                pieces = np.split(positions, N_REPLICAS // n_at_once)
                work = partial(predict_all, calculator, pieces)
                times.append(min(seconds(work) for _ in range(20)) / N_REPLICAS)
            print(
                f"{N_REPLICAS} replicas, {dtype}: {1e3 * times[0]:.3f} ms each at once, {1e3 * times[1]:.3f} ms one at "
                f"a time: {times[1] / times[0]:.1f} times"
            )


def predict_all(calculator: FlattenedSchNet, pieces: list[np.ndarray]) -> None:
    """Predict pieces one after the other."""
    for piece in pieces:
        calculator.predict(piece)


def training(dataset: Dataset, given: argparse.Namespace) -> None:
    """Time `spktrain`, and the training here that reaches its error."""
    n_epochs = given.epochs
    frames = np.random.default_rng(0).permutation(dataset.n_frames)[: N_TRAIN + N_VALID]
    with tempfile.TemporaryDirectory() as folder:
        theirs, target = run_spktrain(dataset, frames, Path(folder), n_epochs)
    print(f"spktrain, {n_epochs} epochs of {N_TRAIN} frames: {theirs:.0f} s to {target:.3f} kcal/(mol Å)")
    epochs = n_epochs // 2 + 1
    while True:
        trainer = FAMILY.trainer(epochs=epochs, device=given.device)
        start = time.perf_counter()
        model = trainer.fit(dataset, frames[:N_TRAIN], frames[N_TRAIN:], rng=np.random.default_rng(0))
        ours, error = time.perf_counter() - start, force_rmse(model, dataset, frames[N_TRAIN:])
        steps = model.hyper_parameters["gradient_steps"]
        print(f"  here, {steps} gradient steps: {ours:.0f} s to {error:.3f} kcal/(mol Å)")
        if error <= target:
            break
        epochs = math.ceil(1.25 * epochs)
    print(f"time to the same validation error: {ours:.0f} s here, {theirs:.0f} s with spktrain: 1/{theirs / ours:.1f}")


def run_spktrain(dataset: Dataset, frames: np.ndarray, folder: Path, n_epochs: int) -> tuple[float, float]:
    """Train with SchNetPack's command; return the seconds up to its best validation error, and that, kcal/(mol Å)."""
    from schnetpack.data import ASEAtomsData

    units = {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}
    data = ASEAtomsData.create(str(folder / "data.db"), distance_unit="Ang", property_unit_dict=units)
    data.add_systems(
        atoms_list=[dataset.atoms(frame) for frame in frames],
        property_list=[
            {
                "energy": dataset.energies[frame : frame + 1] / KCAL_PER_MOL,
                "forces": dataset.forces[frame] / KCAL_PER_MOL,
            }
            for frame in frames
        ],
    )
    np.savez(
        folder / "split.npz", train_idx=np.arange(N_TRAIN), val_idx=np.arange(N_TRAIN, N_TRAIN + N_VALID), test_idx=[]
    )
    settings = FAMILY.settings(FAMILY.trainer())
    command = [
        "experiment=md17", "data=custom", "run.experiment=bench", "run.id=run", f"run.work_dir={folder}",
        f"run.data_dir={folder}", f"data.datapath={folder / 'data.db'}", f"+data.split_file={folder / 'split.npz'}",
        f"data.num_train={N_TRAIN}", f"data.num_val={N_VALID}", f"data.batch_size={settings['batch_size']}",
        "data.num_workers=1", "model/representation=schnet",
        f"model.representation.n_atom_basis={settings['n_features']}",
        f"model.representation.n_interactions={settings['n_interactions']}",
        f"model.representation.radial_basis.n_rbf={settings['n_rbf']}", f"globals.cutoff={settings['cutoff']}",
        f"globals.lr={settings['learning_rate']}", "logger=csv", f"trainer.max_epochs={n_epochs}",
        "trainer.accelerator=cpu",
        # SchNetPack 2.1's own does not start on a recent PyTorch; within its patience of 75 epochs they are the same
        "task.scheduler_cls=torch.optim.lr_scheduler.ReduceLROnPlateau", "~task.scheduler_args.smoothing_factor",
        "+trainer.enable_progress_bar=false", "print_config=false",
    ]  # fmt: skip
    start = time.time()
    log = folder / "log.txt"
    with log.open("w") as stream:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", SPKTRAIN, *command], cwd=folder, stdout=stream, stderr=stream,
            env={**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
        )  # fmt: skip
    whole = time.time() - start
    tables = sorted(folder.rglob("metrics.csv"))
    if done.returncode and not tables:
        raise SystemExit(log.read_text()[-3000:])
    with tables[-1].open() as stream:
        errors = [float(row["val_forces_rmse"]) for row in csv.DictReader(stream) if row.get("val_forces_rmse")]
    best = int(np.argmin(errors))
    return whole * (best + 1) / len(errors), errors[best]


def flattening(dataset: Dataset, given: argparse.Namespace) -> None:
    """Time all steps of improved training, with choosing and predicting, and one default training of equal size."""
    schedule = Schedule(n_steps=4, n_initial=100, step_size=50)
    trainer = FAMILY.trainer(epochs=100, device=given.device)
    clustering = cluster(dataset, rng=np.random.default_rng(0))
    splits = split(clustering, dataset.pair_distances, rng=np.random.default_rng(1))
    data = PreparedData(dataset, clustering, splits)
    start = time.perf_counter()
    steps = list(flatten(data, trainer, schedule, seed=0))
    improved = time.perf_counter() - start
    rng = np.random.default_rng(2)
    frames = trainer.default_frames(dataset, splits.pool, schedule.n_train(schedule.n_steps), rng=rng)
    alone = seconds(lambda: trainer.fit(dataset, frames, splits.valid, rng=rng, previous=steps[-1].model))
    n_steps = steps[-1].model.hyper_parameters["gradient_steps"]
    print(
        f"improved training, {len(steps)} models, {n_steps} gradient steps: {improved:.0f} s; one default training of "
        f"as many: {alone:.0f} s: {improved / alone:.2f} times"
    )


def small_model(dataset: Dataset, folder: Path, given: argparse.Namespace) -> Path:
    """Train briefly, which is enough to be timed."""
    frames = np.linspace(0, dataset.n_frames - 1, 100).astype(np.int64)
    trainer = FAMILY.trainer(epochs=20, device=given.device)
    save_model(
        folder / "model",
        trainer.fit(dataset, frames, frames[::10], rng=np.random.default_rng(0)),
        FAMILY,
        dataset,
        frames,
    )
    return folder / "model"


def force_rmse(model: SchNetModel, dataset: Dataset, frames: np.ndarray) -> float:
    """Return the force RMSE of some frames, kcal/(mol Å)."""
    return float(np.sqrt(frame_errors(model, dataset, frames).force_mse.mean()) / KCAL_PER_MOL)


def seconds(work: Callable[[], Any]) -> float:
    """Return the time of a call, s."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
