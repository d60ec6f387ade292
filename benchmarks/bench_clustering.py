"""Time the clustering of many frames, stage by stage, and compare its assignment with a loop over frames.

    python benchmarks/bench_clustering.py [--frames N]

The frames are synthetic: a molecule like salicylic acid with two soft torsions, a rare
conformer and thermal noise. Nothing is downloaded.
"""

import argparse
import os
import platform
import resource
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from ase_flatten.clustering.assignment import ASSIGNMENTS, assign
from ase_flatten.clustering.clusters import N_WARD, cluster, fine_clusters, representatives
from ase_flatten.data.dataset import Dataset
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.utils.typing import FloatArray, IntArray

NUMBERS = np.array([6, 6, 6, 6, 6, 6, 6, 8, 8, 1, 1, 1, 1, 1, 8, 1])
N_TIMED = 300
"""Frames that the loop over frames is timed on."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=320_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3, help="repetitions at the smaller size")
    arguments = parser.parse_args()
    print_machine()
    data = synthetic(arguments.frames, rng=np.random.default_rng(arguments.seed))
    small = min(5_000, arguments.frames)
    print(f"\n{small} frames, {arguments.repeats} times, seconds: median (least to most)")
    print_small(data, small, arguments.repeats)
    print(f"\n{data.n_frames} frames of {data.n_atoms} atoms, once, seconds")
    geometry = print_full(data, arguments.seed)
    print(f"peak memory {peak_GB():.1f} GB")
    print(f"\nassignment against a loop over frames, timed on {N_TIMED} of them")
    print_against_loop(data, geometry, arguments.seed)


def print_machine() -> None:
    """Print what the times depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    model = platform.processor() or platform.machine()
    if cpuinfo.is_file():
        named = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = named[0] if named else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "scikit-learn"))
    print(f"{cores} cores, {model}; Python {platform.python_version()}, {packages}")


def synthetic(n_frames: int, *, rng: np.random.Generator) -> Dataset:
    """Make frames of a molecule like salicylic acid: two soft torsions, a rare conformer, thermal noise."""
    rare = rng.random(n_frames) < 0.002
    positions = np.tile(planar(), (n_frames, 1, 1))
    acid = rng.normal(np.where(rare, np.pi, 0.0), 0.3)
    positions[:, 7:10] = turned(positions[:, 7:10], positions[:, 6], np.array([1.0, 0.0, 0.0]), acid)
    hydroxyl = rng.normal(0.0, 0.4, n_frames)
    positions[:, 15:] = turned(positions[:, 15:], positions[:, 14], np.array([0.5, 0.866, 0.0]), hydroxyl)
    positions += rng.normal(0, 0.06, positions.shape)
    vibrational = 0.5 * 0.043 * rng.chisquare(3 * len(NUMBERS) - 6, n_frames)
    return Dataset(NUMBERS, positions, vibrational - 13_000 + 0.2 * rare, np.zeros_like(positions))


def planar() -> FloatArray:
    """Return rough positions of the planar molecule, (16, 3) in Å."""
    angles = np.radians(60 * np.arange(6))
    around = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(6)])
    acid = [[2.88, 0.0, 0.0], [3.5, 1.06, 0.0], [3.5, -1.1, 0.0], [4.45, -1.0, 0.0]]
    return np.vstack([1.4 * around, acid, 2.48 * around[2:], 2.75 * around[1], [2.3, 2.2, 0.0]])


def turned(positions: FloatArray, pivot: FloatArray, axis: FloatArray, angles: FloatArray) -> FloatArray:
    """Rotate some atoms of each frame about an axis through its pivot."""
    rotations = Rotation.from_rotvec(angles[:, None] * axis).as_matrix()
    return np.einsum("fij,faj->fai", rotations, positions - pivot[:, None]) + pivot[:, None]


