"""Any ASE calculator as a model."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_flatten.models import MODEL_ERRORS, Prediction
from ase_flatten.utils.exceptions import BackendError, InputError
from ase_flatten.utils.parallel import WorkerDiedError, map_tasks
from ase_flatten.utils.typing import FloatArray, IntArray

_FRAMES_A_TASK = 8
"""Independent of the number of workers, so that predictions are as well."""


class ASEModel:
    """A model that predicts with an ASE calculator, one configuration at a time.

    Parameters
    ----------
    make : callable
        Makes the calculator, which has energy and forces; called for each task of a few configurations, unless
        it is a `PerWorker`. For processes, a function of a module with arguments bound.
    numbers : (n_atoms,) int array
        The molecule.
    name : str
        What the calculator is called in messages and outputs.
    executor : concurrent.futures.Executor, optional
        Runs the tasks; without one, this process does, with the same results.

    Raises
    ------
    InputError
        The calculator cannot be made.
    """

    def __init__(
        self, make: Callable[[], BaseCalculator], numbers: IntArray, *, name: str, executor: Executor | None = None
    ) -> None:
        make()  # a mistake shows here, and not in a worker
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self.permutations: IntArray = np.arange(len(self.numbers))[None]
        self.hyper_parameters: Mapping[str, Any] = {"calculator": name}
        self._predict = partial(_predict, make, self.numbers, name)
        self._executor = executor

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict configurations, (n_frames, n_atoms, 3) in Å.

        Raises
        ------
        BackendError
            The calculator fails, or ends its process.
        """
        tasks = [positions[start : start + _FRAMES_A_TASK] for start in range(0, len(positions), _FRAMES_A_TASK)]
        try:
            parts = map_tasks(self._predict, tasks or [positions], executor=self._executor)
        except WorkerDiedError as error:
            raise BackendError(
                f"a process with {self.hyper_parameters['calculator']} ended ({error}); memory may have been short, "
                "try --workers 1"
            ) from error
        return Prediction(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("energies", "forces")))

    def save(self, folder: Path) -> None:
        """Refuse: an ASE calculator has no file of this project."""
        raise InputError("an ASE calculator cannot be saved as a model; keep its own files")


def _predict(make: Callable[[], BaseCalculator], numbers: IntArray, name: str, positions: FloatArray) -> Prediction:
    atoms = Atoms(numbers, calculator=make())
    energies, forces = np.empty(len(positions)), np.empty(positions.shape)
    for row, configuration in enumerate(positions):
        atoms.positions = configuration
        try:
            forces[row] = atoms.get_forces()
            energies[row] = atoms.get_potential_energy()
        except MODEL_ERRORS as error:
            raise BackendError(
                f"{name} failed on a configuration of these data: {error}; choose one that can compute them all"
            ) from error
    return Prediction(energies, forces)
