"""Time the batched engine of molecular dynamics, compared with the model alone and with ASE and sgdml's calculator.

    python benchmarks/bench_md.py DATASET.npz [--frames 400] [--replicas 32] [--steps 1000]

Trains an sGDML model on evenly spread frames. Prints the time of a step above the model's own evaluation of the same
configurations, records and checks included, the time to write the trajectories of these steps, and replica-steps per
second here and with ASE's Langevin and `sgdml.intf.ase_calc.SGDMLCalculator`, at 300 K and 0.5 fs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from bench_clustering import print_machine

from ase_flatten.calculators import FlattenedSGDML
from ase_flatten.data.io import read_dataset
from ase_flatten.data.known_molecule import KnownMolecule
from ase_flatten.md.criteria import Criteria
from ase_flatten.md.engines import make_engine
from ase_flatten.md.engines.batched import BatchedEngine
from ase_flatten.md.integrators.langevin import draw_momenta, langevin
from ase_flatten.md.protocol import Protocol
from ase_flatten.md.recorder import Recorder
from ase_flatten.md.results import Settings
from ase_flatten.models import Prediction
from ase_flatten.models.model_folder import save_model
from ase_flatten.models.sgdml import FAMILY

REPEATS = 5
PEER_STEPS = 300


class Timed:
    """A calculator that adds up the time of its predictions."""

    def __init__(self, calculator: FlattenedSGDML) -> None:
        self.calculator, self.seconds = calculator, 0.0

    def predict(self, positions: np.ndarray) -> Prediction:
        """Predict, and measure the time."""
        start = time.perf_counter()
        answer = self.calculator.predict(positions)
        self.seconds += time.perf_counter() - start
        return answer


def main() -> None:
    """Train, and time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--replicas", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1000)
    given = parser.parse_args()
    print_machine()
    dataset = read_dataset(given.dataset)
    frames = np.linspace(0, dataset.n_frames - 1, given.frames).astype(np.int64)
    valid = np.setdiff1d(np.arange(0, dataset.n_frames, 50), frames)
    model = FAMILY.trainer(sigma=20).fit(dataset, frames, valid, rng=np.random.default_rng(0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        save_model(path, model, FAMILY, dataset, frames)
        calculator = FlattenedSGDML(path)
        protocol = Protocol("bench", 300.0, 0.5, 0.01, given.steps, given.replicas, 10)
        starts = dataset.positions[np.argsort(dataset.energies)[: given.replicas]]
        known = KnownMolecule.of_dataset(dataset)
        criteria = Criteria.of_molecule(known, protocol.temperature_K)
        rows, written = [], []
        for _ in range(REPEATS):
            timed = Timed(calculator)
            engine = make_engine("batched", timed, dataset.numbers, protocol, seed=0)
            assert isinstance(engine, BatchedEngine)
            recorder = Recorder(Path(folder) / "partial", Settings(zero_energy_eV=0.0), protocol, criteria)
            recorder.last_state(resume=False)
            recorder.take(engine.begin(starts))
            timed.seconds = 0.0
            whole = seconds(lambda engine=engine, recorder=recorder: run(engine, recorder))
            rows.append((whole, timed.seconds))
            written.append(seconds(lambda recorder=recorder: recorder.write_trajectories(Path(folder))))
            assert recorder.alive.all(), "a replica failed: the model is too small to be timed"
        whole, alone = np.median(rows, axis=0)
        rates = [given.steps * given.replicas / row[0] for row in rows]
        print(
            f"{dataset.formula}, {given.frames} frames, {len(model.permutations)} permutations, {given.replicas} "
            f"replicas: {1e3 * whole / given.steps:.3f} ms a step, of which the model {1e3 * alone / given.steps:.3f}: "
            f"{100 * (whole / alone - 1):.1f} % above it; {np.median(rates):.0f} replica-steps a second "
            f"({min(rates):.0f} to {max(rates):.0f}, {REPEATS} times)"
        )
        print(
            f"trajectories of {given.steps} steps: {100 * np.median(written) / alone:.1f} % of the model's time, "
            f"{1e3 * np.median(written) / given.steps:.3f} ms a step"
        )
        own, peer = one_at_a_time(calculator, path, starts[0], protocol)
    print(f"ASE's Langevin, one replica: here {own:.0f} steps a second, with SGDMLCalculator {peer:.0f}")
    print(f"batched against ASE with SGDMLCalculator: {np.median(rates) / peer:.1f} times")


def run(engine: BatchedEngine, recorder: Recorder) -> None:
    """Advance from record to record, as a run does."""
    while not recorder.finished:
        recorder.take(engine.advance(recorder.steps_to_next, recorder.alive))


def one_at_a_time(calculator: FlattenedSGDML, path: Path, start: np.ndarray, protocol: Protocol) -> tuple[float, float]:
    """Return the steps per second of ASE's dynamics with either calculator."""
    from sgdml.intf.ase_calc import SGDMLCalculator

    rates = []
    for one in (calculator, SGDMLCalculator(str(path / "model.npz"))):
        atoms = Atoms(calculator.model.numbers, start, calculator=one)
        rng = np.random.default_rng(0)
        draw_momenta(atoms, protocol.temperature_K, rng)
        dynamics = langevin(
            atoms, temperature_K=protocol.temperature_K, timestep_fs=protocol.timestep_fs,
            friction_per_fs=protocol.friction_per_fs, rng=rng,
        )  # fmt: skip
        dynamics.run(10)
        rates.append(PEER_STEPS / seconds(lambda dynamics=dynamics: dynamics.run(PEER_STEPS)))
    return rates[0], rates[1]


def seconds(work: Callable[[], object]) -> float:
    """Return the time of a call, s."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
