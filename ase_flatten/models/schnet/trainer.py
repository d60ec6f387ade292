"""SchNet in improved training.

A training has a budget of gradient steps: `epochs` passes over its frames. A step of improved training continues from
the last weights with the budget of the frames that were added, so that improved training as a whole costs no more
than one training at the final size. The default model of equal size starts from scratch and makes exactly as many
gradient steps as the improved one in total.
"""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import energy_in_eV
from ase_flatten.models import Cost, Model, Trainer, check_settings, convergence_note
from ase_flatten.models.schnet.cost import training_cost
from ase_flatten.models.schnet.device import find_device
from ase_flatten.models.schnet.lightning_training import Labels, train
from ase_flatten.models.schnet.model import ENERGY_UNIT, SchNetModel, load_model_folder
from ase_flatten.models.schnet.native import make_potential, offset_of
from ase_flatten.models.schnet.network import MoleculeNetwork
from ase_flatten.models.schnet.settings import NAMES, PRESETS, SchNetSettings
from ase_flatten.models.schnet.training_plan import VALIDATION_INTERVAL, TrainingPlan
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import IntArray

log = logging.getLogger(__name__)

_VALIDATION_FRAMES = 1000


class SchNetTrainer(Trainer):
    """Trainer of SchNet models.

    Parameters
    ----------
    settings : SchNetSettings
    """

    trains_long = True
    reuses_work = True

    def __init__(self, settings: SchNetSettings) -> None:
        self.settings = settings

    def cost(self, dataset: Dataset, n_frames: int) -> Cost:
        """Estimate the cost of `fit` from the time of a few gradient steps; it may end early."""
        return training_cost(dataset, n_frames, _steps(self.settings, n_frames), self.settings)

    def fit(
        self,
        dataset: Dataset,
        frames: IntArray,
        valid: IntArray,
        *,
        rng: np.random.Generator,
        previous: Model | None = None,
    ) -> SchNetModel:
        """Train on `frames`; see `ase_flatten.models.Trainer`.

        If `frames` begins with the training frames of `previous`, training continues from its weights. Otherwise it
        starts from scratch and makes as many gradient steps as `previous` in total.

        Raises
        ------
        BackendError
            The training diverges.
        """
        settings, n_steps, patience, continued = self._budget(dataset, frames, previous)
        seed = int(rng.integers(2**48))
        valid = valid[:: math.ceil(len(valid) / _VALIDATION_FRAMES)]  # the same in every step
        unit = energy_in_eV(ENERGY_UNIT)
        potential = _untrained(settings, float(dataset.energies[frames].mean()) / unit, dataset.n_atoms, seed)
        if continued is not None:
            potential.load_state_dict(continued.potential.state_dict())
        offset = offset_of(potential, dataset.numbers) * unit
        plan = TrainingPlan(
            n_steps=n_steps,
            batch_size=min(settings.batch_size, len(frames)),
            learning_rate=settings.learning_rate * (1 if continued is None else settings.restart_rate),
            force_weight=settings.force_weight,
            averaging=settings.averaging,
            patience=patience,
            seed=seed,
        )
        kept = self._kept(dataset, frames, valid, plan)
        outcome = train(
            MoleculeNetwork(potential, dataset.numbers),
            _labels(dataset, frames, offset, unit),
            _labels(dataset, valid, offset, unit),
            plan,
            device=find_device(settings.device),
            checkpoint=kept,
            workplace=self.workplace,
        )
        before = 0 if continued is None else continued.hyper_parameters["gradient_steps"]
        if kept is not None:
            kept.unlink(missing_ok=True)
        _centre(potential, dataset, valid)
        return SchNetModel(
            potential,
            dataset.numbers,
            hyper_parameters={
                **asdict(settings),
                "gradient_steps": before + outcome.n_steps,
                "validation_trend": outcome.validation_trend,
                "converged": outcome.converged,
            },
            training={"digest": dataset.digest, "frames": frames},
        )

    def settle(
        self, dataset: Dataset, trained: list[tuple[IntArray, Model]], valid: IntArray, *, rng: np.random.Generator
    ) -> list[Model]:
        """Return the models unchanged, with a warning for each that is far from converged."""
        models = super().settle(dataset, trained, valid, rng=rng)
        for note in dict.fromkeys(convergence_note(model.hyper_parameters) for model in models):
            if note is not None:
                log.warning("a SchNet is %s", note)
        return models

    def _budget(
        self, dataset: Dataset, frames: IntArray, previous: Model | None
    ) -> tuple[SchNetSettings, int, int | None, SchNetModel | None]:
        """Return the settings, the gradient steps to make, the patience, and the model to continue from."""
        if not isinstance(previous, SchNetModel):
            return self.settings, _steps(self.settings, len(frames)), self.settings.patience, None
        settings = SchNetSettings(
            **{**{name: previous.hyper_parameters[name] for name in NAMES}, "device": self.settings.device}
        )
        if not previous.leads(dataset, frames):
            return settings, previous.hyper_parameters["gradient_steps"], None, None
        if not settings.warm:
            return settings, _steps(settings, len(frames)), settings.patience, None
        n_added = len(frames) - len(previous.training["frames"])
        return settings, _steps(settings, n_added), settings.patience, previous

    def _kept(self, dataset: Dataset, frames: IntArray, valid: IntArray, plan: TrainingPlan) -> Path | None:
        """Return the file for the state of this training; None if nothing is kept."""
        if self.workplace.folder is None:
            return None
        digest = hashlib.sha256(json.dumps([dataset.digest, asdict(self.settings), asdict(plan)]).encode())
        for array in (frames, valid):
            digest.update(np.ascontiguousarray(array).tobytes())
        return self.workplace.folder / f"{digest.hexdigest()[:16]}.pt"


