"""The force kernel of sGDML (Chmiela et al. 2018, doi:10.1038/s41467-018-06169-2), assembled by matrix products.

Between configurations i and j, with descriptors x and their Jacobians J, a block is

    K_ij = Σ_p J_iᵀ P_p k''(d_p) J_j,    -k''(d) = a (σ² + √5 σ |d|) - 5 a d dᵀ,    d_p = P_pᵀ x_i - x_j,

where a = 5 exp(-√5 |d| / σ) / (3 σ⁴): minus the Hessian of the Matérn kernel with ν = 5/2, summed over
the permutations. The descriptor is invariant to translations and rotations, so a block has 3N - 6 nonzero
directions on either side: J_i = B_i Q_iᵀ with orthonormal Q_i, exactly. Only the blocks B_iᵀ … B_j are computed,
for 15 atoms three quarters of the matrix and two thirds of the work of its factorisation.
"""

from dataclasses import dataclass

import numpy as np

from ase_flatten.geometry.pair_distances import pair_permutation
from ase_flatten.utils.cores import Scratch, on_all_cores
from ase_flatten.utils.progress import Advance, nothing
from ase_flatten.utils.typing import FloatArray, IntArray

_IMAGE_BYTES = 2**22
"""Memory of the permuted Jacobians in use, bytes; small enough to stay in a shared cache."""

_COLUMN_BYTES = 2**23
"""Memory of the combined Jacobians in use, bytes."""


@dataclass(frozen=True, eq=False)
class Geometries:
    """Descriptors and Jacobians of some configurations, as the kernel needs them.

    Parameters
    ----------
    descriptors : (n_frames, n_pairs) array, 1/Å
        Inverse pair distances, in the order of `np.tril_indices(n_atoms, -1)`.
    jacobians : (n_frames, n_modes, n_pairs) array, 1/Å²
        Derivatives of the descriptor along orthonormal directions.
    directions : (n_frames, 3 * n_atoms, n_modes) array
        Basis of all displacements that change any pair distance.
    """

    descriptors: FloatArray
    jacobians: FloatArray
    directions: FloatArray

    @classmethod
    def of(cls, positions: FloatArray) -> "Geometries":
        """Compute them from positions, (n_frames, n_atoms, 3) in Å."""
        n_atoms = positions.shape[1]
        n_modes = n_modes_of(n_atoms)
        i, j = np.tril_indices(n_atoms, -1)
        pairs = np.arange(len(i))
        parts = []
        for position in positions:
            difference = position[i] - position[j]
            inverse = 1.0 / np.sqrt(np.einsum("px,px->p", difference, difference))
            full = np.zeros((len(i), n_atoms, 3))
            full[pairs, j] = difference * inverse[:, None] ** 3
            full[pairs, i] = -full[pairs, j]
            # One frame at a time, so that its result does not depend on the other frames.
            left, stretch, right = np.linalg.svd(full.reshape(len(i), -1), full_matrices=False)
            parts.append((inverse, stretch[:n_modes, None] * left.T[:n_modes], right[:n_modes].T))
        if not parts:
            return cls(np.empty((0, len(i))), np.empty((0, n_modes, len(i))), np.empty((0, 3 * n_atoms, n_modes)))
        return cls(*(np.array(arrays) for arrays in zip(*parts, strict=True)))

    def __len__(self) -> int:
        return len(self.descriptors)

    def __getitem__(self, rows: slice) -> "Geometries":
        return Geometries(self.descriptors[rows], self.jacobians[rows], self.directions[rows])

    def __add__(self, other: "Geometries") -> "Geometries":
        return Geometries(
            np.concatenate([self.descriptors, other.descriptors]),
            np.concatenate([self.jacobians, other.jacobians]),
            np.concatenate([self.directions, other.directions]),
        )

    @property
    def n_modes(self) -> int:
        """Number of directions of each configuration."""
        return self.jacobians.shape[1]


def n_modes_of(n_atoms: int) -> int:
    """Return the largest number of directions in which pair distances of a molecule can change."""
    return 3 * n_atoms - 6 if n_atoms > 2 else n_atoms - 1


def pair_orders(permutations: IntArray) -> IntArray:
    """Return the permutations of pairs that correspond to permutations of atoms, (n_permutations, n_pairs)."""
    return np.array([pair_permutation(permutation) for permutation in permutations])


class PlainKernel:
    """The kernel as a sum over permutations, one by one.

    Parameters
    ----------
    permutations : (n_permutations, n_atoms) int array
    """

    def __init__(self, permutations: IntArray) -> None:
        self._orders = pair_orders(permutations)

    def adapt(self, geometries: Geometries) -> Geometries:
        """Return geometries in the coordinates of pairs that the kernel computes in: here the pairs themselves."""
        return geometries

    def restore(self, coordinates: FloatArray) -> FloatArray:
        """Return vectors over pairs from their coordinates."""
        return coordinates

    def distances(self, rows: Geometries, columns: Geometries) -> FloatArray:
        """See `image_distances`."""
        return image_distances(rows, columns, self._orders)

    def assemble(
        self,
        rows: Geometries,
        columns: Geometries,
        sigma: float,
        *,
        distances: FloatArray,
        out: FloatArray,
        lower: bool = False,
        advance: Advance = nothing,
    ) -> None:
        """See `assemble`."""
        assemble(rows, columns, self._orders, sigma, distances=distances, out=out, lower=lower, advance=advance)


