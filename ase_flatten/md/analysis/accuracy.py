"""The true error of a model where its own dynamics lead it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.md.results import ReferenceErrors
from ase_flatten.models import MODEL_ERRORS
from ase_flatten.utils.progress import SILENT, Progress


def errors_along(
    calculator: BaseCalculator,
    frames: Sequence[Atoms],
    *,
    reference: str = "",
    progress: Progress = SILENT,
    name: str = "",
) -> ReferenceErrors:
    """Compare energies and forces saved with frames to those of the reference method.

    Parameters
    ----------
    calculator : ASE calculator
        Of the reference method.
    frames : sequence of Atoms
        With energy and forces of the model, as ASE reads them from a trajectory.
    reference : str
        The name of that method.
    name : str
        Of the model, for the progress.
    """
    energies, forces = [], []
    with progress.task(f"reference method on frames of {name or 'the run'}", len(frames)) as advance:
        for frame in frames:
            atoms = Atoms(frame.numbers, frame.positions, calculator=calculator)
            try:
                force, energy = atoms.get_forces(), atoms.get_potential_energy()
            except MODEL_ERRORS:
                continue
            finally:
                advance(1)
            saved = frame.calc.results
            energies.append(saved["energy"] - energy)
            forces.append(saved["forces"] - force)
    return ReferenceErrors(
        reference=reference,
        n_frames=len(energies),
        n_failed=len(frames) - len(energies),
        force_rmse=_rmse(forces),
        energy_rmse=_rmse(energies),
    )


def _rmse(errors: list[Any]) -> float | None:
    return float(np.sqrt(np.mean(np.square(errors)))) / KCAL_PER_MOL if errors else None
