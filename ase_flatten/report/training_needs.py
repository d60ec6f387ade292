"""What trainings on a data set would need in time and memory, as a table over families and sizes."""

from collections.abc import Sequence
from dataclasses import replace

from ase_flatten.data.dataset import Dataset
from ase_flatten.models import Cost, Trainer, families, family
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress, duration


def training_needs(
    dataset: Dataset, sizes: Sequence[int], *, names: Sequence[str] | None = None, progress: Progress = SILENT
) -> list[tuple[str, ...]]:
    """Estimate one training from scratch, with default settings, for each family and size.

    Parameters
    ----------
    sizes : sequence of int
        Training frames.
    names : sequence of str, optional
        Model families; by default all that can be used here.

    Returns
    -------
    list of tuple of str
        A row for each family: its name, and time and memory for each size.

    Raises
    ------
    InputError
        A family that was named is not installed.
    """
    rows = []
    with progress.task("measuring the speed of this machine", len(names or families())) as advance:
        for name in names or families():
            try:
                trainer = family(name).trainer()
            except InputError:
                if names:
                    raise
                rows.append((name, *("not installed" for _ in sizes)))
            else:
                rows.append((name, *(_cell(_cost(trainer, dataset, size)) for size in sizes)))
            advance(1)
    return rows


def _cost(trainer: Trainer, dataset: Dataset, size: int) -> Cost | None:
    """Estimate a training and those by which its hyper-parameters are chosen."""
    if not isinstance(trainer, Trainer):  # a plugin's need not be
        return None
    found = trainer.cost(dataset, size)
    trials = [trainer.cost(dataset, n) for n in trainer.trial_sizes(size)]
    return found and replace(found, seconds=found.seconds + sum(trial.seconds for trial in trials if trial))


def _cell(cost: Cost | None) -> str:
    return "unknown" if cost is None else f"{duration(max(1, cost.seconds))}, {cost.memory_bytes / 1e9:.1f} GB"
