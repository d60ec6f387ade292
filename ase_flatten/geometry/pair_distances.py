"""Pair distances: the descriptor of configurational space (Fonseca et al. 2021, eqs. 1-3)."""

from itertools import permutations, product
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ase_flatten.utils.blocks import blocks
from ase_flatten.utils.typing import FloatArray, IntArray

NEAR_IDENTICAL = 0.01
"""Frames are near-identical below this root-mean-square difference of their pair distances, Å."""

_MOST_EXCHANGES = 120
_TREE_DIMENSIONS = 8
_TREE_ITERATIONS = 4


def pair_distances(positions: FloatArray) -> FloatArray:
    """Compute all pair distances of each frame (eqs. 1 and 2).

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3) array, Å

    Returns
    -------
    (n_frames, n_atoms * (n_atoms - 1) / 2) array, Å
        In the order of `np.tril_indices(n_atoms, -1)`.
    """
    n_frames, n_atoms, _ = positions.shape
    i, j = np.tril_indices(n_atoms, -1)
    distances = np.empty((n_frames, len(i)))
    for block in blocks(n_frames, 8 * 4 * len(i)):
        difference = positions[block][:, i] - positions[block][:, j]
        np.sqrt(np.einsum("fpx,fpx->fp", difference, difference), out=distances[block])
    return distances


def pair_permutation(permutation: IntArray) -> IntArray:
    """Return the permutation of the pair distances, (n_pairs,), for one of the atoms, (n_atoms,)."""
    i, j = np.tril_indices(len(permutation), -1)
    number = np.zeros((len(permutation), len(permutation)), dtype=np.int64)
    number[i, j] = number[j, i] = np.arange(len(i))
    return number[permutation[i], permutation[j]]


def exchanges_of_like_atoms(numbers: IntArray) -> IntArray:
    """Return all permutations of atoms of the same element, (n_exchanges, n_atoms), the identity first.

    If there are more than 120, as in all but small molecules, only the identity is returned.
    """
    identity = np.arange(len(numbers))
    groups = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    if prod(factorial(len(group)) for group in groups) > _MOST_EXCHANGES:
        return identity[None]
    exchanges = []
    for images in product(*(permutations(group) for group in groups)):
        exchange = identity.copy()
        for group, image in zip(groups, images, strict=True):
            exchange[group] = image
        exchanges.append(exchange)
    return np.array(exchanges)


def squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Compute |a_i - b_j|² by one matrix product.

    As scikit-learn's `euclidean_distances`, to the last bit, without its checks, which in inner loops take longer.

    Parameters
    ----------
    a : (n_a, n_features) array
    b : (n_b, n_features) array

    Returns
    -------
    (n_a, n_b) array
    """
    squared = a @ b.T
    squared *= -2
    squared += np.einsum("ij,ij->i", a, a)[:, None]
    squared += np.einsum("ij,ij->i", b, b)
    return np.maximum(squared, 0, out=squared)


def near_identical_pairs(descriptors: FloatArray, *, tolerance: float = NEAR_IDENTICAL) -> IntArray:
    """Find all pairs of frames whose descriptors differ by less than `tolerance` (root mean square).

    A projection never lengthens a distance. Therefore a search tree over the leading principal components finds every
    pair, and few others, which are sorted out by their full distance.

    Parameters
    ----------
    descriptors : (n_frames, n_pairs) array, Å

    Returns
    -------
    (n_found, 2) int array, the smaller frame first
    """
    radius = tolerance * np.sqrt(descriptors.shape[1])
    pairs = cKDTree(_leading_components(descriptors)).query_pairs(radius, output_type="ndarray")
    return pairs[_lengths(descriptors, pairs) < radius].astype(np.int64)


def near_identical_to(
    descriptors: FloatArray, others: FloatArray, *, tolerance: float = NEAR_IDENTICAL
) -> NDArray[np.bool_]:
    """Return which frames have descriptors within `tolerance` (root mean square) of one of other frames.

    Parameters
    ----------
    descriptors : (n_frames, n_pairs) array, Å
    others : (n_others, n_pairs) array, Å

    Returns
    -------
    (n_frames,) bool array
    """
    near = np.zeros(len(descriptors), dtype=bool)
    if not len(others):
        return near
    centre = others.mean(axis=0)  # for the accuracy of products
    centred = others - centre
    for block in blocks(len(descriptors), 8 * len(others)):
        nearest = squared_distances(descriptors[block] - centre, centred).min(axis=1)
        near[block] = nearest < tolerance**2 * descriptors.shape[1]
    return near


def nearest_frames(descriptors: FloatArray, *, candidates: int = 4) -> tuple[IntArray, FloatArray]:
    """Find a near frame for each frame: the nearest of a few candidates from the search tree.

    Returns
    -------
    frames : (n_frames,) int array
    distances : (n_frames,) array, Å
        Euclidean, in the full descriptor.
    """
    n_frames = len(descriptors)
    components = _leading_components(descriptors)
    _, found = cKDTree(components).query(components, k=min(candidates + 1, n_frames))
    found = found.reshape(n_frames, -1)
    pairs = np.column_stack([np.repeat(np.arange(n_frames), found.shape[1]), found.ravel()])
    lengths = _lengths(descriptors, pairs).reshape(found.shape)
    lengths[found == np.arange(n_frames)[:, None]] = np.inf
    best = np.argmin(lengths, axis=1)
    rows = np.arange(n_frames)
    return found[rows, best].astype(np.int64), lengths[rows, best]


def neighbours(descriptors: FloatArray, n_neighbours: int) -> IntArray:
    """Find frames near each frame, by the leading principal components of the descriptors.

    Parameters
    ----------
    descriptors : (n_frames, n_pairs) array, Å
    n_neighbours : int
        At most the number of other frames.

    Returns
    -------
    (n_frames, n_neighbours) int array
        Nearest first, without the frame itself.
    """
    components = _leading_components(descriptors)
    _, found = cKDTree(components).query(components, k=n_neighbours + 1)
    # Among duplicates the frame itself need not come first, nor at all.
    others = np.argsort(found == np.arange(len(found))[:, None], axis=1, kind="stable")[:, :n_neighbours]
    return np.take_along_axis(found, others, axis=1).astype(np.int64)


def _leading_components(descriptors: FloatArray) -> FloatArray:
    centred = descriptors - descriptors.mean(axis=0)
    # Subspace iteration: any orthonormal basis gives right results, a nearly leading one gives them fast.
    # scikit-learn's randomized_svd takes 1.5 to 3 times as long here, with the same neighbours found.
    start = np.random.default_rng(0).normal(size=(centred.shape[1], min(_TREE_DIMENSIONS, centred.shape[1])))
    basis = np.linalg.qr(start)[0]
    for _ in range(_TREE_ITERATIONS):
        basis = np.linalg.qr(centred.T @ (centred @ basis))[0]
    return np.asarray(centred @ basis)


def _lengths(descriptors: FloatArray, pairs: IntArray) -> FloatArray:
    lengths = np.empty(len(pairs))
    for block in blocks(len(pairs), 8 * 2 * descriptors.shape[1]):
        difference = descriptors[pairs[block, 0]] - descriptors[pairs[block, 1]]
        lengths[block] = np.linalg.norm(difference, axis=1)
    return lengths
