"""The command line as a user meets it; mistakes end in one sentence and exit status 2."""

import csv
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from typer.testing import CliRunner

import ase_flatten
from ase_flatten.checking import labels
from ase_flatten.cli.app import app
from ase_flatten.clustering import prepared_data
from ase_flatten.data import dataset
from ase_flatten.selection.sampled_errors import SubsetRule
from ase_flatten.workflow.run_folder import read_protocol

TRAIN = ["-n", "1", "-i", "10", "-s", "5", "--set", "sigma=10", "--n-geometry", "10", "--n-energy", "5"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command in an empty folder; give exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


@pytest.fixture
def mistake(run):
    def call(*arguments):
        status, _, text = run(*arguments)
        assert status == 2, text
        sentence = text.strip().splitlines()[-1]
        assert sentence.startswith("ase-flatten: ") and len(sentence) > 40 and "Traceback" not in text
        return sentence

    return call


@pytest.fixture
def trained(run, water_file, tmp_path):
    status, out, err = run("train", water_file, *TRAIN, "--out", "runs/water")
    assert status == 0, err
    return tmp_path / "runs" / "water", out


def test_version_and_help_with_examples(run):
    assert run("--version")[1].strip() == f"ase-flatten {ase_flatten.__version__}"
    for command in ("check", "clean", "cluster", "errors", "train", "report", "sample"):
        status, out, _ = run(command, "--help")
        assert status == 0 and f"Example: ase-flatten {command}" in out


def test_check(run, mistake, water, water_file, tmp_path):
    status, out, _ = run("check", water_file)
    assert status == 0 and "416 frames of H2O" in out and "fit to train on" in out
    content = dict(np.load(water_file))
    np.savez(tmp_path / "gradients.npz", **{**content, "F": -content["F"]})
    assert "1 reason to refuse" in mistake("check", "gradients.npz")
    assert "gradients" in run("check", "gradients.npz")[1]


def test_clean(run, mistake, water, water_file, tmp_path):
    status, out, _ = run("check", water_file, "--scores", "scores.csv")
    assert status == 0 and len((tmp_path / "scores.csv").read_text().splitlines()) == 417
    content = dict(np.load(water_file))
    content["F"][[30, 31]] = 0
    np.savez(tmp_path / "zeros.npz", **content)
    assert "leave those frames out with: ase-flatten clean zeros.npz -o CLEAN" in mistake("check", "zeros.npz")
    assert "ase-flatten clean zeros.npz -o CLEAN" in mistake("train", "zeros.npz", *TRAIN)
    assert "frame 31: all forces are zero" in run("check", "zeros.npz", "-v")[1]
    status, out, _ = run("clean", "zeros.npz", "-o", "clean.npz")
    assert status == 0 and "414 of 416 frames kept" in out and "2 frames: all forces are zero" in out
    assert (tmp_path / "clean_left_out.csv").read_text().splitlines()[0] == "frame,reason"
    assert run("check", "clean.npz")[0] == 0
    assert "--overwrite" in mistake("clean", "zeros.npz", "-o", "clean.npz")
    content["F"] = -np.load(water_file)["F"]
    np.savez(tmp_path / "gradients.npz", **content)
    assert "leaving out frames is no remedy" in mistake("clean", "gradients.npz", "-o", "new.npz")


def test_cluster(run, water_file, tmp_path):
    status, out, _ = run("cluster", "-d", water_file, "--n-geometry", 4, "--n-energy", 2, "--out", "c")
    labels = np.load(tmp_path / "c" / "clusters.npz")["labels"]
    assert status == 0 and "8 clusters of 416 frames" in out and len(labels) == 416
    representatives = read(tmp_path / "c" / "representatives.extxyz", ":")
    assert [labels[atoms.info["frame"]] for atoms in representatives] == list(range(8))


def test_data_as_others_write_them(run, mistake, water, tmp_path):
    """A file for MACE: labels and isolated atoms under its names, no units."""
    frames = [Atoms("O", info={"REF_energy": -1.0, "config_type": "IsolatedAtom"})]
    for frame in range(water.n_frames):
        atoms = water.atoms(frame)
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = water.energies[frame], water.forces[frame]
        frames.append(atoms)
    write("mace.extxyz", frames)
    options = ["--energy-key", "REF_energy", "--forces-key", "REF_forces"]
    assert mistake("check", "mace.extxyz").endswith(" ".join(options))
    assert "--energy-unit" in (units := mistake("check", "mace.extxyz", *options)) and "--length-unit" in units
    options += ["--energy-unit", "eV", "--length-unit", "Ang"]
    status, out, err = run("check", "mace.extxyz", *options)
    assert status == 0 and "416 frames of H2O" in out and "1 frame of isolated atoms (O) set aside;" in err
    assert run("cluster", "mace.extxyz", *options, "--out", "c")[0] == 0
    for frame in (31, 32):
        frames[frame].arrays["REF_forces"] = np.zeros((3, 3))
    write("zeros.extxyz", frames)
    *_, command = mistake("check", "zeros.extxyz", *options).partition("leave those frames out with: ase-flatten ")
    status, out, _ = run(*shlex.split(command.replace("CLEAN", "clean.npz")))
    assert status == 0 and "414 of 416 frames kept: clean.npz" in out
    assert run("train", "mace.extxyz", *TRAIN, *options, "--out", "r")[0] == 0
    assert run("errors", "mace.extxyz", "r", *options, "--out", "e")[0] == 0


def test_train_report_and_errors(run, trained, water_file, tmp_path):
    folder, out = trained
    assert "step 1 of 1: 15 frames" in out and out.strip().splitlines()[-2] == "report: runs/water/report.html"
    assert (folder / "report.html").stat().st_size > 50_000 and list((folder / "figures").glob("*.pdf"))
    status, out, _ = run("report")  # the newest run
    assert status == 0 and "runs/water/report.html" in out
    status, out, _ = run("errors", water_file, "runs/water", "--out", "e", "--units", "eV")
    assert status == 0 and "over 401 frames outside the 15 training frames" in out and "eV/Å" in out
    assert "clusters of runs/water\n" in out
    rows = list(csv.DictReader((tmp_path / "e" / "errors.csv").read_text().splitlines()))
    rmse = [float(row["force_rmse"]) for row in rows[:-1]]
    assert rmse == sorted(rmse, reverse=True) and int(rows[-1]["n_frames"]) == 401
    overall = json.loads((tmp_path / "e" / "errors.json").read_text())["overall"]["force_rmse"]
    assert overall == pytest.approx(float(rows[-1]["force_rmse"]), rel=1e-4)
    worst = read(tmp_path / "e" / "worst_frames.extxyz", ":")
    errors = [atoms.info["force_rmse"] for atoms in worst]
    assert errors == sorted(errors, reverse=True) and worst[0].get_forces().shape == (3, 3)
    assert (tmp_path / "e" / "outliers.png").stat().st_size > 5_000


def test_errors_of_any_ase_calculator(run, water_file):
    status, out, _ = run("errors", "-d", water_file, "-i", "tblite:GFN1-xTB", "--out", "e")
    assert status == 0 and "over 416 frames of the data set" in out and "clusters of" not in out
    status, out, _ = run("cluster", water_file, "--n-geometry", 3, "--n-energy", 2, "--out", "c")
    status, out, _ = run("errors", water_file, "tblite:GFN1-xTB", "--clusters", "c/clusters.npz", "--out", "e")
    assert status == 0 and "clusters of c/clusters.npz" in out


def test_two_models_side_by_side(run, mistake, water_file, tmp_path):
    """Neither replaces the other's results, and the same command replaces its own."""
    for method in ("GFN1-xTB", "GFN2-xTB", "GFN2-xTB"):
        status, out, _ = run("errors", water_file, f"tblite:{method}")
        assert status == 0 and f"runs/water-tblite-{method}-errors" in out
        assert "energies are compared up to a constant: a mean difference of" in out and "MAE" in out
    one, other = (tmp_path / "runs" / f"water-tblite-{method}-errors" for method in ("GFN1-xTB", "GFN2-xTB"))
    first, second = (json.loads((folder / "errors.json").read_text())["overall"] for folder in (one, other))
    assert first["force_rmse"] > 1 > second["force_rmse"] and first["energy_rmse"] < 20  # kcal/mol
    record = json.loads((one / "results.json").read_text())
    assert abs(record["found"]["energy_offset_removed"]) > 100 and record["model"]["name"] == "tblite:GFN1-xTB"
    before = (one / "errors.csv").read_bytes()
    assert "--overwrite" in mistake("errors", water_file, "tblite:GFN2-xTB", "--out", one)
    assert "--overwrite" in mistake("cluster", water_file, "--out", one)
    assert (one / "errors.csv").read_bytes() == before
    assert run("errors", water_file, "tblite:GFN2-xTB", "--out", one, "--overwrite")[0] == 0
    assert (one / "errors.csv").read_bytes() == (other / "errors.csv").read_bytes()


def test_clusters_of_other_data_are_not_replaced(run, mistake, water, water_file, tmp_path):
    ase_flatten.write_dataset(tmp_path / "part.npz", water.take(np.arange(300)))
    few = ["--n-geometry", 2, "--n-energy", 2, "--out", "c"]
    assert run("cluster", water_file, *few)[0] == run("cluster", water_file, *few)[0] == 0
    assert "--overwrite" in mistake("cluster", "part.npz", *few)
    assert run("cluster", "part.npz", *few, "--overwrite")[0] == 0


def test_the_model_is_given_once(run, mistake, water_file):
    assert "-m, --model" in run("errors", "--help")[1] and "-i" not in run("errors", "--help")[1].split()
    assert "one model" in mistake("errors", water_file, "-m", "tblite:GFN1-xTB", "-i", "tblite:GFN1-xTB")
    assert "one model" in mistake("errors", water_file, "tblite:GFN1-xTB", "-m", "tblite:GFN1-xTB")


def test_a_test_set_in_train_and_errors(run, mistake, water, water_file, tmp_path, ethanol_like):
    ase_flatten.write_dataset(tmp_path / "part.npz", water.take(np.arange(0, 416, 2)))
    ase_flatten.write_dataset(tmp_path / "hot.npz", water.take(np.arange(1, 416, 2)))
    ase_flatten.write_dataset(tmp_path / "ethanol.npz", ethanol_like)
    assert "found C2H6O" in mistake("train", "part.npz", "--test", "ethanol.npz", *TRAIN, "--out", "runs/part")
    assert not (tmp_path / "runs").exists()
    status, out, err = run("train", "part.npz", "--test", "hot.npz", *TRAIN, "--default-draws", 1, "--out", "runs/part")
    assert status == 0 and "On the test set hot.npz (208 frames), the force RMSE of all frames " in out, err
    assert "verdict: " in out.splitlines()[-1] and "hot.npz" in run("report", "runs/part")[1]
    assert "On the test set hot.npz" in (tmp_path / "runs" / "part" / "report.html").read_text()
    *_, total = csv.DictReader((tmp_path / "runs" / "part" / "test_errors.csv").read_text().splitlines())
    status, out, err = run("errors", "part.npz", "runs/part", "--test", "hot.npz", "-v")
    assert status == 0 and "over 208 frames of the test set" in out and "up to a constant" not in out, err
    assert "clusters of runs/part" in out and "nearly identical to training or validation frames" in out
    found = tmp_path / "runs" / "part-part-hot-errors"
    *rows, overall = csv.DictReader((found / "errors.csv").read_text().splitlines())
    assert float(overall["force_rmse"]) == pytest.approx(float(total["force_rmse_improved"]), rel=1e-4)
    assert sum(int(row["population"]) for row in rows) == int(overall["population"]) == 208
    frames = np.load(found / "frame_errors.npz")["frames"]
    assert frames.min() == 0 and frames.max() == 207
    worst = read(found / "worst_frames.extxyz")
    np.testing.assert_allclose(worst.positions, water.positions[1::2][worst.info["frame"]], atol=1e-6)
    reference = np.sqrt(np.mean(water.forces[1::2] ** 2)) / ase_flatten.data.units.KCAL_PER_MOL
    relative = float(overall["force_rmse"]) / reference
    assert float(overall["force_rmse_relative"]) == pytest.approx(relative, rel=1e-4)


def test_errors_from_subsets_say_so(run, trained, water_file, tmp_path, monkeypatch):
    monkeypatch.setattr("ase_flatten.report.outliers.SubsetRule", lambda: SubsetRule(n_first=2, resolution=0.5))
    status, out, _ = run("errors", water_file, "runs/water", "--subset", "--out", "e")
    assert status == 0 and "including the 64 validation frames, estimated from" in out
    *rows, total = csv.DictReader((tmp_path / "e" / "errors.csv").read_text().splitlines())
    assert int(total["population"]) == 416
    assert sum(int(row["n_frames"]) for row in rows) == int(total["n_frames"]) < 401
    assert any(float(row["force_rmse_half_width"]) > 0 for row in rows) and float(total["force_rmse_half_width"]) > 0
    # All frames of the worst clusters were predicted.
    worst = {atoms.info["cluster"] for atoms in read(tmp_path / "e" / "worst_frames.extxyz", ":")}
    assert all(float(row["force_rmse_half_width"]) == 0 for row in rows if int(row["cluster"]) in worst)
    everything = run("errors", water_file, "runs/water", "--all-frames", "--out", "a")[1]
    assert "estimated" not in everything


def test_a_run_on_subsets_resumes_on_subsets(run, water_file, tmp_path):
    assert run("train", water_file, *TRAIN, "--subset", "--out", "s")[0] == 0
    assert json.loads((tmp_path / "s" / "run.json").read_text())["settings"]["subset"] is True
    assert run("train", water_file, "--out", "s", "--resume", "-n", 2)[0] == 0
    status, _, err = run("train", water_file, "--out", "s", "--resume", "-n", 2, "--all-frames")
    assert status == 2 and "begun with other settings (subset: True before, False now)" in err


def test_resume_keeps_the_settings_of_the_run(run, trained, water_file):
    status, out, _ = run("train", water_file, "--out", "runs/water", "--resume", "-n", 2)
    assert status == 0 and "step 2 of 2: 20 frames" in out and "step 1" not in out


def test_resume_without_arguments_takes_the_newest_run_and_its_data(run, mistake, water_file, tmp_path, monkeypatch):
    assert "make one with: ase-flatten train" in mistake("train", "--resume")
    content = dict(np.load(water_file))
    del content["e_unit"], content["r_unit"]
    np.savez(tmp_path / "bare.npz", **content)
    declared = ("--energy-unit", "kcal/mol", "--length-unit", "Ang")
    assert run("train", "bare.npz", *declared, *TRAIN, "--out", "runs/b")[0] == 0
    kept = json.loads((tmp_path / "runs" / "b" / "run.json").read_text())["dataset"]["file"]
    given = {"path": str(tmp_path / "bare.npz"), "energy_unit": "kcal/mol", "length_unit": "Ang"}
    assert kept == {**given, "energy_key": None, "forces_key": None}
    status, out, _ = run("train", "--resume")
    assert status == 0 and out.startswith(
        "resuming the newest run, runs/b\nsgdml on 416 frames of H2O (GFN2-xTB): 1 step"
    )
    assert run("train", "bare.npz", "--resume", "--out", "runs/b")[0] == 0  # its units are known as well
    monkeypatch.chdir(tmp_path / "runs")
    status, out, _ = run("train", "--resume", "--out", "b", "-n", 2)
    assert status == 0 and "step 2 of 2: 20 frames" in out
    (tmp_path / "bare.npz").rename(tmp_path / "moved.npz")
    sentence = mistake("train", "--resume", "--out", "b")
    assert (
        "bare.npz, found no such file; give the data set: "
        "ase-flatten train DATASET --energy-unit kcal/mol --length-unit Ang --resume --out b" in sentence
    )
    assert run("train", "../moved.npz", *declared, "--resume", "--out", "b")[0] == 0
    content["E"] = content["E"] + 1
    np.savez(tmp_path / "moved.npz", **content)
    assert "found others in" in mistake("train", "--resume", "--out", "b")


def test_a_run_of_an_earlier_version_says_that_it_needs_its_data(mistake, trained):
    folder, _ = trained
    info = json.loads((folder / "run.json").read_text())
    del info["dataset"]["file"]
    (folder / "run.json").write_text(json.dumps(info))
    assert "ase-flatten train DATASET --resume --out runs/water" in mistake("train", "--resume")


def test_train_begins_with_what_it_does_and_nothing_has_trailing_blanks(run, water_file, tmp_path):
    status, out, err = run("train", water_file, *TRAIN, "--out", "runs/w")
    first = "sgdml on 416 frames of H2O (GFN2-xTB): 1 step from 10 to 15 training frames, 4 default training sets, "
    assert status == 0 and out.startswith(first)
    assert re.match(r"about \d+ s; results: runs/w\nstep 0 of 1: 10 frames", out.removeprefix(first))
    assert "left)" in out and not any(line != line.rstrip() for line in (out + err).splitlines())
    log = (tmp_path / "runs" / "w" / "train.log").read_text()
    assert "ase-flatten 0.1.0: " in log and "step 1 of 1: 15 frames" in log


def test_strict_turns_the_verdict_into_the_exit_status(run, trained, water_file, monkeypatch):
    from ase_flatten.evaluation.claims import Claim

    assert run("train", water_file, "--out", "runs/water", "--resume", "--strict")[0] in (0, 1)
    for verdict, status in (("better", 0), ("within noise", 1), ("worse", 1)):
        monkeypatch.setattr(Claim, "verdict", verdict)
        assert run("train", water_file, "--out", "runs/water", "--resume", "--strict")[0] == status


@pytest.fixture
def calls(monkeypatch):
    """Count what takes long with large data."""
    counts = Counter()

    def count(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: counts.update([name]) or function(*given))

    count(dataset, "pair_distances")
    count(prepared_data, "representatives")
    count(labels, "_cross_predictions")
    return counts


def test_what_takes_long_is_done_once_and_default_draws_can_be_added_on_resuming(run, water_file, tmp_path, calls):
    select = ("--select", "farthest-point")
    assert run("train", water_file, *TRAIN, *select, "--default-draws", 1, "--out", "d")[0] == 0
    assert calls == {"pair_distances": 1, "representatives": 1, "_cross_predictions": 1}
    settings = json.loads((tmp_path / "d" / "run.json").read_text())["settings"]
    assert settings["schedule"]["rule"]["select"] == "farthest-point"
    assert not (tmp_path / "d" / "default_draws").exists()
    status, out, _ = run("train", water_file, "--out", "d", "--resume", "--default-draws", 3)
    assert status == 0 and "over 3 default training sets" in out
    assert sorted(path.name for path in (tmp_path / "d" / "default_draws").iterdir()) == ["0001", "0002"]


def test_sample(run, tmp_path):
    status, out, err = run(
        "sample", "H2O", "--T", 300, "--frames", 5, "--stride", 2, "--equilibration", 0.01, "-o", "w.npz"
    )
    assert status == 0, err
    assert "5 frames of H2O" in out
    assert run("check", "w.npz")[0] == 0


MISTAKES = {
    "missing file": (["check", "nowhere.npz"], "found no file nowhere.npz"),
    "no data set": (["train"], "expected one data set"),
    "two data sets": (["check", "a.npz", "-d", "b.npz"], "give one"),
    "wrong keys": (["check", "keys.npz"], "expected the keys z, R, E and F"),
    "no units": (["check", "units.npz"], "state them with --energy-unit"),
    "an unknown unit": (["check", "units.npz", "--energy-unit", "cal", "--length-unit", "Ang"], "must be one of eV"),
    "a periodic cell": (["check", "lattice.npz"], "periodic data are not supported"),
    "NaN": (["check", "nan.npz"], "found NaN or infinity in 1 of 416"),
    "gradients": (["train", "gradients.npz", *TRAIN], "gradients"),
    "too many frames": (["train", "water.npz", "-n", "99", "-i", "10", "-s", "50"], "was to grow to 4960 frames"),
    "an unknown family": (["train", "water.npz", "--model", "sgmdl"], "must be one of"),
    "an unknown setting": (["train", "water.npz", *TRAIN, "--set", "sigmaa=3"], "did you mean sigma"),
    "a setting of a wrong type": (["train", "water.npz", *TRAIN, "--set", "sigma=abc"], "must be a positive number"),
    "no setting": (["train", "water.npz", *TRAIN, "--set", "sigma"], "expected NAME=VALUE"),
    "an unknown rule": (["train", "water.npz", *TRAIN, "--pick", "best"], "must be one of largest-error"),
    "a contradiction": (["train", "water.npz", "--select", "random", "--pick", "centroid"], "cannot be combined with"),
    "a senseless share": (["train", "water.npz", *TRAIN, "--holdout", "2"], "between 0 and 1"),
    "no run": (["report"], "make one with: ase-flatten train"),
    "a folder that is no run": (["report", "."], "found no run.json; make one with: ase-flatten train"),
    "no model": (["errors", "water.npz"], "expected one data set and one model"),
    "a missing model": (["errors", "water.npz", "nowhere"], "found 'nowhere'; check the path"),
    "a test set of nothing": (["errors", "water.npz", "tblite:GFN2-xTB", "--test", "no.npz"], "found no file no.npz"),
    "data as their test": (["train", "water.npz", *TRAIN, "--test", "water.npz"], "found the data themselves"),
    "errors into a run": (["errors", "water.npz", "tblite:GFN2-xTB", "--out", "a_run"], "found a run in a_run"),
    "clusters into a run": (["cluster", "water.npz", "--out", "a_run"], "found a run in a_run"),
    "an unknown method": (["errors", "water.npz", "tblite:GFN3"], "must be one of GFN2-xTB"),
    "an unknown assignment": (["cluster", "water.npz", "--assignment", "best"], "must be one of average"),
    "an absurd time step": (["sample", "H2O", "--timestep", "10", "-o", "x.npz"], "time step"),
    "an unknown structure": (["sample", "nowhere.xyz", "-o", "x.npz"], "nowhere.xyz"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_sentence_and_leaves_nothing_behind(name, mistake, water_file, tmp_path):
    content = dict(np.load(water_file))
    forces = content["F"].copy()
    forces[7, 0, 0] = np.nan
    variants = {
        "water": content,
        "keys": {"a": np.zeros(3)},
        "units": {key: content[key] for key in "zREF"},
        "lattice": {**content, "lattice": np.eye(3)},
        "nan": {**content, "F": forces},
        "gradients": {**content, "F": -content["F"]},
    }
    for variant, arrays in variants.items():
        np.savez(tmp_path / f"{variant}.npz", **arrays)
    (tmp_path / "a_run").mkdir()
    (tmp_path / "a_run" / "run.json").write_text("{}")
    before = sorted(tmp_path.iterdir())
    arguments, expected = MISTAKES[name]
    assert expected in mistake(*arguments)
    left = [path for path in sorted(tmp_path.iterdir()) if path not in before]
    assert all(path.name == "runs" for path in left)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".writing-")]


def test_a_model_of_another_molecule(mistake, trained, tmp_path, ethanol_like):
    ase_flatten.write_dataset(tmp_path / "ethanol.npz", ethanol_like)
    assert "expected a model of C2H6O" in mistake("errors", "ethanol.npz", "runs/water")


def test_a_run_folder_of_other_data(mistake, trained, tmp_path, ethanol_like):
    ase_flatten.write_dataset(tmp_path / "ethanol.npz", ethanol_like)
    assert "found others" in mistake("train", "ethanol.npz", "--out", "runs/water", "--resume")


def test_a_run_that_is_there_already(mistake, trained, water_file):
    assert "--resume" in mistake("train", water_file, *TRAIN, "--out", "runs/water")


def test_wrong_usage_has_status_2(run):
    assert run("train", "--no-such-option")[0] == 2
    assert run("train", "-n", "many")[0] == 2


def test_ctrl_c_leaves_a_run_that_resumes(water_file, tmp_path):
    command = [sys.executable, "-m", "ase_flatten.cli", "train", str(water_file), "-n", "12", "-i", "10", "-s", "2"]
    command += ["--set", "sigma=10", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "history.jsonl").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"go on with: ase-flatten train --resume --out {tmp_path / 'run'}\n" in err and "Traceback" not in err
    result = subprocess.run([*command[:4], "--out", str(tmp_path / "run"), "--resume"], capture_output=True)
    assert result.returncode == 0


def test_plain_lines_in_a_pipe(water_file, tmp_path):
    command = [sys.executable, "-m", "ase_flatten.cli", "cluster", str(water_file), "--out", str(tmp_path / "c"), "-q"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == "" and "\x1b" not in result.stdout


PROTOCOL = """
seed = 3
[schedule]
n_steps = 1
n_initial = 12
step_size = 5
[schedule.rule]
share = "population"
n_fine = 4
[trainer]
sigma = 10
"""


def test_a_run_by_a_protocol(run, mistake, water_file, tmp_path):
    (tmp_path / "p.toml").write_text(PROTOCOL)
    status, _, err = run("train", water_file, "--protocol", "p.toml", "-i", "10", "--set", "symmetries=false")
    assert status == 0, err
    settings = json.loads((tmp_path / "runs" / "water-sgdml-seed3" / "run.json").read_text())["settings"]
    assert settings["schedule"]["n_initial"] == 10 and settings["schedule"]["step_size"] == 5
    rule = {"pick": "largest-error", "share": "population", "n_fine": 4, "factor": 1.1, "select": None}
    assert settings["schedule"]["rule"] == rule
    assert settings["trainer"] == {"sigma": 10, "symmetries": False}
    again = ("train", water_file, "--protocol", "p.toml", "--resume")
    assert "(symmetries: False before, not set now; n_initial: 10 before, 12 now)" in mistake(*again)
    assert run(*again, "-i", "10", "--set", "symmetries=false")[0] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[schedule]\nn_step = 3", "'n_step' is not a setting of a run; did you mean n_steps?"),
        ("schedule = 3", "schedule must be a table of settings, got 3"),
        ("[schedule]\nn_steps = 'many'", "Expected `int`, got `str` - at `$.schedule.n_steps`"),
        ("[schedule", "could not read them"),
    ],
)
def test_mistakes_in_a_protocol(mistake, water_file, tmp_path, text, message):
    (tmp_path / "p.toml").write_text(text)
    assert message in mistake("train", water_file, "--protocol", "p.toml")
    assert not (tmp_path / "runs").exists()


def test_the_protocols_in_the_examples():
    for path in sorted((Path(__file__).parents[2] / "examples" / "peptide").glob("*.toml")):
        settings = read_protocol(path)
        assert settings.family == "schnet" and settings.trainer["force_weight"] == 0
        assert settings.schedule.rule.share == "population"
    assert settings.schedule.rule.n_fine == 15