def image_distances(rows: Geometries, columns: Geometries, orders: IntArray) -> FloatArray:
    """Compute the distances between descriptors and their permuted images.

    Parameters
    ----------
    orders : (n_permutations, n_pairs) int array

    Returns
    -------
    (n_rows, n_permutations, n_columns) array, 1/Å
        |P_pᵀ x_i - x_j|, independent of the length scale.
    """
    images = rows.descriptors[:, np.argsort(orders, axis=1)]
    squared = images @ columns.descriptors.T
    squared *= -2
    squared += np.einsum("ip,ip->i", rows.descriptors, rows.descriptors)[:, None, None]
    squared += np.einsum("jp,jp->j", columns.descriptors, columns.descriptors)
    return np.sqrt(np.maximum(squared, 0, out=squared), out=squared)


def assemble(
    rows: Geometries,
    columns: Geometries,
    orders: IntArray,
    sigma: float,
    *,
    distances: FloatArray,
    out: FloatArray,
    lower: bool = False,
    advance: Advance = nothing,
) -> None:
    """Compute the kernel matrix between two sets of configurations, with the sign that makes it positive definite.

    Parameters
    ----------
    orders : (n_permutations, n_pairs) int array
    sigma : float
        Length scale, 1/Å.
    distances : (n_rows, n_permutations, n_columns) array, 1/Å
        From `image_distances`.
    out : (n_rows * n_modes, n_columns * n_modes) array, 1/Å⁴
        Written in place; unit stride along its rows.
    lower : bool
        The two sets are the same, and blocks above the diagonal need not be written.
    advance : Advance
        Called often, without progress, so that Ctrl-C is noticed.
    """
    inverse_orders = np.argsort(orders, axis=1)
    n_modes, n_pairs = rows.jacobians.shape[1:]
    row_step = max(1, _IMAGE_BYTES // (8 * len(orders) * n_modes * n_pairs))

    def fill(first: int) -> None:
        last = min(first + row_step, len(rows))
        part = rows[first:last]
        images = part.descriptors[:, inverse_orders]
        jacobians = np.ascontiguousarray(part.jacobians[:, :, inverse_orders].swapaxes(1, 2))
        column_step = max(1, _COLUMN_BYTES // (8 * len(part) * n_modes * n_pairs))
        scratch = Scratch()
        n_columns = last if lower else len(columns)
        for start in range(0, n_columns, column_step):
            advance(0)
            stop = min(start + column_step, n_columns)
            target = out[first * n_modes : last * n_modes, start * n_modes : stop * n_modes]
            _assemble_part(
                part, images, jacobians, columns[start:stop], sigma,
                distances=distances[first:last, :, start:stop], scratch=scratch, out=target,
            )  # fmt: skip

    on_all_cores(fill, range(0, len(rows), row_step))


def _assemble_part(
    rows: Geometries,
    images: FloatArray,
    jacobians: FloatArray,
    columns: Geometries,
    sigma: float,
    *,
    distances: FloatArray,
    scratch: Scratch,
    out: FloatArray,
) -> None:
    """Write some blocks; `images` and `jacobians`, (rows, permutations, [modes,] pairs), are those of permuted rows."""
    n_rows, n_images, n_modes, n_pairs = jacobians.shape
    n_columns = len(columns)
    q = np.sqrt(5.0) / sigma
    decay = np.exp(-q * distances)
    decay *= 5 / (3 * sigma**4)
    weights = decay * sigma**2 * (1 + q * distances)

    # Σ_p a (σ² + √5 σ |d|) B_iᵀ P_p B_j: first combine the images, then one product for each column.
    combined = scratch("combined", n_columns, n_rows, n_modes * n_pairs)
    np.matmul(
        weights.swapaxes(1, 2), jacobians.reshape(n_rows, n_images, n_modes * n_pairs), out=combined.swapaxes(0, 1)
    )
    blocks = out.reshape(n_rows * n_modes, n_columns, n_modes)
    assert blocks.base is not None, "a copy would not be written to `out`"
    np.matmul(
        combined.reshape(n_columns, n_rows * n_modes, n_pairs),
        columns.jacobians.swapaxes(1, 2),
        out=blocks.swapaxes(0, 1),
    )

    # 5 a (B_iᵀ P_p d)(dᵀ B_j), each factor as a difference of products with descriptors.
    left = scratch("left", n_columns, n_rows, n_images, n_modes)
    np.matmul(columns.descriptors, jacobians.reshape(-1, n_pairs).T, out=left.reshape(n_columns, -1))
    np.subtract(np.einsum("imp,ip->im", rows.jacobians, rows.descriptors)[:, None], left, out=left)
    left *= 5 * decay.transpose(2, 0, 1)[..., None]
    right = scratch("right", n_rows, n_images, n_columns, n_modes)
    np.matmul(
        images.reshape(-1, n_pairs), columns.jacobians.reshape(-1, n_pairs).T, out=right.reshape(n_rows * n_images, -1)
    )
    right -= np.einsum("jmp,jp->jm", columns.jacobians, columns.descriptors)
    outer = scratch("outer", n_columns, n_rows, n_modes, n_modes)
    np.matmul(left.swapaxes(2, 3), right.transpose(2, 0, 1, 3), out=outer)
    blocks.reshape(n_rows, n_modes, n_columns, n_modes)[...] -= outer.transpose(1, 2, 0, 3)
