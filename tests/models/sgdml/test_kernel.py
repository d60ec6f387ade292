"""The kernel: second derivatives of the Matérn kernel over all permutations; the `sgdml` package is the reference."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_flatten.models.sgdml import kernel
from ase_flatten.models.sgdml.kernel import Geometries, assemble, image_distances, n_modes_of, pair_orders

few = settings(max_examples=25, deadline=None)


def configurations(n_frames, n_atoms, rng):
    """Atoms near the points of a grid: never in one place, never on one line for long."""
    grid = np.array(list(product(range(2), repeat=3)), dtype=float)[rng.permutation(8)[:n_atoms]] * 1.3
    return grid + rng.uniform(-0.25, 0.25, size=(n_frames, n_atoms, 3))


def closed_group(numbers, rng, n_generators=2):
    """All products of a few random exchanges of like atoms, identity first."""
    n_atoms = len(numbers)
    generators = []
    for _ in range(n_generators):
        permutation = np.arange(n_atoms)
        like = np.flatnonzero(numbers == rng.choice(numbers))
        permutation[like] = permutation[rng.permutation(like)]
        generators.append(permutation)
    group = {tuple(range(n_atoms))}
    while more := {tuple(np.array(one)[other]) for one in group for other in generators} - group:
        group |= more
    return np.array(sorted(group))


@st.composite
def molecules(draw, n_frames=3, max_atoms=5):
    """Positions of some frames, and a permutation group of like atoms."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_atoms = draw(st.integers(2, max_atoms))
    return configurations(n_frames, n_atoms, rng), closed_group(rng.choice([1, 1, 6], n_atoms), rng)


def matrix(positions, permutations, sigma, columns=None):
    """The kernel along the directions of each frame, whole."""
    rows = Geometries.of(positions)
    columns = rows if columns is None else Geometries.of(columns)
    orders = pair_orders(permutations)
    out = np.full((len(rows) * rows.n_modes, len(columns) * rows.n_modes), np.nan)
    assemble(rows, columns, orders, sigma, distances=image_distances(rows, columns, orders), out=out)
    return out


def cartesian(reduced, rows, columns):
    """The same along Cartesian coordinates."""
    n_modes = rows.n_modes
    blocks = reduced.reshape(len(rows), n_modes, len(columns), n_modes)
    full = np.einsum("iam,imjn,jbn->iajb", rows.directions, blocks, columns.directions)
    return full.reshape(full.shape[0] * full.shape[1], -1)


def matern(a, b, permutations, sigma):
    """The kernel between two batches of configurations, before differentiation."""
    i, j = np.tril_indices(a.shape[1], -1)
    descriptors = [1 / np.linalg.norm(x[:, i] - x[:, j], axis=2) for x in (a, b)]
    total = 0.0
    for order in pair_orders(permutations):
        s = np.sqrt(5) / sigma * np.linalg.norm(descriptors[0] - descriptors[1][:, order], axis=1)
        total = total + (1 + s + s**2 / 3) * np.exp(-s)
    return total


def mixed_derivative(a, b, permutations, sigma, step=2e-3):
    """∂²k/∂a∂b by central differences of fourth order."""
    size = a.size
    shifts = np.eye(size).reshape(size, *a.shape) * step
    points, weights = (-2, -1, 1, 2), (1, -8, 8, -1)
    total = np.zeros((size, size))
    for (p, u), (q, v) in product(zip(points, weights), repeat=2):
        left = np.repeat(a + p * shifts, size, axis=0)
        right = np.tile(b + q * shifts, (size, 1, 1))
        total += u * v * matern(left, right, permutations, sigma).reshape(size, size)
    return total / (12 * step) ** 2


@few
@given(molecules(n_frames=2), st.floats(0.7, 3))
def test_a_block_is_the_mixed_second_derivative(molecule, sigma):
    (a, b), permutations = molecule
    block = matrix(a[None], permutations, sigma, b[None])
    found = cartesian(block, Geometries.of(a[None]), Geometries.of(b[None]))
    expected = mixed_derivative(a, b, permutations, sigma)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@few
@given(molecules(n_frames=4), st.floats(0.5, 30))
def test_the_matrix_is_symmetric_and_positive_semidefinite(molecule, sigma):
    found = matrix(*molecule, sigma)
    scale = np.abs(found).max()
    np.testing.assert_allclose(found, found.T, atol=1e-13 * scale)
    assert np.linalg.eigvalsh(found).min() > -1e-12 * scale


