"""The linear equations of sGDML's training, solved with a factor that grows with the training set."""

from dataclasses import dataclass

import numpy as np

from ase_flatten.models.sgdml.cholesky import BlockCholesky
from ase_flatten.models.sgdml.kernel import Geometries, PlainKernel, n_modes_of
from ase_flatten.models.sgdml.permutation_sums import product_group
from ase_flatten.models.sgdml.product_kernel import ProductKernel
from ase_flatten.utils.cores import one_core
from ase_flatten.utils.progress import SILENT, Advance, Progress
from ase_flatten.utils.typing import FloatArray, IntArray

_BLOCK_ROWS = 2100
"""Approximate number of unknowns in a block row."""

_BLOCK_FRAMES = (1, 2, 5, 10, 20, 25, 50, 100, 200, 500)
"""Divisors of the round numbers by which training sets grow, so that few block rows are computed twice."""

_KEPT_DISTANCES = 2**28
"""Distances are kept for other length scales if they take at most this memory, bytes."""


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Coefficients of a trained model.

    Parameters
    ----------
    alphas : (n_train, 3 * n_atoms) array
        Along the Cartesian coordinates.
    descriptor_alphas : (n_train, n_pairs) array
        Along the descriptor; sufficient for predictions.
    std : float
        Standard deviation of the forces, by which they were divided.
    """

    alphas: FloatArray
    descriptor_alphas: FloatArray
    std: float


class TrainingGeometries:
    """Geometries of a training set and the distances between them, for any length scale.

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3) array, Å
    permutations : (n_permutations, n_atoms) int array
    """

    def __init__(self, positions: FloatArray, permutations: IntArray) -> None:
        group = product_group(permutations)
        self.kernel = PlainKernel(permutations) if group is None else ProductKernel(group)
        self.n_permutations = len(permutations)
        self.geometries = self._of(positions)
        self.block = frames_per_block(positions.shape[1])
        self._distances: dict[int, FloatArray] = {}

    def __len__(self) -> int:
        return len(self.geometries)

    def append(self, positions: FloatArray) -> None:
        """Append frames."""
        self.geometries = self.geometries + self._of(positions)
        self._distances.clear()

    @property
    def descriptors(self) -> FloatArray:
        """Inverse pair distances of the frames, (n_frames, n_pairs) in 1/Å."""
        return self.kernel.restore(self.geometries.descriptors)

    def _of(self, positions: FloatArray) -> Geometries:
        with one_core():
            return self.kernel.adapt(Geometries.of(positions))

    def distances(self, first: int) -> FloatArray:
        """Return the distances of the block row that begins at `first` to all frames up to its end."""
        if first not in self._distances:
            rows, columns = self.geometries[first : first + self.block], self.geometries[: first + self.block]
            found = self.kernel.distances(rows, columns)
            if 4 * len(self) ** 2 * self.n_permutations > _KEPT_DISTANCES:
                return found
            self._distances[first] = found
        return self._distances[first]


class KernelFactor:
    """Cholesky factor of sGDML's regularised kernel matrix.

    Parameters
    ----------
    training : TrainingGeometries
    sigma : float
        Length scale, 1/Å.
    regularisation : float
        Added to the diagonal.
    progress : Progress
        Counts pairs of frames. Ctrl-C stops between two pieces of work, of less than a second each.

    Raises
    ------
    NotPositiveDefiniteError
        The matrix has no factor; `grow` raises it as well.
    """

    def __init__(
        self, training: TrainingGeometries, sigma: float, regularisation: float, *, progress: Progress = SILENT
    ) -> None:
        self.training, self.sigma, self.regularisation = training, sigma, regularisation
        self._cholesky = BlockCholesky(training.block * training.geometries.n_modes)
        self._fill(progress)

    def __len__(self) -> int:
        return len(self.training)

    @property
    def nbytes(self) -> int:
        """Memory of the factor, bytes."""
        return self._cholesky.nbytes

    def grow(self, positions: FloatArray, *, progress: Progress = SILENT) -> None:
        """Append training frames, (n_frames, n_atoms, 3) in Å; the result is that of all frames at once."""
        self._cholesky.drop_partial()
        self.training.append(positions)
        self._fill(progress)

    def release(self) -> None:
        """Free the memory of the factor, even if there are still references to it."""
        self._cholesky = BlockCholesky(self._cholesky.block_size)

    def _fill(self, progress: Progress) -> None:
        training, done = self.training, self._cholesky.size // self.training.geometries.n_modes
        with progress.task("kernel matrix, pairs of frames", len(training) ** 2 - done**2) as advance:
            for first in range(done, len(training), training.block):
                self._append_block(first, advance)
                advance(min(first + training.block, len(training)) ** 2 - first**2)

    def _append_block(self, first: int, advance: Advance) -> None:
        """Append the block row of the frames from `first` on."""
        training, n_modes = self.training, self.training.geometries.n_modes
        rows, columns = training.geometries[first : first + training.block], training.geometries[:first]
        distances = training.distances(first)
        left = np.empty((len(rows) * n_modes, first * n_modes))
        diagonal = np.empty((len(rows) * n_modes,) * 2)
        for others, part, out in ((columns, slice(first), left), (rows, slice(first, None), diagonal)):
            training.kernel.assemble(
                rows, others, self.sigma,
                distances=distances[:, :, part], out=out, lower=others is rows, advance=advance,
            )  # fmt: skip
        diagonal.flat[:: len(diagonal) + 1] += self.regularisation
        self._cholesky.append(left, diagonal, advance=advance)

    def solve(self, forces: FloatArray) -> Coefficients:
        """Solve for the coefficients that reproduce forces, (n_train, n_atoms, 3)."""
        geometries = self.training.geometries
        labels = forces.reshape(len(forces), -1)
        std = float(np.std(labels))
        labels = labels / std
        along = np.einsum("ncm,nc->nm", geometries.directions, labels)
        found = -self._cholesky.solve(along.ravel()).reshape(along.shape)
        alphas = np.einsum("ncm,nm->nc", geometries.directions, found)
        if self.regularisation:
            # Net forces and torques: determined by the regularisation alone, and without effect on predictions.
            alphas -= (labels - np.einsum("ncm,nm->nc", geometries.directions, along)) / self.regularisation
        along = np.einsum("nmp,nm->np", geometries.jacobians, found)
        return Coefficients(alphas, self.training.kernel.restore(along), std)


def frames_per_block(n_atoms: int) -> int:
    """Return the number of frames in a block row of the factor, which depends on the molecule alone."""
    n_modes = max(1, n_modes_of(n_atoms))
    return max(n for n in _BLOCK_FRAMES if n == 1 or n * n_modes <= _BLOCK_ROWS)


def bytes_to_factorise(n_atoms: int, n_frames: int) -> int:
    """Estimate the memory for the factor of `n_frames` including work space, bytes."""
    n_modes, n_pairs = n_modes_of(n_atoms), n_atoms * (n_atoms - 1) // 2
    geometries = 2 * 8 * n_frames * n_modes * (n_pairs + 3 * n_atoms)  # the old ones and the new
    return geometries + BlockCholesky.bytes_for(n_frames * n_modes, frames_per_block(n_atoms) * n_modes)
