"""What a training of SchNet needs: the number of its gradient steps, and the measured time of one."""

import time
from contextlib import nullcontext
from functools import cache

import numpy as np
import torch

from ase_flatten.data.dataset import Dataset
from ase_flatten.models import Cost
from ase_flatten.models.schnet.device import ONE_THREAD_BELOW, find_device, one_thread
from ase_flatten.models.schnet.native import make_potential
from ase_flatten.models.schnet.network import MoleculeNetwork
from ase_flatten.models.schnet.settings import SchNetSettings
from ase_flatten.utils.typing import IntArray

_MEASURED_STEPS = 4
_FIRST_STEPS = 2
"""Steps before the measured ones; the first ones are slower."""

_LIGHTNING_SECONDS = 1e-3
"""Time that Lightning spends on a step, measured on a core of 2024."""

_FEATURE_ARRAYS = 12
"""Arrays with the features of all pairs that an interaction keeps for the derivatives, approximately."""

_OVERHEAD_BYTES = 600 * 10**6
"""Memory of Python with the packages in use."""


def training_cost(dataset: Dataset, n_frames: int, n_steps: int, settings: SchNetSettings) -> Cost:
    """Estimate a training from scratch that does not end early.

    Parameters
    ----------
    n_steps : int
        Gradient steps.
    """
    batch = min(settings.batch_size, n_frames)
    seconds = _seconds_per_step(tuple(dataset.numbers.tolist()), batch, settings) + _LIGHTNING_SECONDS
    of_pairs = 4 * batch * dataset.n_atoms**2 * settings.n_features
    memory = _FEATURE_ARRAYS * settings.n_interactions * of_pairs
    return Cost(n_steps * seconds, memory + _OVERHEAD_BYTES)


@cache
def _seconds_per_step(numbers: tuple[int, ...], batch: int, settings: SchNetSettings) -> float:
    """Measure a few gradient steps of a network with random weights."""
    device = find_device(settings.device)
    network = _network(np.array(numbers), settings).to(device)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    corners = torch.cartesian_prod(*[torch.arange(1.0 + round(len(numbers) ** (1 / 3)))] * 3)[: len(numbers)]
    positions = corners.repeat(batch, 1, 1).to(device)
    seconds = []
    with one_thread() if batch * network.pair_features < ONE_THREAD_BELOW and device.type == "cpu" else nullcontext():
        for _ in range(_FIRST_STEPS + _MEASURED_STEPS):
            start = time.perf_counter()
            energies, forces = network(positions, differentiable=True)
            loss = energies.square().mean() + forces.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # waits for a GPU
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[_FIRST_STEPS:]))


def _network(numbers: IntArray, settings: SchNetSettings) -> MoleculeNetwork:
    with torch.random.fork_rng():
        potential = make_potential(
            n_features=settings.n_features, n_interactions=settings.n_interactions, n_rbf=settings.n_rbf,
            cutoff=settings.cutoff, offset=0.0, n_atoms=len(numbers),
        )  # fmt: skip
        return MoleculeNetwork(potential, numbers)
