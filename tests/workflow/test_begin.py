"""What is found in a folder decides whether a training may begin there, and a stopped one go on."""

import json
import shutil
from dataclasses import replace

import pytest
from conftest import WATER_SETTINGS

from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.run_folder import DataFile, Run
from ase_flatten.workflow.test_set import agreed_test_set
from ase_flatten.workflow.train_run import train


@pytest.fixture
def stopped(water, tmp_path):
    """A run that was stopped before its first step was finished, with a file of the user's in its folder."""

    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(water, tmp_path / "run", WATER_SETTINGS, on_step=stop)
    # As if it had been killed between the model of the step and the line of history.
    (tmp_path / "run" / "history.jsonl").unlink()
    (tmp_path / "run" / "unfinished").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("precious")
    return tmp_path / "run"


def test_a_run_without_a_finished_step_is_begun_anew(water, finished_run, stopped, caplog):
    assert (stopped / "run.json").exists() and (stopped / "steps" / "0000").exists()
    caplog.set_level("INFO", "ase_flatten")
    other = replace(WATER_SETTINGS, seed=5, schedule=Schedule(n_steps=0, n_initial=10, step_size=5))
    run = train(water, stopped, other)
    assert "without a finished step: it is begun anew" in caplog.text
    assert run.settings.seed == 5 and [line.step for line in run.history] == [0]
    assert (stopped / "notes.txt").read_text() == "precious"
    assert not (stopped / "unfinished").exists()


def test_what_cannot_be_trained_is_refused_before_a_run_without_a_finished_step_is_removed(water, stopped, tmp_path):
    (tmp_path / "p.txt").write_text("0 1\n")
    with pytest.raises(InputError, match="expected 3 atoms"):
        train(water, stopped, replace(WATER_SETTINGS, trainer={"sigma": 10, "symmetries": str(tmp_path / "p.txt")}))
    assert (stopped / "run.json").exists() and (stopped / "unfinished").exists()


def test_a_run_that_is_begun_anew_does_not_remember_a_test_set(water, stopped):
    info = json.loads((stopped / "run.json").read_text())
    gone = {"source": "gone.npz", "digest": "0", "n_frames": 3, "file": {"path": "/nowhere/gone.npz"}}
    (stopped / "run.json").write_text(json.dumps({**info, "test": gone}))
    with pytest.raises(InputError, match="could not read it again"):
        agreed_test_set(Run(stopped), water, None, resume=True)
    assert agreed_test_set(Run(stopped), water, None, resume=False) is None


def test_a_run_json_of_somebody_else_is_not_removed(water, tmp_path):
    (tmp_path / "run.json").write_text('{"results": [1, 2]}')
    with pytest.raises(InputError, match="could not read it"):
        train(water, tmp_path, WATER_SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_log_without_a_run_stops_nothing_unless_it_is_of_another_program(water, tmp_path):
    settings = replace(WATER_SETTINGS, schedule=Schedule(n_steps=0, n_initial=10, step_size=5), default_draws=1)
    (tmp_path / "train.log").write_text("epoch 1: loss 3\n")
    with pytest.raises(InputError, match="found other files"):
        train(water, tmp_path, settings)
    (tmp_path / "train.log").write_text("2026-01-01 00:00:00  INFO     ase-flatten 0.1.0: train\n")
    train(water, tmp_path, settings)
    assert len((tmp_path / "train.log").read_text().splitlines()) > 3


def test_finished_steps_are_counted_where_a_run_is_refused(water, finished_run):
    with pytest.raises(InputError, match=r"found a run with 4 finished steps in .*water; add --resume"):
        train(water, finished_run.folder, WATER_SETTINGS)


def test_a_run_knows_its_file_and_opens_without_it(water, finished_run, tmp_path):
    assert finished_run.info.dataset.file is None and finished_run.info.dataset.source == "water.npz"
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    train(water, folder, WATER_SETTINGS, resume=True, file=DataFile(path="/data/w.xyz", energy_unit="eV"))
    assert Run(folder).info.dataset.file == DataFile(path="/data/w.xyz", energy_unit="eV")
    train(water, folder, WATER_SETTINGS, resume=True)  # as from Python, where there is no file
    assert Run(folder).info.dataset.file == DataFile(path="/data/w.xyz", energy_unit="eV")


def test_numbers_of_clusters_are_recorded_and_taken_from_the_run_on_resuming(water, tmp_path):
    open_ = replace(
        WATER_SETTINGS, n_geometry=None, n_energy=None, schedule=Schedule(n_steps=0, n_initial=10, step_size=5)
    )
    run = train(water, tmp_path / "run", open_)
    settings = json.loads((run.folder / "run.json").read_text())["settings"]
    assert (settings["n_geometry"], settings["n_energy"]) == (4, 1) and run.clustering.n_clusters == 4
    # An earlier version made ten geometries of any data.
    settings_before = {**settings, "n_geometry": 10, "n_energy": 5}
    info = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**info, "settings": settings_before}))
    assert train(water, run.folder, open_, resume=True).settings.n_geometry == 10


def test_the_log_holds_every_start_and_how_each_ended(water, finished_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    before = (folder / "train.log").read_text().splitlines()
    assert "ase-flatten 0.1.0: " in before[0] and "3 steps from 10 to 25 training frames" in before[1]
    with pytest.raises(InputError):
        train(water, folder, replace(WATER_SETTINGS, seed=2), resume=True)
    lines = (folder / "train.log").read_text().splitlines()
    assert lines[: len(before)] == before and "ended by InputError" in lines[-1]
