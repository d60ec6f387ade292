"""The settings of a SchNet and its training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from ase_flatten.models import check_whole_numbers, is_number
from ase_flatten.models.schnet.device import find_device
from ase_flatten.utils.exceptions import InputError

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"small": {}, "large": {"n_features": 128, "n_interactions": 6}}
)
"""Named settings: the small preset suits ten atoms on two cores, the large one has SchNetPack's default size."""

_LEAST = {"n_features": 2, "n_interactions": 1, "n_rbf": 2, "batch_size": 1, "epochs": 1, "patience": 1}
_MOST = {"cutoff": math.inf, "learning_rate": 1.0, "restart_rate": 1.0, "force_weight": 1.0, "averaging": 1.0}
_MAY_BE_ZERO = ("force_weight", "averaging")


@dataclass(frozen=True)
class SchNetSettings:
    """Settings of a SchNet.

    Parameters
    ----------
    n_features : int
        Features of an atom, and filters of an interaction.
    n_interactions : int
        Interaction blocks.
    n_rbf : int
        Gaussians in which a distance is expanded, from 0 to the cutoff.
    cutoff : float
        Distance beyond which atoms do not interact, Å.
    epochs : int
        Largest number of passes over the training frames in a training from scratch.
    batch_size : int
        Frames per gradient step.
    learning_rate : float
        Of Adam; see `TrainingPlan` for its schedule.
    restart_rate : float
        Fraction of the learning rate with which a model continues from the last step's weights.
    warm : bool
        Whether each step of improved training continues from the last weights, or starts from scratch.
    force_weight : float
        Weight of the forces in the loss: 0 for energies only, 1 for forces only.
    averaging : float
        Decay of the running average of the weights, which is what is validated and kept.
    patience : int
        Validations without improvement, one every `VALIDATION_INTERVAL` gradient steps, after which training ends.
    device : str, optional
        cpu or cuda; by default, a GPU if there is one.

    Raises
    ------
    InputError
        A value is out of range, or the machine does not have the device.
    """

    n_features: int = 64
    n_interactions: int = 3
    n_rbf: int = 25
    cutoff: float = 5.0
    epochs: int = 500
    batch_size: int = 10
    learning_rate: float = 1e-3
    restart_rate: float = 0.5
    warm: bool = True
    force_weight: float = 0.99
    averaging: float = 0.999
    patience: int = 80
    device: str | None = None

    def __post_init__(self) -> None:
        check_whole_numbers(self, _LEAST)
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value <= most or (value == 0 and name not in _MAY_BE_ZERO):
                span = "positive" if name == "cutoff" else f"between 0 and {most:g}"
                raise InputError(f"{name} must be {span}, got {value!r}")
        if not isinstance(self.warm, bool):
            raise InputError(f"warm must be true or false, got {self.warm!r}")
        find_device(self.device)


NAMES = [field.name for field in fields(SchNetSettings)]
