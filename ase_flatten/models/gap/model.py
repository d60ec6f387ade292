"""GAP models: predictions by QUIP, in this process or in several."""

import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.geometry.pair_distances import exchanges_of_like_atoms
from ase_flatten.models import Prediction
from ase_flatten.models.gap.native import NativeFiles, read_native
from ase_flatten.models.gap.quip import QUIPPotential
from ase_flatten.models.gap.workers import predict_elsewhere
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
            energies[somewhere], forces[somewhere] = predict_elsewhere(self.files, positions[somewhere], n_cores())
        else:
            energies[somewhere], forces[somewhere] = self._potential(positions[somewhere])
        return Prediction(energies, forces)

    def save(self, folder: Path) -> None:
        """Write `model.xml`, the sparse points and the log of `gap_fit`."""
        self.files.write(folder)

    def __reduce__(self) -> tuple[type["GAPModel"], tuple[NativeFiles]]:
        return GAPModel, (self.files,)

    @cached_property
    def _potential(self) -> QUIPPotential:
        with tempfile.TemporaryDirectory(prefix="ase-flatten-") as folder:
            self.files.write(Path(folder))
            potential = QUIPPotential(Path(folder), self.numbers)
        _READ_BY_QUIP.add(self.files.digest)
        return potential


def load_model_folder(folder: Path) -> GAPModel:
    """Load a model from its folder, or from its model.xml.

    What the files say is checked first. Then another process tries them, since QUIP ends the process that it
    runs in when it cannot read a file; files that QUIP has read once are not tried again.

    Raises
    ------
    InputError
        A file is missing or damaged, or QUIP is not installed.
    """
    files = read_native(folder)
    if files.digest in _READ_BY_QUIP:
        return GAPModel(files)
    apart = np.zeros((1, len(files.numbers), 3))
    apart[0, :, 0] = 1.5 * np.arange(len(files.numbers))
    try:
        predict_elsewhere(files, apart, 1)
    except BackendError as error:
        raise InputError(str(error)) from error
    _READ_BY_QUIP.add(files.digest)
    return GAPModel(files)
