"""Machine-learned force fields that are accurate everywhere, not just on average.

The method is that of Fonseca et al. (2021), doi:10.1063/5.0035530: cluster the configurational space of the reference
data, find the clusters where a model is inaccurate, and choose its training set so that it becomes equally accurate
everywhere.
"""

import os
import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers; at run time the names are imported when they are first used
    from ase_flatten.calculators import FlattenedGAP as FlattenedGAP
    from ase_flatten.calculators import FlattenedSchNet as FlattenedSchNet
    from ase_flatten.calculators import FlattenedSGDML as FlattenedSGDML
    from ase_flatten.calculators import load_calculator as load_calculator
    from ase_flatten.clustering.clusters import Clustering as Clustering
    from ase_flatten.clustering.clusters import cluster as cluster
    from ase_flatten.clustering.prepared_data import PreparedData as PreparedData
    from ase_flatten.data.dataset import Dataset as Dataset
    from ase_flatten.data.io import read_dataset as read_dataset
    from ase_flatten.data.io import write_dataset as write_dataset
    from ase_flatten.md.validate import Validation as Validation
    from ase_flatten.md.validate import validate as validate
    from ase_flatten.selection.cluster_errors import cluster_errors as cluster_errors
    from ase_flatten.selection.flattening import Schedule as Schedule
    from ase_flatten.selection.flattening import flatten as flatten
    from ase_flatten.workflow.run_folder import RunSettings as RunSettings
    from ase_flatten.workflow.run_folder import open_run as open_run
    from ase_flatten.workflow.train_run import train as train

__version__ = "0.1.0"

if os.name != "posix":
    warnings.warn(
        "ase-flatten runs on Linux and macOS; here, reading data and predicting may work, while worker processes, "
        "Ctrl-C and i-PI need POSIX signals and Unix sockets: use WSL",
        stacklevel=2,
    )

_HOME = {
    "Dataset": "data.dataset",
    "read_dataset": "data.io",
    "write_dataset": "data.io",
    "Clustering": "clustering.clusters",
    "cluster": "clustering.clusters",
    "PreparedData": "clustering.prepared_data",
    "cluster_errors": "selection.cluster_errors",
    "Schedule": "selection.flattening",
    "flatten": "selection.flattening",
    "RunSettings": "workflow.run_folder",
    "open_run": "workflow.run_folder",
    "train": "workflow.train_run",
    "Validation": "md.validate",
    "validate": "md.validate",
    "load_calculator": "calculators",
    "FlattenedGAP": "calculators",
    "FlattenedSGDML": "calculators",
    "FlattenedSchNet": "calculators",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # type checkers would take any name for one of these

    def __getattr__(name):
        """Import a public name when it is first used, so that `import ase_flatten` is fast."""
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
