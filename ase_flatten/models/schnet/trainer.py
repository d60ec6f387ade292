"""SchNet in the loop of improved training.

A training has a budget of gradient steps: `epochs` passes over its frames. A step of improved training goes
on from the last weights with the budget of the frames that were added, so that the whole improved training
costs no more than one training at the last size. The default model of equal size starts from scratch and gets
exactly the gradient steps that the improved one had in all.
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
from ase_flatten.models import Model, Workplace, check_settings, convergence_note
from ase_flatten.models.schnet.device import find_device
from ase_flatten.models.schnet.model import ENERGY_UNIT, SchNetModel, load_model_folder
from ase_flatten.models.schnet.native import make_potential, offset_of
from ase_flatten.models.schnet.network import MoleculeNetwork
from ase_flatten.models.schnet.optimisation import STRETCH, Labels, Plan, train
from ase_flatten.models.schnet.settings import NAMES, PRESETS, SchNetSettings
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT
from ase_flatten.utils.typing import IntArray

log = logging.getLogger(__name__)

_VALIDATION_FRAMES = 1000


class SchNetTrainer:
    """Train SchNet models.

    Parameters
    ----------
    settings : SchNetSettings
    workplace : Workplace, optional
        Where unfinished trainings are kept and told of.
    """

    def __init__(self, settings: SchNetSettings, workplace: Workplace | None = None) -> None:
        self.settings, self._workplace = settings, workplace

    def within(self, workplace: Workplace) -> "SchNetTrainer":
        """Return a trainer that goes on with what was left unfinished in a workplace."""
        return SchNetTrainer(self.settings, workplace)

    def default_frames(self, dataset: Dataset, pool: IntArray, n_frames: int, *, rng: np.random.Generator) -> IntArray:
        """Draw a uniform sample of the pool."""
        return rng.choice(pool, n_frames, replace=False)

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

        Where the frames of `previous` lead `frames`, its weights are gone on from; where
        they do not, training starts from scratch and makes as many gradient steps as
        `previous` had in all.

        Raises
        ------
        BackendError
            The training diverges.
        """
        settings, n_steps, patience, going_on = self._budget(dataset, frames, previous)
        seed = int(rng.integers(2**48))
        valid = valid[:: math.ceil(len(valid) / _VALIDATION_FRAMES)]  # the same ones in each step
        unit = energy_in_eV(ENERGY_UNIT)
        potential = _untrained(settings, float(dataset.energies[frames].mean()) / unit, dataset.n_atoms, seed)
        if going_on is not None:
            potential.load_state_dict(going_on.potential.state_dict())
        offset = offset_of(potential, dataset.numbers) * unit
        plan = Plan(
            n_steps=n_steps,
            batch_size=min(settings.batch_size, len(frames)),
            learning_rate=settings.learning_rate * (1 if going_on is None else settings.restart_rate),
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
            progress=self._workplace.progress if self._workplace else SILENT,
        )
        before = 0 if going_on is None else going_on.hyper_parameters["gradient_steps"]
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
        """Return the models as they are, nothing was chosen by the data; warn of those that are far from converged."""
        models = [model for _, model in trained]
        for note in dict.fromkeys(convergence_note(model.hyper_parameters) for model in models):
            if note is not None:
                log.warning("a SchNet is %s", note)
        return models

    def _budget(
        self, dataset: Dataset, frames: IntArray, previous: Model | None
    ) -> tuple[SchNetSettings, int, int | None, SchNetModel | None]:
        """Return the settings, the gradient steps to make, the patience, and the model whose weights to go on from."""
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

    def _kept(self, dataset: Dataset, frames: IntArray, valid: IntArray, plan: Plan) -> Path | None:
        """Name the file of this very training."""
        if self._workplace is None:
            return None
        digest = hashlib.sha256(json.dumps([dataset.digest, asdict(self.settings), asdict(plan)]).encode())
        for array in (frames, valid):
            digest.update(np.ascontiguousarray(array).tobytes())
        return self._workplace.folder / f"{digest.hexdigest()[:16]}.pt"


class SchNetFamily:
    """The SchNet family."""

    name = "schnet"
    distribution = "schnetpack"
    units: Mapping[str, str] = MappingProxyType({"energy": ENERGY_UNIT, "length": "Ang"})
    expensive = False

    def trainer(self, *, preset: str = "small", **settings: Any) -> SchNetTrainer:
        """Return a trainer; see `SchNetSettings` for the settings, which go before those of the preset."""
        if preset not in PRESETS:
            raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        check_settings(settings, SchNetSettings, "preset")
        return SchNetTrainer(SchNetSettings(**{**PRESETS[preset], **settings}))

    def settings(self, trainer: SchNetTrainer) -> dict[str, Any]:
        """Return the settings of a trainer, as JSON can hold them."""
        return asdict(trainer.settings)

    def load(self, folder: Path) -> SchNetModel:
        """Load `model.pt` from a model folder, never unpickling."""
        return load_model_folder(folder)


FAMILY = SchNetFamily()


def _steps(settings: SchNetSettings, n_frames: int) -> int:
    """Return the gradient steps that so many frames are worth."""
    return STRETCH * math.ceil(settings.epochs * n_frames / settings.batch_size / STRETCH)


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

    Improved training's frames are those where the model errs most, and so is the mean of their energies off.
    """
    model = SchNetModel(potential, dataset.numbers, hyper_parameters={}, training={})
    shift = np.mean(dataset.energies[valid] - model.predict(dataset.positions[valid]).energies) / energy_in_eV(
        ENERGY_UNIT
    )
    potential.postprocessors[1].mean += float(shift) / dataset.n_atoms


def _labels(dataset: Dataset, frames: IntArray, offset: float, unit: float) -> Labels:
    """Return frames to the network: the offset is taken off before precision is."""
    arrays = dataset.positions[frames], (dataset.energies[frames] - offset) / unit, dataset.forces[frames] / unit
    return Labels(*(torch.tensor(array, dtype=torch.float32) for array in arrays))
