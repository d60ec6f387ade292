"""A GAP in QUIP's hands: one configuration at a time, through quippy."""

from pathlib import Path

import numpy as np
from ase import Atoms

from ase_flatten.dataset import FloatArray, IntArray
from ase_flatten.exceptions import InputError
from ase_flatten.models.gap.native import LABEL, MODEL_FILE


class QUIPPotential:
    """Compute energy and forces of single configurations of one molecule.

    Parameters
    ----------
    folder : Path
        Where the native files are; they are not needed any longer afterwards.
    numbers : (n_atoms,) int array

    Raises
    ------
    InputError
        quippy is not installed, or QUIP refuses the files.
    """

    def __init__(self, folder: Path, numbers: IntArray) -> None:
        try:
            from quippy.convert import ase_to_quip
            from quippy.potential import Potential
        except ImportError as error:
            raise InputError(f"GAP needs quippy ({error}); install it with: pip install 'ase-flatten[gap]'") from error
        try:
            # What to make of the file is said here, and not left to the file.
            self._potential = Potential(f"IP GAP label={LABEL}", param_filename=str(folder / MODEL_FILE))
        except RuntimeError as error:
            raise InputError(f"expected a GAP model, QUIP refuses it: {error}") from error
        # One Atoms object for all configurations: quippy's calculator makes one each time, which QUIP never frees.
        self._atoms = ase_to_quip(Atoms(numbers))
        self._energy = np.zeros(())
        self._forces = np.zeros((3, len(numbers)), order="F")

    def __call__(self, positions: FloatArray) -> tuple[float, FloatArray]:
        """Give the energy, eV, and the forces, (n_atoms, 3), eV/Å, at positions (n_atoms, 3), Å."""
        self._atoms.pos[:] = positions.T
        self._potential._quip_potential.calc(self._atoms, args_str="", energy=self._energy, force=self._forces)
        return float(self._energy), self._forces.T.copy()
