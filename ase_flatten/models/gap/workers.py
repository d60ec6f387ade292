"""Other processes that predict: QUIP computes on one core.

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

from ase_flatten.models.gap.native import NativeFiles
from ase_flatten.models.gap.quip import QUIPPotential, blocks_of_frames
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray


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
    blocks = list(blocks_of_frames(len(positions), len(files.numbers)))
    waiting = iter(blocks)
    with _workers(files, min(n_processes, len(blocks))) as workers, DefaultSelector() as selector:
        busy: dict[_Worker, slice] = {}
        for worker in workers:
            selector.register(worker.results, EVENT_READ, worker)
            busy[worker] = next(waiting)
            worker.send(positions[busy[worker]])
        while busy:
            for key, _ in selector.select():
                worker = key.data
                rows = busy.pop(worker)
                energies[rows], forces[rows] = worker.receive(rows.stop - rows.start)
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
            _write(self._orders.fileno(), np.append(float(len(positions)), positions))
        except BrokenPipeError:
            raise self._stopped() from None

    def receive(self, n_frames: int) -> tuple[FloatArray, FloatArray]:
        values = _read(self.results.fileno(), n_frames * (1 + 3 * self._n_atoms))
        if values is None:
            raise self._stopped()
        return values[:n_frames], values[n_frames:].reshape(n_frames, -1, 3)

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


def _write(descriptor: int, values: FloatArray) -> None:
    """Write all numbers to a pipe, however little it takes at once."""
    content = memoryview(values.tobytes())
    while content:
        content = content[os.write(descriptor, content) :]


def serve() -> None:
    """Predict what comes in until nothing more does: the main part of the other processes."""
    folder, numbers = Path(sys.argv[1]), np.array(sys.argv[2:], dtype=np.int64)
    results = os.dup(1)
    os.dup2(2, 1)  # what QUIP prints must not get among the numbers
    potential = QUIPPotential(folder, numbers)
    while (header := _read(0, 1)) is not None:
        positions = _read(0, int(header[0]) * 3 * len(numbers))
        if positions is None:
            return
        _write(results, np.append(*potential(positions.reshape(-1, len(numbers), 3))))
