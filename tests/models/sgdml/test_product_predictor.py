"""Predictions through the factors of a group are the sum over its permutations."""

import hashlib
import logging
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import needs
from symmetric_molecules import GROUPS, molecule

from ase_flatten.data.dataset import Dataset
from ase_flatten.models.sgdml import permutation_sums
from ase_flatten.models.sgdml.kernel import Geometries
from ase_flatten.models.sgdml.model import SGDMLModel, load_model_file
from ase_flatten.models.sgdml.permutation_sums import predictor_of
from ase_flatten.models.sgdml.predictor import PlainPredictor
from ase_flatten.models.sgdml.single_training import SingleTraining
from ase_flatten.utils import cores

needs("numba", extra="sgdml")

import numba  # noqa: E402

from ase_flatten.models.sgdml import product_predictor, product_sums  # noqa: E402
from ase_flatten.models.sgdml.product_predictor import ProductPredictor  # noqa: E402
from ase_flatten.utils import lanes  # noqa: E402

SIGMA = 3.0


def both(name, n_train=7):
    """Configurations, and their predictors through the factors and one by one."""
    positions, group = molecule(name, 60)
    x = Geometries.of(positions[:n_train]).descriptors
    coefficients = np.random.default_rng(3).normal(size=x.shape)
    orders = permutation_sums.pair_orders(group.permutations)
    return positions, ProductPredictor(x, coefficients, group, SIGMA), PlainPredictor(x, coefficients, orders, SIGMA)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * np.abs(other).max())


@pytest.mark.parametrize("name", GROUPS)
def test_predictions_are_the_sum_over_permutations(name):
    positions, predict, plain = both(name)
    expected = plain(positions)
    assert_same(predict(positions), expected)
    singles = [predict(position[None]) for position in positions[:5]]
    assert_same([np.concatenate(one) for one in zip(*singles, strict=True)], [one[:5] for one in expected])


def test_blocks_tiles_threads_and_a_device_agree(torch, monkeypatch):
    positions, predict, _ = both("outer")
    expected = predict(positions)
    assert_same(predict.on_device(positions, torch, "cpu"), expected)
    monkeypatch.setattr(cores, "n_cores", lambda: 3)
    monkeypatch.setattr("ase_flatten.models.sgdml.predictor.n_cores", lambda: 3)
    monkeypatch.setattr("ase_flatten.models.sgdml.predictor._WORTH_THREADS", 0)
    monkeypatch.setattr(product_predictor, "_BLOCK", 4)
    monkeypatch.setattr(product_predictor, "_TILE_PAIRS", 20)
    _, in_blocks, _ = both("outer")
    assert_same(in_blocks(positions), expected)
    assert [len(one) for one in in_blocks(positions[:0])] == [0, 0]


def test_far_configurations_and_those_that_are_no_numbers():
    positions, predict, plain = both("two rotors")
    near = positions[:3] * 0.01  # inverse distances a hundred times as large: kernels of e^-1000 and less
    assert_same(predict(near), plain(near))
    spoiled = positions[:3].copy()
    spoiled[1, 0] = np.nan
    with np.errstate(invalid="ignore"):
        found = predict(spoiled)
    assert np.isnan(found[0]).tolist() == [False, True, False]


def test_a_model_is_saved_for_the_package_and_predicts_the_same(tmp_path):
    from ase_flatten.models.sgdml.sgdml_package import package

    package()
    from sgdml.predict import GDMLPredict

    positions, group = molecule("five rotors", 20)
    rng = np.random.default_rng(0)
    numbers = np.repeat([1, 6], [15, 2])
    dataset = Dataset(numbers, positions, rng.normal(size=20), rng.normal(size=positions.shape))
    training = SingleTraining(dataset, np.arange(5), np.arange(5, 10), group.permutations, 3, 1e-8)
    model = training.model()
    assert isinstance(model._predictor, ProductPredictor)
    model.save(tmp_path)
    loaded = load_model_file(tmp_path / "model.npz")
    assert isinstance(loaded._predictor, ProductPredictor)
    expected = model.predict(positions)
    assert np.array_equal(loaded.predict(positions).forces, expected.forces)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(positions).forces, expected.forces)
    with np.load(tmp_path / "model.npz", allow_pickle=True) as archive:
        content = dict(archive)
    assert len(content["perms"]) == 243
    energies, forces = GDMLPredict(content, max_processes=1).predict(positions.reshape(len(positions), -1))
    units = model._energy
    np.testing.assert_allclose(expected.energies, energies * units, rtol=1e-9)
    assert np.linalg.norm(expected.forces.ravel() - forces.ravel() * units) < 1e-9 * np.linalg.norm(expected.forces)

    # Permutations that are no group load as well.
    order = permutation_sums.pair_orders(content["perms"][:-1])
    fewer = {**content, "perms": content["perms"][:-1], "tril_perms_lin": order}
    assert isinstance(SGDMLModel(fewer)._predictor, PlainPredictor)


def test_without_numba_permutations_are_summed_one_by_one_and_that_is_said_once(monkeypatch, caplog):
    positions, group = molecule("two rotors", 4)
    x = Geometries.of(positions).descriptors
    assert isinstance(predictor_of(x, x, group.permutations, SIGMA), ProductPredictor)
    monkeypatch.setitem(sys.modules, "ase_flatten.models.sgdml.product_predictor", None)
    permutation_sums._product_predictor.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, "ase_flatten"):
            predictors = [predictor_of(x, x, group.permutations, SIGMA) for _ in range(2)]
    finally:
        permutation_sums._product_predictor.cache_clear()
    assert all(isinstance(one, PlainPredictor) for one in predictors)
    (message,) = caplog.messages
    assert "one by one" in message and "numba cannot be imported" in message and "pip install" in message


def test_functions_are_compiled_where_no_folder_can_be_written_to(monkeypatch):
    monkeypatch.setattr(numba.core.caching.FunctionCache._impl_class, "_locator_classes", [])
    monkeypatch.delenv("NUMBA_CACHE_LOCATOR_CLASSES", raising=False)
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(lambda x: x + 1)
    assert product_sums._compiled(lambda x: x + 1)(1) == 2


def test_compiled_functions_on_disk_are_those_of_the_operations():
    digest = hashlib.sha256(Path(lanes.__file__).read_bytes()).hexdigest()[:16]
    assert digest == product_sums._LANES_DIGEST, "utils/lanes.py has changed: write its digest into product_sums.py"
