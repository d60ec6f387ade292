"""Files of earlier versions open, resume, report and go on, for ever; `make_files` says how they were made."""

import json
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from conftest import needs

from ase_flatten import load_calculator
from ase_flatten.data.io import read_dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.md.protocol import load_protocol
from ase_flatten.md.validate import Subject, Validation, validate
from ase_flatten.report.page import verdict_sentences, write_report
from ase_flatten.sampling.sample import SampleSettings, sample
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.run_folder import Run
from ase_flatten.workflow.train_run import train

BEFORE = Path(__file__).parent / "before"
DATA = read_dataset(BEFORE / "water.npz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of the version before."""
    return Path(shutil.copytree(BEFORE / "run", tmp_path / "run"))


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def without_later_entries(folder: Path) -> None:
    """Take from a run what the first versions did not write, by hand: none of their runs was kept."""
    info = json.loads((folder / "run.json").read_text())
    for name in ("quarantine", "default_draws", "subset_rule", "n_ward"):
        del info["settings"][name]
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "quarantine.json").unlink()
    shutil.rmtree(folder / "default_draws")
    shutil.rmtree(folder / "md")
    later = ("n_predicted", "hyper_parameters", "quarantined_frames", "released_frames", "alarm_frames")
    kept = [{name: value for name, value in line.items() if name not in later} for line in lines(folder)]
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    curves = json.loads((folder / "curves.json").read_text())
    del curves["default_draws"]
    (folder / "curves.json").write_text(json.dumps(curves))
    first = {"numbers", "lowest_energy", "lowest_positions", "mean_pair_distances", "energies", "positions"}
    for name, wanted in (("reference.npz", first), ("heldout_errors.npz", None)):
        with np.load(folder / name) as archive:
            arrays = {key: archive[key] for key in archive.files}
        kept_keys = wanted or {key for key in arrays if "draws" not in key}
        np.savez(folder / name, **{key: arrays[key] for key in kept_keys})


def test_a_run_opens(folder):
    run = Run(folder)
    assert run.info.format == 1 and run.info.dataset.digest == DATA.digest and run.settings.seed == 1
    assert [line.step for line in run.history] == [0, 1, 2] and run.history[2].worst_rmse > run.history[2].overall_rmse
    assert len(run.history[2].train_frames) == 20 and not len(run.quarantine.looks)
    assert run.reference.molecule.numbers.tolist() == [8, 1, 1] and run.reference.molecule.n_fragments == 1
    assert run.reference.molecule.pair_distance_counts.sum() == DATA.n_frames * 3
    last = (folder / "errors.csv").read_text().splitlines()[-1].split(",")
    default, improved = run.evaluation.final
    found = [default.force_rmse, improved.force_rmse, default.energy_rmse, improved.energy_rmse]
    assert [f"{value / KCAL_PER_MOL:.6g}" for value in found] == last[3:]
    assert run.claims.n_draws == 2 and run.claims.of["overall"].improved.value == pytest.approx(improved.force_rmse)


def test_a_run_is_reported(folder):
    assert write_report(Run(folder)).stat().st_size > 100_000
    sentences = verdict_sentences(Run(folder))
    assert "worst group" in sentences[0] and sentences[-1].startswith("At 300 K")


@pytest.mark.parametrize("first", [False, True], ids=["before", "first"])
def test_a_run_resumes(folder, first):
    if first:
        without_later_entries(folder)
    run, done = Run(folder), lines(folder)
    assert (run.settings.quarantine == "off") == first
    assert "worst group" in verdict_sentences(run)[0]
    schedule = replace(run.settings.schedule, n_steps=3)
    grown = train(DATA, folder, replace(run.settings, schedule=schedule, quarantine="on"), resume=True)
    assert lines(folder)[:3] == done and len(grown.history) == 4
    assert grown.info.trainer["symmetries"] is True  # the matching of frames, as it was begun
    assert len(load_calculator(folder).predict(DATA.positions[:2]).energies) == 2
    assert grown.evaluation.final[1].n_train == 25 and (folder / "quarantine.json").exists() != first


def test_molecular_dynamics_finds_what_it_did(folder):
    protocol = replace(load_protocol("quick"), n_steps=200, n_replicas=2)
    left = {path: path.read_bytes() for path in folder.glob("md/300K/*/*")}
    times = {path: path.stat().st_mtime_ns for path in folder.glob("md/300K/*/*.traj")}
    summaries = validate(Subject.of_run(Run(folder)), Validation([300.0], protocol))
    assert len(summaries) == 2 and len(times) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert all(path.read_bytes() == content for path, content in left.items() if path.suffix != ".json")
    longer = validate(Subject.of_run(Run(folder)), Validation([300.0], replace(protocol, n_steps=400)), overwrite=True)
    assert len(longer) == 2 and all(path.stat().st_mtime_ns > time for path, time in times.items())


@pytest.mark.parametrize(("name", "package"), [("run", "numpy"), ("schnet", "schnetpack"), ("gap", "quippy")])
def test_a_model_predicts_what_it_did(name, package):
    needs(package, extra=name)
    found = load_calculator(BEFORE / name).predict(DATA.positions[:3])
    with np.load(BEFORE / "predictions.npz") as saved:
        np.testing.assert_allclose(found.energies, saved[f"{name}_energies"], atol=1e-6)
        np.testing.assert_allclose(found.forces, saved[f"{name}_forces"], atol=1e-6)


def test_a_sampled_trajectory_opens_and_a_stopped_one_ends_in_the_same(tmp_path):
    whole = read_dataset(BEFORE / "sampled.npz")
    assert whole.n_frames == 40 and whole.theory == "GFN2-xTB"
    partial = shutil.copytree(BEFORE / "stopped.npz.partial", tmp_path / "stopped.npz.partial")
    settings = json.loads((partial / "settings.json").read_text())
    # Another version of a package may give other numbers, and is refused; here it is only told to be the present one.
    settings["versions"] = {package: version(package) for package in settings["versions"]}
    (partial / "settings.json").write_text(json.dumps(settings))
    found = sample(
        "H2O", tmp_path / "stopped.npz", SampleSettings(temperature_K=300, frames=40, stride=25, equilibration_ps=0.1)
    )
    np.testing.assert_array_equal(found.positions[:10], whole.positions[:10])
    np.testing.assert_allclose(found.positions, whole.positions, atol=1e-3)


@pytest.mark.parametrize("name", ["run.json", "quarantine.json", "improved/model.json"])
def test_a_later_format_is_refused(folder, name):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({"format": content["format"] + 1, "all": "different"}))
    with pytest.raises(InputError, match=rf"expected format 1 of .*{name}, found 2; update ase-flatten to read it"):
        {"run.json": lambda: Run(folder).info, "quarantine.json": lambda: Run(folder).quarantine}.get(
            name, lambda: load_calculator(folder)
        )()


def test_a_setting_that_is_not_known_is_refused(folder):
    content = json.loads((folder / "run.json").read_text())
    content["settings"]["schedule"]["colour"] = "red"
    (folder / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"run\.json.*'colour' is not a setting of a run"):
        _ = Run(folder).settings
