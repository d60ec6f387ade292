from itertools import permutations, product

import numpy as np
import pytest

from ase_flatten.geometry.symmetry_group import SymmetryGroup
from ase_flatten.utils.exceptions import InputError


def cycles(n_atoms, *groups):
    """All products of the rotations of some groups of atoms."""
    identity, found = np.arange(n_atoms), []
    for shifts in product(*(range(len(group)) for group in groups)):
        permutation = identity.copy()
        for group, shift in zip(groups, shifts, strict=True):
            permutation[list(group)] = np.roll(group, shift)
        found.append(permutation)
    return np.array(found)


def same(a, b):
    return sorted(map(tuple, a.tolist())) == sorted(map(tuple, b.tolist()))


def test_five_methyl_groups_are_five_factors():
    group = SymmetryGroup.of(np.random.default_rng(0).permutation(cycles(20, *np.arange(15).reshape(5, 3))))
    assert [len(factor) for factor in group.factors] == [3] * 5
    assert len(group.outer) == 1
    assert same(group.permutations, cycles(20, *np.arange(15).reshape(5, 3)))


def test_mirror_image_that_shares_atoms_with_a_rotation_is_an_outer_permutation():
    """Ethanol: exchanging the hydrogens of CH2 and two of CH3 is the mirror image; alone, it is no local factor."""
    rotations = cycles(9, (6, 7, 8))
    mirror = np.arange(9)
    mirror[[3, 4, 6, 7]] = [4, 3, 7, 6]
    everything = np.concatenate([rotations, mirror[rotations]])
    group = SymmetryGroup.of(everything)
    assert [len(factor) for factor in group.factors] == [3]
    assert len(group.outer) == 2
    assert same(group.permutations, everything)


def test_all_exchanges_of_a_methyl_group_and_the_flip_of_a_ring_are_two_factors():
    """Toluene."""
    everything = np.array([[*a, *b] for a in permutations(range(3)) for b in ([3, 4, 5, 6], [4, 3, 6, 5])])
    group = SymmetryGroup.of(everything)
    assert same(group.permutations, everything)
    assert [len(factor) for factor in group.factors] == [6, 2]
    assert len(group.outer) == 1


def test_rotations_of_tert_butyl_are_outer_permutations_of_those_of_its_methyl_groups():
    rotation = np.array([1, 2, 0, 6, 7, 8, 9, 10, 11, 3, 4, 5])
    inner = cycles(12, (3, 4, 5), (6, 7, 8), (9, 10, 11))
    everything = np.concatenate([inner, rotation[inner], rotation[rotation][inner]])
    group = SymmetryGroup.of(everything)
    assert same(group.permutations, everything)
    assert [len(factor) for factor in group.factors] == [3, 3, 3]
    assert len(group.outer) == 3


def test_identity_alone():
    group = SymmetryGroup.of(np.arange(4)[None])
    assert (group.factors, len(group)) == ((), 1)
    assert np.array_equal(group.permutations, np.arange(4)[None])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[0, 1, 2], [0, 0, 2]], "each atom once"),
        ([[0, 1, 2], [1, 2, 0]], "expected a group"),
        ([[0, 1, 2], [1, 0, 2], [1, 0, 2]], "different permutations"),
        ([[0, 1, 2], [1, 0, 2], [2, 1, 0]], "expected a group"),
    ],
)
def test_what_is_no_group_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        SymmetryGroup.of(np.array(given))
