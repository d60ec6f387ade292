"""The interface of engines, which integrate the equations of motion for all replicas of one molecule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from ase.calculators.calculator import BaseCalculator

from ase_flatten.md.protocol import Protocol as MDProtocol
from ase_flatten.utils.typing import FloatArray, IntArray

State = dict[str, Any]
"""The state of the dynamics: arrays, numbers and text, as an npz file can hold them."""


@dataclass(frozen=True, eq=False)
class Frame:
    """All replicas at one moment.

    Parameters
    ----------
    step : int
        Below zero during equilibration.
    positions, momenta, forces : (n_replicas, n_atoms, 3) arrays, Å, ASE's unit of momentum, eV/Å
        Copies; the values of a replica that has failed are meaningless.
    potential : (n_replicas,) array, eV
    conserved : (n_replicas,) array, eV
        The energy of the molecule and of its thermostat, up to a constant; NaN if the engine does not know it.
    problems : dict
        The message of the model for each replica that it has failed on, by the number of the replica.
    """

    step: int
    positions: FloatArray
    momenta: FloatArray
    forces: FloatArray
    potential: FloatArray
    conserved: FloatArray
    problems: dict[int, str] = field(default_factory=dict)


class Engine(Protocol):
    """Engine that integrates the equations of motion.

    It is made from a calculator, the molecule, a protocol and a seed. Before step zero the thermostat is Langevin's,
    and from then on that of the protocol.

    Attributes
    ----------
    thermostats : tuple of str
        Those of `ase_flatten.md.protocol.THERMOSTATS` that the engine supports.
    """

    thermostats: ClassVar[tuple[str, ...]]

    def __init__(self, calculator: BaseCalculator, numbers: IntArray, protocol: MDProtocol, *, seed: int) -> None: ...

    def begin(self, positions: FloatArray, momenta: FloatArray | None = None) -> Frame:
        """Return the frame before the first step.

        Parameters
        ----------
        positions : (n_replicas, n_atoms, 3) array, Å
        momenta : (n_replicas, n_atoms, 3) array, ASE's unit of momentum, optional
            By default, they are drawn from the Maxwell-Boltzmann distribution, with the centre of mass at rest.
        """

    def resume(self, state: Mapping[str, Any]) -> None:
        """Resume from `state`; the dynamics continue as they would have without the interruption.

        Raises
        ------
        ValueError, KeyError, TypeError
            Not the state of such an engine.
        """

    def advance(self, n_steps: int, alive: np.ndarray) -> Frame:
        """Make steps with the replicas that are alive, (n_replicas,) bool, and return the frame after them."""

    def state(self) -> State:
        """Return the state of the dynamics after the last step."""

    def close(self) -> None:
        """End any other process that the engine has started."""


def array_of(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> FloatArray:
    """Return a copy of an array of numbers in a state; raise ValueError for another shape or other values."""
    array = np.array(state[name])
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise ValueError(f"{name} of shape {array.shape} and type {array.dtype}, not {shape}")
    return array.astype(np.float64, copy=False)
