from itertools import permutations

import numpy as np
import pytest
import symmetric_molecules

from ase_flatten.geometry.image_products import Images
from ase_flatten.geometry.pair_distances import pair_permutation

GROUPS = {
    **symmetric_molecules.GROUPS,
    "none": np.arange(5)[None],
    "one factor": np.array(list(permutations(range(4)))),
    "no group": np.array([[0, 1, 2, 3], [1, 2, 0, 3]]),
}


@pytest.mark.parametrize("name", GROUPS)
def test_products_with_all_images(name, rng):
    group = GROUPS[name]
    n_pairs = len(pair_permutation(group[0]))
    rows, columns = rng.normal(size=(4, n_pairs)), rng.normal(size=(3, n_pairs))
    images = Images.of(group)
    found = images.products(rows, columns)
    expected = np.array([rows[:, pair_permutation(permutation)] @ columns.T for permutation in group]).swapaxes(0, 1)
    assert found.shape == expected.shape == (4, len(images), 3)
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(expected, axis=1), atol=1e-12)
    first = np.min([pair_permutation(permutation) for permutation in group], axis=0)
    assert np.array_equal(images.first, first)


def test_single_precision_stays(rng):
    images = Images.of(GROUPS["two rotors"])
    found = images.products(rng.normal(size=(2, 28)).astype(np.float32), rng.normal(size=(5, 28)).astype(np.float32))
    assert found.dtype == np.float32


def test_few_values_are_computed():
    """Two rotors: one value, three for each of them, nine for both."""
    images = Images.of(GROUPS["two rotors"])
    assert sorted(len(block.orders) for block in images._blocks) == [1, 3, 3, 9]
