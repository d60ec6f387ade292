from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from conftest import RARE_WATER

from ase_flatten.clustering.clusters import cluster
from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.clustering.splits import split
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.models import family
from ase_flatten.selection.flattening import Schedule, flatten
from ase_flatten.selection.frame_selection import SelectionRule
from ase_flatten.utils.exceptions import InputError


@pytest.fixture
def steps(water):
    def run(seed=0, dataset=water, done=None, **schedule):
        clustering = cluster(dataset, rng=np.random.default_rng(seed), n_geometry=4, n_energy=3)
        splits = split(clustering, dataset.pair_distances, rng=np.random.default_rng(seed))
        schedule = Schedule(**{"n_steps": 2, "n_initial": 10, "step_size": 5, **schedule})
        trainer = family("sgdml").trainer(sigma=10)
        data = PreparedData(dataset, clustering, splits)
        return list(flatten(data, trainer, schedule, seed=seed, done=done)), splits

    return run


def test_training_sets_grow_without_repeats_and_within_the_pool(steps):
    done, splits = steps(n_steps=3)
    assert [len(step.train_frames) for step in done] == [10, 15, 20, 25]
    for before, after in pairwise(done):
        assert np.array_equal(after.train_frames[: len(before.train_frames)], before.train_frames)
        assert np.array_equal(after.train_frames[len(before.train_frames) :], after.added_frames)
    assert len(set(done[-1].train_frames.tolist())) == 25
    assert np.isin(done[-1].train_frames, splits.pool).all()


def test_a_rare_event_is_found_more_often_than_by_chance(steps):
    found, expected = 0, 0.0
    for seed in range(4):
        done, splits = steps(seed)
        rest = np.setdiff1d(splits.pool, done[0].train_frames)
        added = np.concatenate([step.added_frames for step in done[1:]])
        expected += len(added) * np.isin(rest, RARE_WATER).mean()
        found += int(np.isin(added, RARE_WATER).sum())
    # By chance about 1.5 of 40; a Poisson variable of that mean exceeds 7 once in a thousand.
    assert expected < 2 and found > 7


def test_random_frames_from_everywhere_would_not_find_it(steps):
    done, _ = steps(rule=SelectionRule(factor=1e-6, pick="random", n_fine=5))
    added = np.concatenate([step.added_frames for step in done[1:]])
    assert np.isin(added, RARE_WATER).sum() < 5


def test_the_worst_cluster_gets_better(steps):
    done, _ = steps(n_steps=4)
    assert np.nanmax(done[-1].errors.rmse) < 0.6 * np.nanmax(done[0].errors.rmse)


def test_the_same_seed_gives_the_same_steps_and_another_seed_others(steps):
    one, again, other = steps(0)[0], steps(0)[0], steps(1)[0]
    assert np.array_equal(one[-1].train_frames, again[-1].train_frames)
    assert np.array_equal(one[-1].errors.rmse, again[-1].errors.rmse, equal_nan=True)
    assert not np.array_equal(one[-1].train_frames, other[-1].train_frames)


def test_a_continued_run_ends_as_an_unbroken_one(steps):
    whole, _ = steps(n_steps=3)
    rest, _ = steps(n_steps=3, done=(1, whole[1].train_frames, whole[1].model))
    assert [step.number for step in rest] == [2, 3]
    assert np.array_equal(rest[-1].train_frames, whole[-1].train_frames)


def test_units_of_the_data_do_not_matter(steps, water):
    there_and_back = Dataset(
        water.numbers,
        water.positions,
        (water.energies / KCAL_PER_MOL) * KCAL_PER_MOL,
        (water.forces / KCAL_PER_MOL) * KCAL_PER_MOL,
    )
    one, other = steps()[0][-1], steps(dataset=there_and_back)[0][-1]
    assert np.array_equal(one.train_frames, other.train_frames)
    forces = [step.model.predict(water.positions).forces for step in (one, other)]
    np.testing.assert_allclose(forces[0], forces[1], atol=1e-7)


def test_nothing_of_the_heldout_frames_is_looked_at(steps, water):
    done, splits = steps()
    spoiled = water.forces.copy()
    spoiled[splits.heldout] = 1e3
    again, _ = steps(dataset=replace(water, forces=spoiled))
    assert np.array_equal(done[-1].train_frames, again[-1].train_frames)


def test_more_frames_than_there_are_are_refused(steps):
    with pytest.raises(InputError, match="was to grow to 1010 frames, but only 2"):
        steps(n_steps=200)


@pytest.mark.parametrize("setting", [{"n_steps": -1}, {"n_initial": 1}, {"step_size": 0}])
def test_senseless_schedules_are_refused(setting):
    with pytest.raises(InputError, match="must be at least"):
        Schedule(**setting)
