"""External test sets: refused or judged, and what they share with the training data is counted."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import WATER_SETTINGS
from scipy.spatial.distance import cdist

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import write_dataset
from ase_flatten.data.units import output_units
from ase_flatten.evaluation.external_test import ExternalTest, check_test_set, conclude_test, near_training
from ase_flatten.models.model_folder import load_model
from ase_flatten.report.accuracy_sentences import accuracy_sentences
from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.run_folder import DataFile, Run
from ase_flatten.workflow.test_set import TestSet
from ase_flatten.workflow.train_run import train

KCAL = output_units("kcal/mol")


def moved(data: Dataset, frames: np.ndarray) -> Dataset:
    """Take frames, turned and shifted: the same geometries at other positions."""
    turn = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    taken = data.take(frames)
    return Dataset(data.numbers, taken.positions @ turn + 3.0, taken.energies, taken.forces @ turn)


@pytest.fixture(scope="module")
def half(water: Dataset) -> Dataset:
    return water.take(np.arange(0, water.n_frames, 2))


@pytest.fixture(scope="module")
def test_set(water: Dataset) -> Dataset:
    """Frames 1, 3, ... 199 of the whole, and ten frames of the half that is trained on."""
    return moved(water, np.r_[np.arange(1, 200, 2), np.arange(0, 20, 2)])


@pytest.fixture(scope="module")
def judged(half, test_set, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "half"
    file = folder.parent / "hot.npz"
    write_dataset(file, test_set)
    settings = replace(WATER_SETTINGS, schedule=Schedule(n_steps=1, n_initial=10, step_size=5), default_draws=1)
    return train(half, folder, settings, test=TestSet(test_set, DataFile(path=str(file))))


def test_both_final_models_are_judged(judged, test_set):
    found = judged.external_test
    for scheme in ("default", "improved"):
        prediction = load_model(judged.folder / scheme).model.predict(test_set.positions)
        rmse = np.sqrt(np.mean((prediction.forces - test_set.forces) ** 2, axis=(1, 2)))
        np.testing.assert_allclose(found.errors.force_rmse[scheme], rmse, rtol=1e-6)
        np.testing.assert_allclose(
            found.errors.energy_error[scheme], prediction.energies - test_set.energies, atol=1e-9
        )
    with open(judged.folder / "errors.csv") as of_run, open(judged.folder / "test_errors.csv") as of_test:
        (columns, *_), (test_columns, *rows) = csv.reader(of_run), csv.reader(of_test)
    assert test_columns == columns and len(rows) == judged.clustering.n_clusters + 1
    assert rows[-1][:3] == ["all", "208", "110"] and sum(int(row[2]) for row in rows[:-1]) == 110
    overall = np.sqrt(np.mean(found.errors.force_rmse["improved"] ** 2))
    assert judged.test_claims.of["overall"].improved.value == pytest.approx(overall)


def test_frames_in_the_data_and_in_training_are_counted(judged, half, test_set):
    found = judged.external_test
    trained = [load_model(judged.folder / scheme).train_frames for scheme in ("default", "improved")]
    used = np.unique(np.concatenate([*trained, judged.splits.valid]))
    apart = cdist(test_set.pair_distances, half.pair_distances) / np.sqrt(3)  # root mean square, Å
    np.testing.assert_array_equal(found.in_data, apart.min(axis=1) < 0.01)
    np.testing.assert_array_equal(found.in_training, apart[:, used].min(axis=1) < 0.01)
    assert found.in_data[-10:].all() and found.in_training.sum() < found.in_data.sum() < 110
    said = " ".join(conclude_test(found, judged.test_claims, KCAL, name="hot.npz"))
    assert f"{found.in_data.sum()} of the 110 frames are nearly identical to frames of the data set" in said
    assert f"{found.in_training.sum()} of the 110 frames" in said and "no independent test" in said
    assert said.startswith("On the test set hot.npz (110 frames), the force RMSE of all frames ")
    assert any("hot.npz" in sentence for sentence in accuracy_sentences(judged, KCAL))
    assert "says little" not in said
    few = ExternalTest(replace(found.errors, frames=np.arange(5)), found.in_data[:5], found.in_training[:5])
    assert "fewer than 20 frames says little" in " ".join(conclude_test(few, judged.test_claims, KCAL, name="few.npz"))


def test_the_run_is_the_same_without_it(judged, half, tmp_path):
    settings = replace(WATER_SETTINGS, schedule=Schedule(n_steps=1, n_initial=10, step_size=5), default_draws=1)
    alone = train(half, tmp_path / "alone", settings)
    assert alone.external_test is None and alone.test_claims is None and alone.info.test is None
    for name in ("errors.csv", "curves.json"):
        assert (alone.folder / name).read_bytes() == (judged.folder / name).read_bytes()
    assert json.loads((alone.folder / "run.json").read_text())["test"] is None


def test_a_resumed_run_remembers_it(judged, half, water, test_set):
    before = (judged.folder / "test_errors.npz").stat().st_mtime_ns
    grown = replace(judged.settings, schedule=replace(judged.settings.schedule, n_steps=2))
    again = train(half, judged.folder, grown, resume=True)
    assert (again.info.test.source, again.info.test.digest) == (judged.info.test.source, test_set.digest)
    assert (judged.folder / "test_errors.npz").stat().st_mtime_ns > before
    with pytest.raises(InputError, match=r"expected the test set of .*hot.npz, 110 frames.*--test FILE"):
        other = TestSet(moved(water, np.arange(1, 30)), DataFile(path="other.npz"))
        train(half, judged.folder, grown, resume=True, test=other)
    file = judged.folder.parent / "hot.npz"
    file.rename(file.with_name("away.npz"))
    with pytest.raises(InputError, match=r"could not read it again .*say where it is with --test FILE"):
        train(half, judged.folder, grown, resume=True)
    moved_away = TestSet(test_set, DataFile(path=str(file.with_name("away.npz"))))
    assert train(half, judged.folder, grown, resume=True, test=moved_away).info.test.file == moved_away.file


def test_damage_is_refused(judged, tmp_path):
    run = Run(tmp_path)
    for name in ("run.json", "clusters.npz", "test_errors.npz"):
        (tmp_path / name).write_bytes((judged.folder / name).read_bytes())
    with np.load(tmp_path / "test_errors.npz") as saved:
        arrays = dict(saved)
    np.savez(tmp_path / "test_errors.npz", **{**arrays, "in_data": arrays["in_data"][1:]})
    with pytest.raises(InputError, match=r"test_errors.npz"):
        _ = run.external_test


def test_a_test_set_that_cannot_judge_is_refused(half, ethanol_like):
    with pytest.raises(InputError, match=r"expected a test set of H2O .*found C2H6O in x.npz"):
        check_test_set(ethanol_like, half, name="x.npz")
    with pytest.raises(InputError, match=r"found the data themselves in x.npz"):
        check_test_set(Dataset(half.numbers, half.positions, half.energies, half.forces), half, name="x.npz")
    some = half.take(np.arange(50))
    far = Dataset(some.numbers, some.positions, some.energies + 5_000, some.forces)
    with pytest.raises(InputError, match=r"found those of x\.npz 115,\d\d\d kcal/mol apart"):
        check_test_set(far, half, name="x.npz")


def test_another_order_of_the_atoms_is_refused(ethanol_like):
    some = ethanol_like.take(np.arange(50))
    check_test_set(some, ethanol_like, name="x.npz")

    def ordered(order):
        return Dataset(some.numbers[order], some.positions[:, order], some.energies, some.forces[:, order])

    with pytest.raises(InputError, match=r"with its atoms in the data set's order, found C2H6O in another order"):
        check_test_set(ordered([2, 1, 0, 3, 4, 5, 6, 7, 8]), ethanol_like, name="x.npz")
    with pytest.raises(InputError, match=r"expected the atoms in the order of the data set, where atoms .* are bonded"):
        check_test_set(ordered([1, 0, 2, 3, 4, 5, 6, 7, 8]), ethanol_like, name="x.npz")  # both carbons


def test_training_geometries_are_found_wherever_they_lie(half, water):
    found = near_training(moved(water, np.arange(20)), half.positions[:5])
    assert found[[0, 2, 4, 6, 8]].all() and found.sum() < 20
    assert not near_training(half, np.empty((0, 0, 3))).any()
