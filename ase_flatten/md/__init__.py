"""Molecular dynamics: Langevin runs of a model, their analysis and their figure."""

from importlib import import_module
from typing import Any

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


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: sampling needs no figures."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
