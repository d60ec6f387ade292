"""What can be known before work begins is refused before there is a folder, and the time that is left is estimated."""

import importlib.util
from dataclasses import replace

import pytest
from conftest import WATER_SETTINGS

from ase_flatten.models import Cost
from ase_flatten.models.sgdml import SGDMLTrainer
from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.history import HistoryLine
from ase_flatten.workflow.plan import plan_run
from ase_flatten.workflow.time_left import TimeTable
from ase_flatten.workflow.train_run import train


@pytest.fixture
def without_sgdml(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "sgdml" else found(name, *rest)
    )


def test_a_missing_package_is_told_before_there_is_a_folder(water, tmp_path, without_sgdml):
    with pytest.raises(InputError, match=r"needs the package sgdml, .* with: pip install '\.\[sgdml\]'"):
        train(water, tmp_path / "run", WATER_SETTINGS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainer": {"sigma": "abc"}}, "sigma must be a positive number, got 'abc'"),
        ({"family": "none"}, "the model family must be one of"),
        ({"holdout": 1.5}, "must lie between 0 and 1"),
        ({"schedule": Schedule(n_steps=3, n_initial=100, step_size=100)}, "grow to 400 frames, but only 300 of 416"),
    ],
)
def test_mistakes_are_told_before_there_is_a_folder(water, tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        train(water, tmp_path / "run", replace(WATER_SETTINGS, **change))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings",
    [
        {"sigma": "abc"}, {"sigma": True}, {"sigma": float("nan")}, {"sigma": [1]}, {"sigma": 0},
        {"regularisation": "small"}, {"regularisation": None}, {"symmetries": "no"}, {"symmetries": 1},
    ],
)  # fmt: skip
def test_settings_of_a_wrong_type_are_one_sentence(water, settings):
    with pytest.raises(InputError, match="must be"):
        plan_run(water, replace(WATER_SETTINGS, trainer=settings))


def test_a_plan_says_on_what_and_how_much(water):
    said = plan_run(water, WATER_SETTINGS).describe(water)
    assert said == (
        "sgdml on 416 frames of H2O (GFN2-xTB): 3 steps from 10 to 25 training frames, 4 default training sets"
    )


def test_the_time_left_is_that_of_all_trainings(water, monkeypatch):
    settings = replace(WATER_SETTINGS, schedule=Schedule(n_steps=2, n_initial=10, step_size=5), default_draws=3)
    assert TimeTable(plan_run(water, settings), water).in_total() is None
    monkeypatch.setattr(SGDMLTrainer, "cost", lambda self, dataset, n_frames: Cost(float(n_frames**2), 0))
    times = TimeTable(plan_run(water, settings), water)
    # Growth costs as much as one training of the final size; default models: 15 frames once, 20 frames three times.
    assert times.in_total() == 20**2 + 15**2 + 3 * 20**2
    done = [_line(0, 50.0), _line(1, 62.5)]  # half of what was expected
    assert times.left_after(done) == (20**2 - 15**2 + 15**2 + 3 * 20**2) / 2
    searching = TimeTable(plan_run(water, replace(settings, trainer={})), water)
    assert searching.in_total() == times.in_total() + 2 * 10**2 + 2 * 2 * 20**2


def _line(step, seconds):
    return HistoryLine(
        step=step, train_frames=[], added_frames=[], cluster_rmse=[], overall_rmse=1.0, bad_clusters=[],
        seconds={"train": seconds},
    )  # fmt: skip
