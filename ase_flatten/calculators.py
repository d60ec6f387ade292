"""ASE calculators of the models that this project trains."""

import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from ase_flatten.dataset import FloatArray, formula
from ase_flatten.descriptors import pair_distances, pair_permutation, squared_distances
from ase_flatten.exceptions import InputError
from ase_flatten.models import Prediction
from ase_flatten.models.folder import load_model

log = logging.getLogger(__name__)


class FlattenedCalculator(Calculator):
    """Give a trained model of any family to ASE.

    Energies are in eV and forces in eV/Å. After each calculation `extrapolation`
    tells how far the geometry lies from the nearest training geometry, in units of
    the largest such distance within the training set: above 1 the model extrapolates,
    which is logged once as a warning.

    Parameters
    ----------
    path : str or Path
        A run folder (its improved model), a model folder, or a native sGDML file.

    Raises
    ------
    InputError
        No model there, or one of another family than the class; when it is attached
        or used: other elements, another order of atoms, or a periodic cell.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012  (ASE declares it so)
    family: ClassVar[str | None] = None

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        saved = load_model(path)
        found = saved.card.get("family", "sgdml")
        if self.family is not None and found != self.family:
            raise InputError(f"expected a model of the family {self.family} in {path}, found {found}")
        self.model = saved.model
        self.extrapolation: float | None = None
        self._training = pair_distances(saved.training_positions)
        self._reach = self._largest_gap()
        self._warned = False

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict many configurations at once, (n_frames, n_atoms, 3) in Å."""
        return self.model.predict(positions)

    def set_atoms(self, atoms: Atoms) -> None:
        """Refuse atoms that the model does not know; ASE calls this on `atoms.calc = ...`."""
        if not np.array_equal(atoms.numbers, self.model.numbers):
            raise InputError(
                f"expected {formula(self.model.numbers)} in the order {' '.join(_symbols(self.model.numbers))}, "
                f"found {' '.join(_symbols(atoms.numbers)) or 'no atoms'}; reorder the atoms or choose another model"
            )
        if atoms.pbc.any():
            raise InputError(
                "expected a molecule without periodic boundary conditions, found a periodic cell; set atoms.pbc = False"
            )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute energy and forces together."""
        super().calculate(atoms, properties or ["energy"], system_changes)
        self.set_atoms(self.atoms)
        prediction = self.model.predict(self.atoms.positions[None])
        energy = float(prediction.energies[0])
        self.results = {"energy": energy, "free_energy": energy, "forces": prediction.forces[0].copy()}
        self._look_around()

    def _look_around(self) -> None:
        if self._reach is None:
            return
        self.extrapolation = float(self._distances(self.atoms.positions)[0] / self._reach)
        if self.extrapolation > 1 and not self._warned:
            self._warned = True
            log.warning(
                "the model extrapolates: this geometry is %.1f times as far from the training set as any training "
                "geometry is from the next (said once; see the calculator's `extrapolation`)",
                self.extrapolation,
            )

    def _distances(self, positions: FloatArray) -> FloatArray:
        """Give the distance of one geometry, in any of its images, to the training geometries, sorted."""
        images = pair_distances(positions[self.model.permutations])
        return np.sort(np.sqrt(squared_distances(images, self._training).min(axis=0)))

    def _largest_gap(self) -> float | None:
        """Measure how far training geometries lie from their nearest neighbours at most, Å."""
        if len(self._training) < 2:
            return None
        gaps = np.full(len(self._training), np.inf)
        for permutation in self.model.permutations:
            distances = squared_distances(self._training[:, pair_permutation(permutation)], self._training)
            np.fill_diagonal(distances, np.inf)
            np.minimum(gaps, distances.min(axis=0), out=gaps)
        return float(np.sqrt(gaps.max()))


class FlattenedSGDML(FlattenedCalculator):
    """Give a trained sGDML model to ASE; see `FlattenedCalculator`."""

    family = "sgdml"


class FlattenedGAP(FlattenedCalculator):
    """Give a trained GAP to ASE; see `FlattenedCalculator`."""

    family = "gap"


class FlattenedSchNet(FlattenedCalculator):
    """Give a trained SchNet to ASE; see `FlattenedCalculator`.

    Parameters
    ----------
    device : str, optional
        cpu or cuda; without it, a GPU if there is one.
    dtype : torch.dtype or str, optional
        float64, as without it, or float32, in which the network was trained.

    Raises
    ------
    InputError
        A device that this machine does not have, or another precision.
    """

    family = "schnet"

    def __init__(self, path: str | Path, *, device: str | None = None, dtype: Any = None) -> None:
        super().__init__(path)
        self.model.move(device, dtype)  # type: ignore[attr-defined]


def load_calculator(path: str | Path) -> FlattenedCalculator:
    """Load a calculator from a run folder (its improved model), a model folder, or a native sGDML file.

    Raises
    ------
    InputError
        No model there.
    """
    return FlattenedCalculator(path)


def _symbols(numbers: Any) -> list[str]:
    return Atoms(numbers).get_chemical_symbols()
