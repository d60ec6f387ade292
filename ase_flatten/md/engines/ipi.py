"""Engine that lets an `i-pi` process integrate and serves it with forces through a Unix socket.

One i-PI process integrates all replicas, each a system of its own with momenta from its own child of the seed; it draws
the noise of all from one generator. See `ase_flatten.md.engines.ipi_process` for how the two processes keep in step.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase.calculators.calculator import BaseCalculator

from ase_flatten.md.engines.force_evaluation import evaluator
from ase_flatten.md.engines.interface import Frame, State
from ase_flatten.md.engines.ipi_files import first_input, next_input
from ase_flatten.md.engines.ipi_process import IPIProcess, ipi_command
from ase_flatten.md.integrators.langevin import thermal_momenta
from ase_flatten.md.protocol import Protocol
from ase_flatten.utils.typing import FloatArray, IntArray


class IPIEngine:
    """Engine that integrates with `i-pi`; see `Engine`.

    Parameters
    ----------
    calculator : ASE calculator
    numbers : (n_atoms,) int array
    protocol : Protocol
    seed : int
        Of velocities and noise.

    Raises
    ------
    InputError
        The package ipi is not installed.
    """

    thermostats: ClassVar[tuple[str, ...]] = ("langevin", "svr", "none")

    def __init__(self, calculator: BaseCalculator, numbers: IntArray, protocol: Protocol, *, seed: int) -> None:
        self._command = ipi_command()
        self._evaluate, self._numbers, self._protocol = evaluator(calculator, numbers), numbers, protocol
        *self._starts, noise = np.random.SeedSequence(seed).spawn(protocol.n_replicas + 1)
        self._noise = [int(number) for number in noise.generate_state(2)]
        self._process: IPIProcess | None = None

    def begin(self, positions: FloatArray, momenta: FloatArray | None = None) -> Frame:
        """Draw momenta unless they are given, and start i-PI; return the first frame."""
        if momenta is None:
            rngs = [np.random.default_rng(child) for child in self._starts]
            momenta = thermal_momenta(self._numbers, self._protocol.temperature_K, rngs)
        return self._start(-self._protocol.equilibration_steps, positions, momenta)

    def resume(self, state: Mapping[str, Any]) -> None:
        """Resume from the checkpoint of i-PI, with the state of its generator, and repeat the steps since then."""
        checkpoint, since = str(state["checkpoint"]), int(state["since"])
        self._launch(int(state["step"]) - since, lambda folder, stride: next_input(folder, checkpoint, stride=stride))
        if since:
            self.advance(since, np.ones(self._protocol.n_replicas, dtype=bool))

    def advance(self, n_steps: int, alive: np.ndarray) -> Frame:
        """Let i-PI make steps; a replica that has failed continues without forces.

        At step zero the thermostat changes, and i-PI is started again.
        """
        until_zero = max(0, -self._step)
        if 0 < until_zero < n_steps:
            before = self.advance(until_zero, alive)
            after = self.advance(n_steps - until_zero, alive)
            return replace(after, problems=before.problems | after.problems)
        assert self._process is not None, "begin or resume comes first"
        self._process.advance(n_steps, alive)
        self._step += n_steps
        frame = self._frame()
        if self._step == 0 and self._protocol.thermostat != "langevin":
            problems = frame.problems
            frame = self._start(0, frame.positions, frame.momenta)
            frame = replace(frame, problems=frame.problems | problems)
        return frame

    def state(self) -> State:
        """Return the step, the last checkpoint of i-PI, and the number of steps between the two."""
        assert self._process is not None, "begin or resume comes first"
        checkpoint, since = self._process.checkpoint()
        return {"step": self._step, "checkpoint": checkpoint, "since": since}

    def close(self) -> None:
        """End i-PI and the thread that serves it, and remove the folder where it ran."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _start(self, first: int, positions: FloatArray, momenta: FloatArray) -> Frame:
        """Start dynamics at a step; return its frame."""
        thermostat = "langevin" if first < 0 else self._protocol.thermostat

        def write(folder: Path, stride: int) -> str:
            return first_input(
                folder, self._numbers, positions, momenta, self._protocol,
                thermostat=thermostat, stride=stride, seed=self._noise[first < 0],
            )  # fmt: skip

        return self._launch(first, write)

    def _launch(self, first: int, write: Callable[[Path, int], str]) -> Frame:
        self.close()
        self._step = first
        self._process = IPIProcess(
            self._command,
            # Every frame that is due is then one that i-PI writes.
            lambda folder: write(folder, math.gcd(self._protocol.interval, first)),
            self._evaluate,
            self._numbers,
            self._protocol.n_replicas,
        )
        return self._frame()

    def _frame(self) -> Frame:
        assert self._process is not None, "begin or resume comes first"
        found, problems = self._process.frame()
        return Frame(
            self._step, found.positions, found.momenta, found.forces, found.potential, found.conserved, problems
        )
