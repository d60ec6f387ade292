"""ASE calculators of the models that this project trains."""

import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from ase_flatten.data.dataset import formula
from ase_flatten.geometry.extrapolation import QUANTILE, training_region
from ase_flatten.models import Prediction
from ase_flatten.models.model_folder import load_model
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray

log = logging.getLogger(__name__)

WARN_ABOVE = 2.0
"""An extrapolation that is worth a warning: a tenth of ordinary geometries may lie above 1, a hundredth above 2."""


class FlattenedCalculator(Calculator):
    """Serve a trained model of any family to ASE.

    Energies are in eV and forces in eV/Å. After each calculation `extrapolation` is the
    geometry's extrapolation, a float: above 1 the geometry lies outside the model's training
    geometries (see `ase_flatten.geometry.extrapolation`). The first above `WARN_ABOVE` is logged as a
    warning. It is None for a model without its training geometries, or with only one.

    Parameters
    ----------
    path : str or Path
        A run folder (its improved model), a model folder, or a native sGDML file.

    Raises
    ------
    InputError
        No model there, or one of another family than the class; when it is attached
        or used: other elements, another order of atoms, or a periodic cell.

    Examples
    --------
    See `load_calculator`.
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
        self._region = training_region(saved.training_positions, self.model.permutations)
        self._warned = False

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict many configurations at once, (n_frames, n_atoms, 3) in Å."""
        return self.model.predict(positions)

    def extrapolation_of(self, positions: FloatArray) -> FloatArray:
        """Compute the extrapolation of many geometries at once.

        Parameters
        ----------
        positions : (n_frames, n_atoms, 3) array, Å

        Returns
        -------
        (n_frames,) array
            Above 1 outside the training geometries; NaN where `extrapolation` is None.
        """
        if self._region is None:
            return np.full(len(positions), np.nan)
        return self._region.extrapolation(positions)

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
        if self._region is None:
            return
        self.extrapolation = float(self._region.extrapolation(self.atoms.positions[None])[0])
        if self.extrapolation > WARN_ABOVE and not self._warned:
            self._warned = True
            log.warning("the model extrapolates: %s (reported once; see calc.extrapolation)", self._reason())

    def _reason(self) -> str:
        assert self._region is not None and self.extrapolation is not None
        farthest = self._region.outlying_distance(self.atoms.positions)
        if farthest.extrapolation < self.extrapolation:
            return (
                f"this geometry is {self.extrapolation:.1f} times as far from its nearest training geometry as "
                f"{QUANTILE:.0%} of the training geometries are from theirs"
            )
        i, j = (f"{self.atoms.symbols[atom]}{atom}" for atom in farthest.atoms)
        return (
            f"the distance {i}-{j} is {farthest.distance:.2f} Å, outside the {farthest.smallest:.2f} to "
            f"{farthest.largest:.2f} Å of its training geometries"
        )


class FlattenedSGDML(FlattenedCalculator):
    """Serve a trained sGDML model to ASE; see `FlattenedCalculator`.

    Examples
    --------
    >>> from ase_flatten import FlattenedSGDML, read_dataset
    >>> atoms = read_dataset("examples/data/salicylic_gfn2_500K.npz").atoms(0)
    >>> atoms.calc = FlattenedSGDML("runs/demo")
    >>> atoms.get_forces().shape  # eV/Å
    (16, 3)
    """

    family = "sgdml"


class FlattenedGAP(FlattenedCalculator):
    """Serve a trained GAP to ASE; see `FlattenedCalculator`.

    Examples
    --------
    A model of another family is refused:

    >>> from ase_flatten import FlattenedGAP
    >>> FlattenedGAP("runs/demo")
    Traceback (most recent call last):
        ...
    ase_flatten.utils.exceptions.InputError: expected a model of the family gap in runs/demo, found sgdml
    """

    family = "gap"


class FlattenedSchNet(FlattenedCalculator):
    """Serve a trained SchNet to ASE; see `FlattenedCalculator`.

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

    Examples
    --------
    A model of another family is refused:

    >>> from ase_flatten import FlattenedSchNet
    >>> FlattenedSchNet("runs/demo", device="cpu")
    Traceback (most recent call last):
        ...
    ase_flatten.utils.exceptions.InputError: expected a model of the family schnet in runs/demo, found sgdml
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

    Examples
    --------
    >>> from ase_flatten import load_calculator, read_dataset
    >>> data = read_dataset("examples/data/salicylic_gfn2_500K.npz")
    >>> atoms = data.atoms(0)
    >>> atoms.calc = load_calculator("runs/demo")
    >>> atoms.get_potential_energy()  # eV
    -8...
    >>> atoms.calc.predict(data.positions[:50]).forces.shape  # eV/Å
    (50, 16, 3)
    >>> bool(atoms.calc.extrapolation > 1)  # outside the training geometries?
    False
    """
    return FlattenedCalculator(path)


def _symbols(numbers: Any) -> list[str]:
    return Atoms(numbers).get_chemical_symbols()
