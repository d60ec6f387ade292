"""Engines: what integrates the equations of motion, for all replicas of one molecule at a time.

``batched``
    All replicas in one call of the model; the fastest where the model takes many configurations at once.
``ase``
    ASE's own dynamics, one replica after the other.
``ipi``
    An `i-pi` process, which this one serves with forces through a socket.
"""

from ase.calculators.calculator import BaseCalculator

from ase_flatten.md.engines.ase import ASEEngine
from ase_flatten.md.engines.batched import BatchedEngine
from ase_flatten.md.engines.interface import Engine, Frame, State
from ase_flatten.md.engines.ipi import IPIEngine
from ase_flatten.md.protocol import Protocol
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import IntArray

__all__ = ["ENGINES", "Engine", "Frame", "State", "check_engine", "make_engine"]

ENGINES: dict[str, type[Engine]] = {"batched": BatchedEngine, "ase": ASEEngine, "ipi": IPIEngine}


def check_engine(name: str, thermostat: str) -> None:
    """Raise InputError for an engine that does not exist, or for a thermostat that it does not have."""
    if name not in ENGINES:
        raise InputError(f"the engine must be one of {', '.join(ENGINES)}, got {name!r}")
    having = [other for other, engine in ENGINES.items() if thermostat in engine.thermostats]
    if name not in having:
        raise InputError(
            f"the engine {name} has the thermostats {', '.join(ENGINES[name].thermostats)}, got {thermostat}; "
            f"choose one of these, or --engine {' or '.join(having)}"
        )


def make_engine(name: str, calculator: BaseCalculator, numbers: IntArray, protocol: Protocol, *, seed: int) -> Engine:
    """Make an engine by its name, one of `ENGINES`.

    Raises
    ------
    InputError
        No such engine, a thermostat that it does not have, or a package that it needs is missing.
    """
    check_engine(name, protocol.thermostat)
    return ENGINES[name](calculator, numbers, protocol, seed=seed)
