"""Sums of sGDML's kernel over all products of permutations, compiled by numba.

For a configuration and a training frame, the squared distance and the product with the coefficients of each permutation
(g_1, ..., g_K) are sums of terms of at most two factors (see `geometry.symmetry_coordinates`),

    t(g_1, ..., g_K) = t_0 + Σ_k t_k(g_k) + Σ_{a<k} t_ak(g_a, g_k),

computed factor by factor as a tree of additions. The derivatives with respect to the values v are marginal sums of
those with respect to t: the same tree backwards. The last two factors are not written out: their loop computes the
kernel. `LANES` pairs of configuration and frame are computed at a time, so that all work memory stays in the cache.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from ase_flatten.geometry.symmetry_coordinates import SymmetryCoordinates
from ase_flatten.utils.lanes import LANES, at_most, get, power_of_two, put, same, square_root
from ase_flatten.utils.typing import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Product:
    """The factors, as the compiled functions need them; factors of one element are added up to two.

    Parameters
    ----------
    sizes : (n_factors,) int array
        Number of elements.
    functions : (n_factors, most_elements, most_elements - 1) array
        The functions φ, padded.
    single : (n_factors,) int array
        The first value of each factor.
    double : (n_factors, n_factors) int array
        That of two factors, at [k, a] with a < k.
    """

    sizes: IntArray
    functions: FloatArray
    single: IntArray
    double: IntArray

    @classmethod
    def of(cls, coordinates: SymmetryCoordinates) -> "Product":
        """Take them from coordinates."""
        bases = [*coordinates.bases, *[np.empty((1, 0))] * (2 - len(coordinates.bases))]
        most = max(len(basis) for basis in bases)
        functions = np.zeros((len(bases), most, max(1, most - 1)))
        for basis, target in zip(bases, functions, strict=True):
            target[: len(basis), : len(basis) - 1] = basis
        single, double = np.zeros(len(bases), dtype=np.int64), np.zeros((len(bases),) * 2, dtype=np.int64)
        for part in coordinates.parts:
            match part.factors:
                case (k,):
                    single[k] = part.values.start
                case (a, k):
                    double[k, a] = part.values.start
        return cls(np.array([len(basis) for basis in bases]), functions, single, double)


def apply_kernel(values: FloatArray, energies: FloatArray, product: Product) -> None:
    """Sum the kernel over all permutations, and replace values by derivatives.

    Parameters
    ----------
    values : (2, n_values, n) array
        The values of -s² and of the product with the coefficients; `n` is a multiple of `LANES`. Overwritten by the
        derivatives that multiply images, then by those that multiply coefficients.
    energies : (n,) array
        Written: the sum of (1 + s) e^-s times the product.
    """
    first, second = values.reshape(2, -1, LANES)
    _sum(first, second, energies.reshape(-1, LANES), product.sizes, product.functions, product.single, product.double)


_LANES_DIGEST = "51ccacf41f6f821d"
"""Of `utils.lanes`: compiled functions on disk are in use until this file changes, so it changes with that one."""

_LOG2_E = 1 / math.log(2)
_LN_2_HIGH, _LN_2_LOW = 0.6931471803691238, 1.9082149292705877e-10
_ROUNDING = 1.5 * 2.0**52
"""Added to a number, it leaves the nearest integer in the lowest bits."""

_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12 = (1 / math.factorial(k) for k in range(2, 13))


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile a function, and keep the result on disk if there is a folder for it."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # neither the folder of this file nor that of the user's caches can be written to
        return njit(nogil=True, error_model="numpy")(function)


@_compiled
def _decay(s: Any) -> Any:
    """Return e^-s by a Taylor polynomial on [-ln 2 / 2, ln 2 / 2], and zero but for rounding beyond 700."""
    s = at_most(s, same(700.0))
    shifted = _ROUNDING - s * _LOG2_E
    n = shifted - _ROUNDING
    r = (0.0 - s) - n * _LN_2_HIGH - n * _LN_2_LOW
    p = r * _C12 + _C11
    p = p * r + _C10
    p = p * r + _C9
    p = p * r + _C8
    p = p * r + _C7
    p = p * r + _C6
    p = p * r + _C5
    p = p * r + _C4
    p = p * r + _C3
    p = p * r + _C2
    p = p * r + 1.0
    p = p * r + 1.0
    return p * power_of_two(shifted)


@_compiled
def _sum(first: Any, second: Any, energies: Any, sizes: Any, functions: Any, single: Any, double: Any) -> None:
    """Do the work of `apply_kernel`; arrays of lanes have a row for each value and group of lanes."""
    step = len(energies)
    n_i, n_j = sizes[-2], sizes[-1]
    most = sizes.max()
    n_rest = 1
    for size in sizes[:-2]:
        n_rest *= size
    # Of the last factor but one and of the last one, each with all earlier ones, and of both.
    scaled_i, dot_i = np.empty((n_rest * n_i, LANES)), np.empty((n_rest * n_i, LANES))
    scaled_j, dot_j = np.empty((n_rest * n_j, LANES)), np.empty((n_rest * n_j, LANES))
    scaled_ij, dot_ij = np.empty((n_i * n_j, LANES)), np.empty((n_i * n_j, LANES))
    images_i, alphas_i = np.empty((n_rest * n_i, LANES)), np.empty((n_rest * n_i, LANES))
    images_j, alphas_j = np.empty((n_rest * n_j, LANES)), np.empty((n_rest * n_j, LANES))
    images_ij, alphas_ij = np.empty((n_i * n_j, LANES)), np.empty((n_i * n_j, LANES))
    work = np.empty((2, most * most, LANES)), np.empty((n_rest * most, LANES))
    group = sizes, functions, single, double
    for row in range(step):
        _expand(first, row, step, scaled_i, scaled_j, scaled_ij, work, group)
        _expand(second, row, step, dot_i, dot_j, dot_ij, work, group)
        for ij in range(n_i * n_j):
            put(images_ij, ij, same(0.0))
            put(alphas_ij, ij, same(0.0))
        energy = same(0.0)
        for rest in range(n_rest):
            for j in range(n_j):
                put(images_j, rest * n_j + j, same(0.0))
                put(alphas_j, rest * n_j + j, same(0.0))
            for i in range(n_i):
                at_i = rest * n_i + i
                image, alpha = same(0.0), same(0.0)
                for j in range(n_j):
                    at_j, at_ij = rest * n_j + j, i * n_j + j
                    s = square_root(get(scaled_i, at_i) + get(scaled_j, at_j) + get(scaled_ij, at_ij))
                    dot = get(dot_i, at_i) + get(dot_j, at_j) + get(dot_ij, at_ij)
                    decay = _decay(s)
                    kernel = decay + s * decay
                    energy = energy + kernel * dot
                    dot = dot * decay
                    kernel = kernel + kernel
                    image, alpha = image + dot, alpha + kernel
                    put(images_j, at_j, get(images_j, at_j) + dot)
                    put(alphas_j, at_j, get(alphas_j, at_j) + kernel)
                    put(images_ij, at_ij, get(images_ij, at_ij) + dot)
                    put(alphas_ij, at_ij, get(alphas_ij, at_ij) + kernel)
                put(images_i, at_i, image)
                put(alphas_i, at_i, alpha)
        put(energies, row, energy)
        _contract(first, row, step, images_i, images_j, images_ij, work, group)
        _contract(second, row, step, alphas_i, alphas_j, alphas_ij, work, group)


@_compiled
def _expand(values: Any, row: Any, step: Any, of_i: Any, of_j: Any, of_ij: Any, work: Any, group: Any) -> None:
    """Sum the terms of all factors but the last one, of the last one with all but its neighbour, and of these two."""
    sizes = group[0]
    pair, single = work
    last = len(sizes) - 1
    n_before = 1
    put(of_i, 0, get(values, row))
    for k in range(last):
        _terms(values, row, step, single, pair, k, k, group)
        for before in range(n_before - 1, -1, -1):
            total = get(of_i, before)
            for g in range(sizes[k]):
                put(of_i, before * sizes[k] + g, total + get(single, before * sizes[k] + g))
        n_before *= sizes[k]
    _terms(values, row, step, of_j, pair, last, last - 1, group)
    _terms_of_two(values, row, step, of_ij, pair[1], last, last - 1, group)


@_compiled
def _contract(values: Any, row: Any, step: Any, of_i: Any, of_j: Any, of_ij: Any, work: Any, group: Any) -> None:
    """Do the reverse of `_expand`: write the marginal sums to `values`."""
    sizes = group[0]
    pair, single = work
    last = len(sizes) - 1
    _marginals_of_two(values, row, step, of_ij, pair[1], last, last - 1, group)
    _marginals(values, row, step, of_j, pair, last, last - 1, group)
    n_before = 1
    for k in range(last):
        n_before *= sizes[k]
    for k in range(last - 1, -1, -1):
        n_before //= sizes[k]
        for before in range(n_before):
            total = same(0.0)
            for g in range(sizes[k]):
                one = get(of_i, before * sizes[k] + g)
                put(single, before * sizes[k] + g, one)
                total = total + one
            put(of_i, before, total)
        _marginals(values, row, step, single, pair, k, k, group)
    put(values, row, get(of_i, 0))


@_compiled
def _terms(values: Any, row: Any, step: Any, out: Any, pair: Any, k: Any, n_others: Any, group: Any) -> None:
    """Write the terms of factor `k`, alone and with each of the first `n_others`: rows (g_0, ..., g_k)."""
    sizes, functions, single, _ = group
    n = sizes[k]
    for g in range(n):
        total = same(0.0)
        for r in range(n - 1):
            total = total + functions[k, g, r] * get(values, (single[k] + r) * step + row)
        put(out, g, total)
    n_before = 1
    for a in range(n_others):
        of_two, old = pair[0], pair[1]
        _terms_of_two(values, row, step, of_two, old, k, a, group)
        for before in range(n_before - 1, -1, -1):
            for g in range(n):
                put(old, g, get(out, before * n + g))
            for i in range(sizes[a]):
                for g in range(n):
                    put(out, (before * sizes[a] + i) * n + g, get(old, g) + get(of_two, i * n + g))
        n_before *= sizes[a]


@_compiled
def _marginals(values: Any, row: Any, step: Any, out: Any, pair: Any, k: Any, n_others: Any, group: Any) -> None:
    """Do the reverse of `_terms`; `out` is overwritten."""
    sizes, functions, single, _ = group
    n = sizes[k]
    n_before = 1
    for a in range(n_others):
        n_before *= sizes[a]
    for a in range(n_others - 1, -1, -1):
        of_two = pair[0]
        n_before //= sizes[a]
        for ig in range(sizes[a] * n):
            put(of_two, ig, same(0.0))
        for before in range(n_before):
            for g in range(n):
                total = same(0.0)
                for i in range(sizes[a]):
                    one = get(out, (before * sizes[a] + i) * n + g)
                    put(of_two, i * n + g, get(of_two, i * n + g) + one)
                    total = total + one
                put(out, before * n + g, total)
        _marginals_of_two(values, row, step, of_two, pair[1], k, a, group)
    for r in range(n - 1):
        total = same(0.0)
        for g in range(n):
            total = total + functions[k, g, r] * get(out, g)
        put(values, (single[k] + r) * step + row, total)


@_compiled
def _terms_of_two(values: Any, row: Any, step: Any, out: Any, half: Any, k: Any, a: Any, group: Any) -> None:
    """Write the terms of factors `a` and `k` together, rows (g_a, g_k)."""
    sizes, functions, _, double = group
    n = sizes[k]
    for s in range(sizes[a] - 1):
        for g in range(n):
            total = same(0.0)
            for r in range(n - 1):
                total = total + functions[k, g, r] * get(values, (double[k, a] + s * (n - 1) + r) * step + row)
            put(half, s * n + g, total)
    for i in range(sizes[a]):
        for g in range(n):
            total = same(0.0)
            for s in range(sizes[a] - 1):
                total = total + functions[a, i, s] * get(half, s * n + g)
            put(out, i * n + g, total)


@_compiled
def _marginals_of_two(values: Any, row: Any, step: Any, out: Any, half: Any, k: Any, a: Any, group: Any) -> None:
    """Do the reverse of `_terms_of_two`."""
    sizes, functions, _, double = group
    n = sizes[k]
    for s in range(sizes[a] - 1):
        for g in range(n):
            total = same(0.0)
            for i in range(sizes[a]):
                total = total + functions[a, i, s] * get(out, i * n + g)
            put(half, s * n + g, total)
        for r in range(n - 1):
            total = same(0.0)
            for g in range(n):
                total = total + functions[k, g, r] * get(half, s * n + g)
            put(values, (double[k, a] + s * (n - 1) + r) * step + row, total)