class SchNetFamily:
    """The SchNet family."""

    name = "schnet"
    distribution = "schnetpack"
    units: Mapping[str, str] = MappingProxyType({"energy": ENERGY_UNIT, "length": "Ang"})
    expensive = False

    def trainer(self, *, preset: str = "small", **settings: Any) -> SchNetTrainer:
        """Return a trainer; see `SchNetSettings` for the settings, which take precedence over the preset."""
        if preset not in list(PRESETS):  # it may be of any type
            raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        check_settings(settings, SchNetSettings, "preset")
        return SchNetTrainer(SchNetSettings(**{**PRESETS[preset], **settings}))

    def settings(self, trainer: SchNetTrainer) -> dict[str, Any]:
        """Return the settings of a trainer, serialisable as JSON."""
        return asdict(trainer.settings)

    def load(self, folder: Path) -> SchNetModel:
        """Load `model.pt` from a model folder, never unpickling."""
        return load_model_folder(folder)


FAMILY = SchNetFamily()


def _steps(settings: SchNetSettings, n_frames: int) -> int:
    """Return the gradient steps for a number of frames."""
    return VALIDATION_INTERVAL * math.ceil(settings.epochs * n_frames / settings.batch_size / VALIDATION_INTERVAL)


def _untrained(settings: SchNetSettings, offset: float, n_atoms: int, seed: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make_potential(
            n_features=settings.n_features,
            n_interactions=settings.n_interactions,
            n_rbf=settings.n_rbf,
            cutoff=settings.cutoff,
            offset=offset,
            n_atoms=n_atoms,
        )


def _centre(potential: Any, dataset: Dataset, valid: IntArray) -> None:
    """Shift the offset of a potential so that the mean energy error of the validation frames is zero.

    The training frames of improved training are those where the model errs most, so their mean energy is biased.
    """
    model = SchNetModel(potential, dataset.numbers, hyper_parameters={}, training={})
    shift = np.mean(dataset.energies[valid] - model.predict(dataset.positions[valid]).energies) / energy_in_eV(
        ENERGY_UNIT
    )
    potential.postprocessors[1].mean += float(shift) / dataset.n_atoms


def _labels(dataset: Dataset, frames: IntArray, offset: float, unit: float) -> Labels:
    """Return frames in single precision, their energies relative to the offset."""
    arrays = dataset.positions[frames], (dataset.energies[frames] - offset) / unit, dataset.forces[frames] / unit
    return Labels(*(torch.tensor(array, dtype=torch.float32) for array in arrays))
