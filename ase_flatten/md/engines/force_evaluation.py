"""Evaluation of a calculator for the engines: energies and forces of many configurations, and which of them failed."""

from typing import Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_flatten.md.integrators.replicas import Evaluate
from ase_flatten.models import MODEL_ERRORS, Prediction
from ase_flatten.utils.typing import FloatArray, IntArray


@runtime_checkable
class BatchCalculator(Protocol):
    """A calculator that also predicts many configurations of its molecule in one call.

    Those of this package do (`ase_flatten.calculators.FlattenedCalculator`).
    """

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict many configurations, (n, n_atoms, 3) in Å."""


def evaluator(calculator: BaseCalculator | BatchCalculator, numbers: IntArray) -> Evaluate:
    """Return a function that evaluates positions; see `Evaluate`.

    A `BatchCalculator` gets all positions in one call. If that fails, and with any other calculator, configurations
    are evaluated one by one, so that a failure affects no other configuration.
    """
    atoms = Atoms(numbers, calculator=calculator)

    def one_by_one(positions: FloatArray) -> tuple[FloatArray, FloatArray, dict[int, str]]:
        energies, forces, problems = np.empty(len(positions)), np.empty(positions.shape), {}
        for row, configuration in enumerate(positions):
            atoms.positions = configuration
            try:
                energies[row], forces[row] = atoms.get_potential_energy(), atoms.get_forces()
            except MODEL_ERRORS as error:
                energies[row], forces[row], problems[row] = np.nan, 0, f"the model failed: {error}"
        return energies, forces, problems

    if not isinstance(calculator, BatchCalculator):
        return one_by_one
    batch: BatchCalculator = calculator

    def together(positions: FloatArray) -> tuple[FloatArray, FloatArray, dict[int, str]]:
        try:
            answer = batch.predict(positions)
        except MODEL_ERRORS as error:
            return one_by_one(positions) if len(positions) > 1 else _nothing(positions, error)
        return answer.energies, answer.forces, {}

    return together


def _nothing(positions: FloatArray, error: Exception) -> tuple[FloatArray, FloatArray, dict[int, str]]:
    return np.full(len(positions), np.nan), np.zeros(positions.shape), {0: f"the model failed: {error}"}
