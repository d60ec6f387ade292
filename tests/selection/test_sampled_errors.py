"""Errors estimated on subsets, held against those of all frames."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import WATER_SETTINGS

from ase_flatten.clustering.clusters import Clustering
from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.clustering.splits import split
from ase_flatten.models import family
from ase_flatten.selection import sampled_errors
from ase_flatten.selection.cluster_errors import FrameErrors, by_cluster
from ase_flatten.selection.flattening import flatten
from ase_flatten.selection.sampled_errors import SubsetRule, complete, estimate_errors
from ase_flatten.utils.exceptions import InputError

FACTOR = 1.1
LEVELS = np.array([0.5, 0.7, 0.8, 0.95, 1.0, 1.05, 1.2, 1.5, 2.0, 3.0])
"""RMSE of the clusters before scaling; the overall one is about 1.2."""


def made_up(tail=0.5, size=400, seed=0):
    """Make clusters of different errors, log-normal within each, and two of less than n_first frames."""
    rng = np.random.default_rng(seed)
    sizes = [*rng.integers(size // 2, size * 3 // 2, size=len(LEVELS)), 1, 15]
    labels = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    levels = np.append(LEVELS, [0.9, 2.5])
    mse = levels[labels] ** 2 * np.exp(tail * rng.normal(size=len(labels)) - tail**2 / 2)
    energy = rng.normal(size=len(labels)) * np.sqrt(mse)
    return FrameErrors(np.arange(len(labels)), mse, 0.8 * np.sqrt(mse), energy), Clustering(labels)


class LookUp:
    """Return errors that are known, and note the sizes of the calls."""

    def __init__(self, known):
        self.known, self.calls = known, []

    def __call__(self, frames):
        self.calls.append(len(frames))
        assert len(set(frames.tolist())) == len(frames)
        named = (getattr(self.known, name)[frames] for name in ("force_mse", "force_mae", "energy"))
        return FrameErrors(frames, *named)


@pytest.fixture
def estimate():
    """Estimate errors that are known; give the estimate, and the sizes of its calls."""

    def run(known, clustering, seed, rule=None, frames=None):
        errors_of = LookUp(known)
        found = estimate_errors(
            errors_of, clustering, known.frames if frames is None else frames,
            factor=FACTOR, rule=rule or SubsetRule(), rng=np.random.default_rng(seed),
        )  # fmt: skip
        return found, errors_of.calls

    return run


@pytest.mark.parametrize("tail", [0.5, 1.0])
def test_the_overall_errors_are_unbiased(estimate, tail):
    known, clustering = made_up(tail)
    exact = by_cluster(known, clustering)
    found = [estimate(known, clustering, seed)[0].clusters for seed in range(300)]
    for name, power in (("overall_rmse", 2), ("overall_mae", 1), ("overall_energy_rmse", 2), ("overall_energy_mae", 1)):
        values = np.array([getattr(clusters, name) for clusters in found]) ** power
        error = np.std(values) / np.sqrt(len(values))
        assert abs(values.mean() - getattr(exact, name) ** power) < 3.5 * error, name
        assert error < 0.02 * values.mean()


def test_an_estimate_that_let_the_stopping_in_would_be_caught(estimate):
    """The mean over all that was drawn of a cluster near the threshold leans, by many of its standard errors."""
    known, clustering = made_up(1.0)
    near = 6
    leaning = np.array([estimate(known, clustering, seed)[0].clusters.rmse[near] ** 2 for seed in range(300)])
    error = np.std(leaning) / np.sqrt(len(leaning))
    assert abs(leaning.mean() - by_cluster(known, clustering).rmse[near] ** 2) > 3.5 * error


@pytest.mark.parametrize("tail", [0.5, 1.0])
def test_clusters_lean_by_less_than_their_half_width(estimate, tail):
    known, clustering = made_up(tail)
    exact = by_cluster(known, clustering)
    found = [estimate(known, clustering, seed)[0].clusters for seed in range(200)]
    mse = np.mean([clusters.rmse**2 for clusters in found], axis=0)
    half_width = np.mean([clusters.half_width for clusters in found], axis=0)
    assert np.all(np.abs(np.sqrt(mse) - exact.rmse) <= (0.4 if tail < 1 else 0.7) * half_width + 1e-9)
    within = [np.abs(clusters.rmse - exact.rmse) <= clusters.half_width + 1e-12 for clusters in found]
    # Skewed errors and many looks cost some of the nominal 95 %.
    assert np.mean(within) > (0.9 if tail < 1 else 0.85)
    overall = [abs(clusters.overall_rmse - exact.overall_rmse) <= clusters.overall_half_width for clusters in found]
    assert np.mean(overall) > (0.9 if tail < 1 else 0.85)


def test_the_same_clusters_are_bad_where_the_resolution_can_tell(estimate):
    known, clustering = made_up(size=3000)
    exact = by_cluster(known, clustering)
    distance = np.abs(exact.rmse / (FACTOR * exact.overall_rmse) - 1)
    told = np.flatnonzero(distance > 2 * SubsetRule.resolution)
    assert len(told) >= 9
    wrong = 0
    for seed in range(100):
        found, _ = estimate(known, clustering, seed)
        wrong += np.isin(np.setxor1d(found.clusters.above(FACTOR), exact.above(FACTOR)), told).sum()
        assert len(found.errors.frames) < 0.1 * len(known.frames)
    assert wrong <= 3  # of more than 900 decisions


def test_clear_clusters_cost_one_round_and_the_others_come_together(estimate):
    known, clustering = made_up(size=3000)
    found, calls = estimate(known, clustering, 0)
    assert calls[0] == 20 * len(LEVELS) + 1 + 15
    assert len(calls) <= 1 + np.ceil(np.log(4500 / 20) / np.log(sampled_errors.GROWTH))
    counts = found.clusters.counts
    assert counts[0] == counts[9] == 20 and counts.max() > 60
    assert sum(calls) == len(found.errors.frames) == counts.sum()


def test_populations_and_counts_stay_true(estimate):
    known, clustering = made_up()
    frames = known.frames[::2]
    found, _ = estimate(known, clustering, 0, frames=frames)
    assert np.array_equal(found.clusters.populations, clustering.populations)
    assert np.array_equal(found.clusters.counts, np.bincount(clustering.labels[found.errors.frames], minlength=12))
    assert np.isin(found.errors.frames, frames).all() and np.all(np.diff(found.errors.frames) > 0)


def test_small_clusters_are_predicted_completely(estimate):
    known, clustering = made_up()
    exact = by_cluster(known, clustering)
    found, _ = estimate(known, clustering, 3)
    assert found.clusters.counts[-2:].tolist() == [1, 15]
    np.testing.assert_allclose(found.clusters.rmse[-2:], exact.rmse[-2:])
    assert found.clusters.half_width[-2:].tolist() == [0, 0] and np.all(found.clusters.half_width[:-2] > 0)


def test_a_cluster_without_frames_has_no_error(estimate):
    known, clustering = made_up()
    frames = np.flatnonzero(clustering.labels != 4)
    found, _ = estimate(known, clustering, 0, frames=frames)
    assert np.isnan(found.clusters.rmse[4]) and found.clusters.counts[4] == 0
    rest = by_cluster(FrameErrors(*(values[frames] for values in vars(known).values())), clustering)
    assert found.clusters.overall_rmse == pytest.approx(rest.overall_rmse, rel=0.2)


def test_few_frames_and_no_errors_at_all(estimate):
    known, clustering = made_up(size=16)
    found, _ = estimate(known, clustering, 0, SubsetRule(n_first=30))
    exact = by_cluster(known, clustering)
    np.testing.assert_allclose(found.clusters.rmse, exact.rmse)
    assert found.clusters.overall_rmse == pytest.approx(exact.overall_rmse)
    assert found.clusters.overall_half_width == 0
    perfect = FrameErrors(known.frames, *(np.zeros(len(known.frames)) for _ in range(3)))
    assert estimate(perfect, clustering, 0, SubsetRule(n_first=5))[0].clusters.overall_rmse == 0


def test_the_same_seed_draws_the_same_frames(estimate):
    known, clustering = made_up()
    one, again, other = (estimate(known, clustering, seed)[0].errors.frames.tolist() for seed in (5, 5, 6))
    assert one == again != other


def test_completed_clusters_are_exact_and_the_overall_error_stays(estimate):
    known, clustering = made_up()
    exact = by_cluster(known, clustering)
    found, _ = estimate(known, clustering, 0)
    errors_of = LookUp(known)
    whole = complete(found, errors_of, clustering, known.frames, np.array([7, 9]))
    assert errors_of.calls[-1] == np.sum(clustering.populations[[7, 9]] - found.clusters.counts[[7, 9]])
    np.testing.assert_allclose(whole.clusters.rmse[[7, 9]], exact.rmse[[7, 9]])
    assert whole.clusters.half_width[[7, 9]].tolist() == [0, 0]
    assert np.array_equal(np.delete(whole.clusters.rmse, [7, 9]), np.delete(found.clusters.rmse, [7, 9]))
    assert whole.clusters.overall_rmse == found.clusters.overall_rmse
    assert complete(whole, errors_of, clustering, known.frames, np.array([7, 9])) is whole


@pytest.mark.parametrize("setting", [{"n_first": 1}, {"confidence": 1.0}, {"resolution": 0.0}])
def test_senseless_rules_are_refused(setting):
    with pytest.raises(InputError, match="subset"):
        SubsetRule(**setting)


@pytest.fixture
def steps(water, finished_run):
    clustering = finished_run.clustering
    data = PreparedData(water, clustering, split(clustering, water.pair_distances, rng=np.random.default_rng(0)))
    trainer = family("sgdml").trainer(sigma=10)

    def run(rule, done=None):
        return list(flatten(data, trainer, WATER_SETTINGS.schedule, seed=1, subset=rule, done=done))

    return run


def test_training_on_subsets_predicts_less_and_goes_on_after_a_stop(steps):
    rule = SubsetRule(n_first=4)
    whole, everything = steps(rule), steps(None)
    predicted, there = (sum(step.errors.counts.sum() for step in steps) for steps in (whole, everything))
    assert predicted < 0.85 * there
    rest = steps(rule, done=(1, whole[1].train_frames, whole[1].model))
    assert np.array_equal(rest[-1].train_frames, whole[-1].train_frames)
    assert np.array_equal(rest[-1].errors.rmse, whole[-1].errors.rmse, equal_nan=True)


def test_subsets_that_hold_everything_change_nothing(steps):
    whole, everything = steps(SubsetRule(n_first=400)), steps(None)
    assert np.array_equal(whole[-1].train_frames, everything[-1].train_frames)
    np.testing.assert_allclose(whole[-1].errors.rmse, everything[-1].errors.rmse)


def test_a_run_on_subsets_says_so_and_is_not_continued_otherwise(water, tmp_path):
    from ase_flatten.workflow.train_run import train

    settings = replace(WATER_SETTINGS, subset=True, subset_rule=SubsetRule(n_first=4), default_draws=1)
    settings = replace(settings, schedule=replace(settings.schedule, n_steps=1))
    run = train(water, tmp_path / "run", settings)
    assert run.settings == settings and run.info.settings["subset"] is True
    assert all(line.n_predicted < 0.8 * len(run.splits.pool) for line in run.history)
    with pytest.raises(InputError, match=r"was begun with .*subset: True before, False now"):
        train(water, tmp_path / "run", replace(settings, subset=False), resume=True)
    grown = replace(settings, schedule=WATER_SETTINGS.schedule)
    at_once = train(water, tmp_path / "other", grown)
    history = [
        [{name: value for name, value in vars(line).items() if name != "seconds"} for line in one.history]
        for one in (train(water, tmp_path / "run", grown, resume=True), at_once)
    ]
    assert history[0] == history[1]


@pytest.mark.parametrize("rule", [None, SubsetRule(n_first=5)])
def test_another_zero_of_energy_is_removed(rule):
    known, clustering = made_up()
    far = replace(known, energy=known.energy + 16_000.0)  # eV, as between a semi-empirical method and DFT

    def run(errors, **options):
        errors_of, rng = LookUp(errors), np.random.default_rng(3)
        found = estimate_errors(errors_of, clustering, known.frames, factor=FACTOR, rule=rule, rng=rng, **options)
        return complete(found, errors_of, clustering, known.frames, found.clusters.ascending[-1:])

    plain, shifted, centred = run(far), run(far, up_to_a_constant=True), run(known, up_to_a_constant=True)
    assert plain.energy_offset == 0 and plain.clusters.overall_energy_rmse > 15_000
    assert shifted.energy_offset == pytest.approx(16_000 + centred.energy_offset)
    for name in ("overall_energy_rmse", "overall_energy_mae", "energy_rmse", "energy_mae"):
        np.testing.assert_allclose(getattr(shifted.clusters, name), getattr(centred.clusters, name), rtol=1e-6)
    np.testing.assert_array_equal(shifted.clusters.rmse, plain.clusters.rmse)
    np.testing.assert_allclose(shifted.errors.energy, centred.errors.energy, atol=1e-8)
    if rule is None:
        assert shifted.clusters.overall_energy_rmse == pytest.approx(known.energy.std())


def test_the_constant_is_that_of_all_frames(estimate):
    """A cluster counts by its frames, and not by how many of them were drawn."""
    labels = np.repeat([0, 1], [900, 100])
    energy = np.where(labels == 0, 1.0, 11.0)
    known, clustering = FrameErrors(np.arange(1000), np.ones(1000), np.ones(1000), energy), Clustering(labels)
    found = estimate_errors(
        LookUp(known), clustering, known.frames, factor=FACTOR, rule=SubsetRule(), rng=np.random.default_rng(0),
        up_to_a_constant=True,
    )  # fmt: skip
    assert found.energy_offset == pytest.approx(2.0)
