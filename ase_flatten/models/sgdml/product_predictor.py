"""Predictions for all products of local permutations, from a few products of matrices.

In coordinates in which the permutations are small blocks (`geometry.symmetry_coordinates`), the products of a
configuration with all images of a training frame are sums of a few values: for five methyl groups 51 for 243 images,
at less than twice the arithmetic of a single image. `product_sums` does the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from scipy.sparse import block_diag, csr_array

from ase_flatten.geometry.symmetry_coordinates import Part, SymmetryCoordinates
from ase_flatten.geometry.symmetry_group import SymmetryGroup
from ase_flatten.models.sgdml.kernel import pair_orders
from ase_flatten.models.sgdml.predictor import GPU_BLOCK, Predictor, fill_rows, scratch
from ase_flatten.models.sgdml.product_sums import Product, apply_kernel
from ase_flatten.utils.lanes import LANES
from ase_flatten.utils.typing import FloatArray

_TILE_PAIRS = 8192
"""Configurations times training frames at a time."""

_BLOCK = 256
"""Training frames at a time, at most."""


@dataclass(frozen=True, eq=False)
class _Products:
    """Products with the parts of one shape.

    Parameters
    ----------
    coordinates, values : slice
        Places of all parts, one after the other.
    rows : (n_blocks, n_parts, 2, n_values, n_frames, n_coordinates) array
        Images and coefficients, as in `predictor.fill_rows`, under each matrix of the part.
    """

    coordinates: slice
    values: slice
    rows: FloatArray


class ProductPredictor(Predictor):
    """Sums over all permutations of a group through its factors; outer permutations make further training frames.

    Parameters
    ----------
    descriptors, coefficients : (n_train, n_pairs) arrays
        See `PlainPredictor`.
    group : SymmetryGroup
    sigma : float
        Length scale.
    """

    def __init__(self, descriptors: FloatArray, coefficients: FloatArray, group: SymmetryGroup, sigma: float) -> None:
        n_pairs = descriptors.shape[1]
        super().__init__(n_pairs, sigma)
        coordinates = SymmetryCoordinates.of(group)
        outer = pair_orders(group.outer)
        images = descriptors[:, outer].reshape(-1, n_pairs) * self._q
        alphas = coefficients[:, outer].reshape(-1, n_pairs) * (5 / (3 * sigma**2))
        fixed = coordinates.parts[0].coordinates.stop
        # Only differences of descriptors matter; centred ones lose fewer digits in products.
        mean = coordinates.adapt(images.mean(axis=0))
        mean[fixed:] = 0
        self._centre = coordinates.restore(mean)
        images -= self._centre
        self._frames = np.empty((2, len(images), n_pairs + 2))
        fill_rows(self._frames, images, alphas)
        self._orders = pair_orders(SymmetryGroup(group.factors, group.outer[:1]).permutations)

        # The columns beside the pairs belong to the part that no permutation changes.
        places = np.concatenate([np.arange(fixed), [n_pairs, n_pairs + 1], np.arange(fixed, n_pairs)])
        self._transform = csr_array(csr_array(block_diag([coordinates.transform, np.eye(2)]))[places])
        self._back = csr_array(self._transform.T)
        self._sparse_incidence = csr_array(self._incidence)
        self._n_values = coordinates.n_values
        n_blocks = -(-len(images) // _BLOCK)
        self._n_frames = -(-len(images) // n_blocks)
        rows = np.zeros((2, n_blocks * self._n_frames, n_pairs + 2))
        rows[:, : len(images)] = (self._transform @ self._frames.reshape(-1, n_pairs + 2).T).T.reshape(
            self._frames.shape
        )
        rows = rows.reshape(2, n_blocks, self._n_frames, -1)
        self._products = [_products(list(parts), rows) for _, parts in groupby(coordinates.parts, _shape)]
        self._product = Product.of(coordinates)

    @property
    def _size(self) -> int:
        return sum(products.rows.size for products in self._products)

    @property
    def _tile_size(self) -> int:
        return max(1, _TILE_PAIRS // self._n_frames)

    def _tile(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        x, inverse, difference = self._descriptors(positions)
        adapted = np.ascontiguousarray((self._transform @ x.T).T)
        n, n_frames = len(x), self._n_frames
        length = -(-n * n_frames // LANES) * LANES
        values = scratch("values", 2, self._n_values, length)
        energies = scratch("energies", length)
        energy, total = np.zeros(n), np.zeros_like(adapted)
        for block in range(len(self._products[0].rows)):
            parts = []
            for products in self._products:
                rows = products.rows[block]
                n_parts, _, n_values, _, n_coordinates = rows.shape
                left = adapted[:, products.coordinates].reshape(n, n_parts, n_coordinates).swapaxes(0, 1)
                part = values[:, products.values, : n * n_frames].reshape(2, n_parts, n_values, n, n_frames)
                np.matmul(left[:, None, None], rows.swapaxes(3, 4), out=part.swapaxes(0, 1))
                parts.append(part)
            apply_kernel(values, energies, self._product)
            energy += energies[: n * n_frames].reshape(n, n_frames).sum(axis=1)
            for products, part in zip(self._products, parts, strict=True):
                along = np.matmul(part.swapaxes(0, 1), products.rows[block]).sum(axis=(1, 2))
                total[:, products.coordinates] += along.swapaxes(0, 1).reshape(n, -1)
        along = self._back @ total.T
        along = along[:-2] + 2 * along[-1] * x[:, :-2].T
        along *= -(inverse * inverse * inverse).T
        pairs = (along[:, :, None] * difference.swapaxes(0, 1)).reshape(len(along), -1)
        forces = (self._sparse_incidence @ pairs).reshape(-1, n, 3).swapaxes(0, 1)
        return energy * (-2 / self._q), np.ascontiguousarray(forces)

    def _one(self, positions: FloatArray) -> tuple[FloatArray, FloatArray]:
        return self._tile(positions)

    def _blocks_on_device(self, torch: Any, device: str) -> Iterator[tuple[Any, Any]]:
        frames = torch.from_numpy(self._frames).to(device)
        beside = torch.arange(frames.shape[2] - 2, frames.shape[2], device=device)
        for order in torch.from_numpy(self._orders).to(device):
            columns = torch.cat([order, beside])
            for block in range(0, frames.shape[1], GPU_BLOCK):
                yield (
                    frames[0, block : block + GPU_BLOCK][:, columns],
                    frames[1, block : block + GPU_BLOCK][:, columns],
                )


def _shape(part: Part) -> tuple[int, int, int]:
    return len(part.factors), len(part.matrices), part.coordinates.stop - part.coordinates.start


def _products(parts: list[Part], rows: FloatArray) -> _Products:
    """Multiply rows, (2, n_blocks, n_frames, n_pairs + 2), by the matrices of some parts of one shape."""
    # Those of the first part include the two columns beside the pairs; all others come after them.
    if not parts[0].factors:
        coordinates = slice(0, parts[0].coordinates.stop + 2)
        return _Products(coordinates, parts[0].values, rows[..., coordinates].swapaxes(0, 1)[:, None, :, None].copy())
    found = []
    for part in parts:
        some = rows[..., part.coordinates.start + 2 : part.coordinates.stop + 2]
        flat = some.reshape(-1, some.shape[-1])
        # y · (E X) for all frames X
        found.append([(matrix @ flat.T).T.reshape(some.shape) for matrix in part.matrices])
    coordinates = slice(parts[0].coordinates.start + 2, parts[-1].coordinates.stop + 2)
    values = slice(parts[0].values.start, parts[-1].values.stop)
    return _Products(coordinates, values, np.ascontiguousarray(np.array(found).transpose(3, 0, 2, 1, 4, 5)))
