"""``ase-flatten show`` as a user meets it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from ase_flatten.cli.app import app
from ase_flatten.data.io import write_dataset
from ase_flatten.models import family
from ase_flatten.report.results_record import ResultsRecord, Subject
from ase_flatten.utils.exceptions import not_installed
from ase_flatten.utils.records import write_record


def show(*arguments):
    result = CliRunner().invoke(app, ["show", *(str(argument) for argument in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def facts(*arguments):
    status, out, err = show(*arguments)
    assert status == 0, err
    first, *lines = out.splitlines()
    named = (line.strip().partition("  ") for line in lines if line.startswith("  "))
    return first.rpartition(": ")[2], {name: value.strip() for name, _, value in named}, out


def test_a_data_set(water_file, water):
    kind, found, out = facts(water_file, "--model", "sgdml", "--frames", 10, "--frames", 20)
    assert kind == "data set" and found["molecule"] == "H2O, 3 atoms" and found["frames"] == "416"
    assert found["theory"] == "GFN2-xTB" and found["units of the file"] == "energies in kcal/mol, lengths in Ang"
    assert found["energies"].startswith(f"{water.energies.min():.3f} eV and up to ")
    assert water.digest.startswith(found["digest"])
    assert "10 frames" in out and "20 frames" in out and "sgdml" in out and "schnet" not in out


def test_units_and_temperature_are_those_of_the_file(water, tmp_path):
    write_dataset(tmp_path / "water.extxyz", water.take(np.arange(5)))
    assert facts(tmp_path / "water.extxyz", "--model", "sgdml")[1]["units of the file"] == (
        "energies in eV, lengths in Ang"
    )
    write_dataset(tmp_path / "water.npz", water.take(np.arange(5)), temperature_K=500.0)
    assert facts(tmp_path / "water.npz", "--model", "sgdml")[1]["temperature"] == "500.0 K, as sampled"


def test_a_family_that_is_not_installed_is_said_so(water_file, monkeypatch):
    from ase_flatten.report import training_needs

    def without_gap(name):
        if name == "gap":
            raise not_installed("GAP", "quippy", extra="gap")
        return family("sgdml")

    monkeypatch.setattr(training_needs, "family", without_gap)
    assert "not installed" in show(water_file)[1]
    assert show(water_file, "--model", "gap")[0] == 2


def test_a_finished_run_and_its_models(finished_run):
    kind, found, out = facts(finished_run.folder)
    assert kind == "run" and found["state"].startswith("finished") and "water.npz, H2O, 416 frames" in found["data set"]
    assert "10 frames and 3 steps of 5, 25 frames in the end; seed 1" in found["schedule"]
    assert found["verdict"] and "ase-flatten report" in found["report"]
    default, improved = finished_run.evaluation.final
    kcal = 23.0605
    assert f"{default.force_rmse * kcal:.3f}" in out and f"{improved.force_rmse * kcal:.3f}" in out
    kind, found, _ = facts(finished_run.folder / "improved")
    assert kind == "model" and found["family"] == "sgdml" and found["training"] == "25 frames"
    assert f"forces {improved.force_rmse * kcal:.3f}" in found["held-out errors"]
    assert facts(finished_run.folder / "improved" / "model.npz")[1]["training"] == "25 frames"
    assert facts(finished_run.folder / "run.json")[0] == "run"


def test_a_native_file_alone(finished_run, tmp_path):
    shutil.copy(finished_run.folder / "improved" / "model.npz", tmp_path)
    kind, found, _ = facts(tmp_path / "model.npz")
    assert kind == "model" and found["training"].startswith("unknown") and "sigma 10" in found["hyper-parameters"]


@pytest.mark.parametrize(
    ("n_lines", "missing", "state"),
    [
        (0, ("curves.json",), "begun, no model is trained"),
        (2, ("curves.json",), "step 1 of 3 is done"),
        (4, ("curves.json",), "all 3 steps are done"),
        (4, (), "finished"),
    ],
)
def test_how_far_a_run_is(finished_run, tmp_path, n_lines, missing, state):
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    lines = (folder / "history.jsonl").read_text().splitlines(keepends=True)
    (folder / "history.jsonl").write_text("".join(lines[:n_lines]))
    for name in missing:
        (folder / name).unlink()
    found = facts(folder)[1]
    assert found["state"].startswith(state)
    assert ("--resume" in found["state"]) == bool(missing)


def test_a_run_that_is_to_grow_is_not_finished(finished_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    content = json.loads((folder / "run.json").read_text())
    content["settings"]["schedule"]["n_steps"] = 5
    (folder / "run.json").write_text(json.dumps(content))
    assert facts(folder)[1]["state"].startswith("step 3 of 5 is done")


def test_clusters_and_results_of_before(finished_run, tmp_path):
    kind, found, _ = facts(finished_run.folder / "clusters.npz")
    assert kind == "clusters" and found["clusters"].endswith("of 416 frames")
    (tmp_path / "errors.json").write_text(
        json.dumps(
            {
                "units": {"energy": "eV", "forces": "eV/Å"},
                "overall": {"n_frames": 9, "force_rmse": 0.5, "energy_rmse": 0.1},
                "clusters": [
                    {"cluster": 4, "n_frames": 5, "force_rmse": 0.7, "energy_rmse": 0.1},
                    {"cluster": 2, "n_frames": 4, "force_rmse": 0.2, "energy_rmse": 0.1},
                ],
            }
        )
    )
    kind, found, _ = facts(tmp_path)
    assert kind == "errors" and found["worst cluster"] == "4: 0.700 eV/Å on 5 frames" and "energies" not in found
    mine, model = Subject(name="a.npz", digest="1"), Subject(name="tblite:GFN2-xTB", digest="2")
    record = ResultsRecord(dataset=mine, model=model, found={"energy_offset_removed": -1234.5})
    write_record(tmp_path / "results.json", record)
    found = facts(tmp_path)[1]
    assert found["about"] == "tblite:GFN2-xTB on a.npz"
    assert found["energies"] == "up to a constant: a mean difference of -1,234.50 eV was removed"
    write_record(tmp_path / "results.json", replace(record, found={"energy_offset_removed": "much"}))
    assert show(tmp_path)[0] == 2


def test_molecular_dynamics():
    from pathlib import Path

    md = Path(__file__).parents[1] / "formats" / "before" / "run" / "md"
    kind, found, out = facts(md)
    assert kind == "molecular dynamics" and found["temperatures"] == "300 K" and "default" in out
    assert facts(md / "300K" / "improved")[1]["models"] == "improved"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "found no "),
        ("empty", "found none of run.json, model.json"),
        ("text.txt", "whose format it does not know"),
        ("other.npz", "expected the keys z, R, E and F"),
        ("damaged.npz", "could not read it"),
        ("no_units.npz", "with --energy-unit (one of"),
    ],
)
def test_anything_else_gets_one_sentence(tmp_path, water_file, name, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "damaged.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", a=1)
    content = np.load(water_file)
    np.savez(tmp_path / "no_units.npz", **{key: content[key] for key in "zREF"})
    status, out, err = show(tmp_path / name)
    assert (status, out) == (2, "") and message in " ".join(err.split()) and "Traceback" not in err


def test_options_of_data_sets_are_refused_elsewhere(finished_run):
    status, _, err = show(finished_run.folder, "--frames", 100)
    assert status == 2 and "found a run" in err


def test_it_writes_nothing(finished_run):
    before = {path: path.stat().st_mtime_ns for path in finished_run.folder.rglob("*")}
    show(finished_run.folder)
    assert {path: path.stat().st_mtime_ns for path in finished_run.folder.rglob("*")} == before
