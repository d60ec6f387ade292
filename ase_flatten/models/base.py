"""What every model family offers: models, trainers, and the family that makes and loads them."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import FIELD_UNITS, OutputUnits
from ase_flatten.utils.notebook import html_table, short_repr
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray

MODEL_ERRORS = (RuntimeError, ArithmeticError, np.linalg.LinAlgError)
"""Raised by calculators for configurations far from those they know; includes ASE's CalculatorError."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Predicted energies and forces.

    Parameters
    ----------
    energies : (n_frames,) array, eV
    forces : (n_frames, n_atoms, 3) array, eV/Å
    """

    energies: FloatArray
    forces: FloatArray

    def __repr__(self) -> str:
        return short_repr("Prediction", self._facts())

    def _repr_html_(self) -> str:
        return html_table("Prediction", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        n_frames, n_atoms = self.forces.shape[:2]
        facts = [("", f"{n_frames} frame{'' if n_frames == 1 else 's'} of {n_atoms} atoms")]
        if n_frames:
            facts += [
                ("energies", f"{self.energies.min():.3f} to {self.energies.max():.3f} eV"),
                ("forces up to", f"{np.abs(self.forces).max(initial=0):.2f} eV/Å"),
            ]
        return facts


class Model(Protocol):
    """A model of the energies and forces of one molecule."""

    @property
    def numbers(self) -> IntArray:
        """Atomic numbers, (n_atoms,), in the order the model expects."""

    @property
    def permutations(self) -> IntArray:
        """Permutations of atoms under which predictions are invariant, (n_permutations, n_atoms), identity first."""

    @property
    def hyper_parameters(self) -> Mapping[str, Any]:
        """The settings that the model was trained with, serialisable as JSON."""

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict a batch of configurations, (n_frames, n_atoms, 3) in Å."""

    def save(self, folder: Path) -> None:
        """Write the family's native file into an existing folder."""


@runtime_checkable
class MovableModel(Protocol):
    """A model whose predictions can be computed on a chosen device and in a chosen precision."""

    def move(self, device: str | None = None, dtype: str | None = None) -> None:
        """Choose the device, such as cuda, and float32 or float64; None for the model's own choice.

        Raises
        ------
        InputError
            This machine does not have the device, or the model cannot compute in this precision.
        """


@dataclass(frozen=True)
class Cost:
    """What a training needs, approximately, on this machine.

    Parameters
    ----------
    seconds : float
    memory_bytes : int
    """

    seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Workplace:
    """Where a trainer keeps unfinished work, and how it reports on what it does.

    Parameters
    ----------
    folder : Path or None
        Folder for the state of unfinished trainings; None if nothing is to be kept.
    progress : Progress
    units : OutputUnits
        Of the errors in the log.
    """

    folder: Path | None = None
    progress: Progress = SILENT
    units: OutputUnits = FIELD_UNITS


class Trainer(ABC):
    """Base class of the trainers of all families: one family with one choice of settings.

    A subclass implements `fit`. It overrides `default_frames` if the family has its own way of choosing a training
    set, and `settle` if it chooses hyper-parameters. A long `fit` reports to ``self.workplace.progress``, and may
    keep its state in ``self.workplace.folder`` in order to resume after an interruption.

    Attributes
    ----------
    trains_long : bool
        Whether a single training takes long, so that by default only one default model is trained for comparison.
    reuses_work : bool
        Whether a `fit` that continues from `previous` takes only the time of the added frames.
    workplace : Workplace
        Set by `within`.
    """

    trains_long: ClassVar[bool] = False
    reuses_work: ClassVar[bool] = False
    workplace: Workplace = Workplace()

    def within(self, workplace: Workplace) -> Self:
        """Return a copy of this trainer that works in `workplace`."""
        trainer = copy.copy(self)
        object.__setattr__(trainer, "workplace", workplace)  # trainers may be frozen dataclasses
        return trainer

    def check(self, dataset: Dataset) -> None:  # noqa: B027  (most trainers have nothing to check)
        """Raise InputError if the settings do not fit a data set; called before a run is begun."""

    def default_frames(self, dataset: Dataset, pool: IntArray, n_frames: int, *, rng: np.random.Generator) -> IntArray:
        """Choose a training set by the family's default scheme; the base class draws a uniform sample.

        Parameters
        ----------
        pool : int array
            Frames to choose from.
        n_frames : int
            Number of frames to choose.

        Returns
        -------
        (n_frames,) int array of frames of `dataset`, all different
        """
        return rng.choice(pool, n_frames, replace=False)

    @abstractmethod
    def fit(
        self,
        dataset: Dataset,
        frames: IntArray,
        valid: IntArray,
        *,
        rng: np.random.Generator,
        previous: Model | None = None,
    ) -> Model:
        """Train on `frames`.

        Parameters
        ----------
        frames, valid : int arrays
            Training frames, and validation frames for the choice of hyper-parameters.
        previous : Model, optional
            A model whose hyper-parameters are kept. If `frames` begins with its training frames, its work may be
            reused.
        """

    def cost(self, dataset: Dataset, n_frames: int) -> Cost | None:
        """Estimate what one training from scratch on `n_frames` frames needs; None if it is not known.

        The trainings by which hyper-parameters are chosen come on top of it: see `trial_sizes`.
        """
        return None

    def trial_sizes(self, n_frames: int) -> list[int]:
        """Return the sizes of the trainings that the choice of hyper-parameters usually takes, beside the model's own.

        With `cost` they give the time of `fit` without `previous`, and of `settle`.
        """
        return []

    def settle(
        self, dataset: Dataset, trained: list[tuple[IntArray, Model]], valid: IntArray, *, rng: np.random.Generator
    ) -> list[Model]:
        """Review the hyper-parameters of models that are to be compared; the base class returns the models unchanged.

        Returns
        -------
        list of Model
            The same models, or models trained again on the same frames, with equal hyper-parameters.
        """
        return [model for _, model in trained]


class Family(Protocol):
    """A model family, which makes trainers and loads models."""

    name: str
    """The name on the command line and in model.json."""

    distribution: str
    """The Python package that does the work; its version is recorded."""

    units: Mapping[str, str]
    """Units of `energy` and `length` in the native file."""

    expensive: bool
    """Whether predictions are so slow that errors are estimated on subsets by default."""

    def trainer(self, **settings: Any) -> Trainer:
        """Return a trainer; raise InputError for an unknown setting.

        An object with `default_frames`, `fit` and `settle` will do if it is no `Trainer`, but cannot resume a
        training that was interrupted.
        """

    def settings(self, trainer: Any) -> dict[str, Any]:
        """Return all settings of a trainer, serialisable as JSON."""

    def load(self, folder: Path) -> Model:
        """Load the native file from a model folder."""
