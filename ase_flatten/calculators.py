"""ASE calculators of the models that this project trains."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, all_changes

from ase_flatten.data.dataset import formula
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.geometry.extrapolation import QUANTILE, training_region
from ase_flatten.models import MovableModel, Prediction
from ase_flatten.models.held_out_error import held_out_error
from ase_flatten.models.resolver import NamedCalculator, resolve
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.notebook import html_table, short_repr
from ase_flatten.utils.typing import FloatArray, IntArray

log = logging.getLogger(__name__)

WARN_ABOVE = 2.0
"""The extrapolation that causes a warning; of ordinary geometries a tenth may lie above 1, and a hundredth above 2."""


class FlattenedCalculator(Calculator):
    """ASE calculator of a trained model of any family.

    Energies are in eV and forces in eV/Å. After each calculation, `extrapolation` is a float that says
    how far the geometry lies from the model's training geometries: above 1, it lies outside them (see
    `ase_flatten.geometry.extrapolation`). The first value above `WARN_ABOVE` is logged as a warning. It is
    None if the training geometries are not known, or if there is only one.

    Parameters
    ----------
    path : str or Path
        The name of a model, as in `ase_flatten.models.resolver.resolve`: a run folder (its improved model),
        a model folder, a native file, or ``schnetpack:FILE:UNIT``.
    numbers : (n_atoms,) int array, optional
        The molecule, in the order of its atoms; needed for ``schnetpack:``, and otherwise compared with the model's.
    device : str, optional
        cpu or cuda, for families that leave the choice, such as SchNet; by default, a GPU if there is one.
    dtype : str, optional
        float64 or float32, for the same families; by default float64.

    Raises
    ------
    InputError
        There is no model, it is of another family than the class, or its family does not offer this device or
        precision. When the calculator is attached or used: the atoms have other elements, another order or a periodic
        cell.

    Examples
    --------
    See `load_calculator`.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012  (ASE declares it so)
    family: ClassVar[str | None] = None

    def __init__(
        self,
        path: str | Path | NamedCalculator,
        *,
        numbers: IntArray | None = None,
        device: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        named = resolve(path)
        if named.family is None:
            raise InputError(f"expected a model, found {named.spec}, an ASE calculator; load it with load_calculator")
        if self.family is not None and named.family != self.family:
            raise InputError(f"expected a model of the family {self.family} in {named.spec}, found {named.family}")
        self.model = named.model(numbers)
        if isinstance(self.model, MovableModel):
            self.model.move(device, dtype)
        elif device is not None or dtype is not None:
            raise _no_choice(f"{named.spec} of the family {named.family}, which computes in float64")
        if numbers is not None:
            self.set_atoms(Atoms(numbers))
        self.extrapolation: float | None = None
        self._named_family, self._path, self._spec = named.family, named.path, named.spec
        self._n_train = None if named.saved is None else len(named.saved.card.training_frames)
        self._region = training_region(named.training_positions, self.model.permutations)
        self._warned = False

    def __repr__(self) -> str:
        return short_repr(f"{type(self).__name__} {self._spec}", self._facts())

    def _repr_html_(self) -> str:
        return html_table(self._spec, self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """Return what the model is, in words."""
        facts = [("family", self._named_family), ("molecule", formula(self.model.numbers))]
        if self._n_train:
            facts.append(("training frames", str(self._n_train)))
            error = None if self._path is None else held_out_error(self._path, self._n_train)
            if error is not None:
                facts.append(("held-out force RMSE", f"{error.force_rmse / KCAL_PER_MOL:.3f} kcal/(mol Å)"))
        return facts

    def predict(self, configurations: FloatArray | Atoms | Sequence[Atoms]) -> Prediction:
        """Predict many configurations at once, much faster than one by one.

        Parameters
        ----------
        configurations : (n_frames, n_atoms, 3) array, Å, or list of Atoms

        Raises
        ------
        InputError
            An array of another shape, or atoms of another molecule.
        """
        return self.model.predict(self._positions(configurations))

    def _positions(self, configurations: FloatArray | Atoms | Sequence[Atoms]) -> FloatArray:
        """Return positions, (n_frames, n_atoms, 3), of what can be predicted; raise InputError for anything else."""
        frames: Any = [configurations] if isinstance(configurations, Atoms) else configurations
        if not isinstance(frames, np.ndarray) and any(isinstance(frame, Atoms) for frame in frames):
            for number, atoms in enumerate(frames):
                if not isinstance(atoms, Atoms):
                    raise self._no_configurations(f"{type(atoms).__name__} among Atoms")
                try:
                    self.set_atoms(atoms)
                except InputError as error:
                    raise InputError(f"configuration {number}: {error}") from error
            frames = [atoms.positions for atoms in frames]
        try:
            positions = np.asarray(frames, dtype=float)
        except (ValueError, TypeError) as error:
            raise self._no_configurations(f"something else ({error})") from error
        shape = (len(self.model.numbers), 3)
        if positions.size == 0:
            return np.empty((0, *shape))
        if positions.shape[1:] != shape:
            raise self._no_configurations(f"an array of the shape {positions.shape}")
        return positions

    def _no_configurations(self, found: str) -> InputError:
        return InputError(
            f"expected positions of the shape (n_frames, {len(self.model.numbers)}, 3) in Å, or a list of Atoms, "
            f"found {found}; give one of these"
        )

    def extrapolation_of(self, configurations: FloatArray | Atoms | Sequence[Atoms]) -> FloatArray:
        """Compute the extrapolation of many geometries at once.

        Parameters
        ----------
        configurations : (n_frames, n_atoms, 3) array, Å, or list of Atoms

        Returns
        -------
        (n_frames,) array
            Above 1 outside the training geometries; NaN where `extrapolation` is None.
        """
        positions = self._positions(configurations)
        if self._region is None:
            return np.full(len(positions), np.nan)
        return self._region.extrapolation(positions)

    def set_atoms(self, atoms: Atoms) -> None:
        """Raise InputError for atoms of another molecule than the model's; ASE calls this on `atoms.calc = ...`."""
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
        self._update_extrapolation()

    def _update_extrapolation(self) -> None:
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
    """ASE calculator of a trained sGDML model; see `FlattenedCalculator`.

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
    """ASE calculator of a trained GAP; see `FlattenedCalculator`.

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
    """ASE calculator of a trained SchNet; see `FlattenedCalculator`.

    Networks are trained in float32. Predictions are in float64 by default, which is smoother and on a GPU slower.

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


def load_calculator(
    spec: str | Path | NamedCalculator,
    *,
    numbers: IntArray | None = None,
    device: str | None = None,
    dtype: Any = None,
) -> FlattenedCalculator | BaseCalculator:
    """Load the calculator that `spec` names.

    Parameters
    ----------
    spec : str or Path
        A run folder (its improved model), a model folder, a native file, ``schnetpack:FILE:UNIT``,
        ``tblite:METHOD`` or ``ase:MODULE:FACTORY``; see `ase_flatten.models.resolver.resolve`.
    numbers : (n_atoms,) int array, optional
        The molecule, in the order of its atoms; needed for ``schnetpack:``, and compared with that of other models.
    device, dtype : str, optional
        Where and how precisely a SchNet computes; see `FlattenedCalculator`.

    Returns
    -------
    FlattenedCalculator or ASE calculator
        The former for a model, the latter for ``tblite:`` and ``ase:``; a new one at each call.

    Raises
    ------
    InputError
        There is no such model or calculator, it is a model of another molecule, its device or precision cannot be
        chosen so, or a package that it needs is not installed.

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
    named = resolve(spec)
    if named.make is None:
        return FlattenedCalculator(named, numbers=numbers, device=device, dtype=dtype)
    if device is not None or dtype is not None:
        raise _no_choice(f"{named.spec}, an ASE calculator, which chooses them itself")
    return named.make()


def _symbols(numbers: Any) -> list[str]:
    return Atoms(numbers).get_chemical_symbols()


def _no_choice(found: str) -> InputError:
    return InputError(
        f"expected a model of torch, such as a SchNet, with device and dtype, found {found}; leave them out"
    )
