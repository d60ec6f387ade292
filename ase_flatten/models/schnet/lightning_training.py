"""One training of a SchNet under PyTorch Lightning, resumed where it was interrupted.

An epoch in Lightning's sense is here the interval between two validations. After each validation the whole state is
saved, by this module and not by Lightning, whose own checkpoints would have to be unpickled.
"""

import copy
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ase_flatten.data.units import OutputUnits, energy_in_eV
from ase_flatten.models import Workplace
from ase_flatten.models.schnet.device import ONE_THREAD_BELOW, one_thread
from ase_flatten.models.schnet.model import ENERGY_UNIT
from ase_flatten.models.schnet.native import read_torch
from ase_flatten.models.schnet.network import MoleculeNetwork
from ase_flatten.models.schnet.training_plan import VALIDATION_INTERVAL, TrainingOutcome, TrainingPlan
from ase_flatten.utils.atomic_files import writing
from ase_flatten.utils.exceptions import BackendError, InputError
from ase_flatten.utils.progress import Advance

log = logging.getLogger(__name__)

_PLATEAU = 20
"""Validations without improvement after which the learning rate is halved."""

_VALIDATION_BATCH = 100


@dataclass(frozen=True, eq=False)
class Labels:
    """Training or validation frames in memory.

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3) tensor, Å
    energies : (n_frames,) tensor, kcal/mol
        Relative to the offset of the potential.
    forces : (n_frames, n_atoms, 3) tensor, kcal/(mol Å)
    """

    positions: Tensor
    energies: Tensor
    forces: Tensor

    def __len__(self) -> int:
        return len(self.energies)

    def take(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a batch."""
        return self.positions[frames], self.energies[frames], self.forces[frames]

    def to(self, device: torch.device) -> "Labels":
        """Return a copy on a device."""
        return Labels(self.positions.to(device), self.energies.to(device), self.forces.to(device))


def train(
    network: MoleculeNetwork,
    train_set: Labels,
    valid_set: Labels,
    plan: TrainingPlan,
    *,
    device: torch.device,
    workplace: Workplace,
    checkpoint: Path | None = None,
) -> TrainingOutcome:
    """Train the weights of `network` in place; it ends with the averaged weights of the lowest validation force RMSE.

    Parameters
    ----------
    workplace : Workplace
        What to report to.
    checkpoint : Path, optional
        File for the state of the training. If it exists, training resumes from it, with the same result.

    Returns
    -------
    TrainingOutcome

    Raises
    ------
    InputError
        A checkpoint that cannot be read.
    BackendError
        The training diverges.
    """
    module = _TrainingModule(network, train_set.to(device), valid_set.to(device), plan)
    if checkpoint is not None and checkpoint.is_file():
        module.restore(read_torch(checkpoint, "the state of a training"))
    if module.steps_done < plan.n_steps and not module.out_of_patience:
        small = device.type == "cpu" and plan.batch_size * network.pair_features < ONE_THREAD_BELOW
        with (
            workplace.progress.task("gradient steps", plan.n_steps) as advance,
            one_thread() if small else nullcontext(),
        ):
            advance(module.steps_done)
            _run(module, _StateKeeper(checkpoint, advance, workplace.units), device)
    network.load_state_dict(module.best["weights"])
    return TrainingOutcome.of(module.curve, plan, ended_early=module.out_of_patience)


def _run(module: "_TrainingModule", keeper: "_StateKeeper", device: torch.device) -> None:
    """Run Lightning without its output and files."""
    quieted = logging.getLogger("pytorch_lightning"), logging.getLogger("lightning.pytorch")
    levels = [logger.level for logger in quieted]
    for logger in quieted:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pl.Trainer(
                accelerator="gpu" if device.type == "cuda" else "cpu",
                devices=[device.index or 0] if device.type == "cuda" else 1,
                max_steps=module.plan.n_steps - module.steps_done,
                max_epochs=-1,
                callbacks=[keeper],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                inference_mode=False,
            ).fit(module)
    finally:
        for logger, level in zip(quieted, levels, strict=True):
            logger.setLevel(level)
    if keeper.interruption is not None:
        raise keeper.interruption


class _TrainingModule(pl.LightningModule):
    """The loss, the optimiser and its learning rate, and the running average of the weights."""

    def __init__(self, network: MoleculeNetwork, train_set: Labels, valid_set: Labels, plan: TrainingPlan) -> None:
        super().__init__()
        self.network = network
        self.average = copy.deepcopy(network)
        self.plan, self.train_set, self.valid_set = plan, train_set, valid_set
        self.optimizer = torch.optim.Adam(network.parameters(), lr=plan.learning_rate, fused=True)
        self.steps_done = 0
        self.best: dict[str, Any] = {"force_rmse": math.inf, "weights": {}}
        self.looks = {"since_gain": 0, "since_halving": 0, "halvings": 0}
        self.rmse = {"force": math.inf, "energy": math.inf}
        self.curve: list[float] = []

    @property
    def out_of_patience(self) -> bool:
        """Whether to end early, for lack of improvement."""
        return self.plan.patience is not None and self.looks["since_gain"] >= self.plan.patience

    def state(self) -> dict[str, Any]:
        """Return all that the rest of the training depends on."""
        return {
            "steps_done": self.steps_done,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "looks": self.looks,
            "curve": self.curve,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a state."""
        for part in ("network", "average", "optimizer"):
            getattr(self, part).load_state_dict(state[part])
        self.steps_done, self.best, self.looks = state["steps_done"], state["best"], state["looks"]
        # Missing in states of earlier versions: assume that the error was the lowest one throughout.
        unknown = [self.best["force_rmse"]] * (self.steps_done // VALIDATION_INTERVAL)
        self.curve = state.get("curve", unknown)

    def train_dataloader(self) -> "_Batches":
        return _Batches(self)

    def val_dataloader(self) -> DataLoader[int]:
        frames, untouched = (
            range(len(self.valid_set)),
            torch.Generator(),
        )  # torch's global generator belongs to the user
        return DataLoader(frames, batch_size=_VALIDATION_BATCH, generator=untouched)  # type: ignore[arg-type]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer

    def on_train_batch_start(self, *_: Any) -> None:
        rate = self.plan.learning_rate * 0.5 ** self.looks["halvings"] * self.plan.ramp(self.steps_done)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        positions, energies, forces = self.train_set.take(batch)
        weight = self.plan.force_weight
        if weight == 0:
            found = self.network.energies(self.network.distances(positions)[0])
            return torch.mean((found - energies) ** 2)
        found, found_forces = self.network(positions, differentiable=True)
        of_energies, of_forces = torch.mean((found - energies) ** 2), torch.mean((found_forces - forces) ** 2)
        return (1 - weight) * of_energies + weight * of_forces

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps_done += 1
        decay = min(
            self.plan.averaging, self.steps_done / (9 + self.steps_done)
        )  # the first weights soon lose their influence
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)

    def on_train_start(self) -> None:
        self._averages = [weight.detach() for weight in self.average.parameters()]
        self._weights = [weight.detach() for weight in self.network.parameters()]

    def on_validation_epoch_start(self) -> None:
        self._squares = {"force": 0.0, "energy": 0.0}

    def validation_step(self, batch: Tensor, _: int) -> None:
        positions, energies, forces = self.valid_set.take(batch)
        found, found_forces = self.average(positions)
        self._squares["force"] += float(((found_forces - forces) ** 2).sum()) / forces[0].numel()
        self._squares["energy"] += float(((found - energies) ** 2).sum())

    def on_validation_epoch_end(self) -> None:
        self.rmse = {name: math.sqrt(square / len(self.valid_set)) for name, square in self._squares.items()}
        self.curve.append(self.rmse["force"])
        looks = self.looks
        if self.rmse["force"] < self.best["force_rmse"]:
            weights = {name: value.clone() for name, value in self.average.state_dict().items()}
            self.best = {"force_rmse": self.rmse["force"], "weights": weights}
            looks.update(since_gain=0, since_halving=0)
            return
        looks["since_gain"] += 1
        looks["since_halving"] += 1
        if looks["since_halving"] > _PLATEAU:
            looks.update(since_halving=0, halvings=looks["halvings"] + 1)


class _Batches:
    """Batches of the next gradient steps, the same whether or not the training was interrupted."""

    def __init__(self, module: _TrainingModule) -> None:
        self._module = module

    def __len__(self) -> int:
        return VALIDATION_INTERVAL

    def __iter__(self) -> Iterator[Tensor]:
        plan, n_frames, first = self._module.plan, len(self._module.train_set), self._module.steps_done
        n_batches = math.ceil(n_frames / plan.batch_size)
        batches: tuple[Tensor, ...] = ()
        for step in range(first, first + VALIDATION_INTERVAL):
            number, row = divmod(step, n_batches)
            if not batches or row == 0:
                generator = torch.Generator().manual_seed(plan.seed + number)
                batches = torch.randperm(n_frames, generator=generator).split(plan.batch_size)
            yield batches[row]


class _StateKeeper(pl.Callback):
    """Callback that saves the state after each validation, reports it, and decides whether to end."""

    def __init__(self, checkpoint: Path | None, advance: Advance, units: OutputUnits) -> None:
        self._checkpoint, self._advance, self._units = checkpoint, advance, units
        self.interruption: BaseException | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        module: _TrainingModule = pl_module
        try:
            self._save_and_report(module)
        except (InputError, BackendError, KeyboardInterrupt) as error:  # Lightning would end the process on Ctrl-C
            self.interruption = error
        trainer.should_stop = self.interruption is not None or module.out_of_patience

    def _save_and_report(self, module: _TrainingModule) -> None:
        if not math.isfinite(module.rmse["force"]):
            raise BackendError(
                f"the training diverged after {module.steps_done} steps: its validation error is not a number; "
                f"try a learning_rate below {module.plan.learning_rate:g}"
            )
        if self._checkpoint is not None:
            with writing(self._checkpoint) as beside:
                torch.save(module.state(), beside)
        tenth = module.plan.n_steps // 10
        if module.steps_done % max(tenth, 1) < VALIDATION_INTERVAL or module.steps_done == module.plan.n_steps:
            units, scale = self._units, energy_in_eV(ENERGY_UNIT) * self._units.scale
            log.info(
                "gradient step %d of %d: on validation frames, force RMSE %.3f %s, energy RMSE %.3f %s",
                module.steps_done, module.plan.n_steps,
                module.rmse["force"] * scale, units.force, module.rmse["energy"] * scale, units.energy,
            )  # fmt: skip
        self._advance(VALIDATION_INTERVAL)
