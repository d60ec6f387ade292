"""The growing factor: any growth gives the last bit of what all at once gives."""

import logging
import pickle
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kernel import cartesian, closed_group, configurations, matrix

from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.models.sgdml import FAMILY, factor, kernel
from ase_flatten.models.sgdml.cholesky import BlockCholesky, NotPositiveDefiniteError
from ase_flatten.models.sgdml.factor import KernelFactor, TrainingGeometries, frames_per_block
from ase_flatten.models.sgdml.kernel import Geometries
from ase_flatten.models.sgdml.model import SGDMLModel
from ase_flatten.models.sgdml.sgdml_package import train as train_by_package
from ase_flatten.models.sgdml.single_training import SingleTraining
from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils.exceptions import BackendError, InputError
from ase_flatten.workflow.run_folder import RunSettings
from ase_flatten.workflow.train_run import train

some = settings(max_examples=30, deadline=None)
VALID = np.arange(3, 300, 6)


def fit(dataset, frames, *, previous=None, **options):
    trainer = FAMILY.trainer(**{"sigma": 10, **options})
    return trainer.fit(dataset, frames, VALID, rng=np.random.default_rng(0), previous=previous)


class TestBlocks:
    @some
    @given(st.integers(1, 60), st.integers(1, 25), st.integers(0, 2**32))
    def test_the_factor_solves(self, size, block, seed):
        rng = np.random.default_rng(seed)
        half = rng.normal(size=(size, size + 3))
        a, b = half @ half.T + 0.1 * np.eye(size), rng.normal(size=size)
        cholesky = BlockCholesky(block)
        for start in range(0, size, block):
            rows = a[start : start + block]
            cholesky.append(rows[:, :start].copy(), rows[:, start : start + block].copy())
        assert cholesky.size == size
        np.testing.assert_allclose(cholesky.solve(b), np.linalg.solve(a, b), rtol=1e-6, atol=1e-7)

    def test_stripes_and_halves_of_large_blocks(self):
        rng = np.random.default_rng(0)
        half = rng.normal(size=(700, 750))
        a, b = half @ half.T, rng.normal(size=700)
        cholesky = BlockCholesky(300)
        for start in range(0, 700, 300):
            rows = a[start : start + 300]
            cholesky.append(rows[:, :start].copy(), rows[:, start : start + 300].copy())
        np.testing.assert_allclose(a @ cholesky.solve(b), b, atol=1e-9)
        assert cholesky.nbytes < 0.75 * a.nbytes

    def test_what_has_no_factor_is_refused_and_the_rest_stays(self):
        cholesky = BlockCholesky(2)
        cholesky.append(np.empty((2, 0)), np.eye(2))
        with pytest.raises(NotPositiveDefiniteError, match="pivot 3"):
            cholesky.append(np.zeros((2, 2)), np.diag([1.0, -1.0]))
        assert cholesky.size == 2
        np.testing.assert_allclose(cholesky.solve(np.array([1.0, 2.0])), [1, 2])

    def test_values_that_are_not_finite_are_refused(self):
        with pytest.raises(NotPositiveDefiniteError):
            BlockCholesky(2).append(np.empty((2, 0)), np.full((2, 2), np.nan))


class TestGrowth:
    @some
    @given(st.integers(0, 2**32), st.lists(st.integers(1, 7), min_size=1, max_size=5), st.integers(2, 5))
    def test_uneven_steps_equal_all_at_once(self, seed, steps, n_atoms):
        rng = np.random.default_rng(seed)
        numbers = rng.choice([1, 1, 6], n_atoms)
        positions = configurations(sum(steps), n_atoms, rng)
        forces = rng.normal(size=positions.shape)
        permutations = closed_group(numbers, rng)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(factor, "_BLOCK_ROWS", 5 * 3 * n_atoms)
            grown = KernelFactor(TrainingGeometries(positions[: steps[0]], permutations), 3.0, 1e-6)
            for stop in np.cumsum(steps)[1:]:
                grown.grow(positions[len(grown) : stop])
            whole = KernelFactor(TrainingGeometries(positions, permutations), 3.0, 1e-6)
        one, other = grown.solve(forces), whole.solve(forces)
        assert np.array_equal(one.alphas, other.alphas)
        assert np.array_equal(one.descriptor_alphas, other.descriptor_alphas)

        # And both solve the equations of the package, net forces and torques included.
        geometries = Geometries.of(positions)
        full = cartesian(matrix(positions, permutations, 3.0), geometries, geometries) + 1e-6 * np.eye(forces.size)
        labels = forces.ravel() / np.std(forces)
        np.testing.assert_allclose(-full @ other.alphas.ravel(), labels, atol=1e-7)

    def test_block_rows_divide_round_steps(self):
        assert {frames_per_block(n_atoms) for n_atoms in range(3, 60)} <= {1, 2, 5, 10, 20, 25, 50, 100, 200, 500}
        assert (frames_per_block(9), frames_per_block(16), frames_per_block(42)) == (100, 50, 10)

    def test_distances_are_computed_once_for_all_length_scales(self, ethanol_like, monkeypatch):
        task = SingleTraining(ethanol_like, np.arange(0, 300, 10), VALID, np.arange(9)[None], 10, 1e-10)
        calls = []
        original = kernel.image_distances
        monkeypatch.setattr(kernel, "image_distances", lambda *given: calls.append(1) or original(*given))
        for sigma in (5, 10, 20):
            task.at(sigma=sigma).train()
        assert len(calls) == 1
        monkeypatch.setattr(factor, "_KEPT_DISTANCES", 0)
        one = SingleTraining(ethanol_like, task.frames, VALID, task.permutations, 10, 1e-10).train()[0]
        assert np.array_equal(one["alphas_F"], task.train()[0]["alphas_F"])


