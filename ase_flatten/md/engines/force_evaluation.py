"""What engines ask of a calculator: energies and forces of many configurations, and what went wrong with which."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms

from ase_flatten.models import MODEL_ERRORS
from ase_flatten.utils.typing import FloatArray, IntArray

Evaluate = Callable[[FloatArray], tuple[FloatArray, FloatArray, dict[int, str]]]


def evaluator(calculator: Any, numbers: IntArray) -> Evaluate:
    """Return a function from positions to potential energies, forces, and what went wrong with which."""
    if hasattr(calculator, "predict"):

        def together(positions: FloatArray) -> tuple[FloatArray, FloatArray, dict[int, str]]:
            try:
                answer = calculator.predict(positions)
            except MODEL_ERRORS as error:
                return one_by_one(positions) if len(positions) > 1 else _nothing(positions, error)
            return answer.energies, answer.forces, {}

    def one_by_one(positions: FloatArray) -> tuple[FloatArray, FloatArray, dict[int, str]]:
        energies, forces, problems = np.empty(len(positions)), np.empty(positions.shape), {}
        for row, configuration in enumerate(positions):
            atoms.positions = configuration
            try:
                energies[row], forces[row] = atoms.get_potential_energy(), atoms.get_forces()
            except MODEL_ERRORS as error:
                energies[row], forces[row], problems[row] = np.nan, 0, f"the model failed: {error}"
        return energies, forces, problems

    atoms = Atoms(numbers, calculator=calculator)
    return together if hasattr(calculator, "predict") else one_by_one


def _nothing(positions: FloatArray, error: Exception) -> tuple[FloatArray, FloatArray, dict[int, str]]:
    return np.full(len(positions), np.nan), np.zeros(positions.shape), {0: f"the model failed: {error}"}
