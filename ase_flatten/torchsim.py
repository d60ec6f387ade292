"""Models of this project for torch-sim, which batches systems on one device.

Written for torch-sim 0.3 (the newest for Python 3.11), whose models take a state and return a dictionary.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_sim.models.interface import ModelInterface

from ase_flatten.calculators import FlattenedCalculator
from ase_flatten.data.dataset import formula
from ase_flatten.utils.exceptions import InputError


class FlattenedTorchSim(ModelInterface):
    """torch-sim model of a trained model of any family.

    Parameters
    ----------
    path : str or Path
        A run folder (its improved model), a model folder, or a native file.

    Raises
    ------
    InputError
        There is no model; when it is used: the systems are not all the model's molecule.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._calculator = FlattenedCalculator(path)
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_stress, self._compute_forces = False, True
        self._memory_scales_with = "n_atoms"

    def forward(self, state: Any, **_: Any) -> dict[str, torch.Tensor]:
        """Return energies (n_systems,), eV, and forces (n_systems * n_atoms, 3), eV/Å; periodic cells are ignored."""
        known = self._calculator.model.numbers
        numbers = state["atomic_numbers"] if isinstance(state, dict) else state.atomic_numbers
        positions = state["positions"] if isinstance(state, dict) else state.positions
        found = numbers.cpu().numpy()
        if len(found) % len(known) or not np.array_equal(
            found.reshape(-1, len(known)), np.tile(known, (len(found) // len(known), 1))
        ):
            raise InputError(
                f"expected systems of {formula(known)} only, with their atoms in the model's order, found others; "
                "choose the model of this molecule"
            )
        prediction = self._calculator.predict(positions.detach().cpu().numpy().reshape(-1, len(known), 3))
        return {
            "energy": torch.from_numpy(prediction.energies).to(positions),
            "forces": torch.from_numpy(prediction.forces.reshape(-1, 3)).to(positions),
        }
