"""Predictions of a GAP in other processes: QUIP computes on one core, and ends its process when something is wrong."""

import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from ase_flatten.models.gap.native import NativeFiles
from ase_flatten.models.gap.quip import QUIPPotential, blocks_of_frames
from ase_flatten.utils.exceptions import BackendError, printable
from ase_flatten.utils.parallel import LocalExecutor, PerWorker, WorkerDiedError, map_tasks
from ase_flatten.utils.typing import FloatArray, IntArray

_OUTPUT = "output-"


def predict_elsewhere(files: NativeFiles, positions: FloatArray, n_processes: int) -> tuple[FloatArray, FloatArray]:
    """Predict configurations in processes that end with the call.

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3) array, Å

    Returns
    -------
    (n_frames,) array, eV, and (n_frames, n_atoms, 3) array, eV/Å

    Raises
    ------
    BackendError
        QUIP ends its process.
    """
    tasks = [positions[rows] for rows in blocks_of_frames(len(positions), len(files.numbers))]
    with tempfile.TemporaryDirectory(prefix="ase-flatten-") as name:
        folder = Path(name)
        files.write(folder)
        potential = PerWorker(partial(_potential, folder, files.numbers))
        try:
            with LocalExecutor(min(n_processes, len(tasks))) as executor:
                parts = map_tasks(partial(_predict, potential), tasks, executor=executor)
        except WorkerDiedError as error:
            raise BackendError(
                f"expected a GAP model that QUIP can predict with, QUIP stopped: {_last_line(folder)}"
            ) from error
    return np.concatenate([energies for energies, _ in parts]), np.concatenate([forces for _, forces in parts])


def _potential(folder: Path, numbers: IntArray) -> QUIPPotential:
    """Load the potential; what QUIP prints from then on goes into a file."""
    output = os.open(folder / f"{_OUTPUT}{os.getpid()}", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    return QUIPPotential(folder, numbers)


def _predict(potential: PerWorker[QUIPPotential], positions: FloatArray) -> tuple[FloatArray, FloatArray]:
    return potential()(positions)


def _last_line(folder: Path) -> str:
    texts = [path.read_text(errors="replace") for path in sorted(folder.glob(f"{_OUTPUT}*"))]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    return printable(lines[-1]) if lines else "it does not say why"
