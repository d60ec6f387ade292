"""Molecular dynamics: Langevin runs of a model, their analysis and their figure."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers; at run time the names are imported when they are first used
    from ase_flatten.md.analysis.figure import plot_total_energy as plot_total_energy
    from ase_flatten.md.analysis.verdict import verdict as verdict
    from ase_flatten.md.criteria import Criteria as Criteria
    from ase_flatten.md.dynamics import Plan as Plan
    from ase_flatten.md.dynamics import run_md as run_md
    from ase_flatten.md.protocol import Protocol as Protocol
    from ase_flatten.md.protocol import load_protocol as load_protocol

_HOME = {
    "Criteria": "criteria",
    "Plan": "dynamics",
    "Protocol": "protocol",
    "load_protocol": "protocol",
    "plot_total_energy": "analysis.figure",
    "run_md": "dynamics",
    "verdict": "analysis.verdict",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # type checkers would take any name for one of these

    def __getattr__(name):
        """Import a public name when it is first used: sampling needs no figures."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
