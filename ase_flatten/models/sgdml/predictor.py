"""Energies and forces of an sGDML model (Chmiela et al. 2018, eq. 3), by matrix products within the cache.

With descriptors in units of the length scale, x̃ = √5 x / σ, and images X̃ of the training frames with their
coefficients A, the force along the descriptor is

    Σ e^-s (x̃ - X̃)·A (x̃ - X̃) - Σ (1 + s) e^-s A,    s = |x̃ - X̃|.

Written as rows (2X̃, -|X̃|², -1) and (-A/2, X̃·A/2, 0), images and coefficients give -s² and -(x̃ - X̃)·A/2 by one
product each with (x̃, 1, |x̃|²), and the force by one further product each: 8 operations per pair and image, which
dominate the cost.
"""

import ctypes
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from ase_flatten.utils.cores import Scratch, n_cores, on_all_cores, one_core
from ase_flatten.utils.typing import FloatArray, IntArray

_TILE = 128
"""Configurations at a time: with `_BLOCK` images, the arrays in use fit the cache of a core."""

_BLOCK = 256
_WORTH_THREADS = 2**24
"""Configurations times elements of images and coefficients, below which threads cost more than they save."""

_GPU_TILE = 2048
GPU_BLOCK = 16384
_GPU_LEAST = 32
"""With fewer configurations, the transfer to the device takes longer than it saves."""


