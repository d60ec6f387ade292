"""Products of vectors over pairs of atoms with all images of others, through the factors of a group.

A pair is touched by at most two factors of a direct product, because its two atoms are in at most one factor each.
The product of a vector with an image of another is therefore a sum of one number for the pairs that no factor touches,
one for each factor, and one for each two factors, and each of these takes few values: for the 243 rotations of five
methyl groups there are 1 + 5·3 + 10·9 = 106 values to compute, each from a part of the pairs.

The coordinates of `symmetry_coordinates` need half as many values, but a transformation of both vectors, which pays
where one of them is transformed once for many products, as in the kernel and the predictions of sGDML.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ase_flatten.geometry.pair_distances import pair_permutation
from ase_flatten.geometry.symmetry_group import SymmetryGroup
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import IntArray


@dataclass(frozen=True, eq=False)
class _Block:
    """Pairs that are touched by the same factors.

    Parameters
    ----------
    pairs : (n_block_pairs,) int array
    orders : (n_values, n_block_pairs) int array
        The pairs that take their places, for all products of elements of these factors.
    value : (n_products,) int array
        Which of these a product of elements of all factors is.
    """

    pairs: IntArray
    orders: IntArray
    value: IntArray


@dataclass(frozen=True, eq=False)
class Images:
    """The images of vectors over pairs of atoms under a group of permutations.

    Parameters
    ----------
    group : SymmetryGroup
    """

    group: SymmetryGroup

    @classmethod
    def of(cls, permutations: IntArray) -> "Images":
        """Take the permutations, (n_permutations, n_atoms), one by one if they are no group."""
        try:
            return cls(SymmetryGroup.of(permutations))
        except InputError:
            return cls(SymmetryGroup((), permutations))

    def __len__(self) -> int:
        return len(self.group)

    @cached_property
    def first(self) -> IntArray:
        """The first of the pairs that each pair is exchanged with, (n_pairs,)."""
        first = np.min([pair_permutation(permutation) for permutation in self.group.outer], axis=0)
        for factor in self.group.factors:
            first = np.min([first[pair_permutation(element)] for element in factor], axis=0)
        return np.asarray(first)

    def products(self, rows: NDArray[np.floating], columns: NDArray[np.floating]) -> NDArray[np.floating]:
        """Multiply the images of vectors by others.

        Parameters
        ----------
        rows : (n_rows, n_pairs) array
        columns : (n_columns, n_pairs) array

        Returns
        -------
        (n_rows, n_permutations, n_columns) array
        """
        images = rows[:, self._outer].reshape(-1, rows.shape[1])
        parts = [images[:, block.orders] @ columns[:, block.pairs].T for block in self._blocks]
        values = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        sums = values if self.group.n_products == 1 else self._places.astype(values.dtype, copy=False) @ values
        return sums.reshape(len(rows), len(self.group), len(columns))

    @cached_property
    def _outer(self) -> IntArray:
        return np.array([pair_permutation(permutation) for permutation in self.group.outer])

    @cached_property
    def _blocks(self) -> list[_Block]:
        n_pairs = self._outer.shape[1]
        sizes = [len(factor) for factor in self.group.factors]
        elements = np.indices(sizes).reshape(len(sizes), -1) if sizes else np.zeros((0, 1), dtype=np.int64)
        orders = [np.array([pair_permutation(element) for element in factor]) for factor in self.group.factors]
        touched = np.array([(order != np.arange(n_pairs)).any(axis=0) for order in orders], dtype=bool)
        blocks = []
        for pattern in np.unique(touched.reshape(len(sizes), n_pairs), axis=1).T:
            pairs = np.flatnonzero((touched.reshape(len(sizes), n_pairs) == pattern[:, None]).all(axis=0))
            combined, value = np.arange(n_pairs)[None], np.zeros(elements.shape[1], dtype=np.int64)
            for factor in np.flatnonzero(pattern):
                combined = combined[:, orders[factor]].reshape(-1, n_pairs)
                value = value * sizes[factor] + elements[factor]
            blocks.append(_Block(pairs, combined[:, pairs], value))
        return blocks

    @cached_property
    def _places(self) -> NDArray[np.float32]:
        """Which values are added for each product, (n_products, n_values)."""
        return np.concatenate(
            [np.eye(len(block.orders), dtype=np.float32)[block.value] for block in self._blocks], axis=1
        )
