"""What a training will do: all that is known, and refused if need be, before any work begins."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from ase_flatten.clustering.clusters import n_clusters_for
from ase_flatten.clustering.splits import split_sizes
from ase_flatten.data.dataset import Dataset
from ase_flatten.models import Family, Trainer, family
from ase_flatten.selection.flattening import Schedule, check_final_size
from ase_flatten.workflow.run_folder import RunSettings

N_DEFAULT_DRAWS = 4
"""Default training sets of the final size where training is fast."""


@dataclass(frozen=True)
class PlannedRun:
    """A training that can begin.

    Parameters
    ----------
    settings : RunSettings
        Complete: nothing is left to be decided.
    made_by : Family
        The family of the models.
    trainer : Trainer
    """

    settings: RunSettings
    made_by: Family
    trainer: Trainer

    def describe(self, dataset: Dataset) -> str:
        """Return a sentence on what the training is of, and how much it does."""
        schedule, n_draws = self.settings.schedule, self.settings.default_draws or 1
        growth = (
            f"{_counted(schedule.n_steps, 'step')} from {schedule.n_initial:,} to "
            f"{schedule.n_train(schedule.n_steps):,} training frames"
            if schedule.n_steps
            else f"{schedule.n_initial:,} training frames"
        )
        return (
            f"{self.made_by.name} on {dataset.n_frames:,} frames of {dataset.formula}"
            f"{f' ({dataset.theory})' if dataset.theory else ''}: {growth}, {_counted(n_draws, 'default training set')}"
        )


def plan_run(
    dataset: Dataset, settings: RunSettings, *, former: Mapping[str, Any] = MappingProxyType({})
) -> PlannedRun:
    """Decide what the settings leave open, and check that the training can begin.

    Parameters
    ----------
    former : mapping
        Settings of the trainer that were defaults when a run was begun that is resumed.

    Raises
    ------
    InputError
        An unknown family, selector or setting, a package that is missing, or more frames asked for than are available.
    """
    made_by = family(settings.family)
    trainer = made_by.trainer(**{**former, **settings.trainer})
    _ = settings.schedule.rule.selector  # an unknown one is refused
    n_pool, _, n_heldout = split_sizes(dataset.n_frames, settings.holdout)
    check_final_size(settings.schedule, n_pool, dataset.n_frames)
    n_geometry, n_energy = n_clusters_for(n_heldout)
    costly = made_by.expensive or (isinstance(trainer, Trainer) and trainer.trains_long)
    settings = replace(
        settings,
        subset=made_by.expensive if settings.subset is None else settings.subset,
        default_draws=settings.default_draws or (1 if costly else N_DEFAULT_DRAWS),
        n_geometry=settings.n_geometry or n_geometry,
        n_energy=settings.n_energy or n_energy,
    )
    return PlannedRun(settings, made_by, trainer)


def default_steps(schedule: Schedule) -> list[int]:
    """Return the steps for which a default model of the same size is trained: midway and the last."""
    return sorted({schedule.n_steps // 2, schedule.n_steps} - {0})


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