class TestTrainer:
    def test_the_factor_passes_on_and_lives_once(self, ethanol_like):
        frames = np.random.default_rng(1).permutation(300)[:60]
        first = fit(ethanol_like, frames[:40])
        held = first.factor
        assert held is not None and len(held) == 40
        second = fit(ethanol_like, frames, previous=first)
        assert first.factor is None and second.factor is held and len(held) == 60
        again = fit(ethanol_like, frames, previous=first)
        at_once = fit(ethanol_like, frames)
        for other in (again, at_once):
            for key in ("alphas_F", "R_d_desc_alpha", "R_desc", "c", "std"):
                assert np.array_equal(second.content[key], other.content[key]), key

    def test_a_resumed_growth_is_the_same_to_the_last_bit(self, ethanol_like, tmp_path):
        frames = np.random.default_rng(2).permutation(300)[:50]
        first = fit(ethanol_like, frames[:30])
        first.save(tmp_path)
        resumed = fit(ethanol_like, frames, previous=FAMILY.load(tmp_path))
        unbroken = fit(ethanol_like, frames, previous=first)
        positions = ethanol_like.positions
        assert np.array_equal(resumed.predict(positions).forces, unbroken.predict(positions).forces)
        assert np.array_equal(resumed.predict(positions).energies, unbroken.predict(positions).energies)
        assert resumed.factor is not None

    def test_models_beside_the_growing_one_keep_nothing_and_take_nothing(self, ethanol_like):
        first = fit(ethanol_like, np.arange(0, 300, 10))
        beside = fit(ethanol_like, np.arange(1, 300, 10), previous=first)
        assert beside.factor is None and first.factor is not None
        other_data = ethanol_like.take(np.arange(300)[::-1])
        assert fit(other_data, np.arange(0, 300, 10), previous=first).factor is None

    def test_the_factor_is_neither_saved_nor_pickled(self, ethanol_like, tmp_path):
        model = fit(ethanol_like, np.arange(0, 300, 10))
        assert pickle.loads(pickle.dumps(model)).factor is None
        model.save(tmp_path)
        assert FAMILY.load(tmp_path).factor is None

    def test_one_factor_lives_at_a_time(self, water, tmp_path, monkeypatch):
        alive, counts = weakref.WeakSet(), []
        original = KernelFactor.__init__

        def counted(self, *given, **options):
            alive.add(self)
            counts.append(len(alive))
            original(self, *given, **options)

        monkeypatch.setattr(KernelFactor, "__init__", counted)
        schedule = Schedule(n_steps=2, n_initial=10, step_size=5)
        run_settings = RunSettings(schedule=schedule, n_geometry=4, n_energy=3, seed=1)
        train(water, tmp_path / "run", run_settings, on_step=lambda step: counts.append(f"step {step.number}"))
        first = counts.index("step 0")
        assert max(counts[:first]) <= 2  # the best so far, and the next length scale
        assert counts[first : first + 3] == ["step 0", "step 1", "step 2"]  # grown, not made
        assert set(counts[first + 3 :]) == {1}  # the default models and the last check, one after the other
        assert len(alive) == 0

    def test_settings_of_the_previous_model_are_kept(self, ethanol_like):
        first = fit(ethanol_like, np.arange(0, 300, 10), regularisation=1e-8, sigma=30)
        larger = fit(ethanol_like, np.arange(0, 300, 10), previous=first, regularisation=1e-10)
        assert larger.hyper_parameters == first.hyper_parameters

    @pytest.mark.parametrize("symmetries", [True, False])
    def test_the_package_finds_the_same_model(self, ethanol_like, symmetries):
        model = fit(ethanol_like, np.arange(0, 300, 6), symmetries=symmetries)
        assert (len(model.permutations) > 1) == symmetries
        task = SingleTraining(ethanol_like, np.arange(0, 300, 6), VALID, model.permutations, 10, 1e-10)
        package = train_by_package(task.entries(1e-10))
        assert package["solver_name"] == "analytic"
        for key in ("alphas_F", "R_d_desc_alpha"):
            difference = np.linalg.norm(model.content[key] - package[key])
            assert difference < 1e-5 * np.linalg.norm(package[key]), key
        expected = SGDMLModel(package).predict(ethanol_like.positions)
        found = model.predict(ethanol_like.positions)
        difference = np.linalg.norm(found.forces - expected.forces)
        assert difference < 1e-6 * np.linalg.norm(expected.forces)
        # The package takes the constant over the training frames.
        constant = model.content["c"] - package["c"]
        np.testing.assert_allclose(found.energies - constant * KCAL_PER_MOL, expected.energies, atol=1e-6)
        assert set(package) <= set(model.content) | {"f_err", "e_err", "md5_test"}
        assert np.array_equal(model.content["tril_perms_lin"], package["tril_perms_lin"])

    def test_jitter_is_recorded_kept_and_settled(self, water, caplog):
        frames = np.array([*range(0, 60, 3), 0, 3, 3])  # frames that occur twice
        with caplog.at_level(logging.WARNING):
            model = fit(water, frames, regularisation=0.0)
        assert "not positive definite" in caplog.text
        raised = model.hyper_parameters["lambda"]
        assert 0 < raised <= 1e-8
        assert np.isfinite(model.predict(water.positions).forces).all()
        plain = fit(water, np.arange(20), regularisation=0.0, symmetries=False)
        settled = FAMILY.trainer(sigma=10).settle(
            water, [(frames, model), (np.arange(20), plain)], VALID, rng=np.random.default_rng(0)
        )
        assert settled[0] is model
        assert settled[1].hyper_parameters["lambda"] == raised

    def test_growth_into_trouble_starts_anew_with_jitter(self, water, caplog):
        frames = np.arange(0, 60, 3)
        first = fit(water, frames, regularisation=0.0)
        model = fit(water, np.concatenate([frames, frames]), previous=first)
        assert model.hyper_parameters["lambda"] > 0
        assert model.factor is not None and len(model.factor) == 40

    def test_hopeless_data_are_refused(self, water):
        spoiled = water.positions.copy()
        spoiled[4, 0] = np.nan
        dataset = water.take(np.arange(416))
        object.__setattr__(dataset, "positions", spoiled)
        with pytest.raises(BackendError, match="expected a positive definite kernel matrix of 10 training frames"):
            fit(dataset, np.arange(10), symmetries=False)

    def test_length_scales_are_compared_on_a_part_and_confirmed_on_the_whole(self, water, monkeypatch):
        monkeypatch.setattr("ase_flatten.models.sgdml.length_scale.SEARCH_FRAMES", 15)
        sizes = []
        original = SingleTraining.train
        monkeypatch.setattr(
            SingleTraining, "train", lambda self, **given: sizes.append(len(self.frames)) or original(self, **given)
        )
        trainer, valid = FAMILY.trainer(), np.arange(5, 416, 9)
        sets = [np.arange(0, 416, 14), np.arange(1, 416, 14)]
        model = trainer.fit(water, sets[0], valid, rng=np.random.default_rng(0))
        assert len(sizes) > 2 and set(sizes[:-1]) == {15} and sizes[-1] == 30
        assert model.factor is not None and len(model.factor) == 30

        bad = [fit(water, frames, sigma=200) for frames in sets]
        sizes.clear()
        settled = trainer.settle(water, list(zip(sets, bad, strict=True)), valid, rng=np.random.default_rng(0))
        assert len({one.sigma for one in settled}) == 1 and settled[0].sigma < 150
        assert [len(one.content["idxs_train"]) for one in settled] == [30, 30]
        assert set(sizes[:-2]) == {15} and sizes[-2:] == [30, 30]

        # What helps the parts alone changes nothing.
        judged = iter([True])
        monkeypatch.setattr("ase_flatten.models.sgdml.length_scale.gains", lambda *_, **__: next(judged, False))
        kept = trainer.settle(water, list(zip(sets, bad, strict=True)), valid, rng=np.random.default_rng(0))
        assert kept == bad

    @pytest.mark.parametrize("wrong", [-1e-10, 1.0])
    def test_senseless_regularisations_are_refused(self, wrong):
        with pytest.raises(InputError, match="regularisation must be a number from 0 to"):
            FAMILY.trainer(regularisation=wrong)

    def test_what_does_not_fit_into_memory_is_iterated_by_the_package(self, water, caplog, monkeypatch):
        frames = np.arange(0, 400, 20)
        exact = fit(water, frames)
        monkeypatch.setattr("ase_flatten.models.sgdml.single_training.available_bytes", lambda: 100_000)
        with caplog.at_level(logging.WARNING, logger="ase_flatten"):
            model = fit(water, frames, previous=exact)
        assert "iterative solver" in caplog.text
        assert str(model.content["solver_name"]) == "cg"
        assert exact.factor is None or len(exact.factor) == 0
        assert np.array_equal(model.permutations, exact.permutations) and model.sigma == exact.sigma
        found, expected = (one.predict(water.positions).forces for one in (model, exact))
        assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
