"""In adapted coordinates, all products of permutations are sums of the same few matrices."""

import numpy as np
import pytest
from symmetric_molecules import GROUPS

from ase_flatten.geometry.pair_distances import pair_permutation
from ase_flatten.geometry.symmetry_coordinates import SymmetryCoordinates
from ase_flatten.geometry.symmetry_group import SymmetryGroup


@pytest.mark.parametrize("name", GROUPS)
def test_permutations_are_sums_of_the_matrices(name):
    group = SymmetryGroup.of(GROUPS[name])
    coordinates = SymmetryCoordinates.of(group)
    products = SymmetryGroup(group.factors, group.outer[:1]).permutations
    x, y = np.random.default_rng(0).normal(size=(2, coordinates.transform.shape[0]))
    of_x, of_y = coordinates.adapt(x), coordinates.adapt(y)
    values = [
        of_x[part.coordinates] @ (matrix @ of_y[part.coordinates])
        for part in coordinates.parts for matrix in part.matrices
    ]  # fmt: skip
    expected = [x @ y[pair_permutation(permutation)] for permutation in products]
    np.testing.assert_allclose(coordinates.functions @ values, expected, atol=1e-12)


@pytest.mark.parametrize("name", GROUPS)
def test_the_transform_is_orthogonal_and_sparse(name):
    coordinates = SymmetryCoordinates.of(SymmetryGroup.of(GROUPS[name]))
    dense = coordinates.transform.toarray()
    np.testing.assert_allclose(dense @ dense.T, np.eye(len(dense)), atol=1e-12)
    x = np.random.default_rng(1).normal(size=(2, 3, len(dense)))
    np.testing.assert_allclose(coordinates.restore(coordinates.adapt(x)), x, atol=1e-12)
    stops = [0, *(part.coordinates.stop for part in coordinates.parts)]
    assert [part.coordinates.start for part in coordinates.parts] == stops[:-1] and stops[-1] == len(dense)


def test_five_rotors_take_few_values():
    coordinates = SymmetryCoordinates.of(SymmetryGroup.of(GROUPS["five rotors"]))
    assert coordinates.functions.shape == (243, 1 + 5 * 2 + 10 * 4)
    assert coordinates.parts[0].factors == ()


def test_no_permutations_leave_the_pairs():
    coordinates = SymmetryCoordinates.of(SymmetryGroup.of(np.arange(4)[None]))
    assert coordinates.functions.tolist() == [[1.0]] and len(coordinates.parts) == 1
    np.testing.assert_allclose(np.abs(coordinates.transform.toarray()), np.eye(6))