class Stages:
    """Progress that measures the time of each task."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def task(self, what: str, total: int) -> "Stage":
        """Begin a task."""
        return Stage(self, what)


class Stage:
    """A timer of one task."""

    def __init__(self, stages: Stages, what: str) -> None:
        self.stages, self.what = stages, what

    def __enter__(self) -> Callable[[int], None]:
        self.start = time.perf_counter()
        return lambda done: None

    def __exit__(self, *_: object) -> None:
        self.stages.seconds[self.what] = time.perf_counter() - self.start


def print_small(data: Dataset, n_frames: int, repeats: int) -> None:
    """Print the spread of the times on few frames, and whether a seed gives the same labels each time."""
    few = data.take(np.arange(n_frames))
    seconds, labels = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        labels.append(cluster(few, rng=np.random.default_rng(0)).labels)
        seconds.append(time.perf_counter() - start)
    same = all(np.array_equal(labels[0], other) for other in labels)
    print(f"broad clusters        {spread(seconds)}   same labels every time: {same}")
    descriptors = pair_distances(few.positions)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        fine_clusters(descriptors, 200, rng=np.random.default_rng(0))
        seconds.append(time.perf_counter() - start)
    print(f"200 fine clusters     {spread(seconds)}")


def print_full(data: Dataset, seed: int) -> IntArray:
    """Print the time of each stage on all frames; return the geometric clusters."""
    start = time.perf_counter()
    descriptors = pair_distances(data.positions)
    print(f"pair distances        {time.perf_counter() - start:7.2f}")
    stages = Stages()
    start = time.perf_counter()
    clustering = cluster(data, rng=np.random.default_rng(seed), progress=stages)
    total = time.perf_counter() - start
    for what, seconds in stages.seconds.items():
        print(f"{what:<21s} {seconds:7.2f}")
    print(f"all of them           {total:7.2f}   {clustering.n_clusters} clusters, {clustering.n_ward} by Ward linkage")
    start = time.perf_counter()
    representatives(clustering, descriptors)
    print(f"representatives       {time.perf_counter() - start:7.2f}")
    print(f"populations           {clustering.populations.min()} to {clustering.populations.max()}")
    return clustering.geometry


def print_against_loop(data: Dataset, geometry: IntArray, seed: int) -> None:
    """Print how much faster blocks are than one frame at a time, and how many labels agree."""
    n_ward = min(N_WARD, data.n_frames // 2)
    order = np.random.default_rng(seed).permutation(data.n_frames)
    known, others = np.sort(order[:n_ward]), np.sort(order[n_ward:][:50_000])
    labels = np.unique(geometry[known], return_inverse=True)[1]
    descriptors = pair_distances(data.positions)
    timed = np.linspace(0, len(others) - 1, min(N_TIMED, len(others))).astype(np.int64)
    for name, rule in ASSIGNMENTS.items():
        start = time.perf_counter()
        blocked = assign(descriptors, known, labels, others, rule=rule)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        looped = one_at_a_time(descriptors, known, labels, others[timed], LOOPS[name])
        loop = (time.perf_counter() - start) / len(timed)
        agree = np.sum(looped == blocked[timed])
        print(
            f"{name:<8s} {len(others)} frames to {n_ward}: {seconds:.2f} s in blocks; {1e3 * loop:.1f} ms a frame in a "
            f"loop, {loop * len(others):.0f} s extrapolated: {loop * len(others) / seconds:.0f} times; "
            f"{agree} of {len(timed)} labels agree"
        )


def one_at_a_time(
    descriptors: FloatArray, known: IntArray, labels: IntArray, frames: IntArray, score: Callable[..., float]
) -> IntArray:
    """Assign one frame after the other."""
    clusters = [descriptors[known[labels == label]] for label in range(labels.max() + 1)]
    return np.array([np.argmin([score(members, descriptors[frame]) for members in clusters]) for frame in frames])


LOOPS: dict[str, Callable[..., float]] = {
    "average": lambda members, frame: np.linalg.norm(members - frame, axis=1).mean(),
    "ward": lambda members, frame: len(members) / (len(members) + 1) * np.sum((members.mean(axis=0) - frame) ** 2),
    "maximum": lambda members, frame: np.linalg.norm(members - frame, axis=1).max(),
}


def spread(seconds: list[float]) -> str:
    """Format the median, the minimum and the maximum."""
    return f"{np.median(seconds):7.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def peak_GB() -> float:
    """Return the peak memory of this process, GB."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main()
