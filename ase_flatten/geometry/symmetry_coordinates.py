"""Coordinates of pairs in which the permutations of a direct product are small blocks.

A pair of atoms is touched by at most two factors of the product. The functions of pairs therefore split into orthogonal
parts: what no factor changes, what a factor `a` changes and averages to zero, and what two factors `a` and `b` change,
each of which averages it to zero. A permutation (g_1, g_2, ...) acts on the second kind as Σ_r φ_r(g_a) E_r and on the
third as Σ_rs φ_r(g_a) φ_s(g_b) E_rs, with the same few matrices E for all permutations. So are the products of a vector
with all images of another one: their values are linear in those of the E alone, which `functions` states.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from scipy.linalg import helmert
from scipy.sparse import csr_array

from ase_flatten.geometry.pair_distances import pair_permutation
from ase_flatten.geometry.symmetry_group import SymmetryGroup
from ase_flatten.utils.typing import FloatArray, IntArray

Factors = tuple[int, ...]

_ZERO = 1e-12
"""Rounding errors of entries that are zero, or of the order of one."""


@dataclass(frozen=True, eq=False)
class Part:
    """Coordinates that the same factors change.

    Parameters
    ----------
    factors : tuple of int
        None, one, or two of them, in ascending order.
    coordinates : slice
        Places among all coordinates.
    values : slice
        Places among the columns of `SymmetryCoordinates.functions`.
    matrices : tuple of (n_coordinates, n_coordinates) sparse arrays
        The matrices E, one for each value.
    """

    factors: Factors
    coordinates: slice
    values: slice
    matrices: tuple[csr_array, ...]


@dataclass(frozen=True, eq=False)
class SymmetryCoordinates:
    """Orthonormal coordinates of the pairs, adapted to a direct product of permutations.

    Parameters
    ----------
    transform : (n_pairs, n_pairs) sparse array
        Orthogonal; ``transform @ x`` are the coordinates of `x`.
    parts : tuple of Part
        The part that no permutation changes first.
    bases : tuple of (n_elements, n_elements - 1) arrays
        The functions φ of each factor, orthonormal and with a mean of zero.
    """

    transform: csr_array
    parts: tuple[Part, ...]
    bases: tuple[FloatArray, ...]

    @classmethod
    def of(cls, group: SymmetryGroup) -> "SymmetryCoordinates":
        """Find the coordinates for the factors of a group; its outer permutations play no role."""
        orders = [np.array([pair_permutation(element) for element in factor]) for factor in group.factors]
        bases = tuple(helmert(len(factor)).T for factor in group.factors)
        n_atoms = group.outer.shape[1]
        rows = _basis(orders, n_atoms * (n_atoms - 1) // 2)
        parts, found = [], []
        n_coordinates, n_values = 0, 0
        for factors, vectors in rows.items():
            basis = csr_array(np.array(vectors))
            matrices = _matrices(basis, [orders[a] for a in factors], [bases[a] for a in factors])
            coordinates = slice(n_coordinates, n_coordinates := n_coordinates + basis.shape[0])
            values = slice(n_values, n_values := n_values + len(matrices))
            parts.append(Part(factors, coordinates, values, matrices))
            found += vectors
        return cls(csr_array(np.array(found)), tuple(parts), bases)

    @property
    def n_values(self) -> int:
        """Number of columns of `functions`."""
        return self.parts[-1].values.stop

    @cached_property
    def functions(self) -> FloatArray:
        """The functions φ_r(g_a) φ_s(g_b) of all parts, (n_products, n_values).

        The rows are in the order of `SymmetryGroup.permutations`: the last factor varies fastest.
        """
        sizes = [len(basis) for basis in self.bases]
        places = np.array(list(np.ndindex(*sizes)), dtype=np.int64)
        columns = []
        for part in self.parts:
            column = np.ones((len(places), 1))
            for a in part.factors:
                column = (column[:, :, None] * self.bases[a][places[:, a], None, :]).reshape(len(column), -1)
            columns.append(column)
        return np.concatenate(columns, axis=1)

    def adapt(self, vectors: FloatArray) -> FloatArray:
        """Return the coordinates of vectors over pairs, (..., n_pairs)."""
        flat = vectors.reshape(-1, vectors.shape[-1])
        return np.ascontiguousarray((self.transform @ flat.T).T).reshape(vectors.shape)

    def restore(self, coordinates: FloatArray) -> FloatArray:
        """Return the vectors over pairs with given coordinates, (..., n_pairs)."""
        flat = coordinates.reshape(-1, coordinates.shape[-1])
        return np.ascontiguousarray((self._back @ flat.T).T).reshape(coordinates.shape)

    @cached_property
    def _back(self) -> csr_array:
        return csr_array(self.transform.T)


def _basis(orders: list[IntArray], n_pairs: int) -> dict[Factors, list[FloatArray]]:
    """Return orthonormal vectors, orbit by orbit of pairs, for no factor, each factor, and each two of them."""
    n_factors = len(orders)
    every = [(), *combinations(range(n_factors), 1), *combinations(range(n_factors), 2)]
    found: dict[Factors, list[FloatArray]] = {factors: [] for factors in every}
    first = np.arange(n_pairs)
    for order in orders:
        first = first[order.min(axis=0)]  # of each pair's orbit; factors commute
    for start in np.unique(first):
        orbit = np.flatnonzero(first == start)
        touching = [a for a in range(n_factors) if (orders[a][:, orbit] != orbit).any()]
        means = {a: _mean(orders[a], orbit) for a in touching}
        for n in range(len(touching) + 1):
            for factors in combinations(touching, n):
                projector = np.eye(len(orbit))
                for a in touching:
                    projector = projector @ (np.eye(len(orbit)) - means[a] if a in factors else means[a])
                weights, vectors = np.linalg.eigh((projector + projector.T) / 2)
                for vector in vectors.T[weights > 0.5]:
                    row = np.zeros(n_pairs)
                    row[orbit] = np.where(np.abs(vector) < _ZERO, 0, vector)
                    found[factors].append(row)
    return {factors: vectors for factors, vectors in found.items() if vectors or not factors}


def _mean(orders: IntArray, orbit: IntArray) -> FloatArray:
    """Return the mean of the permutation matrices of a factor, on an orbit of pairs."""
    place = np.searchsorted(orbit, orders[:, orbit])
    mean = np.zeros((len(orbit), len(orbit)))
    np.add.at(mean, (np.arange(len(orbit)), place), 1 / len(orders))
    return mean


def _matrices(basis: csr_array, orders: list[IntArray], functions: list[FloatArray]) -> tuple[csr_array, ...]:
    """Return Σ φ_r(g) φ_s(h) ... U P_g P_h ... Uᵀ over the elements of some factors, for all products of functions."""
    sums = [basis]
    for order, phi in zip(orders, functions, strict=True):
        # (P x)_p = x[order[p]], hence (u P)_q = u[inverse[q]].
        images = [[vectors[:, inverse] for inverse in np.argsort(order, axis=1)] for vectors in sums]
        sums = [
            sum((image * weight for image, weight in zip(some, column, strict=True)), start=0 * basis)
            for some in images
            for column in phi.T
        ]
    return tuple(_without_rounding(vectors @ basis.T) for vectors in sums)


def _without_rounding(matrix: csr_array) -> csr_array:
    """Remove the entries that are zero but for rounding."""
    found = csr_array(matrix)
    found.data[np.abs(found.data) < _ZERO] = 0
    found.eliminate_zeros()
    return found
