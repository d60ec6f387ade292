"""Many independent calls, run by any `concurrent.futures.Executor`.

`map_tasks` runs them. `LocalExecutor` provides processes on this machine; executors of other packages, such as
dask's ``Client.get_executor()``, and threads can be passed in its place. `PerWorker` makes an object that is costly to
make, such as a calculator, once in each worker of any executor.
"""

import os
import re
import signal
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

from loky import ProcessPoolExecutor
from loky.process_executor import ShutdownExecutorError

from ase_flatten.utils.exceptions import BackendError
from ase_flatten.utils.progress import SILENT, Progress

Arguments = ParamSpec("Arguments")
Task = TypeVar("Task")
Result = TypeVar("Result")

_ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_PARENT_SECONDS = 0.5
_MOST_KEPT = 4
"""Objects of `PerWorker` that a worker keeps: an executor may outlive many of its users."""


class WorkerDiedError(BackendError):
    """A task whose worker died, and died again when the task was run a second time."""


def map_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    executor: Executor | None = None,
    progress: Progress = SILENT,
    what: str = "computing",
) -> list[Result]:
    """Call a function on each task.

    Parameters
    ----------
    function : callable
        For processes, a function of a module, alone or with arguments bound by `functools.partial`.
    tasks : sequence
    executor : concurrent.futures.Executor, optional
        Runs the calls; without one, this process does, one after the other.
    what : str
        Description of the progress, which counts tasks.

    Returns
    -------
    list
        The results in the order of the tasks.

    Raises
    ------
    WorkerDiedError
        A worker died, twice if the executor is a `LocalExecutor`.
    Exception
        What the function raised for the first task that failed, in the order of the tasks. Tasks that have not
        begun are cancelled.
    """
    results = []
    with progress.task(what, len(tasks)) as advance:
        if executor is None:
            for task in tasks:
                results.append(function(task))
                advance(1)
            return results
        futures = [executor.submit(function, task) for task in tasks]
        try:
            for future in futures:
                results.append(future.result())
                advance(1)
        except BrokenExecutor as error:
            raise WorkerDiedError(f"a worker of {type(executor).__name__} died ({error})") from error
        finally:
            for future in futures:
                future.cancel()
    return results


class LocalExecutor(Executor):
    """An executor that runs calls in processes of this machine, with linear algebra on one core in each.

    A process that dies costs only the call that it was running, which is run once more in a new process;
    `WorkerDiedError` is raised when that one dies as well. Processes are started when they are first needed.
    They end with the block of the ``with`` statement, and within a second of this process if it is killed;
    when the block is left by an exception, they are killed.

    Parameters
    ----------
    n_workers : int
    """

    def __init__(self, n_workers: int) -> None:
        # One thread per process, so that it is known which call a process was running when it died.
        self._threads = ThreadPoolExecutor(n_workers, thread_name_prefix="local-executor")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._pools: set[ProcessPoolExecutor] = set()
        self._killed = False

    def submit(
        self, fn: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Future[Result]:
        """Schedule a call; see `concurrent.futures.Executor.submit`."""
        return self._threads.submit(self._call, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes after the calls that are running, and with `cancel_futures` before all others."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        if not wait:
            threading.Thread(target=self.shutdown).start()
            return
        for pool in self._pools:
            pool.shutdown()

    def kill(self) -> None:
        """End the processes at once, in the middle of their calls."""
        with self._lock:
            self._killed = True
            pools = list(self._pools)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for pool in pools:
            pool.shutdown(kill_workers=True)
        self._threads.shutdown()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.shutdown()
        else:
            self.kill()

    def _call(self, function: Callable[..., Result], args: Any, kwargs: Any, *, again: bool = True) -> Result:
        try:
            return self._pool().submit(function, *args, **kwargs).result()
        except (BrokenExecutor, ShutdownExecutorError) as error:  # the latter after `kill`
            self._discard()
            if again and not self._killed:
                return self._call(function, args, kwargs, again=False)
            codes = re.search(r"\{(.+)\}", str(error))
            raise WorkerDiedError(f"a worker process died ({codes[1] if codes else 'killed'})") from error

    def _pool(self) -> ProcessPoolExecutor:
        """Return the pool of one process that belongs to this thread."""
        if not hasattr(self._own, "pool"):
            with self._lock:
                self._own.pool = ProcessPoolExecutor(
                    1, initializer=_begin_worker, initargs=(os.getpid(),), env=_ONE_CORE
                )
                self._pools.add(self._own.pool)
                if self._killed:
                    self._own.pool.shutdown()  # so that it takes no call
        return self._own.pool

    def _discard(self) -> None:
        pool = self._own.pool
        del self._own.pool
        with self._lock:
            self._pools.discard(pool)
        pool.shutdown(kill_workers=True)


@dataclass(frozen=True, eq=False)
class PerWorker(Generic[Result]):
    """A callable that makes an object once in each worker, a thread of a process, and returns it at every call.

    Parameters
    ----------
    make : callable
        Makes the object; a function of a module with arguments bound, so that it can be sent to other processes.
    """

    make: Callable[[], Result]
    _key: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)

    def __call__(self) -> Result:
        """Return the object of this worker."""
        kept = _kept.__dict__.setdefault("objects", OrderedDict())
        if self._key not in kept:
            kept[self._key] = self.make()
        kept.move_to_end(self._key)
        while len(kept) > _MOST_KEPT:
            kept.popitem(last=False)
        found: Result = kept[self._key]
        return found


_kept = threading.local()
"""The objects that `PerWorker` has made in each thread of this process."""


def _begin_worker(parent: int) -> None:
    # Ctrl-C is handled by the parent. To ignore it is not enough: f90wrap, with which Fortran is called, handles it
    # during each call.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)
