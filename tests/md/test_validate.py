"""`python -m ase_flatten.md` on a finished run."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from ase.io import read

from ase_flatten import load_calculator
from ase_flatten.cli.app import run_alone
from ase_flatten.md import Protocol
from ase_flatten.md.dynamics import run_md
from ase_flatten.md.results import Summary
from ase_flatten.md.saved_run import SavedRun
from ase_flatten.md.validate import Subject, Validation, energy_fluctuation, validate
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.run_folder import Run

SHORT = Protocol("short", 300.0, 0.5, 0.01, n_steps=60, n_replicas=2, interval=10, equilibration_steps=10)
KEYS = {
    "model", "temperature_K", "timestep_fs", "n_steps", "n_replicas", "n_failed", "first_failure_ps", "reasons",
    "mean_total_energy", "standard_error", "drift", "stable",
}  # fmt: skip


def test_both_models_and_the_reference_side_by_side(finished_run):
    summaries = validate(
        Subject.of_run(finished_run), Validation([300, 350], SHORT, reference="tblite:GFN2-xTB", seed=3)
    )
    assert [(summary.temperature_K, summary.model) for summary in summaries] == [
        (temperature, model) for temperature in (300, 350) for model in ("default", "improved", "reference")
    ]
    folder = finished_run.folder / "md" / "300K"
    for model in ("default", "improved", "reference"):
        assert set(json.loads((folder / model / "summary.json").read_text())) >= KEYS
        with np.load(folder / model / "energies.npz") as energies:
            assert energies["potential"].shape == energies["kinetic"].shape == (7, 2)
            assert energies["time_ps"].shape == (7,) and energies["temperature_K"] == 300
        frames = read(folder / model / "replica-01.traj", ":")
        assert len(frames) == 7 and frames[0].get_forces().shape == (3, 3)
    assert (folder / "total_energy.png").stat().st_size > 10_000
    assert all((folder / f"{name}.{kind}").is_file() for name in ("survival", "distances") for kind in ("png", "pdf"))
    compared = json.loads((folder / "comparison.json").read_text())["models"]
    assert set(compared["improved"]["distances"]) == {"data", "reference"}
    assert all(compared[model]["reference_errors"]["n_frames"] == 14 for model in ("default", "improved"))
    known = finished_run.reference.molecule
    assert known.pair_distance_counts.sum() == 416 * 3 and known.bond_length_counts.sum() == 416 * 2
    # The same noise on nearly the same forces: the models stay close to the reference.
    means = [summary.mean_total_energy for summary in summaries[:3]]
    assert max(means) - min(means) < 0.5


def test_the_reference_can_be_shorter(finished_run, tmp_path):
    subject = replace(Subject.of_run(finished_run), folder=tmp_path)
    summaries = validate(subject, Validation([300], SHORT, nve_ps=0.02, reference="tblite:GFN2-xTB", reference_ps=0.01))
    assert [summary.n_steps for summary in summaries] == [60, 60, 20]
    models = json.loads((tmp_path / "300K" / "comparison.json").read_text())["models"]
    assert [models[name]["duration_ps"] for name in ("default", "reference")] == [0.03, 0.01]
    for name, n_steps in (("default", 40), ("reference", 20)):
        assert json.loads((tmp_path / "300K" / "nve" / name / "summary.json").read_text())["n_steps"] == n_steps
    for time_ps in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="the time of a replica must be above 0 ps"):
            validate(subject, Validation([320], SHORT, reference="tblite:GFN2-xTB", reference_ps=time_ps))
    assert not (tmp_path / "320K").exists()


def test_the_same_seed_gives_the_same_numbers(finished_run, tmp_path):
    import shutil

    energies = []
    for twin in ("a", "b"):
        shutil.copytree(finished_run.folder, tmp_path / twin, ignore=shutil.ignore_patterns("md"))
        validate(Subject.of_run(Run(tmp_path / twin)), Validation([300], SHORT, seed=5))
        with np.load(tmp_path / twin / "md" / "300K" / "improved" / "energies.npz") as arrays:
            energies.append(arrays["potential"])
    assert np.array_equal(*energies)


def test_it_runs_until_it_is_decided_and_resumes(finished_run, tmp_path, monkeypatch):
    subject = replace(Subject.of_run(finished_run), folder=tmp_path / "a")
    looks = replace(SHORT, n_steps=80, looks=3)
    asked = []

    def at_second_look(folder, summaries, *, looks, longest_ps):
        asked.append([summary.n_steps for summary in summaries.values()])
        return asked[-1] == [40, 40]

    monkeypatch.setattr("ase_flatten.md.validate.decided", at_second_look)
    summaries = validate(subject, Validation([300], looks))
    assert asked == [[20, 20], [40, 40]] and [summary.n_steps for summary in summaries] == [40, 40]
    assert json.loads((tmp_path / "a/300K/comparison.json").read_text())["log_rank"]["level"] == 0.05 / 3
    assert not list((tmp_path / "a" / "300K").glob("*.partial"))
    # Decided is decided; and a run that is stopped between the models ends as one that was not.
    assert validate(subject, Validation([300], looks)) == summaries and asked[2:] == [[40, 40]]
    stopped, calls = replace(subject, folder=tmp_path / "b"), []

    def stop(calculator, plan, *given, run=run_md, **named):
        calls.append(plan.model)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return run(calculator, plan, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr("ase_flatten.md.validate.run_md", stop)
        with pytest.raises(KeyboardInterrupt):
            validate(stopped, Validation([300], looks))
    assert validate(stopped, Validation([300], looks)) == summaries
    arrays = [SavedRun(tmp_path / twin / "300K" / "improved").energies.potential for twin in "ab"]
    assert np.array_equal(*arrays)
    fixed = replace(subject, folder=tmp_path / "c")
    validate(fixed, Validation([300], replace(SHORT, n_steps=40)))
    assert np.array_equal(SavedRun(tmp_path / "c" / "300K" / "improved").energies.potential, arrays[0])


def test_an_unfinished_run_is_refused(finished_run, tmp_path):
    (tmp_path / "reference.npz").write_bytes((finished_run.folder / "reference.npz").read_bytes())
    with pytest.raises(InputError, match="expected a finished run, found no default model"):
        Subject.of_run(Run(tmp_path))


@pytest.fixture
def command(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ase_flatten.md", *map(str, arguments)])
        status = 0
        try:
            run_alone("md")
        except SystemExit as finished:
            status = finished.code
        return status, *capsys.readouterr()

    return call


def test_the_command_prints_a_table_and_a_verdict(command, finished_run):
    status, out, _ = command(finished_run.folder, "--T", 310, "--steps", 40, "--replicas", 2, "--strict", "-q")
    assert status in (0, 1)
    assert "improved" in out and "At 310 K" in out


def test_strict_fails_where_the_improved_model_does(command, finished_run, monkeypatch, tmp_path):
    for verdict, expected in (("stable", 0), ("unstable", 1), ("cannot tell", 1)):
        judged = {
            model: Summary(
                model=model, temperature_K=300.0, timestep_fs=0.5, n_steps=10, n_replicas=1, n_failed=0,
                mean_total_energy=1.0, standard_error=0.1, drift=0.0, drift_error=0.1, first_failure_ps=None,
                stable=None, verdict=verdict if model == "improved" else "stable",
            )
            for model in ("default", "improved")
        }  # fmt: skip
        monkeypatch.setattr("ase_flatten.md.validate.run_md", lambda *_, judged=judged, **__: judged["default"])
        monkeypatch.setattr("ase_flatten.md.validate.judge", lambda folder, known, judged=judged: judged)
        monkeypatch.setattr("ase_flatten.md.validate.decided", lambda folder, summaries, **_: True)
        monkeypatch.setattr("ase_flatten.md.validate.plot_total_energy", lambda folder: [])
        monkeypatch.setattr("ase_flatten.md.validate.analyse", lambda folder, known, **_: {})
        asked = finished_run.folder, "--T", 300, "-q", "--out", tmp_path
        assert command(*asked, "--strict")[0] == expected
        assert command(*asked)[0] == 0


def test_models_and_calculators_without_a_run(command, finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [finished_run.folder / "default", finished_run.folder / "improved", finished_run.step_folder(1)]
    arguments = ["--T", 300, "--steps", 40, "--replicas", 2, "-q", "--out", "md"]
    status, out, _ = command("--models", *folders, "tblite:GFN1-xTB", *arguments)
    assert status == 0
    found = {path.parent.name for path in (tmp_path / "md" / "300K").glob("*/summary.json")}
    assert found == {"default", "improved", "0001", "tblite-GFN1-xTB"}
    assert all(name in out for name in found)
    status, _, err = command("--models", "tblite:GFN1-xTB", *arguments)
    assert status == 2 and "expected a model folder among --models" in err
    status, _, err = command("--models", folders[0], finished_run.folder, "--start", "worst", *arguments)
    assert status == 2 and "choose" in err


def test_a_time_step_that_is_too_long_is_told_of(finished_run, caplog, monkeypatch, tmp_path):
    subject = Subject.of_run(finished_run)
    calculator = load_calculator(finished_run.folder)
    short, long = (
        energy_fluctuation(calculator, subject.starts(2), replace(SHORT, timestep_fs=step), seed=0)
        for step in (0.25, 0.5)
    )
    assert short < long < 0.1
    for limit, told in ((0.1, False), (long / 2, True)):
        monkeypatch.setattr("ase_flatten.md.validate.LARGEST_FLUCTUATION", limit)
        caplog.clear()
        with caplog.at_level("WARNING", logger="ase_flatten"):
            validate(replace(subject, folder=tmp_path / str(told)), Validation([300], replace(SHORT, n_steps=20)))
        assert ("a time step shorter than 0.5 fs" in caplog.text) == told


def test_starts_from_the_minimum_and_the_worst_clusters(finished_run):
    lowest = Subject.of_run(finished_run, start="minimum").starts(3)
    assert all(np.array_equal(atoms.positions, finished_run.reference.lowest_positions) for atoms in lowest)
    worst = Subject.of_run(finished_run, start="worst").starts(1)[0]
    errors = finished_run.evaluation.final[0].cluster_force_rmse
    cluster = int(np.nanargmax(np.array(errors, dtype=float)))
    assert np.array_equal(worst.positions, finished_run.reference.positions[cluster])


def test_mistakes(command, tmp_path, monkeypatch, finished_run):
    monkeypatch.chdir(tmp_path)
    status, _, err = command("--T", 400)
    assert status == 2 and "make one with: ase-flatten train" in err
    status, _, err = command(finished_run.folder, "--T", 400, "--timestep", 50)
    assert status == 2 and "time step" in err
    status, _, err = command(finished_run.folder, "--T", 400, "--reference-ps", 1)
    assert status == 2 and "expected --reference METHOD with --reference-ps" in err
    status, _, err = command(finished_run.folder, "--T", -3)
    assert status == 2 and "temperature" in err
    status, _, err = command(finished_run.folder, "--protocol", "paper_500K")
    assert status == 2 and "quick" in err
    out = "--out", tmp_path / "md"
    status, _, err = command(finished_run.folder, *out, "--engine", "gromacs")
    assert status == 2 and "the engine must be one of batched, ase, ipi, got 'gromacs'" in err
    status, _, err = command(finished_run.folder, *out, "--start", "anywhere")
    assert status == 2 and "the start must be one of clusters, worst, minimum, got 'anywhere'" in err
    status, _, err = command(finished_run.folder, *out, "--engine", "ase", "--thermostat", "nhc")
    assert status == 2 and "or --engine batched" in err
    status, _, err = command(finished_run.folder, *out, "--steps", 10, "--ps", 1)
    assert status == 2 and "give one of them" in err
    assert not (tmp_path / "md").exists()
    assert command("--no-such-option")[0] == 2


def test_other_settings_are_refused_and_lie_side_by_side(command, finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run.folder, run, ignore=shutil.ignore_patterns("md"))
    asked = run, "--T", 300, 310, "--steps", 20, "--replicas", 2, "-q"
    assert command(*asked)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.traj")}
    assert {path.parents[1].name for path in before} == {"300K", "310K"}
    assert command(*asked)[0] == 0  # the same settings: taken over
    status, _, err = command(*asked, "--engine", "ase", "--seed", 1)
    assert status == 2 and err.count("\n") == 1
    assert "md/300K/default, found some with the engine batched instead of ase and the seed 0 instead of 1" in err
    assert "--out" in err and "--overwrite" in err
    assert "of steps of 20 instead of 30" in command(run, "--T", 300, "--steps", 30, "--replicas", 2)[2]
    assert "from other starting geometries" in command(*asked, "--start", "worst")[2]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.traj")} == before
    assert command(*asked, "--engine", "ase", "--out", tmp_path / "ase")[0] == 0
    assert SavedRun(tmp_path / "ase" / "300K" / "default").summary.engine == "ase"
    assert SavedRun(run / "md" / "300K" / "default").summary.engine == "batched"
    assert command(*asked, "--engine", "ase", "--overwrite")[0] == 0
    assert SavedRun(run / "md" / "300K" / "default").summary.engine == "ase"


def test_an_unfinished_run_of_other_settings_is_refused(finished_run, tmp_path, monkeypatch):
    subject = replace(Subject.of_run(finished_run), folder=tmp_path)

    class Stop:
        """Ctrl-C after half of the default model's steps."""

        @contextmanager
        def task(self, what, total):
            left = [total // 2 if what == "molecular dynamics" else total + 1]

            def advance(done):
                left[0] -= done
                if left[0] < total // 4:
                    raise KeyboardInterrupt

            yield advance if what == "molecular dynamics" else lambda done: None

    with pytest.raises(KeyboardInterrupt):
        validate(subject, Validation([300], SHORT), progress=Stop())
    assert len(list(tmp_path.rglob("chunk-*.npz"))) == 1  # nothing of what was done is lost
    left = {path: path.read_bytes() for path in tmp_path.rglob("*.npz")}
    with pytest.raises(InputError, match=r"300K/default, found some with the seed 0 instead of 1"):
        validate(subject, Validation([300], SHORT, seed=1))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.npz")} == left
    shutil.copytree(tmp_path / "300K", tmp_path / "damaged" / "300K")
    (tmp_path / "damaged" / "300K" / "default.partial" / "settings.json").write_text("[]")
    damaged = replace(subject, folder=tmp_path / "damaged")
    with pytest.raises(InputError, match="begin anew with --no-resume"):
        validate(damaged, Validation([300], SHORT))
    assert validate(damaged, Validation([300], SHORT), resume=False)  # as the message says
    resumed = validate(subject, Validation([300], SHORT))
    unbroken = validate(replace(subject, folder=tmp_path / "unbroken"), Validation([300], SHORT))
    assert resumed == unbroken


def test_it_begins_with_what_it_runs(command, finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_run.folder, tmp_path / "runs" / "mine", ignore=shutil.ignore_patterns("md"))
    asked = "--T", 300, 310, "--ps", 0.02, "--replicas", 2
    status, out, err = command(*asked)
    lines = [line.rstrip() for line in err.splitlines()]
    assert status == 0 and "energies" in out
    assert lines[0] == "no run was given, this takes the newest one: runs/mine"
    assert lines[1].startswith("default and improved at 300 and 310 K: 2 replicas of 0.02 ps, 0.5 fs steps")
    assert re.search(r"^this takes about \d+ s$", err, flags=re.MULTILINE) or "this takes about" in err
    assert [line for line in lines if line.endswith(" at 310 K")] == ["default at 310 K", "improved at 310 K"]
    again = command(*asked)[2]
    assert "newest one" in again and "takes about" not in again  # all of it was there


def test_it_is_a_command_and_a_module():
    shown = [
        subprocess.run([sys.executable, "-m", *command, "--help"], capture_output=True, text=True, check=True).stdout
        for command in (["ase_flatten.md"], ["ase_flatten.cli", "md"])
    ]
    assert [text.partition("\n")[0].split(" [")[0] for text in shown] == [
        "Usage: python -m ase_flatten.md", "Usage: ase-flatten md",
    ]  # fmt: skip
    assert shown[0].partition("\n")[2] == shown[1].partition("\n")[2]
    assert "Example: ase-flatten md runs/demo --T 300 400" in shown[0]
