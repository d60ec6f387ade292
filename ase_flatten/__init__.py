"""Machine-learned force fields that are right everywhere, not on average.

The method is that of Fonseca et al. (2021), doi:10.1063/5.0035530: cluster the
configurational space of the reference data, find the clusters where a model is
wrong, and choose its training set so that it is equally right everywhere.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Dataset": "data.dataset",
    "read_dataset": "data.io",
    "write_dataset": "data.io",
    "Clustering": "clustering.clusters",
    "cluster": "clustering.clusters",
    "cluster_errors": "selection.cluster_errors",
    "flatten": "selection.flattening",
    "load_calculator": "calculators",
    "FlattenedGAP": "calculators",
    "FlattenedSGDML": "calculators",
    "FlattenedSchNet": "calculators",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import ase_flatten` is quick."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
