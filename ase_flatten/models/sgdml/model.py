"""sGDML models: predictions, and the model files of the `sgdml` package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.data.units import energy_in_eV, length_in_angstrom
from ase_flatten.models import Prediction
from ase_flatten.models.sgdml.factor import KernelFactor
from ase_flatten.models.sgdml.permutation_sums import predictor_of
from ase_flatten.utils.atomic_files import write_npz
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.npz_files import reading_npz
from ase_flatten.utils.typing import FloatArray, IntArray

MODEL_FILE = "model.npz"

SYMMETRIES = "symmetries"
"""An entry of ours in a model file: where the permutations come from, a line for each generator of the group."""

_UNTESTED = {"mae": np.nan, "rmse": np.nan}
# The package expects these entries and unpickles them; they are written for it and never read here.
_OBJECTS: dict[str, Any] = {"f_err": _UNTESTED, "e_err": _UNTESTED, "md5_test": None}
_NEEDED = ("z", "R_desc", "R_d_desc_alpha", "c", "std", "sig", "lam", "perms")


class SGDMLModel:
    """An sGDML model, as in a model file of the `sgdml` package.

    Parameters
    ----------
    content : mapping
        The entries of a model file of the `sgdml` package.

    Attributes
    ----------
    factor : KernelFactor or None
        From which a larger training set can grow. The model trained on that set takes it over; it is neither saved
        nor pickled.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = {key: value for key, value in content.items() if key not in _OBJECTS}
        self.numbers: IntArray = np.asarray(content["z"], dtype=np.int64)
        self.permutations: IntArray = np.asarray(content["perms"], dtype=np.int64)
        self.sigma = float(content["sig"])
        self._energy = energy_in_eV(text_of(content.get("e_unit", "kcal/mol")))
        self._length = length_in_angstrom(text_of(content.get("r_unit", "Ang")))
        self._constant = float(content["c"])
        coefficients = np.asarray(content["R_d_desc_alpha"]) * float(content["std"])
        self._predictor = predictor_of(np.asarray(content["R_desc"]).T, coefficients, self.permutations, self.sigma)
        self.factor: KernelFactor | None = None

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """Length scale, regularisation, and the number of permutations and where they come from, if that is known."""
        known = {SYMMETRIES: np.asarray(self.content[SYMMETRIES]).tolist()} if SYMMETRIES in self.content else {}
        return {
            "sigma": self.sigma,
            "lambda": float(self.content["lam"]),
            "n_permutations": len(self.permutations),
            **known,
        }

    @property
    def coefficient_sizes(self) -> FloatArray:
        """The norm of each training frame's coefficients, (n_train,); large for a label that contradicts others."""
        return np.linalg.norm(np.asarray(self.content["R_d_desc_alpha"]), axis=1)

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict energies and forces.

        Parameters
        ----------
        positions : (n_frames, n_atoms, 3) array, Å

        Returns
        -------
        Prediction
        """
        energies, forces = self._predictor(np.asarray(positions, dtype=float) / self._length)
        return Prediction((energies + self._constant) * self._energy, forces * (self._energy / self._length))

    def save(self, folder: Path) -> None:
        """Write the model file that the `sgdml` package loads."""
        write_npz(folder / MODEL_FILE, {**self.content, **_OBJECTS})

    def __reduce__(self) -> tuple[type["SGDMLModel"], tuple[dict[str, Any]]]:
        return SGDMLModel, (self.content,)


def load_model_file(path: Path) -> SGDMLModel:
    """Load a model file of the `sgdml` package, without unpickling.

    Raises
    ------
    InputError
        The file is missing, damaged or not an sGDML model, or has a periodic cell or energy constraints.
    """
    with reading_npz(path, "an sGDML model") as archive:
        missing = [key for key in _NEEDED if key not in archive.files]
        if missing:
            raise InputError(f"expected an sGDML model in {path}, found no entry {missing[0]}; is it a data set?")
        for unsupported in ("lattice", "alphas_E"):
            if unsupported in archive.files:
                raise InputError(f"expected a plain sGDML model in {path}, found {unsupported}: not supported")
        return SGDMLModel({key: archive[key] for key in archive.files if key not in _OBJECTS})


def text_of(value: Any) -> str:
    """Return a text entry of a model file, saved as str, bytes or array."""
    value = value.item() if isinstance(value, np.ndarray) else value
    return value.decode() if isinstance(value, bytes) else str(value)
