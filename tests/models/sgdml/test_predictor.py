"""Predictions: the same from one configuration, many, several threads, a device, and the `sgdml` package."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from test_kernel import molecules

from ase_flatten.models.sgdml import predictor
from ase_flatten.models.sgdml.kernel import Geometries, pair_orders
from ase_flatten.models.sgdml.predictor import PlainPredictor, Predictor
from ase_flatten.utils import cores

SIGMA = 3.0


def made_up(positions, permutations, seed=0):
    """A predictor with coefficients that do not cancel each other."""
    descriptors = Geometries.of(positions).descriptors
    coefficients = np.random.default_rng(seed).normal(size=descriptors.shape)
    return PlainPredictor(descriptors, coefficients, pair_orders(permutations), SIGMA), descriptors, coefficients


def directly(positions, descriptors, coefficients, permutations):
    """Energies and forces term by term, as the paper writes them."""
    i, j = np.tril_indices(positions.shape[1], -1)
    energies, forces = np.zeros(len(positions)), np.zeros(positions.shape)
    for frame, position in enumerate(positions):
        pair = position[i] - position[j]
        inverse = 1 / np.linalg.norm(pair, axis=1)
        along = np.zeros_like(inverse)
        for order in pair_orders(permutations):
            for x, alpha in zip(descriptors[:, order], coefficients[:, order], strict=True):
                d, q = inverse - x, np.sqrt(5) / SIGMA
                decay = 5 / (3 * SIGMA**2) * np.exp(-q * np.linalg.norm(d))
                scaled = (1 + q * np.linalg.norm(d)) * decay
                energies[frame] += scaled * (d @ alpha)
                along += q**2 * decay * (d @ alpha) * d - scaled * alpha
        each = (-along * inverse**3)[:, None] * pair
        np.add.at(forces[frame], i, each)
        np.add.at(forces[frame], j, -each)
    return energies, forces


@settings(max_examples=20, deadline=None)
@given(molecules(n_frames=6))
def test_predictions_are_the_sum_over_images(molecule):
    positions, permutations = molecule
    predict, descriptors, coefficients = made_up(positions[:4], permutations)
    energies, forces = predict(positions)
    expected = directly(positions, descriptors, coefficients, permutations)
    np.testing.assert_allclose(energies, expected[0], atol=1e-11 * np.abs(expected[0]).max())
    np.testing.assert_allclose(forces, expected[1], atol=1e-11 * np.abs(expected[1]).max())


@pytest.fixture
def ethanol(ethanol_like):
    permutations = np.array([[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 6, 5, 7, 8]])
    return ethanol_like.positions, permutations, *made_up(ethanol_like.positions[::2], permutations)


def test_the_package_predicts_the_same(ethanol, ethanol_like):
    from ase_flatten.models.sgdml.sgdml_package import package

    package()
    from sgdml.predict import GDMLPredict

    positions, permutations, predict, descriptors, coefficients = ethanol
    positions, orders = positions[:40], pair_orders(permutations)
    content = {
        "type": "m", "z": ethanol_like.numbers, "sig": SIGMA, "R_desc": descriptors.T, "R_d_desc_alpha": coefficients,
        "c": 0.0, "std": 1.0, "perms": permutations,
        "tril_perms_lin": (orders + orders.shape[1] * np.arange(2)[:, None]).flatten("F"),
    }  # fmt: skip
    energies, forces = GDMLPredict(content, max_processes=1).predict(positions.reshape(len(positions), -1))
    found = predict(positions)
    np.testing.assert_allclose(found[0], energies, rtol=1e-9)
    assert np.linalg.norm(found[1].ravel() - forces.ravel()) < 1e-9 * np.linalg.norm(forces)


def test_one_at_a_time_several_threads_and_a_device_agree(ethanol, torch, monkeypatch):
    positions, _, predict, _, _ = ethanol
    energies, forces = predict(positions)
    scale = np.abs(forces).max()
    monkeypatch.setattr(predictor, "_GPU_TILE", 64)
    monkeypatch.setattr(predictor, "GPU_BLOCK", 300)
    ways = [predict.on_device(positions, torch, "cpu")]
    singles = [predict(position[None]) for position in positions[:20]]
    monkeypatch.setattr(predictor, "n_cores", lambda: 3)
    monkeypatch.setattr(cores, "n_cores", lambda: 3)
    ways.append(predict(positions))
    for other in ways:
        np.testing.assert_allclose(other[0], energies, rtol=1e-11)
        np.testing.assert_allclose(other[1], forces, atol=1e-11 * scale)
    np.testing.assert_allclose(np.concatenate([one[1] for one in singles]), forces[:20], atol=1e-11 * scale)


def test_a_device_is_used_where_there_is_one(ethanol, torch, monkeypatch):
    positions, _, predict, _, _ = ethanol
    calls = []
    monkeypatch.setattr(predictor, "torch_with_cuda", lambda: torch)
    monkeypatch.setattr(Predictor, "on_device", lambda self, *given: calls.append(given[2]) or ("energies", "forces"))
    assert predict(positions) == ("energies", "forces") and calls == ["cuda"]
    predict(positions[:1])
    assert len(calls) == 1


def test_torch_is_not_imported_without_a_driver(monkeypatch):
    monkeypatch.setattr(predictor.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    predictor.torch_with_cuda.cache_clear()
    assert predictor.torch_with_cuda() is None
    predictor.torch_with_cuda.cache_clear()


def test_results_are_nobodys_buffer_and_threads_do_not_meet(ethanol):
    positions, _, predict, _, _ = ethanol
    expected = [predict(positions[k : k + 1])[1].copy() for k in range(8)]
    first = predict(positions[:1])[1]
    wrong = []

    def work(k):
        for _ in range(20):
            if not np.array_equal(predict(positions[k : k + 1])[1], expected[k]):
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    assert np.array_equal(first, expected[0])


def test_no_configurations_give_no_predictions(ethanol):
    energies, forces = ethanol[2](ethanol[0][:0])
    assert energies.shape == (0,) and forces.shape == (0, 9, 3)


class TestThreads:
    def test_all_pieces_are_done_and_errors_come_through(self, monkeypatch):
        monkeypatch.setattr(cores, "n_cores", lambda: 2)
        done = []
        cores.on_all_cores(done.append, range(10))
        assert sorted(done) == list(range(10))
        with pytest.raises(ZeroDivisionError):
            cores.on_all_cores(lambda piece: 1 / piece, [1, 0, 2])

    def test_the_last_to_leave_lifts_the_limit(self):
        blas = cores._blas()

        def n_threads():
            return {library["num_threads"] for library in blas.info() if library["user_api"] == "blas"}

        with blas.limit(limits=2, user_api="blas"):
            before = n_threads()
            first, second = cores.one_core(), cores.one_core()
            first.__enter__()
            second.__enter__()
            first.__exit__(None, None, None)
            assert n_threads() == {1}
            second.__exit__(None, None, None)
            assert n_threads() == before

    @pytest.mark.parametrize(("wanted", "most"), [("1", 1), ("2,1", 2), ("many", 10_000), ("", 10_000)])
    def test_fewer_cores_can_be_asked_for(self, monkeypatch, wanted, most):
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
        assert 1 <= cores.n_cores() <= most
