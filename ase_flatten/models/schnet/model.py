"""SchNet models: predictions, and files that SchNetPack can use."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import energy_in_eV
from ase_flatten.geometry.pair_distances import exchanges_of_like_atoms
from ase_flatten.models import Prediction
from ase_flatten.models.schnet.device import ONE_THREAD_BELOW, find_device, one_thread
from ase_flatten.models.schnet.native import make_potential, offset_of, read_potential, read_torch
from ase_flatten.models.schnet.network import MoleculeNetwork
from ase_flatten.utils.cores import on_all_cores
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray

MODEL_FILE = "model.pt"
ENERGY_UNIT = "kcal/mol"
_PAIR_FEATURES_AT_ONCE = {"cpu": ONE_THREAD_BELOW, "cuda": 2**26}
"""Elements of the largest array of a prediction: on a CPU it fits the cache, on a GPU a part of its memory."""


class SchNetModel:
    """A SchNet model.

    Parameters
    ----------
    potential : schnetpack.model.NeuralNetworkPotential
    numbers : (n_atoms,) int array
    hyper_parameters : mapping
        The settings of the trainer, and `gradient_steps`; empty for a model that was not trained here.
    training : mapping
        The `digest` of the data set and the training `frames`; empty for a model that was not trained here.
    energy_unit : str
        Energy unit of the potential; lengths are in Å.

    Attributes
    ----------
    permutations : (n_permutations, n_atoms) int array
        See `exchanges_of_like_atoms`; the model is invariant to all permutations of like atoms.
    """

    def __init__(
        self,
        potential: Any,
        numbers: IntArray,
        *,
        hyper_parameters: Mapping[str, Any],
        training: Mapping[str, Any],
        energy_unit: str = ENERGY_UNIT,
    ) -> None:
        self.potential = potential.eval()
        self.numbers = np.asarray(numbers, dtype=np.int64)
        self.hyper_parameters, self.training = dict(hyper_parameters), dict(training)
        self.permutations = exchanges_of_like_atoms(self.numbers)
        self._unit = energy_in_eV(energy_unit)
        self._offset = offset_of(potential, self.numbers)
        self.network = MoleculeNetwork(potential, self.numbers).eval().requires_grad_(False)
        self.move()

    def move(self, device: str | torch.device | None = None, dtype: torch.dtype | str | None = None) -> None:
        """Choose device and precision of predictions: by default, a GPU if there is one, and float64.

        Raises
        ------
        InputError
            The machine does not have the device, or the precision is neither float64 nor float32.
        """
        wanted = getattr(torch, dtype, dtype) if isinstance(dtype, str) else dtype or torch.float64
        if wanted not in (torch.float32, torch.float64):
            raise InputError(f"dtype must be float64 or float32, got {dtype!r}")
        self.network.to(device=find_device(device), dtype=wanted)

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict energies and forces.

        Parameters
        ----------
        positions : (n_frames, n_atoms, 3) array, Å

        Returns
        -------
        Prediction
        """
        weight = self.network.weight
        most = max(1, _PAIR_FEATURES_AT_ONCE[weight.device.type] // self.network.pair_features)
        piece = math.ceil(len(positions) / math.ceil(len(positions) / most)) if len(positions) else 1
        energies, forces = np.empty(len(positions)), np.empty(np.shape(positions))

        def predict(start: int) -> None:
            rows = slice(start, start + piece)
            of_energies, of_forces = self.network(
                torch.tensor(positions[rows], dtype=weight.dtype, device=weight.device)
            )
            energies[rows], forces[rows] = of_energies.cpu(), of_forces.cpu()

        def predict_in_one_thread(start: int) -> None:
            with one_thread():
                predict(start)

        starts = range(0, len(positions), piece)
        small = weight.device.type == "cpu" and self.network.pair_features < ONE_THREAD_BELOW
        work = predict_in_one_thread if small else predict
        if small and len(starts) > 1:
            on_all_cores(work, starts)
        else:
            for start in starts:
                work(start)
        return Prediction((energies + self._offset) * self._unit, forces * self._unit)

    def leads(self, dataset: Dataset, frames: IntArray) -> bool:
        """Return whether `frames` begins with the frames that the model was trained on."""
        before = self.training["frames"]
        return self.training["digest"] == dataset.digest and np.array_equal(frames[: len(before)], before)

    def save(self, folder: Path) -> None:
        """Write `model.pt`, plain values and SchNetPack's weights, which torch loads with ``weights_only=True``."""
        state = {name: value.detach().cpu().clone() for name, value in self.potential.state_dict().items()}
        content = {
            "numbers": torch.tensor(self.numbers),
            "hyper_parameters": json.dumps(self.hyper_parameters),
            "digest": self.training["digest"],
            "frames": torch.tensor(self.training["frames"]),
            "state_dict": state,
        }
        torch.save(content, folder / MODEL_FILE)


def load_model_folder(folder: Path) -> SchNetModel:
    """Load `model.pt` from a model folder, without unpickling.

    Raises
    ------
    InputError
        The file is missing, damaged, or not a SchNet model of this project.
    """
    path = folder / MODEL_FILE if folder.is_dir() else folder
    content = read_torch(path, "a SchNet model")
    try:
        settings = json.loads(content["hyper_parameters"])
        numbers = content["numbers"].numpy()
        shape = {name: settings[name] for name in ("n_features", "n_interactions", "n_rbf", "cutoff")}
        potential = make_potential(**shape, offset=0.0, n_atoms=len(numbers))
        potential.load_state_dict(content["state_dict"])
        training = {"digest": content["digest"], "frames": content["frames"].numpy()}
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise InputError(
            f"expected a SchNet model in {path}, found another file of torch; give a model folder of ase-flatten"
        ) from error
    return SchNetModel(potential, numbers, hyper_parameters=settings, training=training)


def load_best_model(path: Path, numbers: IntArray, energy_unit: str) -> SchNetModel:
    """Load a `best_model` written by SchNetPack, for one molecule; see `read_potential`."""
    return SchNetModel(read_potential(path), numbers, hyper_parameters={}, training={}, energy_unit=energy_unit)


def as_schnetpack(folder: str | Path) -> Any:
    """Return the potential of a model folder for use in SchNetPack, in float64, kcal/mol and Å.

    ``torch.save(as_schnetpack("runs/demo/improved"), "best_model")`` writes a file that
    `SpkCalculator` reads.
    """
    model = load_model_folder(Path(folder))
    model.move("cpu")
    return model.potential.requires_grad_()
