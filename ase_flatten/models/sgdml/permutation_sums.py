"""Which way to sum over permutations: one by one, or through the factors of a direct product."""

from functools import lru_cache
from importlib.util import find_spec

import numpy as np

from ase_flatten.geometry.symmetry_group import SymmetryGroup
from ase_flatten.models.sgdml.kernel import pair_orders
from ase_flatten.models.sgdml.predictor import PlainPredictor, Predictor
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import FloatArray, IntArray

LEAST_PRODUCTS = 9
"""From so many products of local permutations on, factors are used: with nine, predictions are five times as fast."""


def product_group(permutations: IntArray) -> SymmetryGroup | None:
    """Return permutations as a direct product, if sums through its factors pay; otherwise None.

    They do not pay for few products. Permutations that are no group, which the `sgdml` package may find, have none.
    """
    if len(permutations) < LEAST_PRODUCTS:
        return None
    array = np.ascontiguousarray(permutations, dtype=np.int64)
    group = _group(array.tobytes(), array.shape[1])
    return group if group is not None and group.n_products >= LEAST_PRODUCTS else None


def predictor_of(descriptors: FloatArray, coefficients: FloatArray, permutations: IntArray, sigma: float) -> Predictor:
    """Return the predictor of a model; see `PlainPredictor` for the arrays, and `product_group` for the choice.

    Without numba, which the extra `sgdml` brings, permutations are summed one by one.
    """
    group = product_group(permutations)
    if group is None or find_spec("numba") is None:
        return PlainPredictor(descriptors, coefficients, pair_orders(permutations), sigma)
    from ase_flatten.models.sgdml.product_predictor import ProductPredictor  # imports numba

    return ProductPredictor(descriptors, coefficients, group, sigma)


@lru_cache(maxsize=8)
def _group(permutations: bytes, n_atoms: int) -> SymmetryGroup | None:
    try:
        return SymmetryGroup.of(np.frombuffer(permutations, dtype=np.int64).reshape(-1, n_atoms))
    except InputError:
        return None