@few
@given(molecules())
def test_directions_are_all_that_change_distances(molecule):
    positions, _ = molecule
    geometries = Geometries.of(positions)
    assert geometries.n_modes == n_modes_of(positions.shape[1])
    unit = np.einsum("icm,icn->imn", geometries.directions, geometries.directions)
    np.testing.assert_allclose(unit, np.broadcast_to(np.eye(geometries.n_modes), unit.shape), atol=1e-13)
    # Nothing is lost: the Jacobian's rows lie in the span.
    i, j = np.tril_indices(positions.shape[1], -1)
    step, full = 1e-5, []
    for shift in np.eye(positions[0].size).reshape(-1, *positions[0].shape) * step:
        inverse = [1 / np.linalg.norm((x[:, i] - x[:, j]), axis=2) for x in (positions + shift, positions - shift)]
        full.append((inverse[0] - inverse[1]) / (2 * step))
    rebuilt = np.einsum("icm,imp->cip", geometries.directions, geometries.jacobians)
    np.testing.assert_allclose(rebuilt, full, atol=1e-8)


def test_a_linear_molecule_loses_nothing():
    positions = np.array([[[0, 0, 0], [0, 0, 1.1], [0, 0, 2.3]], [[0, 0, 0], [0, 0, 1.0], [0, 0.1, 2.2]]])
    identity = np.arange(3)[None]
    geometries = Geometries.of(positions)
    found = cartesian(matrix(positions, identity, 2.0), geometries, geometries)
    expected = mixed_derivative(positions[0], positions[1], identity, 2.0)
    np.testing.assert_allclose(found[:9, 9:], expected, atol=1e-7)


@few
@given(molecules())
def test_distances_serve_any_length_scale_and_are_exact(molecule):
    positions, permutations = molecule
    orders, geometries = pair_orders(permutations), Geometries.of(positions)
    found = image_distances(geometries, geometries, orders)
    x = geometries.descriptors
    for p, order in enumerate(orders):
        expected = np.linalg.norm(x[:, None] - x[None, :, order], axis=2)
        np.testing.assert_allclose(found[:, p], expected, rtol=1e-12, atol=1e-7)


def test_blocks_at_work_do_not_show(ethanol_like, monkeypatch):
    positions = ethanol_like.positions[::60]
    permutations = closed_group(ethanol_like.numbers, np.random.default_rng(2))
    whole = matrix(positions, permutations, 10.0)
    monkeypatch.setattr(kernel, "_IMAGE_BYTES", 1)
    monkeypatch.setattr(kernel, "_COLUMN_BYTES", 1)
    np.testing.assert_allclose(matrix(positions, permutations, 10.0), whole, atol=1e-14 * np.abs(whole).max())


def test_only_blocks_above_the_diagonal_may_be_left_out(ethanol_like, monkeypatch):
    monkeypatch.setattr(kernel, "_IMAGE_BYTES", 2**14)
    geometries, orders = Geometries.of(ethanol_like.positions[::30]), pair_orders(np.arange(9)[None])
    distances = image_distances(geometries, geometries, orders)
    whole, lower = (np.full((len(geometries) * geometries.n_modes,) * 2, np.nan) for _ in range(2))
    assemble(geometries, geometries, orders, 10.0, distances=distances, out=whole)
    assemble(geometries, geometries, orders, 10.0, distances=distances, out=lower, lower=True)
    np.testing.assert_allclose(np.tril(lower), np.tril(whole), atol=1e-15)
    assert np.isnan(lower).any()


@pytest.mark.parametrize("n_generators", [0, 2])
def test_the_package_makes_the_same_matrix(ethanol_like, n_generators):
    from ase_flatten.models.sgdml.sgdml_package import package

    trainer = package().trainer
    from sgdml.utils.desc import Desc

    positions = ethanol_like.positions[::60]
    permutations = closed_group(ethanol_like.numbers, np.random.default_rng(1), n_generators)
    assert (len(permutations) > 1) == (n_generators > 0)
    desc = Desc(ethanol_like.n_atoms, max_processes=1)
    descriptors, jacobians = desc.from_R(positions.reshape(len(positions), -1), max_processes=1)
    orders = np.array([Desc.perm(permutation) for permutation in permutations])
    assert np.array_equal(orders, pair_orders(permutations))
    linear = (orders + orders.shape[1] * np.arange(len(orders))[:, None]).flatten("F")
    expected = -trainer._assemble_kernel_mat(descriptors, jacobians, linear, 10, desc)
    geometries = Geometries.of(positions)
    found = cartesian(matrix(positions, permutations, 10.0), geometries, geometries)
    np.testing.assert_allclose(found, expected, atol=1e-13 * np.abs(expected).max())
