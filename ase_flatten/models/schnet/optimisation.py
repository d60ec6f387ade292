"""One training of a SchNet under Lightning, which goes on where it was stopped.

What Lightning calls an epoch is here a stretch of gradient steps between two looks at the validation
frames. After each look the whole state is written down, by this module and not by Lightning, whose own
checkpoints would have to be unpickled.
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

from ase_flatten.models.schnet.device import ONE_THREAD_BELOW, one_thread
from ase_flatten.models.schnet.native import read_torch
from ase_flatten.models.schnet.network import MoleculeNetwork
from ase_flatten.utils.atomic_files import writing
from ase_flatten.utils.exceptions import BackendError, InputError
from ase_flatten.utils.progress import SILENT, Progress

log = logging.getLogger(__name__)

STRETCH = 250
"""Gradient steps between two looks at the validation frames; trainings are so many steps long, or a multiple."""

_WARM_UP_STEPS = 100
_COOL_DOWN_SHARE = 0.3
_PLATEAU_LOOKS = 20
_VALIDATION_BATCH = 100
_CONVERGED = 0.1
_FEWEST_LOOKS = 8


@dataclass(frozen=True)
class Plan:
    """Say how the weights are found.

    Parameters
    ----------
    n_steps : int
        Gradient steps, a multiple of `STRETCH`.
    batch_size : int
        Frames of each.
    learning_rate : float
        Of Adam, after a short warm-up. It is halved where the validation error falls no
        longer, and led to nothing over the last third of the steps.
    force_weight : float
        Weight of the forces in the loss: 0 for energies only, 1 for forces only.
    averaging : float
        Decay of the running average of the weights, which is what is validated and kept.
    patience : int or None
        Looks at the validation frames without gain after which training ends early.
    seed : int
        Of the order of the frames.
    """

    n_steps: int
    batch_size: int
    learning_rate: float
    force_weight: float
    averaging: float
    patience: int | None
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Say how a training ended.

    Parameters
    ----------
    n_steps : int
        Gradient steps that were done.
    validation_trend : float or None
        Part by which the validation error fell while the number of gradient steps doubled, before the learning
        rate was led to nothing; none where there were too few looks at the validation frames to tell.
    converged : bool
        Whether training ended without gain, or this part is below a tenth.
    """

    n_steps: int
    validation_trend: float | None
    converged: bool

    @classmethod
    def of(cls, curve: list[float], plan: Plan, *, ended_early: bool) -> "Outcome":
        """Judge the validation error of each look, one every `STRETCH` steps."""
        best = [min(curve[: look + 1]) for look in range(len(curve))]
        hot = min(len(best), int((1 - _COOL_DOWN_SHARE) * plan.n_steps / STRETCH))
        trend = 1 - best[hot - 1] / best[hot // 2 - 1] if hot >= _FEWEST_LOOKS else None
        return cls(len(curve) * STRETCH, trend, ended_early or (trend is not None and trend < _CONVERGED))


@dataclass(frozen=True, eq=False)
class Labels:
    """Hold frames in memory.

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3) tensor, Å
    energies : (n_frames,) tensor, kcal/mol
        Without their offset.
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
        """Return them on a device."""
        return Labels(self.positions.to(device), self.energies.to(device), self.forces.to(device))


def train(
    network: MoleculeNetwork,
    train_set: Labels,
    valid_set: Labels,
    plan: Plan,
    *,
    device: torch.device,
    checkpoint: Path | None = None,
    progress: Progress = SILENT,
) -> Outcome:
    """Train the weights of `network`, in place; it ends with the best average by validation forces.

    Parameters
    ----------
    checkpoint : Path, optional
        Where the state of the training is kept. If it is there, training goes on from it, to the same end.

    Returns
    -------
    Outcome

    Raises
    ------
    InputError
        A checkpoint that cannot be read.
    BackendError
        The training diverges.
    """
    task = _Task(network, train_set.to(device), valid_set.to(device), plan)
    if checkpoint is not None and checkpoint.is_file():
        task.restore(read_torch(checkpoint, "the state of a training"))
    if task.steps_done < plan.n_steps and not task.hopeless:
        small = device.type == "cpu" and plan.batch_size * network.pair_features < ONE_THREAD_BELOW
        with progress.task("gradient steps", plan.n_steps) as advance, one_thread() if small else nullcontext():
            advance(task.steps_done)
            _run(task, _Keeper(checkpoint, advance), device)
    network.load_state_dict(task.best["weights"])
    return Outcome.of(task.curve, plan, ended_early=task.hopeless)


def _run(task: "_Task", keeper: "_Keeper", device: torch.device) -> None:
    """Run Lightning, without what it would print and write."""
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
                max_steps=task.plan.n_steps - task.steps_done,
                max_epochs=-1,
                callbacks=[keeper],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                inference_mode=False,
            ).fit(task)
    finally:
        for logger, level in zip(quieted, levels, strict=True):
            logger.setLevel(level)
    if keeper.interruption is not None:
        raise keeper.interruption


class _Task(pl.LightningModule):
    """The loss, the optimiser and its learning rate, and the running average of the weights."""

    def __init__(self, network: MoleculeNetwork, train_set: Labels, valid_set: Labels, plan: Plan) -> None:
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
    def hopeless(self) -> bool:
        """Whether to end early."""
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
        """Take up a state."""
        for part in ("network", "average", "optimizer"):
            getattr(self, part).load_state_dict(state[part])
        self.steps_done, self.best, self.looks = state["steps_done"], state["best"], state["looks"]
        # Earlier states do not have it: as if the error had been the best one all the time.
        unknown = [self.best["force_rmse"]] * (self.steps_done // STRETCH)
        self.curve = state.get("curve", unknown)

    def train_dataloader(self) -> "_Batches":
        return _Batches(self)

    def val_dataloader(self) -> DataLoader[int]:
        frames, untouched = range(len(self.valid_set)), torch.Generator()  # torch's own generator is the user's
        return DataLoader(frames, batch_size=_VALIDATION_BATCH, generator=untouched)  # type: ignore[arg-type]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer

    def on_train_batch_start(self, *_: Any) -> None:
        rate = self.plan.learning_rate * 0.5 ** self.looks["halvings"] * self._height(self.steps_done)
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
        decay = min(self.plan.averaging, self.steps_done / (9 + self.steps_done))  # soon forgets where it began
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
        if looks["since_halving"] > _PLATEAU_LOOKS:
            looks.update(since_halving=0, halvings=looks["halvings"] + 1)

    def _height(self, step: int) -> float:
        """Return the ramps of the learning rate, up at the beginning and down in the end."""
        up = (step + 1) / _WARM_UP_STEPS
        down = (self.plan.n_steps - step) / (_COOL_DOWN_SHARE * self.plan.n_steps)
        return min(1.0, up, down)


class _Batches:
    """Return the frames of the next gradient steps, which do not depend on when the training was stopped."""

    def __init__(self, task: _Task) -> None:
        self._task = task

    def __len__(self) -> int:
        return STRETCH

    def __iter__(self) -> Iterator[Tensor]:
        plan, n_frames, first = self._task.plan, len(self._task.train_set), self._task.steps_done
        n_batches = math.ceil(n_frames / plan.batch_size)
        batches: tuple[Tensor, ...] = ()
        for step in range(first, first + STRETCH):
            number, row = divmod(step, n_batches)
            if not batches or row == 0:
                generator = torch.Generator().manual_seed(plan.seed + number)
                batches = torch.randperm(n_frames, generator=generator).split(plan.batch_size)
            yield batches[row]


class _Keeper(pl.Callback):
    """After each look at the validation frames write the state down, tell of it, and see whether to end."""

    def __init__(self, checkpoint: Path | None, advance: Any) -> None:
        self._checkpoint, self._advance = checkpoint, advance
        self.interruption: BaseException | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        task: _Task = pl_module
        try:
            self._look(task)
        except (InputError, BackendError, KeyboardInterrupt) as error:  # Lightning would end the process on Ctrl-C
            self.interruption = error
        trainer.should_stop = self.interruption is not None or task.hopeless

    def _look(self, task: _Task) -> None:
        if not math.isfinite(task.rmse["force"]):
            raise BackendError(
                f"the training diverged after {task.steps_done} steps, its validation error is no number; "
                f"try a learning_rate below {task.plan.learning_rate:g}"
            )
        if self._checkpoint is not None:
            with writing(self._checkpoint) as beside:
                torch.save(task.state(), beside)
        tenth = task.plan.n_steps // 10
        if task.steps_done % max(tenth, 1) < STRETCH or task.steps_done == task.plan.n_steps:
            log.info(
                "gradient step %d of %d: on validation frames, force RMSE %.3f kcal/(mol Å), energy RMSE %.3f kcal/mol",
                task.steps_done, task.plan.n_steps, task.rmse["force"], task.rmse["energy"],
            )  # fmt: skip
        self._advance(STRETCH)
