"""The parts of the `sgdml` package in use: permutations, and iterative training for lack of memory."""

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import psutil

from ase_flatten.utils.cores import n_cores
from ase_flatten.utils.exceptions import not_installed
from ase_flatten.utils.typing import FloatArray, IntArray

_LOGGERS = ("sgdml", "sgdml.train", "sgdml.predict", "sgdml.solvers.analytic", "sgdml.solvers.iterative")


@dataclass(frozen=True)
class Package:
    """The parts of the `sgdml` package in use."""

    trainer: Any
    perm: ModuleType


def require() -> None:
    """Raise InputError unless the package, and PyTorch which it needs, are installed; neither is imported."""
    for name in ("sgdml", "torch"):
        if importlib.util.find_spec(name) is None:
            raise not_installed("training an sGDML model", name, extra="sgdml")


@cache
def package() -> Package:
    """Import the package without its changes to global logging, and make its trainer, of which there can be one."""
    import torch  # noqa: F401  (first, or its loggers are made by the class that sgdml puts in place)

    logger_class = logging.getLoggerClass()
    try:
        import sgdml  # noqa: F401
        from sgdml.train import GDMLTrain
        from sgdml.utils import perm
    finally:
        logging.setLoggerClass(logger_class)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    return Package(GDMLTrain(max_processes=n_cores()), perm)


def find_permutations(positions: FloatArray, numbers: IntArray) -> IntArray:
    """Find the permutations of like atoms between the configurations.

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3) array, Å
    numbers : (n_atoms,) int array

    Returns
    -------
    (n_permutations, n_atoms) int array, identity first
    """
    found = package().perm.find_perms(positions.copy(), numbers, max_processes=1)
    return np.asarray(found, dtype=np.int64)


def train(task: Mapping[str, Any], *, memory: float | None = None) -> dict[str, Any]:
    """Train with the package, iteratively if three copies of the kernel matrix do not fit into memory.

    Parameters
    ----------
    task : mapping
        In the format of the package's `create_task`.
    memory : float, optional
        Memory that it may take, bytes; by default, all that is available.

    Returns
    -------
    dict
        The content of a model file.
    """
    trainer = package().trainer
    trainer._max_memory = (psutil.virtual_memory().available if memory is None else memory) / 2**30
    found: dict[str, Any] = trainer.train(task, callback=lambda *_, **__: None)
    return found
