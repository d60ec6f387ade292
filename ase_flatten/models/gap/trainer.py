"""The settings of a GAP, its trainer and its family."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from ase_flatten.data.dataset import Dataset
from ase_flatten.models import Cost, Model, Trainer, check_settings, check_whole_numbers, is_number
from ase_flatten.models.gap.cost import fit_cost
from ase_flatten.models.gap.fit import find_gap_fit, run_gap_fit
from ase_flatten.models.gap.model import GAPModel, load_model_folder
from ase_flatten.models.gap.native import shifted
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import IntArray

SPARSE_METHODS = ("CUR_POINTS", "RANDOM", "CLUSTER")

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"paper": {}, "small": {"n_max": 6, "l_max": 3, "n_sparse": 300, "sparse_method": "RANDOM"}}
)
"""Named settings; the small preset suits a laptop."""

_VALIDATION_FRAMES = 1000
_WHOLE = {"n_max": 1, "l_max": 0, "zeta": 1, "n_sparse": 1}
_POSITIVE = ("cutoff", "atom_sigma", "delta", "energy_sigma", "force_sigma", "sparse_jitter")


@dataclass(frozen=True)
class GAPTrainer(Trainer):
    """Trainer of GAP models with SOAP.

    Parameters
    ----------
    n_max, l_max : int
        Radial and angular functions of SOAP.
    cutoff, atom_sigma : float
        Range of SOAP and width of its Gaussians, Å.
    zeta : int
        Power of the SOAP kernel.
    n_sparse : int
        Number of sparse points per element.
    sparse_method : str
        Method by which `gap_fit` chooses them, one of `SPARSE_METHODS`.
    delta : float
        Scale of the energy per atom, eV.
    energy_sigma, force_sigma : float
        Expected errors, eV per atom and eV/Å.
    sparse_jitter : float
        Added to the diagonal of the sparse points' kernel.
    e0 : "average" or mapping
        Energies of the isolated atoms by symbol, eV; or for all elements the average energy per atom, which is then
        adjusted so that the mean error of the validation energies is zero.
    """

    n_max: int = 12
    l_max: int = 6
    cutoff: float = 5.0
    atom_sigma: float = 0.5
    zeta: int = 2
    n_sparse: int = 400
    sparse_method: str = "CUR_POINTS"
    delta: float = 1.0
    energy_sigma: float = 0.001
    force_sigma: float = 0.01
    sparse_jitter: float = 1e-8
    e0: str | Mapping[str, float] = "average"

    def __post_init__(self) -> None:
        check_whole_numbers(self, _WHOLE)
        for name in _POSITIVE:
            if not is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)!r}")
        if self.sparse_method not in SPARSE_METHODS:
            raise InputError(f"sparse_method must be one of {', '.join(SPARSE_METHODS)}, got {self.sparse_method!r}")
        if self.e0 != "average" and not _are_reference_energies(self.e0):
            raise InputError(f'e0 must be average or energies by symbol, such as {{"H": -13.6}} (eV), got {self.e0!r}')

    def cost(self, dataset: Dataset, n_frames: int) -> Cost:
        """Estimate the cost of `fit`; see `ase_flatten.models.gap.cost`."""
        return fit_cost(dataset, n_frames, asdict(self))

    def fit(
        self,
        dataset: Dataset,
        frames: IntArray,
        valid: IntArray,
        *,
        rng: np.random.Generator,
        previous: Model | None = None,
    ) -> GAPModel:
        """Train on `frames` from scratch, with the settings of `previous` if there is one.

        The validation frames determine the energy offset, unless `e0` gives the energies of the isolated atoms.

        Raises
        ------
        InputError
            `gap_fit` is missing, fails or needs too much memory, or `e0` lacks an element.
        """
        trainer = self if previous is None else replace(self, **previous.hyper_parameters)
        if isinstance(trainer.e0, Mapping):
            missing = {chemical_symbols[number] for number in dataset.numbers} - set(trainer.e0)
            if missing:
                raise InputError(
                    f"expected a reference energy e0 of every element, found none of {sorted(missing)[0]}; add it to e0"
                )
        seed = int(rng.integers(1, 2**31 - 1))
        model = GAPModel(run_gap_fit(find_gap_fit(), dataset, frames, asdict(trainer), seed))
        return trainer._centred(model, dataset, valid)

    def _centred(self, model: GAPModel, dataset: Dataset, valid: IntArray) -> GAPModel:
        """Shift the energies so that their mean error over the validation frames is zero.

        The training frames of improved training are those where the model errs most, so their mean energy is biased.
        """
        if self.e0 != "average" or not len(valid):
            return model
        valid = valid[:: math.ceil(len(valid) / _VALIDATION_FRAMES)]
        errors = dataset.energies[valid] - model.predict(dataset.positions[valid]).energies
        return GAPModel(shifted(model.files, float(errors.mean())))


class GAPFamily:
    """The GAP family."""

    name = "gap"
    distribution = "quippy-ase"
    units: Mapping[str, str] = MappingProxyType({"energy": "eV", "length": "Ang"})
    expensive = True

    def trainer(self, *, preset: str = "paper", **settings: Any) -> GAPTrainer:
        """Return a trainer; see `GAPTrainer` for the settings, which take precedence over the preset.

        Raises
        ------
        InputError
            An unknown setting or a wrong value; or `gap_fit` is missing, which is checked before a long run.
        """
        if preset not in list(PRESETS):  # it may be of any type
            raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        check_settings(settings, GAPTrainer, "preset")
        trainer = GAPTrainer(**{**PRESETS[preset], **settings})
        find_gap_fit()
        return trainer

    def settings(self, trainer: GAPTrainer) -> dict[str, Any]:
        """Return the settings of a trainer, serialisable as JSON."""
        return asdict(trainer)

    def load(self, folder: Path) -> GAPModel:
        """Load `model.xml` and its sparse points from a model folder, without executing anything they refer to."""
        model = load_model_folder(folder)
        try:
            GAPTrainer(**model.hyper_parameters)
        except TypeError as error:
            raise InputError(f"expected the settings of a GAP in {folder}, found others: {error}") from error
        return model


FAMILY = GAPFamily()


def _are_reference_energies(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(name in atomic_numbers and is_number(energy) for name, energy in value.items())
    )
