"""A Cholesky factor that grows by rows: the leading block of a factor is the factor of the leading block.

The factor is kept in block rows of a fixed size, independent of the steps of its growth. A factor that grew and one
that was made at once therefore result from the same operations, and are equal to the last bit.
"""

import numpy as np
from scipy.linalg.blas import dtrsm, dtrsv
from scipy.linalg.lapack import dpotrf

from ase_flatten.utils.cores import on_all_cores, one_core
from ase_flatten.utils.progress import Advance, nothing
from ase_flatten.utils.typing import FloatArray

_STRIPE = 256
"""Rows that one core processes at a time."""

_SMALL = 128
"""Columns of a triangular system that are solved by one call of BLAS."""


class NotPositiveDefiniteError(ArithmeticError):
    """A matrix has no Cholesky factor in floating-point arithmetic."""


class BlockCholesky:
    """Lower-triangular factor L of a symmetric matrix A = L Lᵀ, in half the memory of the matrix.

    Parameters
    ----------
    block_size : int
        Rows of each block row; the last block row may have fewer.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        # Row-major, so that BLAS takes the transposes without copying.
        self._left: list[FloatArray] = []
        self._diagonal: list[FloatArray] = []

    @property
    def size(self) -> int:
        """Number of rows of the matrix."""
        return sum(len(block) for block in self._diagonal)

    @property
    def n_whole(self) -> int:
        """Number of rows in complete block rows."""
        return self.size // self.block_size * self.block_size

    @property
    def nbytes(self) -> int:
        """Memory of the factor, bytes."""
        return sum(block.nbytes for block in (*self._left, *self._diagonal))

    @staticmethod
    def bytes_for(n_rows: int, block_size: int) -> int:
        """Estimate the memory for `n_rows` including work space, bytes."""
        return 8 * ((n_rows + block_size) ** 2 // 2 + 4 * block_size**2)

    def drop_partial(self) -> None:
        """Drop the last block row if it is incomplete; it is recomputed when rows are appended."""
        if self.size > self.n_whole:
            del self._left[-1], self._diagonal[-1]

    def append(self, left: FloatArray, diagonal: FloatArray, *, advance: Advance = nothing) -> None:
        """Append a block row of the matrix, which is overwritten with that of the factor.

        Parameters
        ----------
        left : (n_rows, size) array
            Row-major.
        diagonal : (n_rows, n_rows) array
            Row-major; only its lower triangle is read.
        advance : Advance
            Called often, without progress, so that Ctrl-C is noticed.

        Raises
        ------
        NotPositiveDefiniteError
            The factor is unchanged; `left` and `diagonal` have been overwritten.
        """
        assert len(self._diagonal) * self.block_size == self.size, "the last block row is incomplete"
        assert left.shape == (len(diagonal), self.size), "the block row does not fit"
        stripes = [slice(first, min(first + _STRIPE, len(left))) for first in range(0, len(left), _STRIPE)]
        on_all_cores(lambda rows: self._eliminate(left[rows], advance), stripes)
        if self.size:
            on_all_cores(lambda rows: _update(diagonal, left, rows), stripes)
        with one_core():
            _, info = dpotrf(diagonal.T, lower=0, clean=0, overwrite_a=1)
        if info:
            raise NotPositiveDefiniteError(f"pivot {self.size + info - 1} is not positive")
        if not np.isfinite(diagonal.diagonal()).all():
            raise NotPositiveDefiniteError("some values are not finite")
        self._left.append(left)
        self._diagonal.append(diagonal)

    def _eliminate(self, rows: FloatArray, advance: Advance) -> None:
        """Compute some rows of the factor left of the diagonal block."""
        work = np.empty((len(rows), self.block_size))
        start = 0
        for left, diagonal in zip(self._left, self._diagonal, strict=True):
            advance(0)
            stop = start + len(diagonal)
            columns = rows[:, start:stop]
            if start:
                columns -= np.matmul(rows[:, :start], left.T, out=work)
            _divide(columns, diagonal)
            start = stop

    def solve(self, right: FloatArray) -> FloatArray:
        """Solve A x = right.

        Parameters
        ----------
        right : (size,) array

        Returns
        -------
        (size,) array
        """
        x = np.array(right, dtype=float)
        stops = np.cumsum([len(diagonal) for diagonal in self._diagonal])
        blocks = [
            (slice(0, stop - len(diagonal)), slice(stop - len(diagonal), stop), left, diagonal)
            for stop, left, diagonal in zip(stops, self._left, self._diagonal, strict=True)
        ]
        with one_core():
            for before, own, left, diagonal in blocks:
                x[own] = dtrsv(diagonal.T, x[own] - left @ x[before], lower=0, trans=1)
            for before, own, left, diagonal in reversed(blocks):
                x[own] = dtrsv(diagonal.T, x[own], lower=0)
                x[before] -= x[own] @ left
        return x


def _update(diagonal: FloatArray, left: FloatArray, rows: slice) -> None:
    """Subtract L Lᵀ from some rows of a diagonal block, up to the diagonal."""
    diagonal[rows, : rows.stop] -= left[rows] @ left[: rows.stop].T


def _divide(rows: FloatArray, lower: FloatArray) -> None:
    """Replace `rows` by X with X Lᵀ = rows.

    By recursive halving: SciPy's BLAS holds Python's global lock, NumPy's products do not, and most of the work is in
    the products.
    """
    n = len(lower)
    if n <= _SMALL:
        # Transposed for column-major BLAS: L Xᵀ = rowsᵀ.
        rows[...] = dtrsm(1.0, lower.T, rows.T, lower=0, trans_a=1).T
        return
    half = n // 2
    _divide(rows[:, :half], lower[:half, :half])
    rows[:, half:] -= rows[:, :half] @ lower[half:, :half].T
    _divide(rows[:, half:], lower[half:, half:])
