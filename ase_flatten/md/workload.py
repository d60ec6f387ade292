"""How much a validation has to compute, about how long that takes, and its progress as a whole."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_flatten.md.engines.force_evaluation import BatchCalculator, evaluator
from ase_flatten.utils.progress import Advance

log = logging.getLogger(__name__)

_SECONDS_OF_ENGINE = {"batched": 2e-5, "ase": 1e-3, "ipi": 1e-3}
"""What a step of one replica costs above the model's own time, s."""

_SECONDS_OF_ANALYSIS = 3.0
"""What the analysis and the figures of one temperature take, s."""

_QUICK = 0.5
"""A first evaluation that takes less, s, is repeated: it may have loaded libraries."""


@dataclass(frozen=True)
class Workload:
    """What is left to compute.

    Parameters
    ----------
    steps : mapping of str to int
        Steps of all replicas that each model has yet to make.
    seconds : mapping of str to float
        What such a step costs.
    n_temperatures : int
        How many analyses follow.
    """

    steps: Mapping[str, int]
    seconds: Mapping[str, float]
    n_temperatures: int

    @property
    def total_seconds(self) -> float:
        """The time that all of it takes, s, as far as it can be foreseen."""
        dynamics = sum(self.steps[name] * self.seconds[name] for name in self.steps)
        return dynamics + self.n_temperatures * _SECONDS_OF_ANALYSIS

    def weight(self, name: str) -> int:
        """Return the cost of a model's step in units of the cheapest model's."""
        return max(1, round(self.seconds[name] / min(self.seconds.values())))

    @property
    def n_units(self) -> int:
        """The cost of all steps in these units."""
        return sum(n_steps * self.weight(name) for name, n_steps in self.steps.items())


def seconds_per_step(calculator: BaseCalculator, start: Sequence[Atoms], engine: str) -> float:
    """Measure what a step of all replicas costs, by the evaluation of their starts or of one of them."""
    at_once = engine == "batched" and isinstance(calculator, BatchCalculator)
    evaluate = evaluator(calculator, start[0].numbers)
    positions = np.array([atoms.positions for atoms in (start if at_once else start[:1])])
    for _ in range(2):
        begin = time.perf_counter()
        evaluate(positions)
        taken = time.perf_counter() - begin
        if taken > _QUICK:
            break
    return taken * len(start) / len(positions) + len(start) * _SECONDS_OF_ENGINE[engine]


@dataclass(frozen=True)
class OfOneModel:
    """A `Progress` that reports each task of a model as a part of the whole, and logs its name."""

    whole: Advance
    weight: int

    @contextmanager
    def task(self, what: str, total: int) -> Iterator[Advance]:
        """Log the task unless nothing is left of it, and advance the whole."""
        if total > 0:
            log.info("%s", what)

        def advance(done: int, /, *, total: int | None = None) -> None:
            self.whole(done * self.weight)

        yield advance
