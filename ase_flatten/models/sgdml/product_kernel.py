"""The force kernel for all products of local permutations, in a few values for each block of two frames.

In the coordinates of `geometry.symmetry_coordinates`, each permutation is P_p = Σ_v Φ_pv E_v with the same few matrices
E_v. The sums of `kernel` over all permutations with weights w_p and a_p are then

    Σ_p w_p B_iᵀ P_p B_j = Σ_v (Φᵀw)_v B_iᵀ E_v B_j,
    Σ_p a_p (B_iᵀ P_p d_p)(d_pᵀ B_j) = Σ_vw L_v (Σ_p a_p Φ_pv Φ_pw) R_wᵀ,

where L_v and R_w are the values of the factors on either side, of which the permutations are linear functions.
"""

from collections.abc import Callable

import numpy as np

from ase_flatten.geometry.symmetry_coordinates import SymmetryCoordinates
from ase_flatten.geometry.symmetry_group import SymmetryGroup
from ase_flatten.models.sgdml.kernel import Geometries, pair_orders
from ase_flatten.utils.cores import Scratch, on_all_cores
from ase_flatten.utils.progress import Advance, nothing
from ase_flatten.utils.typing import FloatArray

_ROWS = 4
"""Frames of a block row at a time."""

_COLUMNS = 8
"""Frames of the columns at a time."""


