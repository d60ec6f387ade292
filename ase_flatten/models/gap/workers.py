"""Other processes that predict: QUIP computes one configuration at a time, on one core.

They are processes of their own and not forks, so that a QUIP that stops takes nobody with it,
and so that a script needs no guard around its main part.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

import numpy as np

from ase_flatten.dataset import FloatArray, IntArray
from ase_flatten.exceptions import InputError
from ase_flatten.models.gap.native import NativeFiles


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
    InputError
        QUIP stopped.
    """
    energies, forces = np.empty(len(positions)), np.empty(positions.shape)
    waiting = iter(range(len(positions)))
    with _workers(files, min(n_processes, len(positions))) as workers, DefaultSelector() as selector:
        busy: dict[_Worker, int] = {}
        for worker in workers:
            selector.register(worker.results, EVENT_READ, worker)
            busy[worker] = next(waiting)
            worker.send(positions[busy[worker]])
        while busy:
            for key, _ in selector.select():
                worker = key.data
                row = busy.pop(worker)
                energies[row], forces[row] = worker.receive()
                following = next(waiting, None)
                if following is not None:
                    busy[worker] = following
                    worker.send(positions[following])
    return energies, forces


class _Worker:
    """Speak with one process: positions go in, energy and forces come out, as plain numbers."""

    def __init__(self, folder: Path, number: int, numbers: IntArray) -> None:
        self._n_atoms = len(numbers)
        self._complaints = folder / f"complaints-{number}"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
                       "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}  # fmt: skip
        with self._complaints.open("wb") as complaints:
            # In a session of its own, Ctrl-C is left to the process that waits for it.
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import serve; serve()", str(folder), *map(str, numbers)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, env=environment,
                bufsize=0, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._orders, self.results = self._process.stdin, self._process.stdout

    def send(self, positions: FloatArray) -> None:
        try:
            self._orders.write(np.ascontiguousarray(positions, dtype=float).tobytes())
        except BrokenPipeError:
            raise self._stopped() from None

    def receive(self) -> tuple[float, FloatArray]:
        values = _read(self.results.fileno(), 1 + 3 * self._n_atoms)
        if values is None:
            raise self._stopped()
        return values[0], values[1:].reshape(-1, 3)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._orders.close()
        self.results.close()

    def _stopped(self) -> InputError:
        self._process.wait()
        lines = self._complaints.read_text(errors="replace").split("\n")
        reason = next((line.strip() for line in reversed(lines) if line.strip()), "it does not say why")
        return InputError(f"expected a GAP model that QUIP can predict with, QUIP stopped: {reason}")


@contextmanager
def _workers(files: NativeFiles, n_processes: int) -> Iterator[list[_Worker]]:
    """Start processes, and end them whatever happens."""
    workers: list[_Worker] = []
    with tempfile.TemporaryDirectory(prefix="ase-flatten-") as name:
        folder = Path(name)
        files.write(folder)
        try:
            for number in range(n_processes):
                workers.append(_Worker(folder, number, files.numbers))
            yield workers
        finally:
            for worker in workers:
                worker.close()


def _read(descriptor: int, n_values: int) -> FloatArray | None:
    """Read so many numbers from a pipe; nothing where it ended before."""
    content = bytearray()
    while len(content) < 8 * n_values:
        part = os.read(descriptor, 8 * n_values - len(content))
        if not part:
            return None
        content += part
    return np.frombuffer(content, dtype=float)


def serve() -> None:
    """Predict what comes in until nothing more does: the main part of the other processes."""
    from ase_flatten.models.gap.quip import QUIPPotential

    folder, numbers = Path(sys.argv[1]), np.array(sys.argv[2:], dtype=np.int64)
    with os.fdopen(os.dup(1), "wb", buffering=0) as results:
        os.dup2(2, 1)  # what QUIP prints must not get among the numbers
        potential = QUIPPotential(folder, numbers)
        while (positions := _read(0, 3 * len(numbers))) is not None:
            energy, forces = potential(positions.reshape(-1, 3))
            results.write(np.append(energy, forces.ravel()).tobytes())
