"""Wrong labels of single frames are found, and explained; sound ones of rare geometries are left alone."""

from dataclasses import replace

import numpy as np
import pytest

from ase_flatten.checking import labels
from ase_flatten.checking.check import check_up
from ase_flatten.checking.labels import QuickModels, Thresholds, check_labels, judge_labels
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.models import Prediction
from ase_flatten.selection.quarantine import GUARD

ZERO, SIGN, ENERGY, UNIT, SHUFFLED = [11, 60], [5, 200], [33, 150], [77], [120, 240, 301]


@pytest.fixture(scope="module")
def salicylic() -> Dataset:
    """400 frames of salicylic acid, in time order."""
    whole = read_dataset("examples/data/salicylic_gfn2_500K.npz")
    return whole.take(np.arange(0, 10_000, 25))


@pytest.fixture(scope="module")
def spoilt(salicylic) -> Dataset:
    energies, forces = salicylic.energies.copy(), salicylic.forces.copy()
    forces[ZERO] = 0
    forces[SIGN] *= -1
    energies[ENERGY] += 1
    forces[UNIT] /= KCAL_PER_MOL
    energies[SHUFFLED], forces[SHUFFLED] = energies[np.roll(SHUFFLED, 1)], forces[np.roll(SHUFFLED, 1)]
    return replace(salicylic, energies=energies, forces=forces)


@pytest.fixture(scope="module")
def judged(spoilt):
    return check_labels(spoilt, rng=np.random.default_rng(0))


def test_wrong_labels_are_found_and_no_others(judged):
    wrong = sorted(ZERO + SIGN + ENERGY + UNIT + SHUFFLED)
    found = np.union1d(judged.with_level("wrong"), judged.with_level("doubtful"))
    assert found.tolist() == wrong and len(judged.with_level("wrong")) >= 9
    sound = np.setdiff1d(judged.frames, wrong)
    assert judged.scores[wrong].min() >= 1 and judged.scores[sound].max() < 0.7
    assert all((reason == "") == (level == "sound") for reason, level in zip(judged.reasons, judged.levels))


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (ZERO, "all forces are zero"),
        (SIGN, "the forces have the wrong sign"),
        (ENERGY, "the energy is higher than predicted (by"),
        (UNIT, "the forces look like kcal/mol where eV are expected"),
        (SHUFFLED, "the labels are those of another frame"),
    ],
)
def test_the_mistake_is_named(judged, frames, words):
    assert all(words in judged.reasons[frame] for frame in frames)


def test_the_size_of_an_energy_error_is_told(judged):
    np.testing.assert_allclose(-judged.energy_residuals[ENERGY], 1, atol=0.2)


def test_same_seed_same_judgement(spoilt, judged):
    again = check_labels(spoilt, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(again.scores, judged.scores)
    assert again.reasons == judged.reasons


def test_models_trained_once_judge_by_any_thresholds_as_if_trained_anew(water, monkeypatch):
    forces = water.forces.copy()
    forces[::40] *= -1
    data, trained = replace(water, forces=forces), []
    fit = labels._cross_predictions
    monkeypatch.setattr(labels, "_cross_predictions", lambda *given: trained.append(given[1]) or fit(*given))
    models = QuickModels(data, rng=np.random.default_rng(0))
    at_once = [models.judge(thresholds) for thresholds in (GUARD, Thresholds(), GUARD)]
    assert sum(len(frames) == data.n_frames for frames in trained) == 1 < len(trained)
    for thresholds, found in zip((GUARD, Thresholds(), GUARD), at_once, strict=True):
        anew = check_labels(data, rng=np.random.default_rng(0), thresholds=thresholds)
        np.testing.assert_array_equal(found.scores, anew.scores)
        assert found.reasons == anew.reasons and found.levels == anew.levels


def test_few_frames_are_not_judged(spoilt):
    few = spoilt.take(np.arange(40))
    found = check_labels(few, rng=np.random.default_rng(0))
    assert set(found.levels) == {"sound"} and np.isnan(found.scores).all()


def test_the_shared_proton_is_sound():
    whole = read_dataset("examples/data/salicylic_gfn2_500K.npz")
    oxygen, hydrogen = np.flatnonzero(whole.numbers == 8), np.flatnonzero(whole.numbers == 1)
    difference = whole.positions[:, hydrogen, None] - whole.positions[:, None, oxygen]
    nearest = np.sort(np.linalg.norm(difference, axis=3), axis=2)
    moved = np.flatnonzero(((nearest[:, :, 1] - nearest[:, :, 0] < 0.3) & (nearest[:, :, 1] < 1.6)).any(axis=1))
    assert 1 <= len(moved) <= 10
    part = whole.take(np.union1d(np.arange(0, 10_000, 10), moved))
    found = check_up(part, rng=np.random.default_rng(0))
    assert not [finding for finding in found.findings if finding.frames]


def test_a_model_that_does_not_know_a_region_condemns_nothing(salicylic):
    # Frames of one corner of the space are predicted as badly as a wrong label would be, all of them alike.
    rng = np.random.default_rng(1)
    descriptors = pair_distances(salicylic.positions)
    leading = np.linalg.svd(descriptors - descriptors.mean(axis=0), full_matrices=False)[0][:, 0]
    unknown = np.argsort(leading)[:60]
    forces = salicylic.forces + 0.05 * rng.normal(size=salicylic.forces.shape)
    forces[unknown] += 2.0 * rng.normal(size=forces[unknown].shape)
    predictions = [Prediction(salicylic.energies + 0.02 * rng.normal(size=400), forces)]
    found = judge_labels(salicylic, np.arange(400), predictions)
    assert not len(found.with_level("wrong")) and not len(found.with_level("doubtful"))


def test_frames_that_every_model_was_trained_on_are_not_judged(salicylic):
    energies, forces = salicylic.energies.copy(), salicylic.forces + 0.01
    energies[:30], forces[:30] = np.nan, np.nan
    found = judge_labels(salicylic, np.arange(400), [Prediction(energies, forces)])
    assert np.isnan(found.scores[:30]).all() and np.isfinite(found.scores[30:]).all()


@pytest.mark.parametrize("step", [True, False], ids=["a step in the middle", "a random half"])
def test_two_methods_in_one_file_are_said_as_such(salicylic, step):
    other = np.arange(400) >= 250 if step else np.random.default_rng(2).random(400) < 0.5
    spoilt = replace(salicylic, energies=salicylic.energies + 1.5 * other)
    found = check_up(spoilt, rng=np.random.default_rng(0))
    two = {finding.what: finding.message for finding in found.refused}["two methods"]
    assert found.whole_set is not None and any(f"{size} eV apart" in two for size in (1.49, 1.5, 1.51))
    assert ("from frame 250 on" if step else "mixed throughout the file") in two
    assert not [finding for finding in found.findings if finding.what.endswith("labels")]
