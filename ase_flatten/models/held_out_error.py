"""The error of a saved model on the held-out frames of its run, for short descriptions of the model."""

from dataclasses import dataclass
from pathlib import Path

from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.records import read_record

_SCHEMES = {"improved": "improved", "steps": "improved", "default": "default", "default_steps": "default"}
"""What the models in the folders of a run were trained by."""


@dataclass(frozen=True)
class HeldOutError:
    """Errors of one model on held-out frames.

    Parameters
    ----------
    scheme : str
        default or improved.
    n_train : int
        Training frames of the model.
    force_rmse, energy_rmse : float
        Per component, eV/Å, and eV.
    """

    scheme: str
    n_train: int
    force_rmse: float
    energy_rmse: float


@dataclass(frozen=True)
class _Curves:
    """What is needed here of curves.json, in kcal/mol and kcal/(mol Å)."""

    curves: list[HeldOutError]


def held_out_error(path: Path, n_train: int) -> HeldOutError | None:
    """Return what a run has measured of one of its models; None if there is no such run, or if it does not say.

    Parameters
    ----------
    path : Path
        The run folder (its improved model), a model folder, or a native file in one.
    n_train : int
        Training frames of the model.
    """
    places = [path.resolve(), *path.resolve().parents[:3]]
    run = next((place for place in places if (place / "run.json").is_file()), None)
    if run is None:
        return None
    scheme = _SCHEMES.get(path.resolve().relative_to(run).parts[0] if run != path.resolve() else "improved")
    try:
        found = read_record(run / "curves.json", _Curves, what="held-out errors", remedy="finish the run")
    except InputError:
        return None
    for error in found.curves:
        if (error.scheme, error.n_train) == (scheme, n_train):
            return HeldOutError(
                error.scheme, n_train, error.force_rmse * KCAL_PER_MOL, error.energy_rmse * KCAL_PER_MOL
            )
    return None
