"""The run folder: names and formats, and that nothing stops it for good."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import WATER_SETTINGS

from ase_flatten.data.dataset import Dataset
from ase_flatten.models import family
from ase_flatten.models.model_folder import load_model, save_model
from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.run_folder import Run, RunSettings, newest_run
from ase_flatten.workflow.train_run import train

COLUMNS = ["cluster", "population", "n_heldout", "force_rmse_default", "force_rmse_improved"]
COLUMNS += ["energy_rmse_default", "energy_rmse_improved"]

SCRIPT = """
import sys
from ase_flatten import read_dataset
from ase_flatten.selection.flattening import Schedule
from ase_flatten.workflow.run_folder import RunSettings
from ase_flatten.workflow.train_run import train
settings = RunSettings(
    trainer={"sigma": 10}, schedule=Schedule(n_steps=3, n_initial=10, step_size=5), n_geometry=4, n_energy=3, seed=1
)
data = read_dataset(sys.argv[1])
train(data, sys.argv[2], settings, resume=True, source="water.npz", on_step=lambda step: print(step.number, flush=True))
"""


def history(run: Run) -> list[dict]:
    """The history without the times, which nothing repeats."""
    return [{name: value for name, value in vars(line).items() if name != "seconds"} for line in run.history]


def test_the_folder_holds_what_design_promises(finished_run, water):
    folder = finished_run.folder
    rows = list(csv.DictReader((folder / "errors.csv").read_text().splitlines()))
    assert list(rows[0]) == COLUMNS
    assert [row["cluster"] for row in rows] == [*map(str, range(len(rows) - 1)), "all"]
    assert sum(int(row["population"]) for row in rows[:-1]) == int(rows[-1]["population"]) == water.n_frames
    steps = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    wanted = {"step", "train_frames", "added_frames", "cluster_rmse", "bad_clusters", "seconds"}
    assert [step["step"] for step in steps] == [0, 1, 2, 3] and all(wanted <= set(step) for step in steps)
    splits = finished_run.splits
    for scheme in ("default", "improved"):
        saved = load_model(folder / scheme)
        assert len(saved.train_frames) == 25 and np.isin(saved.train_frames, splits.pool).all()
        assert len(set(saved.train_frames.tolist())) == 25
    assert load_model(folder / "steps" / "0003").train_frames.tolist() == steps[-1]["train_frames"]
    info = finished_run.info
    assert info.dataset.digest == water.digest and info.settings["seed"] == 1
    assert not list(folder.rglob(".writing-*"))


def test_reported_errors_are_those_of_the_heldout_frames(finished_run, water):
    rows = list(csv.DictReader((finished_run.folder / "errors.csv").read_text().splitlines()))
    heldout = finished_run.splits.heldout
    for scheme in ("default", "improved"):
        model = load_model(finished_run.folder / scheme).model
        error = model.predict(water.positions[heldout]).forces - water.forces[heldout]
        overall = np.sqrt(np.mean(error**2)) * 23.06054783
        assert float(rows[-1][f"force_rmse_{scheme}"]) == pytest.approx(overall, rel=1e-5)
        one = finished_run.clustering.labels[heldout] == 0
        assert float(rows[0][f"force_rmse_{scheme}"]) == pytest.approx(
            np.sqrt(np.mean(error[one] ** 2)) * 23.06054783, rel=1e-5
        )


def test_both_models_have_the_same_hyper_parameters_and_size(finished_run):
    default, improved = (load_model(finished_run.folder / scheme).card for scheme in ("default", "improved"))
    assert default.hyper_parameters == improved.hyper_parameters
    assert len(default.training_frames) == len(improved.training_frames)
    assert default.training_frames != improved.training_frames


def test_other_default_draws_are_trained_as_the_default_model_is(finished_run, water):
    default = load_model(finished_run.folder / "default").card
    draws = [load_model(finished_run.folder / "default_draws" / f"000{number}") for number in (1, 2, 3)]
    assert not (finished_run.folder / "default_draws" / "0004").exists()
    sets = {tuple(sorted(draw.train_frames.tolist())) for draw in draws} | {tuple(sorted(default.training_frames))}
    assert len(sets) == 4 and all(np.isin(list(frames), finished_run.splits.pool).all() for frames in sets)
    assert all(draw.card.hyper_parameters == default.hyper_parameters for draw in draws)
    with np.load(finished_run.folder / "heldout_errors.npz") as errors:
        heldout = finished_run.splits.heldout
        for draw, rmse, energy in zip(
            draws, errors["force_rmse_default_draws"], errors["energy_error_default_draws"], strict=True
        ):
            prediction = draw.model.predict(water.positions[heldout])
            force = np.sqrt(np.mean((prediction.forces - water.forces[heldout]) ** 2, axis=(1, 2)))
            np.testing.assert_allclose(rmse, force * 23.06054783, rtol=1e-6)
            np.testing.assert_allclose(energy, (prediction.energies - water.energies[heldout]) * 23.06054783, atol=1e-6)
    assert finished_run.claims.n_draws == 4
    assert finished_run.claims.of["overall"].draws[1:] == pytest.approx(
        [curve.force_rmse for curve in finished_run.evaluation.default_draws], rel=1e-5
    )


def test_draws_that_are_there_are_not_trained_again(water, finished_run, tmp_path, monkeypatch):
    shutil.copytree(finished_run.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "default_draws" / "0002")
    saved = []
    monkeypatch.setattr(
        "ase_flatten.workflow.train_run.save_model",
        lambda folder, *rest: saved.append(folder.name) or save_model(folder, *rest),
    )
    resumed = train(water, tmp_path / "run", WATER_SETTINGS, resume=True)
    assert saved == ["0002"]
    for name in ("curves.json", "errors.csv"):
        assert (resumed.folder / name).read_text() == (finished_run.folder / name).read_text()


def test_a_run_folder_without_draws_still_opens(finished_run, tmp_path):
    old = tmp_path / "run"
    shutil.copytree(finished_run.folder, old)
    shutil.rmtree(old / "default_draws")
    curves = json.loads((old / "curves.json").read_text())
    del curves["default_draws"]
    (old / "curves.json").write_text(json.dumps(curves))
    with np.load(old / "heldout_errors.npz") as errors:
        np.savez(old / "heldout_errors.npz", **{name: errors[name] for name in errors.files if "draws" not in name})
    info = json.loads((old / "run.json").read_text())
    del info["settings"]["default_draws"]
    (old / "run.json").write_text(json.dumps(info))
    claim = Run(old).claims.of["worst_group"]
    assert claim.p_draw is None and len(claim.draws) == 1
    assert claim.improved == finished_run.claims.of["worst_group"].improved


def test_errors_of_draws_are_of_forces_and_of_energies(finished_run, tmp_path):
    shutil.copytree(finished_run.folder, tmp_path / "run")
    path = tmp_path / "run" / "heldout_errors.npz"
    with np.load(path) as errors:
        arrays = {name: errors[name] for name in errors.files if name != "force_rmse_default_draws"}
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="without the other; compute them again with"):
        _ = Run(tmp_path / "run").heldout_errors


@pytest.mark.parametrize("kill_after", [0, 2])
def test_killed_and_resumed_it_ends_in_the_very_same_history(water_file, finished_run, tmp_path, kill_after):
    command = [sys.executable, "-c", SCRIPT, str(water_file), str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout or []:
        if int(line) == kill_after:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    broken = Run(tmp_path / "run")
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "run" / "errors.csv").exists()
    assert len(broken.history) <= kill_after + 2
    subprocess.run(command, check=True, capture_output=True)
    assert history(Run(tmp_path / "run")) == history(finished_run)
    assert (tmp_path / "run" / "errors.csv").read_text() == (finished_run.folder / "errors.csv").read_text()


def test_killed_at_any_moment_it_resumes(water_file, finished_run, tmp_path):
    """Kill it at moments that nobody chose, until it gets through."""
    command = [sys.executable, "-c", SCRIPT, str(water_file), str(tmp_path / "run")]
    for moment in (2.2, 2.8, 3.5):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(moment)
        process.kill()
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert history(Run(tmp_path / "run")) == history(finished_run)
    assert (tmp_path / "run" / "errors.csv").read_text() == (finished_run.folder / "errors.csv").read_text()


def test_a_finished_run_resumes_to_itself(water, finished_run):
    before = (finished_run.folder / "history.jsonl").read_text()
    steps = []
    train(water, finished_run.folder, WATER_SETTINGS, resume=True, on_step=steps.append)
    assert steps == [] and (finished_run.folder / "history.jsonl").read_text() == before


def test_killed_before_its_first_file_it_resumes(water, finished_run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".writing-run.json").write_text("{")
    assert history(train(water, tmp_path / "run", WATER_SETTINGS, resume=True)) == history(finished_run)


def test_a_run_can_grow(water, finished_run, tmp_path):
    short = replace(WATER_SETTINGS, schedule=Schedule(n_steps=1, n_initial=10, step_size=5))
    train(water, tmp_path / "run", short)
    grown = train(water, tmp_path / "run", WATER_SETTINGS, resume=True)
    assert history(grown) == history(finished_run)
    assert (tmp_path / "run" / "errors.csv").read_text() == (finished_run.folder / "errors.csv").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, r"begun with other settings \(seed: 1 before, 2 now\)"),
        ({"holdout": 0.3, "seed": 2}, r"seed: 1 before, 2 now; holdout: 0\.2 before, 0\.3 now\)"),
        ({"schedule": Schedule(n_steps=3, n_initial=12, step_size=5)}, r"\(n_initial: 10 before, 12 now\)"),
        (
            {"trainer": {"sigma": 20, "symmetries": False}},
            r"\(sigma: 10 before, 20 now; symmetries: not set before, False now\)",
        ),
        ({"schedule": Schedule(n_steps=2, n_initial=10, step_size=5)}, "can grow but not shrink"),
    ],
)
def test_a_run_of_other_settings_is_not_continued(water, finished_run, change, message):
    with pytest.raises(InputError, match=message):
        train(water, finished_run.folder, replace(WATER_SETTINGS, **change), resume=True)


def test_a_run_of_other_data_is_not_continued(water, finished_run):
    other = Dataset(water.numbers, water.positions + 1, water.energies, water.forces)
    with pytest.raises(InputError, match=r"expected the data that .* was begun with \(.*\), found others"):
        train(other, finished_run.folder, WATER_SETTINGS, resume=True)


def test_a_run_is_not_overwritten(water, finished_run, tmp_path):
    with pytest.raises(InputError, match="add --resume, or choose another"):
        train(water, finished_run.folder, WATER_SETTINGS)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="found other files"):
        train(water, tmp_path, WATER_SETTINGS)


def test_a_full_disk_ends_in_a_sentence_and_the_run_goes_on(water, finished_run, tmp_path, monkeypatch):
    real, left = os.fsync, [12]

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patched, pytest.raises(InputError, match="No space left on device; free space"):
        patched.setattr(os, "fsync", full)
        train(water, tmp_path / "run", WATER_SETTINGS)
    assert not list((tmp_path / "run").rglob(".writing-*"))
    assert history(train(water, tmp_path / "run", WATER_SETTINGS, resume=True)) == history(finished_run)


def test_a_folder_that_cannot_be_written_is_refused(water, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose a folder that can be written"):
        train(water, tmp_path / "file" / "run", WATER_SETTINGS)


def test_settings_survive_json(finished_run):
    settings = replace(WATER_SETTINGS, subset=False, default_draws=4)  # as sGDML decides
    assert finished_run.settings == settings
    assert RunSettings.from_json(json.loads(json.dumps(finished_run.info.settings))) == settings


def test_what_is_missing_is_named(tmp_path, finished_run):
    with pytest.raises(InputError, match=r"found no .*run.json; make one with: ase-flatten train"):
        _ = Run(tmp_path).info
    with pytest.raises(InputError, match="expected a finished run"):
        _ = Run(tmp_path).evaluation
    shutil.copytree(finished_run.folder, tmp_path / "run")
    (tmp_path / "run" / "splits.npz").unlink()
    with pytest.raises(InputError, match=r"splits\.npz, found no such file; restore the file from a copy"):
        _ = Run(tmp_path / "run").splits
    (tmp_path / "run.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="update ase-flatten"):
        _ = Run(tmp_path).info
    assert Run(tmp_path).history == []


def test_the_newest_run_is_found(tmp_path):
    with pytest.raises(InputError, match="make one with: ase-flatten train"):
        newest_run(tmp_path)
    for age, name in enumerate(("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
        os.utime(tmp_path / name / "run.json", (1e9 - age, 1e9 - age))
    assert newest_run(tmp_path).name == "b"


def test_a_trainer_without_the_base_class_trains_the_same_models(finished_run, water, tmp_path, monkeypatch):
    """Families of third parties were written before there was a base class."""
    sgdml = family("sgdml")

    class BareTrainer:
        def __init__(self, trainer):
            self.default_frames, self.fit, self.settle = trainer.default_frames, trainer.fit, trainer.settle

    class BareFamily:
        name, distribution, units, expensive, load = (
            sgdml.name, sgdml.distribution, sgdml.units, sgdml.expensive, sgdml.load,
        )  # fmt: skip

        def trainer(self, **settings):
            return BareTrainer(sgdml.trainer(**settings))

        def settings(self, trainer):
            return {}

    monkeypatch.setattr("ase_flatten.workflow.plan.family", lambda name: BareFamily())
    run = train(water, tmp_path / "run", WATER_SETTINGS, source="water.npz")
    assert history(run) == history(finished_run)
    assert (run.folder / "errors.csv").read_text() == (finished_run.folder / "errors.csv").read_text()
