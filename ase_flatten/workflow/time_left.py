"""How long a training will take: an estimate from the sizes of its trainings, corrected by those that are done."""

from collections.abc import Sequence
from dataclasses import dataclass

from ase_flatten.data.dataset import Dataset
from ase_flatten.models import Trainer
from ase_flatten.workflow.history import HistoryLine
from ase_flatten.workflow.plan import PlannedRun, default_steps


@dataclass(frozen=True)
class TimeTable:
    """The expected times of the parts of a training.

    Parameters
    ----------
    planned : PlannedRun
    dataset : Dataset
    """

    planned: PlannedRun
    dataset: Dataset

    def in_total(self) -> float | None:
        """Return the time of the whole training, s; None if the family does not estimate its costs."""
        return self._remaining(-1) if self._known else None

    def left_after(self, history: Sequence[HistoryLine]) -> float:
        """Return the time that is left after some steps, s; the other parts are scaled by the time of these."""
        expected = sum(self._of_step(line.step) for line in history)
        return self._remaining(history[-1].step) * sum(sum(line.seconds.values()) for line in history) / expected

    @property
    def _known(self) -> bool:
        trainer = self.planned.trainer
        return isinstance(trainer, Trainer) and trainer.cost(self.dataset, 2) is not None

    def _remaining(self, step: int) -> float:
        """Return the time of all parts after a step, -1 for all of them."""
        planned, schedule = self.planned, self.planned.settings.schedule
        final = schedule.n_train(schedule.n_steps)
        steps = sum(self._of_step(number) for number in range(step + 1, schedule.n_steps + 1))
        middle = sum(self._of_model(schedule.n_train(number)) for number in default_steps(schedule)[:-1])
        n_default = planned.settings.default_draws or 1
        return steps + middle + n_default * self._of_model(final) + 2 * self._of_trials(final)

    def _of_step(self, step: int) -> float:
        n_train, trainer = self.planned.settings.schedule.n_train, self.planned.trainer
        if step == 0:
            return self._of_model(n_train(0)) + self._of_trials(n_train(0))
        reused = isinstance(trainer, Trainer) and trainer.reuses_work
        return self._of_model(n_train(step)) - (self._of_model(n_train(step - 1)) if reused else 0.0)

    def _of_trials(self, n_frames: int) -> float:
        trainer = self.planned.trainer
        sizes = trainer.trial_sizes(n_frames) if isinstance(trainer, Trainer) else []
        return sum(self._of_model(size) for size in sizes)

    def _of_model(self, n_frames: int) -> float:
        """Return the time of one training, in s or, where nothing is known, in proportion to its frames."""
        trainer = self.planned.trainer
        cost = trainer.cost(self.dataset, n_frames) if isinstance(trainer, Trainer) else None
        return float(n_frames) if cost is None else cost.seconds
