"""Engines: what integrates the equations of motion, for all replicas of one molecule at a time.

``batched``
    All replicas in one call of the model; the fastest where the model takes many configurations at once.
``ase``
    ASE's own dynamics, one replica after the other.
``ipi``
    An `i-pi` process, which this one serves with forces through a socket.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from ase.calculators.calculator import BaseCalculator

from ase_flatten.md.protocol import Protocol as MDProtocol
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray

ENGINES = {"batched": "BatchedEngine", "ase": "ASEEngine", "ipi": "IPIEngine"}

State = dict[str, Any]
"""Where the dynamics stand: arrays, numbers and text, as an npz file can hold them."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Hold all replicas at one moment.

    Parameters
    ----------
    step : int
        Below zero during equilibration.
    positions, momenta, forces : (n_replicas, n_atoms, 3) arrays, Å, ASE's unit of momentum, eV/Å
        Copies. What a replica that has failed holds is of no meaning.
    potential : (n_replicas,) array, eV
    conserved : (n_replicas,) array, eV
        The energy of the molecule and of its thermostat, up to a constant; NaN where the engine does not know it.
    problems : dict
        What the model said for each replica that it has failed on, by the number of the replica.
    """

    step: int
    positions: FloatArray
    momenta: FloatArray
    forces: FloatArray
    potential: FloatArray
    conserved: FloatArray
    problems: dict[int, str] = field(default_factory=dict)


class Engine(Protocol):
    """Integrate the equations of motion.

    Made of a calculator, the molecule, a protocol and a seed. Before step zero the thermostat is
    Langevin's; from there on it is the protocol's.
    """

    def begin(self, positions: FloatArray, momenta: FloatArray | None = None) -> Frame:
        """Return the frame before the first step.

        Parameters
        ----------
        positions : (n_replicas, n_atoms, 3) array, Å
        momenta : (n_replicas, n_atoms, 3) array, ASE's unit of momentum, optional
            Without them, they are drawn: thermal ones, the centre of mass at rest.
        """

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take up where `state` was given; what follows is what would have followed then."""

    def advance(self, n_steps: int, alive: np.ndarray) -> Frame:
        """Make steps with the replicas that are alive, (n_replicas,) bool, and give the frame after them."""

    def state(self) -> State:
        """Give where the dynamics stand, after the last step."""

    def close(self) -> None:
        """End whatever runs beside this process."""


def make_engine(name: str, calculator: BaseCalculator, numbers: IntArray, protocol: MDProtocol, *, seed: int) -> Engine:
    """Make an engine by its name, one of `ENGINES`.

    Raises
    ------
    InputError
        A thermostat that the engine does not have, or a package that it needs is missing.
    """
    if protocol.thermostat == "nhc" and name != "batched":  # ASE does not tell the state of its own
        raise InputError(f"the engine {name} has langevin, svr and none, got the thermostat nhc; take --engine batched")
    made: Engine = getattr(import_module(f"{__name__}.{name}"), ENGINES[name])(calculator, numbers, protocol, seed=seed)
    return made
