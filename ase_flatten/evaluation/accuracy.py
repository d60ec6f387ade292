"""How accurate a model is over many frames: RMSE and MAE, and how large these are beside what is predicted."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.conclusions import format_of
from ase_flatten.evaluation.held_out import SCHEMES, HeldoutErrors
from ase_flatten.selection.cluster_errors import ClusterErrors
from ase_flatten.utils.typing import IntArray


@dataclass(frozen=True)
class Accuracy:
    """Errors of a model over many frames; forces per component, energies of the whole molecule.

    Parameters
    ----------
    force_rmse, force_mae : float, eV/Å
    energy_rmse, energy_mae : float, eV
    reference_force : float, eV/Å
        Root mean square of the components of the reference forces.
    reference_energy : float, eV
        Standard deviation of the reference energies.
    """

    force_rmse: float
    force_mae: float
    energy_rmse: float
    energy_mae: float
    reference_force: float
    reference_energy: float

    @property
    def relative_force_rmse(self) -> float:
        """Force RMSE divided by the root mean square of the reference forces; NaN if these vanish."""
        return relative(self.force_rmse, self.reference_force)

    @property
    def relative_energy_rmse(self) -> float:
        """Energy RMSE divided by the standard deviation of the reference energies; NaN if these are all equal."""
        return relative(self.energy_rmse, self.reference_energy)


def relative(error: float, scale: float) -> float:
    """Divide an error by what it is an error of; NaN if that is zero."""
    return error / scale if scale > 0 else np.nan


def accuracy_of(errors: ClusterErrors, dataset: Dataset, frames: IntArray) -> Accuracy:
    """Collect the overall errors of a model.

    Parameters
    ----------
    frames : int array
        The frames of the data set that the errors are about, even if only some of them were predicted.
    """
    return Accuracy(
        errors.overall_rmse, errors.overall_mae, errors.overall_energy_rmse, errors.overall_energy_mae,
        float(np.sqrt(np.mean(dataset.forces[frames] ** 2))), float(np.std(dataset.energies[frames])),
    )  # fmt: skip


def accuracies_of(errors: HeldoutErrors) -> dict[str, Accuracy]:
    """Compute the accuracy of both models of a run; empty for runs made before absolute errors were kept."""
    if errors.reference is None:
        return {}
    reference_force, reference_energy = errors.reference
    return {
        scheme: Accuracy(
            float(np.sqrt(np.mean(errors.force_rmse[scheme] ** 2))), float(np.mean(errors.force_mae[scheme])),
            float(np.sqrt(np.mean(errors.energy_error[scheme] ** 2))),
            float(np.mean(np.abs(errors.energy_error[scheme]))),
            float(np.sqrt(np.mean(reference_force**2))), float(np.std(reference_energy)),
        )
        for scheme in SCHEMES
    }  # fmt: skip


def in_words(accuracy: Accuracy, units: OutputUnits) -> list[str]:
    """Describe the accuracy of one model, forces and energies apart."""
    force, energy = format_of(accuracy.force_rmse, units), format_of(accuracy.energy_rmse, units)
    return [
        f"forces: RMSE {force(accuracy.force_rmse)}, MAE {force(accuracy.force_mae)} {units.force}; the RMSE is "
        f"{percent(accuracy.relative_force_rmse)} of the RMS of the reference forces",
        f"energies: RMSE {energy(accuracy.energy_rmse)}, MAE {energy(accuracy.energy_mae)} {units.energy}; the RMSE is "
        f"{percent(accuracy.relative_energy_rmse)} of the standard deviation of the reference energies",
    ]


def compared_in_words(accuracies: Mapping[str, Accuracy], units: OutputUnits, *, frames: str) -> list[str]:
    """Describe the accuracy of the default and the improved model in two sentences; none if it is not known.

    Parameters
    ----------
    frames : str
        Which frames they were measured on, such as "the 400 held-out frames".
    """
    if not accuracies:
        return []
    default, improved = (accuracies[scheme] for scheme in SCHEMES)
    force = format_of(min(default.force_rmse, improved.force_rmse), units)
    energy = format_of(min(default.energy_rmse, improved.energy_rmse), units)
    return [
        f"From the default to the improved model, on {frames}: force RMSE {force(default.force_rmse)} → "
        f"{force(improved.force_rmse)} and MAE {force(default.force_mae)} → {force(improved.force_mae)} {units.force}, "
        f"the RMSE being {percent(default.relative_force_rmse)} → {percent(improved.relative_force_rmse)} of the RMS "
        "of the reference forces.",
        f"On the same frames the energy RMSE is {energy(default.energy_rmse)} → {energy(improved.energy_rmse)} and the "
        f"MAE {energy(default.energy_mae)} → {energy(improved.energy_mae)} {units.energy}, the RMSE being "
        f"{percent(default.relative_energy_rmse)} → {percent(improved.relative_energy_rmse)} of the standard deviation "
        "of the reference energies.",
    ]


def percent(share: float) -> str:
    """Format a share with two digits or more, such as "4.1 %"."""
    if not np.isfinite(share):
        return "–"
    decimals = int(np.clip(1 - np.floor(np.log10(100 * share)), 0, 3)) if share > 0 else 0
    return f"{100 * share:,.{decimals}f} %"
