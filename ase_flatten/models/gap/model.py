"""GAP models: predictions by QUIP, in one process or in several."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.geometry.pair_distances import exchanges_of_like_atoms
from ase_flatten.models import Prediction
from ase_flatten.models.gap.native import NativeFiles, read_native
from ase_flatten.models.gap.workers import QUIPProcesses
from ase_flatten.utils.cores import n_cores
from ase_flatten.utils.exceptions import BackendError, InputError
from ase_flatten.utils.typing import FloatArray

_FEW_FRAMES = 400
"""Predicting this many configurations takes about as long as starting other processes."""

_READ_BY_QUIP: set[str] = set()
"""Digests of the files that QUIP has read for this process."""


class GAPModel:
    """A GAP model.

    Parameters
    ----------
    files : NativeFiles

    Attributes
    ----------
    permutations : (n_permutations, n_atoms) int array
        See `exchanges_of_like_atoms`.
    """

    def __init__(self, files: NativeFiles) -> None:
        self.files = files
        self.numbers = files.numbers
        self.permutations = exchanges_of_like_atoms(files.numbers)

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """The settings of the trainer."""
        return dict(self.files.settings)

    def predict(self, positions: FloatArray) -> Prediction:
        """Predict energies and forces; many configurations on all cores.

        Parameters
        ----------
        positions : (n_frames, n_atoms, 3) array, Å
            For positions that are not finite, predictions are NaN; QUIP would treat such atoms as isolated.

        Returns
        -------
        Prediction
        """
        positions = np.asarray(positions, dtype=float)
        energies, forces = np.full(len(positions), np.nan), np.full(positions.shape, np.nan)
        somewhere = np.flatnonzero(np.isfinite(positions).all(axis=(1, 2)))
        if len(somewhere) > _FEW_FRAMES and n_cores() > 1:
            with QUIPProcesses(self.files, n_cores()) as potential:
                energies[somewhere], forces[somewhere] = potential(positions[somewhere])
        elif len(somewhere):
            energies[somewhere], forces[somewhere] = self._potential(positions[somewhere])
        return Prediction(energies, forces)

    def save(self, folder: Path) -> None:
        """Write `model.xml`, the sparse points and the log of `gap_fit`."""
        self.files.write(folder)

    def __reduce__(self) -> tuple[type["GAPModel"], tuple[NativeFiles]]:
        return GAPModel, (self.files,)

    @cached_property
    def _potential(self) -> QUIPProcesses:
        return QUIPProcesses(self.files, 1)


def load_model_folder(folder: Path) -> GAPModel:
    """Load a model from its folder, or from its model.xml.

    What the files say is checked first, and then QUIP tries them; files that it has read once are not tried again.

    Raises
    ------
    InputError
        A file is missing or damaged, or QUIP is not installed.
    """
    model = GAPModel(read_native(folder))
    if model.files.digest in _READ_BY_QUIP:
        return model
    apart = np.zeros((1, len(model.numbers), 3))
    apart[0, :, 0] = 1.5 * np.arange(len(model.numbers))
    try:
        model.predict(apart)
    except BackendError as error:
        raise InputError(str(error)) from error
    _READ_BY_QUIP.add(model.files.digest)
    return model
