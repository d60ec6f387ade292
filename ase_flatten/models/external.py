"""Models that this project did not train: any ASE calculator behind the `Model` protocol."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_flatten.dataset import FloatArray, IntArray
from ase_flatten.exceptions import InputError
from ase_flatten.models import Prediction


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
        """Predict configurations, (n_frames, n_atoms, 3) in Å, one after the other."""
        atoms = Atoms(self.numbers, calculator=self.calculator)
        energies, forces = np.empty(len(positions)), np.empty(positions.shape)
        for row, configuration in enumerate(positions):
            atoms.positions = configuration
            forces[row] = atoms.get_forces()
            energies[row] = atoms.get_potential_energy()
        return Prediction(energies, forces)

    def save(self, folder: Path) -> None:
        """Refuse: there is nothing of this project's to write."""
        raise InputError("an ASE calculator is no model that could be saved; keep its own files")
