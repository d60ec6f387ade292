"""Predictions of a GAP by QUIP, through quippy.

Each call of QUIP parses its options again, which takes longer than the computation for a small molecule. Therefore
several configurations are computed in one call, as molecules too far apart to interact.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_flatten.models.gap.native import LABEL, MODEL_FILE
from ase_flatten.utils.exceptions import InputError, not_installed
from ase_flatten.utils.typing import FloatArray, IntArray

ATOMS_A_CALL = 150
_WIDE = 1000.0
"""Extent of a fragmented molecule, Å, beyond which the others in the same call would lose digits."""


class QUIPPotential:
    """A GAP in QUIP, for configurations of one molecule.

    Parameters
    ----------
    folder : Path
        With the native files, which are read once.
    numbers : (n_atoms,) int array

    Raises
    ------
    InputError
        quippy is not installed, or QUIP refuses the files.
    """

    def __init__(self, folder: Path, numbers: IntArray) -> None:
        try:
            from quippy.potential import Potential
        except ImportError as error:
            raise not_installed("GAP", "quippy", extra="gap", error=error) from error
        try:
            # The kind of potential is stated here rather than read from the file.
            calculator = Potential(f"IP GAP label={LABEL}", param_filename=str(folder / MODEL_FILE))
        except RuntimeError as error:
            raise InputError(f"expected a GAP model, QUIP refuses it: {error}") from error
        self._potential = calculator._quip_potential
        self._reach = float(self._potential.cutoff())
        self._numbers = numbers
        # Kept because QUIP never frees the memory of its atoms.
        self._atoms: dict[int, Any] = {}

    def __call__(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predict configurations.

        Parameters
        ----------
        positions : (n_frames, n_atoms, 3) array, Å

        Returns
        -------
        (n_frames,) array, eV, and (n_frames, n_atoms, 3) array, eV/Å
        """
        energies, forces = np.empty(len(positions)), np.empty(positions.shape)
        for rows in blocks_of_frames(len(positions), len(self._numbers)):
            centred = positions[rows] - positions[rows, :1]
            extent = np.ptp(centred[..., 0]) if len(centred) > 1 else 0.0
            apart = [rows] if extent < _WIDE else [slice(row, row + 1) for row in range(rows.start, rows.stop)]
            for part in apart:
                energies[part], forces[part] = self._at_once(centred[part.start - rows.start : part.stop - rows.start])
        return energies, forces

    def _at_once(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predict a few configurations in one call."""
        n_frames, n_atoms, _ = positions.shape
        shifts = np.zeros((n_frames, 1, 3))
        shifts[:, 0, 0] = np.arange(n_frames) * (np.ptp(positions[..., 0]) + self._reach + 1)
        atoms = self._atoms_of(n_frames)
        atoms.pos[:] = (positions + shifts).reshape(-1, 3).T
        total, energies, forces = (
            np.zeros(()),
            np.zeros(n_frames * n_atoms),
            np.zeros((3, n_frames * n_atoms), order="F"),
        )
        self._potential.calc(atoms, args_str="", energy=total, force=forces, local_energy=energies)
        return energies.reshape(n_frames, n_atoms).sum(axis=1), forces.T.reshape(positions.shape)

    def _atoms_of(self, n_frames: int) -> Any:
        from quippy.convert import ase_to_quip

        if n_frames not in self._atoms:
            self._atoms[n_frames] = ase_to_quip(Atoms(np.tile(self._numbers, n_frames)))
        return self._atoms[n_frames]


def blocks_of_frames(n_frames: int, n_atoms: int) -> Iterator[slice]:
    """Return slices of the frames for one call each."""
    step = max(1, ATOMS_A_CALL // n_atoms)
    for start in range(0, n_frames, step):
        yield slice(start, min(start + step, n_frames))
