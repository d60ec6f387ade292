"""Model families: what every family must offer, and how families are found.

A family is one module and one entry point in the group ``ase_flatten.models``
that names an object with the attributes of `Family`. A package of a third party
adds a family by declaring such an entry point.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.utils.exceptions import InputError, nearest, not_installed
from ase_flatten.utils.progress import Progress
from ase_flatten.utils.typing import FloatArray, IntArray

ENTRY_POINT_GROUP = "ase_flatten.models"

MODEL_ERRORS = (RuntimeError, ArithmeticError, np.linalg.LinAlgError)
"""What calculators raise for configurations far from any they know; ASE's CalculatorError is one of them."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """Hold what a model says of some configurations.

    Parameters
    ----------
    energies : (n_frames,) array, eV
    forces : (n_frames, n_atoms, 3) array, eV/Å
    """

    energies: FloatArray
    forces: FloatArray


class Model(Protocol):
    """Predict energies and forces of one molecule."""

    @property
    def numbers(self) -> IntArray:
        """Atomic numbers, (n_atoms,), in the order the model expects."""

    @property
    def permutations(self) -> IntArray:
        """Exchanges of atoms that leave every prediction as it is, (n_permutations, n_atoms), identity first."""

    @property
    def hyper_parameters(self) -> Mapping[str, Any]:
        """The settings that the model was trained with, as JSON can hold them."""

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict many configurations, (n_frames, n_atoms, 3) in Å, at once."""

    def save(self, folder: Path) -> None:
        """Write the family's native file into an existing folder."""


class Trainer(Protocol):
    """Fit models of one family with one choice of settings."""

    def default_frames(self, dataset: Dataset, pool: IntArray, n_frames: int, *, rng: np.random.Generator) -> IntArray:
        """Choose a training set by the family's own default scheme.

        Parameters
        ----------
        pool : int array
            Frames to choose from.
        n_frames : int
            How many frames to choose.

        Returns
        -------
        (n_frames,) int array of frames of `dataset`, all different
        """

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
            Frames to train on, and frames to choose hyper-parameters by.
        previous : Model, optional
            Its hyper-parameters are kept; where its training frames lead `frames`,
            its work may be used again.
        """

    def settle(
        self, dataset: Dataset, trained: list[tuple[IntArray, Model]], valid: IntArray, *, rng: np.random.Generator
    ) -> list[Model]:
        """Check once more, for models that are to be compared, what the first step chose.

        Returns the models, the same ones or trained anew on the same frames,
        equal to one another in hyper-parameters.
        """


@dataclass(frozen=True)
class Workplace:
    """Say where long trainings keep what they could go on from, and whom they tell how far they are."""

    folder: Path
    progress: Progress


@runtime_checkable
class LongTrainer(Protocol):
    """What a `Trainer` may offer besides, whose single trainings take long."""

    def within(self, workplace: Workplace) -> Trainer:
        """Return a trainer that tells of its trainings, and goes on with those that were stopped, to the same end."""


class Family(Protocol):
    """Make trainers of a family and load its models."""

    name: str
    """The name on the command line and in model.json."""

    distribution: str
    """The Python package that does the work, whose version is recorded."""

    units: Mapping[str, str]
    """Units of `energy` and `length` in the native file."""

    expensive: bool
    """Whether its models are so slow to predict that errors are estimated on subsets, where nothing else is asked."""

    def trainer(self, **settings: Any) -> Trainer:
        """Return a trainer; raise InputError for a setting that the family does not have."""

    def settings(self, trainer: Trainer) -> dict[str, Any]:
        """Return all settings of a trainer, as JSON can hold them."""

    def load(self, folder: Path) -> Model:
        """Load the native file from a model folder."""


def families() -> list[str]:
    """Name the families that are installed."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)})


def family(name: str) -> Family:
    """Find a family by its name.

    Raises
    ------
    InputError
        No installed package offers it, or a package that it needs is missing.
    """
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        try:
            found: Family = point.load()
        except ImportError as error:
            raise not_installed(f"the model family {name}", error.name or name, extra=name, error=error) from error
        return found
    raise InputError(f"the model family must be one of {', '.join(families()) or 'none installed'}, got {name!r}")


def convergence_note(hyper_parameters: Mapping[str, Any]) -> str | None:
    """Say in words that a training ended far from convergence; None where it converged, or where nothing is known.

    Parameters
    ----------
    hyper_parameters : mapping
        Of a model, or of its card: `converged`, `validation_trend` and `gradient_steps`, all of them optional.
    """
    if hyper_parameters.get("converged", True):
        return None
    trend, n_steps = hyper_parameters.get("validation_trend"), hyper_parameters.get("gradient_steps")
    why = (
        "too few to tell how far it is"
        if trend is None
        else f"twice as many lowered the validation error by {trend:.0%}"
    )
    return f"not converged after {n_steps:,} gradient steps ({why}): raise epochs before its errors are judged"


def check_settings(settings: Mapping[str, Any], known_by: type, *others: str) -> None:
    """Refuse settings that are neither fields of the dataclass `known_by` nor among `others`.

    Raises
    ------
    InputError
        A setting that the family does not have; it names the nearest one there is.
    """
    known = [*others, *(field.name for field in fields(known_by))]
    for name in settings:
        if name not in known:
            raise InputError(f"{name!r} is no setting of this model family; {nearest(name, known)}")


def check_whole_numbers(settings: object, least: Mapping[str, int]) -> None:
    """Refuse settings of these names that are no whole numbers, or smaller than the least that makes sense."""
    for name, smallest in least.items():
        value = getattr(settings, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            raise InputError(f"{name} must be a whole number of at least {smallest}, got {value!r}")