class ProductKernel:
    """The kernel as a sum through the factors of a direct product; see `kernel.PlainKernel`.

    Parameters
    ----------
    group : SymmetryGroup
    """

    def __init__(self, group: SymmetryGroup) -> None:
        self._coordinates = SymmetryCoordinates.of(group)
        self._outer = pair_orders(group.outer)
        self._functions = self._coordinates.functions

    def adapt(self, geometries: Geometries) -> Geometries:
        """Return geometries in the coordinates of pairs that the kernel computes in, frame by frame."""
        return Geometries(
            _each(self._coordinates.adapt, geometries.descriptors),
            _each(self._coordinates.adapt, geometries.jacobians),
            geometries.directions,
        )

    def restore(self, coordinates: FloatArray) -> FloatArray:
        """Return vectors over pairs from their coordinates."""
        return _each(self._coordinates.restore, coordinates)

    def distances(self, rows: Geometries, columns: Geometries) -> FloatArray:
        """Compute the distances between descriptors and their images, (n_rows, n_permutations, n_columns) in 1/Å."""
        x, y = rows.descriptors, columns.descriptors
        constant = np.einsum("ip,ip->i", x, x)[:, None] + np.einsum("jp,jp->j", y, y)
        n_products = len(self._functions)
        found = np.empty((len(x), len(self._outer) * n_products, len(y)))
        for number, images in enumerate(self._outer_images(x)):
            values = np.empty((len(x), self._coordinates.n_values, len(y)))
            for part in self._coordinates.parts:
                for value, matrix in zip(range(part.values.start, part.values.stop), part.matrices, strict=True):
                    values[:, value] = (matrix.T @ images[:, part.coordinates].T).T @ y[:, part.coordinates].T
            squared = found[:, number * n_products : (number + 1) * n_products]
            np.matmul(self._functions, values, out=squared)
            squared *= -2
            squared += constant[:, None]
        return np.sqrt(np.maximum(found, 0, out=found), out=found)

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
        """Compute the kernel matrix; see `kernel.assemble`."""
        n_modes = rows.n_modes
        n_products = len(self._functions)

        def fill(first: int) -> None:
            last = min(first + _ROWS, len(rows))
            part = rows[first:last]
            scratch = Scratch()
            stop = last if lower else len(columns)
            descriptors, jacobians = self._outer_images(part.descriptors), self._outer_images(part.jacobians)
            for number, images in enumerate(zip(descriptors, jacobians, strict=True)):
                at_left = self._images(*images)
                products = slice(number * n_products, (number + 1) * n_products)
                for start in range(0, stop, _COLUMNS):
                    advance(0)
                    end = min(start + _COLUMNS, stop)
                    target = out[first * n_modes : last * n_modes, start * n_modes : end * n_modes]
                    self._add_part(
                        part, at_left, columns[start:end], sigma,
                        distances=distances[first:last, products, start:end], scratch=scratch, out=target,
                        add=number > 0,
                    )  # fmt: skip

        on_all_cores(fill, range(0, len(rows), _ROWS))

    def _outer_images(self, vectors: FloatArray) -> list[FloatArray]:
        """Return the images of vectors over pairs under the outer permutations, in adapted coordinates."""
        if len(self._outer) == 1:
            return [vectors]
        pairs = self._coordinates.restore(vectors)
        return [vectors, *(self._coordinates.adapt(pairs[..., order]) for order in self._outer[1:])]

    def _images(self, descriptors: FloatArray, jacobians: FloatArray) -> list[tuple[FloatArray, FloatArray]]:
        """Return x E_v and B E_v of each part: (n_rows, n_values, n_coordinates) and with modes before coordinates."""
        found = []
        for part in self._coordinates.parts:
            x, b = descriptors[:, part.coordinates], jacobians[:, :, part.coordinates]
            if part.factors:
                flat = b.reshape(-1, b.shape[2])
                x = np.stack([(matrix.T @ x.T).T for matrix in part.matrices], axis=1)
                b = np.stack([(matrix.T @ flat.T).T.reshape(b.shape) for matrix in part.matrices], axis=1)
            else:
                x, b = x[:, None], np.ascontiguousarray(b[:, None])
            found.append((x, b))
        return found

    def _add_part(
        self,
        rows: Geometries,
        images: list[tuple[FloatArray, FloatArray]],
        columns: Geometries,
        sigma: float,
        *,
        distances: FloatArray,
        scratch: Scratch,
        out: FloatArray,
        add: bool,
    ) -> None:
        """Write some blocks, or add to them, for all products of one outer permutation."""
        n_rows, n_columns, n_modes = len(rows), len(columns), rows.n_modes
        n_pairs, n_values = rows.descriptors.shape[1], self._coordinates.n_values
        q = np.sqrt(5.0) / sigma
        decay = np.exp(-q * distances)
        decay *= 5 / (3 * sigma**4)
        weights = decay * sigma**2 * (1 + q * distances)
        of_values = weights.swapaxes(1, 2) @ self._functions  # (rows, columns, values)

        combined = scratch("combined", n_columns, n_rows, n_modes, n_pairs)
        left = scratch("left", n_columns, n_rows, n_values, n_modes)
        right = scratch("right", n_rows, n_values, n_columns, n_modes)
        for part, (x, b) in zip(self._coordinates.parts, images, strict=True):
            at, k = part.coordinates, len(part.matrices)
            some = of_values[:, :, part.values]
            if part.factors:
                sums = scratch("sums", n_rows, n_columns, b[0, 0].size)
                np.matmul(some, b.reshape(n_rows, k, -1), out=sums)
                combined[..., at] = sums.reshape(n_rows, n_columns, n_modes, -1).swapaxes(0, 1)
            else:
                np.multiply(some.swapaxes(0, 1)[..., None], b[:, 0], out=combined[..., at])
            products = columns.descriptors[:, at] @ b.reshape(-1, b.shape[-1]).T
            left[:, :, part.values] = products.reshape(n_columns, n_rows, k, n_modes)
            products = x.reshape(-1, x.shape[-1]) @ columns.jacobians[:, :, at].reshape(n_columns * n_modes, -1).T
            right[:, part.values] = products.reshape(n_rows, k, n_columns, n_modes)
        blocks = out.reshape(n_rows * n_modes, n_columns, n_modes)
        assert blocks.base is not None, "a copy would not be written to `out`"
        of_rows = combined.reshape(n_columns, n_rows * n_modes, n_pairs)
        if add:
            blocks.swapaxes(0, 1)[...] += of_rows @ columns.jacobians.swapaxes(1, 2)
        else:
            np.matmul(of_rows, columns.jacobians.swapaxes(1, 2), out=blocks.swapaxes(0, 1))

        # 5 a (B_iᵀ P_p d)(dᵀ B_j), each factor as a difference of products with descriptors.
        np.negative(left, out=left)
        left[:, :, 0] += np.einsum("imp,ip->im", rows.jacobians, rows.descriptors)
        right[:, 0] -= np.einsum("jmp,jp->jm", columns.jacobians, columns.descriptors)
        decay *= 5
        scaled = scratch("scaled", n_columns, n_rows, *self._functions.shape)
        np.multiply(decay.transpose(2, 0, 1)[..., None], self._functions, out=scaled)
        of_two = self._functions.T @ scaled
        weighted = scratch("weighted", n_columns, n_rows, n_values, n_modes)
        np.matmul(of_two, left, out=weighted)
        outer = scratch("outer", n_columns, n_rows, n_modes, n_modes)
        np.matmul(weighted.swapaxes(2, 3), right.transpose(2, 0, 1, 3), out=outer)
        blocks.reshape(n_rows, n_modes, n_columns, n_modes)[...] -= outer.transpose(1, 2, 0, 3)


def _each(change: Callable[[FloatArray], FloatArray], frames: FloatArray) -> FloatArray:
    """Change one frame at a time, so that its result does not depend on the other frames."""
    return np.array([change(frame) for frame in frames]).reshape(frames.shape)
