"""Langevin dynamics of one molecule, started from a state and followed step by step.

A piece of dynamics starts with a calculator that has computed nothing yet, and depends on the state alone.
A trajectory of several pieces, each started from the last state of the one before, is therefore the same wherever it
was interrupted. `by_ipi` starts an `i-pi` process for that, which takes about a second.
"""

from collections.abc import Callable, Generator
from itertools import chain

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, CalculatorError
from ase.calculators.singlepoint import SinglePointCalculator

from ase_flatten.md.engines import make_engine
from ase_flatten.md.integrators.langevin import langevin
from ase_flatten.md.protocol import Protocol
from ase_flatten.sampling.partial_run import State
from ase_flatten.utils.typing import IntArray

Steps = Generator[tuple[State, Atoms], None, None]
"""Successive states, and the atoms with their energy and forces."""

RunDynamics = Callable[[BaseCalculator, IntArray, State, Protocol], Steps]
"""Run from a state by a protocol of one replica, and yield after each `interval` of it, or after every step."""


class DynamicsError(Exception):
    """The calculator returned no energy or forces; the message says why."""


def by_ase(calculator: BaseCalculator, numbers: IntArray, state: State, protocol: Protocol) -> Steps:
    """Run ASE's Langevin dynamics; a `RunDynamics`."""
    atoms = Atoms(numbers, state.positions, momenta=state.momenta, calculator=calculator)
    rng = _generator(state)
    dynamics = langevin(
        atoms, temperature_K=protocol.temperature_K, timestep_fs=protocol.timestep_fs,
        friction_per_fs=protocol.friction_per_fs, rng=rng,
    )  # fmt: skip
    for step in range(state.step + 1, state.step + protocol.n_steps + 1):
        try:
            dynamics.step()
        except CalculatorError as error:
            raise DynamicsError(f"its calculation failed: {error}") from error
        yield _state(step, atoms, rng), atoms


def by_ipi(calculator: BaseCalculator, numbers: IntArray, state: State, protocol: Protocol) -> Steps:
    """Run i-PI's Langevin dynamics, whose noise has a seed drawn from the state's generator; a `RunDynamics`."""
    rng = _generator(state)
    engine = make_engine("ipi", calculator, numbers, protocol, seed=int(rng.integers(2**63)))
    alive = np.ones(1, dtype=bool)
    later = (engine.advance(protocol.interval, alive) for _ in range(protocol.n_steps // protocol.interval))
    try:
        for frame in chain([engine.begin(state.positions[None], state.momenta[None])], later):
            if frame.problems:
                raise DynamicsError(frame.problems[0])
            if frame.step > 0:
                atoms = Atoms(numbers, frame.positions[0], momenta=frame.momenta[0])
                atoms.calc = SinglePointCalculator(atoms, energy=frame.potential[0], forces=frame.forces[0])
                yield _state(state.step + frame.step, atoms, rng), atoms
    finally:
        engine.close()


SAMPLING_ENGINES: dict[str, RunDynamics] = {"ase": by_ase, "ipi": by_ipi}


def _generator(state: State) -> np.random.Generator:
    rng = np.random.default_rng()
    rng.bit_generator.state = state.generator
    return rng


def _state(step: int, atoms: Atoms, rng: np.random.Generator) -> State:
    return State(step, atoms.get_positions(), atoms.get_momenta(), dict(rng.bit_generator.state))