class Predictor(ABC):
    """The predictions of a model: energies and forces, in the units of the model.

    Parameters
    ----------
    n_pairs : int
    sigma : float
        Length scale.
    """

    _centre: FloatArray
    """Mean of the images of the training frames, (n_pairs,), in units of the length scale."""

    def __init__(self, n_pairs: int, sigma: float) -> None:
        n_atoms = round((1 + np.sqrt(1 + 8 * n_pairs)) / 2)
        self._i, self._j = np.tril_indices(n_atoms, -1)
        self._incidence = np.zeros((n_atoms, n_pairs))
        self._incidence[self._i, np.arange(n_pairs)] = 1
        self._incidence[self._j, np.arange(n_pairs)] = -1

        self._q = np.sqrt(5.0) / sigma

    def __call__(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predict.

        Parameters
        ----------
        positions : (n_frames, n_atoms, 3) array

        Returns
        -------
        energies : (n_frames,) array
        forces : (n_frames, n_atoms, 3) array
        """
        if len(positions) == 1:
            with one_core():  # with two, synchronisation can take longer than the work
                return self._one(positions)
        if len(positions) >= _GPU_LEAST and (torch := torch_with_cuda()) is not None:
            return self.on_device(positions, torch, "cuda")
        if len(positions) * self._size < _WORTH_THREADS and len(positions) <= self._tile_size:
            with one_core():
                return self._tile(positions)
        energies, forces = np.empty(len(positions)), np.empty(positions.shape)
        step = int(np.clip(-(-len(positions) // n_cores()), 1, self._tile_size))

        def fill(start: int) -> None:
            tile = slice(start, start + step)
            energies[tile], forces[tile] = self._tile(positions[tile])

        on_all_cores(fill, range(0, len(positions), step))
        return energies, forces

    @property
    @abstractmethod
    def _size(self) -> int:
        """Number of elements that a configuration is multiplied by."""

    @property
    @abstractmethod
    def _tile_size(self) -> int:
        """Number of configurations at a time."""

    @abstractmethod
    def _tile(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predict a few configurations."""

    @abstractmethod
    def _one(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predict a single configuration, as in a step of molecular dynamics."""

    @abstractmethod
    def _blocks_on_device(self, torch: Any, device: str) -> Iterator[tuple[Any, Any]]:
        """Yield rows of images and coefficients on a device of torch, all permutations, block by block."""

    def on_device(self, positions: FloatArray, torch: Any, device: str) -> tuple[FloatArray, FloatArray]:
        """Predict on a device of torch; otherwise as `__call__`."""
        energies, forces = np.empty(len(positions)), np.empty(positions.shape)
        for start in range(0, len(positions), _GPU_TILE):
            tile = slice(start, start + _GPU_TILE)
            x, inverse, difference = self._descriptors(positions[tile])
            there = torch.from_numpy(x).to(device)
            total, energy = torch.zeros_like(there), torch.zeros(len(x), dtype=there.dtype, device=device)
            for images, alphas in self._blocks_on_device(torch, device):
                scaled = (there @ images.T).abs_().sqrt_()
                dot = there @ alphas.T
                decay = torch.exp(-scaled)
                scaled.add_(1).mul_(decay)
                energy += (scaled * dot).sum(dim=1)
                total += dot.mul_(decay) @ images + scaled.mul_(2) @ alphas
            energies[tile] = energy.cpu().numpy() * (-2 / self._q)
            forces[tile] = self._cartesian(total.cpu().numpy(), x, inverse, difference)
        return energies, forces

    def _descriptors(self, positions: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return (x̃, 1, |x̃|²), inverse distances, and differences of positions."""
        difference = positions[:, self._i] - positions[:, self._j]
        inverse = 1.0 / np.sqrt(np.einsum("fpx,fpx->fp", difference, difference))
        x = np.ones((len(positions), inverse.shape[1] + 2))
        np.multiply(inverse, self._q, out=x[:, :-2])
        x[:, :-2] -= self._centre
        x[:, -1] = np.einsum("fp,fp->f", x[:, :-2], x[:, :-2])
        return x, inverse, difference

    def _cartesian(self, total: FloatArray, x: FloatArray, inverse: FloatArray, difference: FloatArray) -> FloatArray:
        """Turn the sums over images into forces on atoms."""
        along = total[:, :-2] + 2 * total[:, -1:] * x[:, :-2]
        along *= -(inverse**3)
        return self._incidence @ (along[:, :, None] * difference)


class PlainPredictor(Predictor):
    """Sums over the images of all training frames, one by one.

    Parameters
    ----------
    descriptors : (n_train, n_pairs) array
        Inverse distances of the training frames.
    coefficients : (n_train, n_pairs) array
        Coefficients along the descriptor, multiplied by the standard deviation of the labels.
    orders : (n_permutations, n_pairs) int array
        Permutations of the pairs.
    sigma : float
        Length scale.
    """

    def __init__(self, descriptors: FloatArray, coefficients: FloatArray, orders: IntArray, sigma: float) -> None:
        n_pairs = descriptors.shape[1]
        super().__init__(n_pairs, sigma)
        images = descriptors[:, orders].reshape(-1, n_pairs) * self._q
        alphas = coefficients[:, orders].reshape(-1, n_pairs) * (5 / (3 * sigma**2))
        # Only differences of descriptors matter; centred ones lose fewer digits in products.
        self._centre = images.mean(axis=0)
        images -= self._centre
        # Images that pad the last block have coefficients of zero.
        self._rows = np.zeros((-(-len(images) // _BLOCK), 2, _BLOCK, n_pairs + 2))
        for number, rows in enumerate(self._rows):
            part = slice(number * _BLOCK, (number + 1) * _BLOCK)
            fill_rows(rows[:, : len(images[part])], images[part], alphas[part])

    @property
    def _size(self) -> int:
        return self._rows.size

    @property
    def _tile_size(self) -> int:
        return _TILE

    def _tile(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predict a few configurations, block by block of images."""
        x, inverse, difference = self._descriptors(positions)
        scaled, dot, decay = (np.empty((len(x), _BLOCK)) for _ in range(3))
        total, energies = np.zeros_like(x), np.zeros(len(x))
        for images, alphas in self._rows:
            np.matmul(x, images.T, out=scaled)
            np.matmul(x, alphas.T, out=dot)
            _apply_kernel(scaled, decay)
            energies += np.einsum("fm,fm->f", scaled, dot)
            dot *= decay
            total += dot @ images
            scaled *= 2
            total += scaled @ alphas
        return energies * (-2 / self._q), self._cartesian(total, x, inverse, difference)

    def _one(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predict a single configuration with few calls, as in a step of molecular dynamics."""
        x, inverse, difference = self._descriptors(positions)
        shape = self._rows.shape[0], _BLOCK
        products = scratch("products", shape[0], 2, _BLOCK)
        scaled, dot, decay = (scratch(name, *shape) for name in ("scaled", "dot", "decay"))
        rows = self._rows.reshape(-1, x.shape[1])
        np.matmul(rows, x[0], out=products.reshape(-1))
        np.copyto(scaled, products[:, 0])
        np.copyto(dot, products[:, 1])
        _apply_kernel(scaled, decay)
        energy = np.vdot(scaled, dot) * (-2 / self._q)
        np.multiply(dot, decay, out=products[:, 0])
        np.multiply(scaled, 2, out=products[:, 1])
        return np.array([energy]), self._cartesian((products.reshape(-1) @ rows)[None], x, inverse, difference)

    def _blocks_on_device(self, torch: Any, device: str) -> Iterator[tuple[Any, Any]]:
        rows = torch.from_numpy(self._rows).to(device).swapaxes(0, 1).reshape(2, -1, self._rows.shape[-1])
        for block in range(0, rows.shape[1], GPU_BLOCK):
            yield rows[0, block : block + GPU_BLOCK], rows[1, block : block + GPU_BLOCK]


def fill_rows(rows: FloatArray, images: FloatArray, alphas: FloatArray) -> None:
    """Write the rows of images and coefficients, (2, n_images, n_pairs + 2), that give -s² and -(x̃ - X̃)·A/2."""
    rows[0, :, :-2] = 2 * images
    rows[0, :, -2] = -np.einsum("md,md->m", images, images)
    rows[0, :, -1] = -1
    rows[1, :, :-2] = -0.5 * alphas
    rows[1, :, -2] = 0.5 * np.einsum("md,md->m", images, alphas)
    rows[1, :, -1] = 0


def _apply_kernel(scaled: FloatArray, decay: FloatArray) -> None:
    """Replace -s² by (1 + s) e^-s in place, and write e^-s to `decay`."""
    np.abs(scaled, out=scaled)  # rounding may give zero either sign
    np.sqrt(scaled, out=scaled)
    np.negative(scaled, out=decay)
    np.exp(decay, out=decay)
    scaled += 1
    scaled *= decay


_local = threading.local()


def scratch(name: str, *shape: int) -> FloatArray:
    """Return work memory of this thread for single configurations; no result refers to it."""
    if not hasattr(_local, "scratch"):
        _local.scratch = Scratch()
    found: FloatArray = _local.scratch(name, *shape)
    return found


@cache
def torch_with_cuda() -> Any:
    """Return torch if it has a CUDA device, else None; without a CUDA driver, torch is not imported."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        import torch
    except (OSError, ImportError):
        return None
    return torch if torch.cuda.is_available() else None
