"""Groups of permutations of like atoms, as products of small groups that act on different atoms.

The rotations of five methyl groups make 3⁵ = 243 permutations, but no pair distance is touched by more than two of
them. A sum over all 243 can therefore be computed from a few partial sums, if the group is known as a direct product.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import IntArray


@dataclass(frozen=True, eq=False)
class SymmetryGroup:
    """A group of permutations: a direct product of local factors, and representatives of the cosets of the product.

    Each permutation is ``outer[k][f]`` with a representative and a product `f` of one element of each factor, so that
    ``positions[permutation] = positions[outer[k]][f]``.

    Parameters
    ----------
    factors : tuple of (n_elements, n_atoms) int arrays
        Groups that act on different atoms, the identity first in each.
    outer : (n_outer, n_atoms) int array
        One permutation of each coset, the identity first.
    """

    factors: tuple[IntArray, ...]
    outer: IntArray

    def __len__(self) -> int:
        return len(self.outer) * self.n_products

    @property
    def n_products(self) -> int:
        """Number of elements of the direct product."""
        return int(np.prod([len(factor) for factor in self.factors], dtype=np.int64))

    @cached_property
    def permutations(self) -> IntArray:
        """All permutations, (n_permutations, n_atoms), the identity first."""
        products = self.outer[:1]
        for factor in self.factors:
            products = products[:, factor].reshape(-1, products.shape[1])
        return self.outer[:, products].reshape(-1, products.shape[1])

    @classmethod
    def of(cls, permutations: IntArray) -> "SymmetryGroup":
        """Find the direct product in a list of permutations.

        Parameters
        ----------
        permutations : (n_permutations, n_atoms) int array
            A group, in any order.

        Raises
        ------
        InputError
            The permutations are no group, or one of them is no permutation.
        """
        permutations = np.asarray(permutations)
        identity = np.arange(permutations.shape[1])
        if not np.array_equal(np.sort(permutations, axis=1), np.tile(identity, (len(permutations), 1))):
            raise InputError("expected each atom once in every permutation, found one twice; check the permutations")
        _check_group(permutations)
        group = cls(tuple(_factors(_identity_first(permutations))), identity[None])
        return cls(group.factors, _coset_representatives(permutations, group))


def _factors(group: IntArray) -> list[IntArray]:
    """Split a group, identity first, into subgroups that act on different atoms.

    A set of atoms is closed if no permutation leads out of it. The elements that move only atoms of a minimal closed
    set are a subgroup, which may have smaller closed sets of its own: the hydrogens of a tert-butyl group are one
    closed set of the group of all its symmetries, and three of the subgroup that leaves the carbons in place.
    """
    moved = group != np.arange(group.shape[1])
    if not moved.any():
        return []
    orbit = group.min(axis=0)  # of each atom: the first atom that it can be taken to
    closed = np.array([np.isin(orbit, orbit[atoms]) for atoms in moved[moved.any(axis=1)]])
    closed = np.unique(closed, axis=0)
    found: list[IntArray] = []
    taken = np.zeros(group.shape[1], dtype=bool)
    for atoms in closed[np.argsort(closed.sum(axis=1), kind="stable")]:
        if (taken & atoms).any():
            continue
        within = group[~(moved & ~atoms).any(axis=1)]
        found += [within] if len(within) == len(group) else _factors(within)
        taken |= atoms
    return found


def _check_group(permutations: IntArray) -> None:
    """Raise if the permutations are no group: products of a few of them must be all of them."""
    elements = {tuple(permutation) for permutation in permutations.tolist()}
    if len(elements) < len(permutations):
        raise InputError("expected different permutations, found one twice; leave it out")
    generators: list[IntArray] = []
    reached = {tuple(range(permutations.shape[1]))}
    for permutation in permutations:
        if tuple(permutation.tolist()) in reached:
            continue
        generators.append(permutation)
        new = reached
        while new:
            products = np.array(sorted(new))[:, np.array(generators)].reshape(-1, permutations.shape[1])
            new = {tuple(product) for product in products.tolist()} - reached
            reached = reached | new
            if not reached <= elements:
                raise InputError(
                    "expected a group of permutations, found a product of two that is not among them; add it"
                )


def _identity_first(permutations: IntArray) -> IntArray:
    order = np.argsort((permutations != np.arange(permutations.shape[1])).any(axis=1), kind="stable")
    return permutations[order]


def _coset_representatives(permutations: IntArray, products: SymmetryGroup) -> IntArray:
    """Return one permutation of each coset of the product, the identity first."""
    left = {tuple(permutation) for permutation in permutations.tolist()}
    found = []
    for permutation in _identity_first(permutations):
        if tuple(permutation.tolist()) in left:
            left -= {tuple(element) for element in permutation[products.permutations].tolist()}
            found.append(permutation)
    return np.array(found)
