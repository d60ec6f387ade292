"""The reference data of one molecule."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula

from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.notebook import html_table
from ase_flatten.utils.typing import FloatArray, IntArray


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Frames of one molecule with their energies and forces, read-only.

    Parameters
    ----------
    numbers : (n_atoms,) int array
        Atomic numbers, in the order of the atoms of every frame.
    positions : (n_frames, n_atoms, 3) array, Å
    energies : (n_frames,) array, eV
    forces : (n_frames, n_atoms, 3) array, eV/Å
    name, theory : str
        The molecule and the method of the labels, as the file calls them.

    Raises
    ------
    InputError
        Shapes that do not agree, or numbers that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from ase.build import molecule
    >>> from ase_flatten import Dataset
    >>> water = molecule("H2O")
    >>> positions = np.stack([water.positions, 1.01 * water.positions])
    >>> data = Dataset(water.numbers, positions, energies=[0.0, 0.1], forces=np.zeros((2, 3, 3)))
    >>> data.n_frames, data.n_atoms, data.formula
    (2, 3, 'H2O')
    >>> data
    Dataset(2 frames of H2O, 3 atoms)
    """

    numbers: IntArray
    positions: FloatArray
    energies: FloatArray
    forces: FloatArray
    name: str = ""
    theory: str = ""

    def __post_init__(self) -> None:
        for field in ("positions", "energies", "forces"):
            object.__setattr__(self, field, _read_only(np.asarray(getattr(self, field), dtype=np.float64)))
        object.__setattr__(self, "numbers", _read_only(np.asarray(self.numbers, dtype=np.int64)))
        known = self.numbers.ndim == 1 and np.all((self.numbers > 0) & (self.numbers < len(chemical_symbols)))
        if not known:
            raise InputError(
                f"atomic numbers must be one for each atom, 1 to 118, found {printable(self.numbers.tolist())}"
            )
        check_shapes(len(self.numbers), self.positions.shape, self.energies.shape, self.forces.shape)
        for field in ("positions", "energies", "forces"):
            finite = np.isfinite(getattr(self, field)).reshape(self.n_frames, -1).all(axis=1)
            if not finite.all():
                raise InputError(
                    f"{field} must be finite numbers, found NaN or infinity in {np.sum(~finite)} of {self.n_frames} "
                    f"frames (the first is frame {np.argmin(finite)}); remove these frames or compute them again"
                )

    def __repr__(self) -> str:
        frames = f"{self.n_frames} frame{'s' if self.n_frames > 1 else ''}"
        theory = f", {self.theory}" if self.theory else ""
        return f"Dataset({frames} of {self.formula}, {self.n_atoms} atoms{theory})"

    def _repr_html_(self) -> str:
        """Show what the data set holds, in a notebook."""
        rms, largest = np.sqrt(np.mean(np.square(self.forces))), np.abs(self.forces).max()
        facts = [
            ("molecule", f"{self.formula}, {self.n_atoms} atoms"),
            ("name", self.name),
            ("method", self.theory),
            ("frames", f"{self.n_frames}"),
            ("energies", f"{self.energies.min():.3f} to {self.energies.max():.3f} eV"),
            ("force components", f"{rms:.3f} eV/Å (root mean square), {largest:.3f} eV/Å at most"),
        ]
        return html_table("Dataset", [(name, value) for name, value in facts if value])

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.positions)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def formula(self) -> str:
        """The molecule's formula, such as C7H6O3."""
        return formula(self.numbers)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over numbers, positions, energies and forces."""
        digest = hashlib.sha256()
        for array in (self.numbers, self.positions, self.energies, self.forces):
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()

    @cached_property
    def pair_distances(self) -> FloatArray:
        """Pair distances of all frames, (n_frames, n_pairs) in Å, read-only; computed once, see `pair_distances`."""
        return _read_only(pair_distances(self.positions))

    def atoms(self, frame: int) -> Atoms:
        """Return one frame as ASE atoms, without labels."""
        return Atoms(self.numbers, self.positions[frame])

    def take(self, frames: IntArray) -> "Dataset":
        """Return a data set of some frames only."""
        return Dataset(
            self.numbers, self.positions[frames], self.energies[frames], self.forces[frames], self.name, self.theory
        )


def check_shapes(n_atoms: int, positions: tuple[int, ...], energies: tuple[int, ...], forces: tuple[int, ...]) -> None:
    """Refuse shapes of arrays that are not those of a data set; raise InputError."""
    if len(positions) != 3 or positions[1:] != (n_atoms, 3):
        raise InputError(f"positions must have the shape (n_frames, {n_atoms}, 3), found {positions}")
    if n_atoms < 2:
        raise InputError(f"a molecule must have at least 2 atoms, found {n_atoms}")
    if not positions[0]:
        raise InputError("the data set must hold at least one frame, found none")
    if forces != positions:
        raise InputError(f"forces must have the shape of the positions {positions}, found {forces}")
    if energies != positions[:1]:
        raise InputError(f"energies must be one for each of {positions[0]} frames, found {energies}")


def formula(numbers: IntArray) -> str:
    """Return the formula of a molecule in Hill's order."""
    return str(Formula.from_list([chemical_symbols[number] for number in numbers]).format("hill"))


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
