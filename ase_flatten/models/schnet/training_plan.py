"""What decides the training of a SchNet's weights, and how such a training ended."""

from dataclasses import dataclass

VALIDATION_INTERVAL = 250
"""Gradient steps between two validations; the length of a training is a multiple of it."""

_WARM_UP_STEPS = 100
_COOL_DOWN_SHARE = 0.3
_CONVERGED = 0.1
_FEWEST_VALIDATIONS = 8


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of one training.

    Parameters
    ----------
    n_steps : int
        Gradient steps, a multiple of `VALIDATION_INTERVAL`.
    batch_size : int
        Frames per gradient step.
    learning_rate : float
        Of Adam, after a short warm-up. It is halved when the validation error stops falling, and decreases linearly
        to zero over the last 30 % of the steps.
    force_weight : float
        Weight of the forces in the loss: 0 for energies only, 1 for forces only.
    averaging : float
        Decay of the running average of the weights, which is what is validated and kept.
    patience : int or None
        Validations without improvement after which training ends early; None to make all steps.
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

    def ramp(self, step: int) -> float:
        """Return the factor of the learning rate at a step: warm-up at the beginning, cool-down at the end."""
        up = (step + 1) / _WARM_UP_STEPS
        down = (self.n_steps - step) / (_COOL_DOWN_SHARE * self.n_steps)
        return min(1.0, up, down)


@dataclass(frozen=True)
class TrainingOutcome:
    """How a training ended.

    Parameters
    ----------
    n_steps : int
        Gradient steps made.
    validation_trend : float or None
        Fraction by which the validation error fell while the number of gradient steps doubled, before the cool-down;
        None after too few validations to tell.
    converged : bool
        Whether training ended early for lack of improvement, or this fraction is below 10 %.
    """

    n_steps: int
    validation_trend: float | None
    converged: bool

    @classmethod
    def of(cls, curve: list[float], plan: TrainingPlan, *, ended_early: bool) -> "TrainingOutcome":
        """Assess the validation errors, one every `VALIDATION_INTERVAL` steps."""
        best = [min(curve[: number + 1]) for number in range(len(curve))]
        before_cool_down = min(len(best), int((1 - _COOL_DOWN_SHARE) * plan.n_steps / VALIDATION_INTERVAL))
        trend = None
        if before_cool_down >= _FEWEST_VALIDATIONS:
            trend = 1 - best[before_cool_down - 1] / best[before_cool_down // 2 - 1]
        converged = ended_early or (trend is not None and trend < _CONVERGED)
        return cls(len(curve) * VALIDATION_INTERVAL, trend, converged)
