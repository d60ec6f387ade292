"""What a training of sGDML needs in time and memory.

The kernel matrix of n frames has n (3N - 6) rows. Its factorisation takes a third of their number to the third power
of multiplications and additions; its assembly grows with the number of pairs of frames. Both speeds are measured on
this machine, in a fraction of a second.
"""

import time
from collections.abc import Callable
from functools import cache, partial

import numpy as np

from ase_flatten.models import Cost
from ase_flatten.models.sgdml.factor import bytes_to_factorise
from ase_flatten.models.sgdml.kernel import Geometries, assemble, image_distances, n_modes_of, pair_orders
from ase_flatten.utils.cores import n_cores, on_all_cores

_RATE_ROWS = 256
_RATE_SIZE = 2048
_LARGEST_MEASURED = 24
"""Atoms of the largest molecule whose assembly is measured; that of larger ones is extrapolated."""

_MATCHING_SECONDS = 3e-5
"""Time in which the `sgdml` package matches the atoms of two frames: for 9 and for 16 atoms, on one core of 2024."""

_OVERHEAD_BYTES = 2**29
"""Memory of Python with the packages in use."""


def training_cost(n_atoms: int, n_frames: int, *, matched_frames: int) -> Cost:
    """Estimate a training from scratch of a molecule without symmetries, with a given length scale.

    Permutations of like atoms, which are known only after the search for them, make the assembly slower.

    Parameters
    ----------
    matched_frames : int
        Frames whose atoms the `sgdml` package matches in order to find permutations; 0 if it does not.
    """
    n_matched = min(matched_frames, n_frames)
    seconds = _seconds(n_atoms, n_frames) + n_matched**2 / 2 * _MATCHING_SECONDS
    return Cost(seconds, bytes_to_factorise(n_atoms, n_frames) + _OVERHEAD_BYTES)


def _seconds(n_atoms: int, n_frames: int) -> float:
    of_frame, of_pair = _assembly_seconds(min(n_atoms, _LARGEST_MEASURED))
    scale = _assembly_size(n_atoms) / _assembly_size(min(n_atoms, _LARGEST_MEASURED))
    operations = (n_frames * n_modes_of(n_atoms)) ** 3 / 3
    return scale * (n_frames * of_frame + n_frames**2 / 2 * of_pair) + operations / _operations_per_second()


def _assembly_size(n_atoms: int) -> int:
    """Return the size of the products that dominate the assembly, for the comparison of molecules."""
    return n_modes_of(n_atoms) ** 2 * n_atoms * (n_atoms - 1) // 2


@cache
def _operations_per_second() -> float:
    """Measure the rate of multiplications and additions in products like those of `BlockCholesky`."""
    left, right = np.ones((_RATE_ROWS, _RATE_SIZE)), np.ones((_RATE_SIZE, _RATE_SIZE))
    pieces = [np.empty((_RATE_ROWS, _RATE_SIZE)) for _ in range(n_cores())]
    fastest = min(_time_of(lambda: on_all_cores(partial(np.matmul, left, right), pieces)) for _ in range(3))
    return 2 * n_cores() * left.size * _RATE_SIZE / fastest


def _time_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@cache
def _assembly_seconds(n_atoms: int) -> tuple[float, float]:
    """Measure the time per frame and per pair of frames in the assembly of the kernel matrix."""
    n_frames = 2 * _LARGEST_MEASURED
    corners = np.indices((3, 3, 3)).reshape(3, -1).T[:n_atoms]
    positions = corners + 0.1 * np.random.default_rng(0).normal(size=(n_frames, n_atoms, 3))
    of_frames = _time_of(lambda: Geometries.of(positions))
    rows, orders = Geometries.of(positions), pair_orders(np.arange(n_atoms)[None])
    out = np.empty((n_frames * rows.n_modes,) * 2)
    of_pairs = _time_of(
        lambda: assemble(rows, rows, orders, 20.0, distances=image_distances(rows, rows, orders), out=out)
    )
    return of_frames / n_frames, of_pairs / n_frames**2
