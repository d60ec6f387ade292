"""The kernel through the factors of a group is the sum over its permutations, and the factor grows to the last bit."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from symmetric_molecules import GROUPS, molecule

from ase_flatten.models.sgdml import permutation_sums
from ase_flatten.models.sgdml.factor import KernelFactor, TrainingGeometries
from ase_flatten.models.sgdml.kernel import Geometries, PlainKernel
from ase_flatten.models.sgdml.permutation_sums import LEAST_PRODUCTS, product_group
from ase_flatten.models.sgdml.product_kernel import ProductKernel


def matrix(kernel, positions, *, lower=False):
    geometries = kernel.adapt(Geometries.of(positions))
    size = len(geometries) * geometries.n_modes
    out = np.full((size, size), np.nan)
    distances = kernel.distances(geometries, geometries)
    kernel.assemble(geometries, geometries, 3.0, distances=distances, out=out, lower=lower)
    return out, distances


@pytest.mark.parametrize("name", GROUPS)
def test_the_matrix_is_the_sum_over_permutations(name):
    positions, group = molecule(name, 10)
    expected, distances = matrix(PlainKernel(group.permutations), positions)
    found, others = matrix(ProductKernel(group), positions)
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())
    assert others.shape == distances.shape
    np.testing.assert_allclose(np.sort(others, axis=1), np.sort(distances, axis=1), atol=2e-6)
    lower = np.tril(matrix(ProductKernel(group), positions, lower=True)[0])
    np.testing.assert_allclose(lower, np.tril(expected), atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["five rotors", "factors of 2, 3 and 6", "outer"])
def test_coefficients_are_those_of_the_plain_sum(name, monkeypatch):
    positions, group = molecule(name, 6)
    forces = np.random.default_rng(1).normal(size=positions.shape)
    found = KernelFactor(TrainingGeometries(positions, group.permutations), 3.0, 1e-6).solve(forces)
    monkeypatch.setattr(permutation_sums, "LEAST_PRODUCTS", 10**9)
    plain = TrainingGeometries(positions, group.permutations)
    assert isinstance(plain.kernel, PlainKernel)
    expected = KernelFactor(plain, 3.0, 1e-6).solve(forces)
    for one, other in ((found.alphas, expected.alphas), (found.descriptor_alphas, expected.descriptor_alphas)):
        assert np.linalg.norm(one - other) < 1e-9 * np.linalg.norm(other)


@pytest.mark.parametrize("name", ["two rotors", "outer"])
@pytest.mark.parametrize("steps", [(3, 4, 12), (1, 11, 12)])
def test_growth_gives_the_last_bit_of_all_at_once(name, steps, monkeypatch):
    monkeypatch.setattr("ase_flatten.models.sgdml.factor._BLOCK_ROWS", 100)
    positions, group = molecule(name, 12)
    forces = np.random.default_rng(1).normal(size=positions.shape)
    grown = KernelFactor(TrainingGeometries(positions[: steps[0]], group.permutations), 3.0, 1e-6)
    for start, stop in pairwise(steps):
        grown.grow(positions[start:stop])
    whole = KernelFactor(TrainingGeometries(positions, group.permutations), 3.0, 1e-6)
    assert isinstance(whole.training.kernel, ProductKernel)
    assert np.array_equal(grown.solve(forces).alphas, whole.solve(forces).alphas)
    np.testing.assert_allclose(whole.training.descriptors, Geometries.of(positions).descriptors, atol=1e-14)


class TestWhichWay:
    def test_few_products_are_summed_one_by_one(self):
        assert product_group(np.arange(5)[None]) is None
        assert product_group(GROUPS["ethanol-like"]) is None
        group = product_group(GROUPS["two rotors"])
        assert group is not None and group.n_products == LEAST_PRODUCTS == 9

    def test_a_single_factor_and_large_ones_are_summed_one_by_one(self):
        """Their work would grow with the square of their elements."""
        exchanges = {n: np.array([[*p, *range(n, 7)] for p in permutations(range(n))]) for n in (4, 5)}
        assert product_group(exchanges[4]) is None
        swap = np.array([0, 1, 2, 3, 4, 6, 5])
        for n, pays in ((4, True), (5, False)):
            group = np.concatenate([exchanges[n], swap[exchanges[n]]])
            assert (product_group(group) is not None) == pays

    def test_what_is_no_group_is_summed_one_by_one(self):
        assert product_group(GROUPS["five rotors"][:-1]) is None
