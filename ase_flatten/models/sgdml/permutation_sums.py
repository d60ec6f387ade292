"""Which way to sum over permutations: one by one, or through the factors of a direct product."""

import logging
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ase_flatten.geometry.symmetry_group import SymmetryGroup
from ase_flatten.models.sgdml.kernel import pair_orders
from ase_flatten.models.sgdml.predictor import PlainPredictor, Predictor
from ase_flatten.utils.exceptions import InputError, installation
from ase_flatten.utils.typing import FloatArray, IntArray

if TYPE_CHECKING:
    from ase_flatten.models.sgdml.product_predictor import ProductPredictor

log = logging.getLogger(__name__)

LEAST_PRODUCTS = 9
"""From so many products of local permutations on, factors are used: with nine, predictions are five times as fast."""

LARGEST_FACTOR = 24
"""The work for a factor grows with the square of its elements: with larger ones, plain sums are faster."""


def product_group(permutations: IntArray) -> SymmetryGroup | None:
    """Return permutations as a direct product, if sums through its factors pay; otherwise None.

    They do not pay for few products, for a single factor, such as the symmetries of benzene, and for large factors.
    Permutations that are no group, which the `sgdml` package may find, have none.
    """
    if len(permutations) < LEAST_PRODUCTS:
        return None
    array = np.ascontiguousarray(permutations, dtype=np.int64)
    group = _group(array.tobytes(), array.shape[1])
    if group is None or len(group.factors) < 2 or max(len(factor) for factor in group.factors) > LARGEST_FACTOR:
        return None
    return group if group.n_products >= LEAST_PRODUCTS else None


def predictor_of(descriptors: FloatArray, coefficients: FloatArray, permutations: IntArray, sigma: float) -> Predictor:
    """Return the predictor of a model; see `PlainPredictor` for the arrays, and `product_group` for the choice.

    Without numba, which the extra `sgdml` brings, permutations are summed one by one, and a warning says so.
    """
    group = product_group(permutations)
    through_factors = None if group is None else _product_predictor()
    if group is None or through_factors is None:
        return PlainPredictor(descriptors, coefficients, pair_orders(permutations), sigma)
    return through_factors(descriptors, coefficients, group, sigma)


@cache
def _product_predictor() -> "type[ProductPredictor] | None":
    """Return the predictor that needs numba; None if numba is missing or does not fit the version of NumPy."""
    try:
        from ase_flatten.models.sgdml.product_predictor import ProductPredictor
    except ImportError as error:
        log.warning(
            "predictions sum over permutations one by one, which takes longer: numba cannot be imported (%s); %s",
            error, installation("sgdml"),
        )  # fmt: skip
        return None
    return ProductPredictor


@lru_cache(maxsize=8)
def _group(permutations: bytes, n_atoms: int) -> SymmetryGroup | None:
    try:
        return SymmetryGroup.of(np.frombuffer(permutations, dtype=np.int64).reshape(-1, n_atoms))
    except InputError:
        return None
