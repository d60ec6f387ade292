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

__all__ = ["ENGINES", "Engine", "Frame", "State", "make_engine"]

ENGINES: dict[str, type[Engine]] = {"batched": BatchedEngine, "ase": ASEEngine, "ipi": IPIEngine}


def make_engine(name: str, calculator: BaseCalculator, numbers: IntArray, protocol: Protocol, *, seed: int) -> Engine:
    """Make an engine by its name, one of `ENGINES`.

    Raises
    ------
    InputError
        No such engine, a thermostat that it does not have, or a package that it needs is missing.
    """
    if name not in ENGINES:
        raise InputError(f"the engine must be one of {', '.join(ENGINES)}, got {name!r}")
    engine = ENGINES[name]
    if protocol.thermostat not in engine.thermostats:
        having = [other for other, kind in ENGINES.items() if protocol.thermostat in kind.thermostats]
        raise InputError(
            f"the engine {name} has the thermostats {', '.join(engine.thermostats)}, got {protocol.thermostat}; "
            f"choose one of these, or --engine {' or '.join(having)}"
        )
    return engine(calculator, numbers, protocol, seed=seed)
