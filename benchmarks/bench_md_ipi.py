"""Measure the time of a step of dynamics through i-PI above the model's own evaluation.

    python benchmarks/bench_md_ipi.py [--atoms N] [--steps N]

The model is a chain of harmonic bonds. Its evaluations are timed within the run and subtracted from the wall time
between the first frame and the last: the rest is i-PI's integration, its outputs, the socket and the waiting.
"""

import argparse
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from bench_clustering import print_machine

from ase_flatten.md.engines import make_engine
from ase_flatten.md.protocol import Protocol


class Springs(Calculator):
    """A harmonic bond between each atom and the next, 5 eV/Å² about 1 Å."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms: Atoms | None = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Compute energy and forces."""
        super().calculate(atoms, properties or ["energy"], system_changes)
        bonds = np.diff(self.atoms.positions, axis=0)
        lengths = np.linalg.norm(bonds, axis=1)
        pull = 5 * ((lengths - 1) / lengths)[:, None] * bonds
        forces = np.zeros_like(self.atoms.positions)
        forces[:-1] += pull
        forces[1:] -= pull
        self.results = {"energy": 2.5 * np.sum((lengths - 1) ** 2), "forces": forces}


class Timed:
    """A function that measures the time of each call."""

    def __init__(self, function: Any) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, positions: np.ndarray) -> Any:
        """Call it."""
        start = time.perf_counter()
        answer = self.function(positions)
        self.seconds += time.perf_counter() - start
        return answer


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atoms", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    print_machine()
    print(f"ipi {version('ipi')}; {given.atoms} atoms, {given.steps} steps, {given.repeats} times: least to most\n")
    print("replicas  a frame every   ms a step and replica above the model   ms of the model")
    for n_replicas in (1, 4):
        for interval in (10, 100):
            above, own = np.transpose([measure(given, n_replicas, interval) for _ in range(given.repeats)])
            print(f"{n_replicas:8d}  {interval:7d} steps   {span(above):>37s}   {span(own)}")


def measure(given: argparse.Namespace, n_replicas: int, interval: int) -> tuple[float, float]:
    """Return ms per step and replica, without the model and of the model."""
    atoms = Atoms("H" * given.atoms, np.arange(given.atoms)[:, None] * [1.0, 0.0, 0.0])
    protocol = Protocol("benchmark", 300, 0.5, 0.01, given.steps, n_replicas, interval)
    engine = make_engine("ipi", Springs(), atoms.numbers, protocol, seed=0)
    engine._evaluate = timed = Timed(engine._evaluate)
    alive = np.ones(n_replicas, dtype=bool)
    try:
        engine.begin(np.array([atoms.positions] * n_replicas))
        before, start = timed.seconds, time.perf_counter()
        for _ in range(given.steps // interval):
            engine.advance(interval, alive)
        seconds, own = time.perf_counter() - start, timed.seconds - before
    finally:
        engine.close()
    steps = given.steps // interval * interval * n_replicas
    return 1e3 * (seconds - own) / steps, 1e3 * own / steps


def span(values: np.ndarray) -> str:
    """Format the minimum and the maximum."""
    return f"{values.min():.2f} to {values.max():.2f}"


if __name__ == "__main__":
    main()
