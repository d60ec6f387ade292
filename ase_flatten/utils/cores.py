"""Parallel work on all cores: independent pieces, each with its linear algebra on one core.

If pieces are cut by size rather than by the number of cores, results do not depend on the number of cores.
"""

import math
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, TypeVar

import numpy as np
import scipy.linalg  # noqa: F401  (its BLAS must be loaded to be limited)
from threadpoolctl import ThreadpoolController

from ase_flatten.utils.typing import FloatArray

Piece = TypeVar("Piece")


def n_cores() -> int:
    """Return the number of cores that this process may use, which on a shared machine may not be all."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return min(allowed, int(wanted)) if wanted.isdigit() and int(wanted) > 0 else allowed


def on_all_cores(work: Callable[[Piece], None], pieces: Iterable[Piece]) -> None:
    """Call `work` on each piece in a pool of threads; raise the first error."""
    pieces = list(pieces)
    n_threads = min(n_cores(), len(pieces))
    with one_core():
        if n_threads < 2:
            for piece in pieces:
                work(piece)
            return
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(work, pieces))


class Scratch:
    """Work memory that is reused: fresh memory pages can cost more than the arithmetic on them."""

    def __init__(self) -> None:
        self._flat: dict[str, FloatArray] = {}

    def __call__(self, name: str, *shape: int) -> FloatArray:
        """Return the array of this name in a given shape, with whatever values its last use left."""
        size = math.prod(shape)
        if name not in self._flat or len(self._flat[name]) < size:
            self._flat[name] = np.empty(size)
        return self._flat[name][:size].reshape(shape)


class _OneCore:
    """Limit of linear algebra to one core, in force until the last thread has left the block."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_within = 0
        self._limiter: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._n_within == 0:
                self._limiter = _blas().limit(limits=1, user_api="blas")
            self._n_within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_within -= 1
            if self._n_within == 0:
                self._limiter.restore_original_limits()


_ONE_CORE = _OneCore()


def one_core() -> AbstractContextManager[None]:
    """Limit linear algebra to one core within the block; threads may enter it concurrently."""
    return _ONE_CORE


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()
