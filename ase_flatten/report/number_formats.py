"""How errors are written in the tables of the report."""

from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.conclusions import Format, format_of
from ase_flatten.evaluation.held_out import Evaluation


def formats(evaluation: Evaluation, units: OutputUnits) -> tuple[Format, Format]:
    """Return formatters of forces and of energies, with three digits of the smallest overall error."""
    forces = min(curve.force_rmse for curve in evaluation.curves)
    energies = min(curve.energy_rmse for curve in evaluation.curves)
    return format_of(forces, units), format_of(energies, units)
