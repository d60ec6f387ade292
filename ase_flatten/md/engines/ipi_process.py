"""An `i-pi` process, and a thread that serves it with forces, in step with the caller.

i-PI asks for the forces of one replica after the other, always in the same order. The forces of the step after a
frame are withheld until that step is wanted. The outputs and the checkpoint of i-PI are therefore those of the
frame, and i-PI never runs ahead.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from ase_flatten.ipi.socket_protocol import connect, serve, unix_address
from ase_flatten.md.engines.ipi_files import ADDRESS, OutputReader, Outputs, checkpoint_step
from ase_flatten.md.integrators.replicas import Evaluate
from ase_flatten.utils.exceptions import BackendError, not_installed
from ase_flatten.utils.typing import FloatArray, IntArray

START_SECONDS = 120.0
"""Longest time that i-PI may take to open its socket, s."""

_CHILD = Path(__file__).with_name("ipi_child.py")
"""Run with -P: the modules beside it would otherwise hide others of the same names."""

_LOOK_SECONDS = 0.2
_LOG_LINES = 3


def ipi_command() -> list[str]:
    """Return the command that runs i-PI.

    Raises
    ------
    InputError
        It is not installed.
    """
    beside = Path(sys.executable).with_name("i-pi")
    script = str(beside) if beside.is_file() else shutil.which("i-pi")
    if find_spec("ipi") is None or script is None:
        raise not_installed("the engine ipi", "ipi", extra="md")
    return [sys.executable, script]


class IPIProcess:
    """An i-PI process in a private folder, run to its first frame and from frame to frame.

    Parameters
    ----------
    command : list of str
    write : callable
        Returns the input of i-PI for a folder.
    evaluate : callable
        Returns energies, forces and problems of (n, n_atoms, 3) positions.
    numbers : (n_atoms,) int array
    n_replicas : int

    Raises
    ------
    BackendError
        From any method: i-PI has ended. The message holds the last lines of its log.
    """

    def __init__(
        self,
        command: list[str],
        write: Callable[[Path], str],
        evaluate: Evaluate,
        numbers: IntArray,
        n_replicas: int,
    ) -> None:
        self._folder = _private_folder()
        self._turns = _Turns(evaluate, n_replicas)
        self._threads = threadpool_info()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._thread: threading.Thread | None = None
        try:
            executable, *script = command
            (self._folder / "input.xml").write_text(write(self._folder), encoding="utf-8")
            with (self._folder / "log").open("wb") as stream:
                # In a session of its own, Ctrl-C reaches this process alone, which then ends i-PI.
                self._process = subprocess.Popen(
                    [executable, "-P", str(_CHILD), *script, "input.xml"],
                    cwd=self._folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdin=subprocess.PIPE,
                    stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            address = unix_address(ADDRESS, f"{self._folder}/")
            deadline = time.monotonic() + START_SECONDS
            while not Path(address).is_socket():
                self._check_alive()
                if time.monotonic() > deadline:
                    raise self._failure(f"no socket after {START_SECONDS:g} s")
                time.sleep(0.01)
            self._connection = connect(address, wait_s=START_SECONDS)
            self._thread = threading.Thread(target=self._serve, args=(self._connection, len(numbers)), daemon=True)
            self._thread.start()
            self._wait()
            self._reader = OutputReader(self._folder, numbers, n_replicas)
            self._outputs = self._reader.read()
        except BaseException:
            self.close()
            raise

    def advance(self, n_steps: int, alive: np.ndarray) -> None:
        """Make steps; the model is not evaluated for replicas that are not alive."""
        self._turns.allow(n_steps, alive)
        self._wait()
        self._outputs = self._reader.read()

    def frame(self) -> tuple[Outputs, dict[int, str]]:
        """Return the last frame, and the problems of each replica since the one before."""
        served, problems = self._turns.last()
        assert (self._outputs.step == self._turns.allowed).all(), "i-PI wrote no frame of this step"
        same = np.isclose(self._outputs.positions, served, rtol=1e-12, atol=1e-12, equal_nan=True)
        assert same.all(), "i-PI asked for the forces of the replicas in another order"
        return self._outputs, problems

    def checkpoint(self) -> tuple[str, int]:
        """Return the last checkpoint of i-PI, and the number of steps from it to the last frame."""
        checkpoint = (self._folder / "md.checkpoint").read_text(encoding="utf-8")
        return checkpoint, self._turns.allowed - checkpoint_step(checkpoint)

    def close(self) -> None:
        """End the process and the thread, and remove the folder; the state is in the last checkpoint."""
        self._turns.stop()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        if self._thread is not None:
            self._thread.join()
        if self._connection is not None:
            self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self, connection: socket.socket, n_atoms: int) -> None:
        try:
            # A new thread does not inherit the limit that OpenMP has in the one that made it.
            with threadpool_limits(limits=self._threads):
                serve(connection, self._turns.answer, n_atoms)
        except _StoppedError:
            pass
        except BaseException as error:
            self._turns.end(error)
            return
        self._turns.end(None)

    def _wait(self) -> None:
        """Wait until all allowed steps are done and written."""
        while not self._turns.wait(_LOOK_SECONDS):
            self._check_alive()
        self._check_alive()

    def _check_alive(self) -> None:
        if self._turns.error is not None:
            raise self._turns.error
        assert self._process is not None
        if self._turns.ended and self._process.poll() is None:
            try:
                self._process.wait(_LOOK_SECONDS * 10)
            except subprocess.TimeoutExpired:
                raise self._failure("that it does not respond") from None
        if self._process.poll() is not None:
            raise self._failure(f"that it ended with status {self._process.returncode}")

    def _failure(self, found: str) -> BackendError:
        lines = (self._folder / "log").read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()][-_LOG_LINES:]
        return BackendError(
            f"expected i-pi to integrate, found {found} (the end of its log: {' / '.join(said) or 'nothing'}); "
            "correct what it reports, or run the same command again to resume from the last checkpoint"
        )


class _StoppedError(Exception):
    """The run is over; requests of i-PI are no longer answered."""


class _Turns:
    """Answers to i-PI, in the order of the replicas and up to the allowed step."""

    def __init__(self, evaluate: Evaluate, n_replicas: int) -> None:
        self._evaluate, self._n_replicas = evaluate, n_replicas
        self._alive = np.ones(n_replicas, dtype=bool)
        self._positions: list[FloatArray] = [np.empty(0)] * n_replicas
        self._problems: dict[int, str] = {}
        self._asked = 0
        self.allowed = 0
        self._done = self._stopped = False
        self._condition = threading.Condition()
        self.ended = False
        self.error: BaseException | None = None

    def answer(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Evaluate one configuration when its step is wanted; return zero forces for a replica that has failed."""
        step, replica = divmod(self._asked, self._n_replicas)
        with self._condition:
            while step > self.allowed and not self._stopped:
                self._done = True
                self._condition.notify_all()
                self._condition.wait()
            if self._stopped:
                raise _StoppedError
        self._asked += 1
        self._positions[replica] = positions[0]
        if not self._alive[replica]:
            return np.zeros(1), np.zeros_like(positions)
        problems = {0: "positions are not finite"}
        if np.isfinite(positions).all():
            with np.errstate(all="ignore"):
                energies, forces, problems = self._evaluate(positions)
            if not problems and np.isfinite(energies).all() and np.isfinite(forces).all():
                return energies, forces
        self._alive[replica] = False
        self._problems[replica] = problems.get(0, "energy or forces of the model are not finite")
        return np.zeros(1), np.zeros_like(positions)

    def allow(self, n_steps: int, alive: np.ndarray) -> None:
        """Let i-PI make more steps."""
        with self._condition:
            self._alive &= alive
            self.allowed += n_steps
            self._done = False
            self._condition.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until i-PI has made all allowed steps or has ended, at most for a time; return whether it has."""
        with self._condition:
            self._condition.wait_for(lambda: self._done or self.ended, seconds)
            return self._done or self.ended

    def last(self) -> tuple[FloatArray, dict[int, str]]:
        """Return the positions that were evaluated last, and the problems since the last call."""
        problems, self._problems = self._problems, {}
        return np.array(self._positions), problems

    def end(self, error: BaseException | None) -> None:
        """Record that i-PI is no longer served."""
        with self._condition:
            self.ended, self.error = True, error
            self._condition.notify_all()

    def stop(self) -> None:
        """Stop answering."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()


def _private_folder() -> Path:
    """Make a folder that only this user can enter, its path short enough for a Unix socket.

    It is in memory where that is possible: i-PI waits for the disk after each output.
    """
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    return Path(tempfile.mkdtemp(prefix="flatten-", dir=memory if usable else None))
