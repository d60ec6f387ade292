"""Models that this project did not train: any ASE calculator behind the `Model` protocol."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_flatten.models import MODEL_ERRORS, Prediction
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray

_PIECES_A_WORKER = 4


class ASEModel:
    """Predict with an ASE calculator, one configuration at a time.

    Parameters
    ----------
    calculator : ASE calculator
        With energy and forces.
    numbers : (n_atoms,) int array
        The molecule.
    name : str
        What to call it in outputs.
    """

    def __init__(self, calculator: BaseCalculator, numbers: IntArray, *, name: str = "") -> None:
        self.calculator = calculator
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self.permutations: IntArray = np.arange(len(self.numbers))[None]
        self.hyper_parameters: Mapping[str, Any] = {"calculator": name or type(calculator).__name__}

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict configurations, (n_frames, n_atoms, 3) in Å, one after the other.

        Raises
        ------
        InputError
            The calculator fails.
        """
        atoms = Atoms(self.numbers, calculator=self.calculator)
        energies, forces = np.empty(len(positions)), np.empty(positions.shape)
        for row, configuration in enumerate(positions):
            atoms.positions = configuration
            try:
                forces[row] = atoms.get_forces()
                energies[row] = atoms.get_potential_energy()
            except MODEL_ERRORS as error:
                raise InputError(
                    f"{self.hyper_parameters['calculator']} failed on a configuration of these data: {error}; "
                    "choose a calculator that can do them all"
                ) from error
        return Prediction(energies, forces)

    def save(self, folder: Path) -> None:
        """Refuse: there is nothing of this project's to write."""
        raise InputError("an ASE calculator is no model that could be saved; keep its own files")


class ASEModelPool(ASEModel):
    """Predict with copies of an ASE calculator in other processes, each of them on one core.

    The processes live as long as the block of the `with` statement, and end with this process
    however it ends.

    Parameters
    ----------
    make : callable
        Makes the calculator; a function of a module with arguments bound, so that other processes can call it.
    numbers : (n_atoms,) int array
    name : str
    n_workers : int
        Processes beside this one.
    """

    def __init__(self, make: Callable[[], BaseCalculator], numbers: IntArray, *, name: str, n_workers: int) -> None:
        super().__init__(make(), numbers, name=name)  # so that a mistake shows here, and not in a worker
        self._n_workers = n_workers
        self._pool = ProcessPoolExecutor(
            n_workers,
            mp_context=multiprocessing.get_context("spawn"),  # a fork of a process with threads may hang
            initializer=_begin,
            initargs=(make, self.numbers, name),
        )

    def __enter__(self) -> "ASEModelPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict configurations, (n_frames, n_atoms, 3) in Å, on all workers.

        Raises
        ------
        InputError
            The calculator fails, or ends its process.
        """
        pieces = np.array_split(positions, min(len(positions), _PIECES_A_WORKER * self._n_workers))
        try:
            parts = list(self._pool.map(_predict, pieces))
        except BrokenProcessPool as error:
            raise InputError(
                f"a process with {self.hyper_parameters['calculator']} ended ({error}); memory may have been short, "
                "try --workers 1"
            ) from error
        return Prediction(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("energies", "forces")))


_models: list[ASEModel] = []
"""The model of a worker."""


def _begin(make: Callable[[], BaseCalculator], numbers: IntArray, name: str) -> None:
    """Make a worker's calculator, before which the number of its threads must be told."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    _models[:] = [ASEModel(make(), numbers, name=name)]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _predict(positions: FloatArray) -> Prediction:
    return _models[0].predict(positions)
