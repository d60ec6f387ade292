"""Predictions of a GAP by QUIP in other processes.

QUIP computes on one core, and ends its process when something is wrong. Ctrl-C would also spoil it: quippy jumps out of
the running Fortran code, which cannot be called again after that. The processes here do not receive Ctrl-C.
"""

import os
import shutil
import tempfile
import weakref
from functools import partial
from pathlib import Path

import numpy as np

from ase_flatten.models.gap.native import NativeFiles
from ase_flatten.models.gap.quip import QUIPPotential, blocks_of_frames
from ase_flatten.utils.exceptions import BackendError, printable
from ase_flatten.utils.parallel import LocalExecutor, PerWorker, WorkerDiedError, map_tasks
from ase_flatten.utils.typing import FloatArray, IntArray

_OUTPUT = "output-"


class QUIPProcesses:
    """A GAP in QUIP, in processes that start with the first call and end with this object or its ``with`` block.

    Parameters
    ----------
    files : NativeFiles
    n_processes : int
    """

    def __init__(self, files: NativeFiles, n_processes: int) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ase-flatten-"))
        self._executor = LocalExecutor(n_processes)
        self._end = weakref.finalize(self, _end, self._executor, self._folder)
        files.write(self._folder)
        self._n_atoms = len(files.numbers)
        self._predict = partial(_predict, PerWorker(partial(_potential, self._folder, files.numbers)))

    def __call__(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predict configurations.

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
        tasks = [positions[rows] for rows in blocks_of_frames(len(positions), self._n_atoms)]
        try:
            parts = map_tasks(self._predict, tasks or [positions], executor=self._executor)
        except WorkerDiedError as error:
            raise BackendError(
                f"expected a GAP model that QUIP can predict with, QUIP stopped: {_last_line(self._folder)}"
            ) from error
        return np.concatenate([energies for energies, _ in parts]), np.concatenate([forces for _, forces in parts])

    def __enter__(self) -> "QUIPProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()


def _end(executor: LocalExecutor, folder: Path) -> None:
    executor.kill()
    shutil.rmtree(folder, ignore_errors=True)


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
