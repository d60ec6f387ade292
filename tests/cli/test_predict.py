"""``ase-flatten predict`` as a user meets it."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from typer.testing import CliRunner

from ase_flatten import load_calculator, read_dataset
from ase_flatten.cli.app import app
from ase_flatten.data.units import KCAL_PER_MOL


@pytest.fixture
def predict(finished_run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments, model=finished_run.folder):
        result = CliRunner().invoke(app, ["predict", *map(str, (model, *arguments))])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


@pytest.fixture
def frames(water):
    return [water.atoms(frame) for frame in range(20)]


@pytest.mark.parametrize("kind", ["xyz", "extxyz", "traj", "db"])
def test_a_file_of_any_format(predict, finished_run, frames, water, kind):
    write(f"water.{kind}", frames)
    status, out, err = predict(f"water.{kind}", "-o", "out.extxyz")
    assert status == 0, err
    assert "energies and forces of 20 frames of H2O: out.extxyz" in out
    calculator = load_calculator(finished_run.folder)
    expected = calculator.predict(frames)
    found = read("out.extxyz", ":")
    np.testing.assert_allclose([atoms.get_potential_energy() for atoms in found], expected.energies, atol=1e-6)
    np.testing.assert_allclose([atoms.get_forces() for atoms in found], expected.forces, atol=1e-6)
    np.testing.assert_allclose([atoms.positions for atoms in found], water.positions[:20], atol=1e-6)
    extrapolation = [atoms.info["extrapolation"] for atoms in found]
    np.testing.assert_allclose(extrapolation, calculator.extrapolation_of(frames), atol=1e-4)
    again = read_dataset("out.extxyz")  # which declares its units
    np.testing.assert_allclose(again.energies, expected.energies, atol=1e-6)


def test_npz_in_and_out_and_units(predict, finished_run, water):
    np.savez("bohr.npz", z=water.numbers, R=water.positions / 0.529177210903)
    status, _, err = predict("bohr.npz", "-o", "out.npz")
    assert status == 2 and "--length-unit" in err
    assert predict("bohr.npz", "-o", "out.npz", "--length-unit", "Bohr")[0] == 0
    expected = load_calculator(finished_run.folder).predict(water.positions)
    found = read_dataset("out.npz")
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-5)
    with np.load("out.npz") as saved:
        content = dict(saved)
    np.testing.assert_allclose(content["E"][:, 0] * KCAL_PER_MOL, expected.energies, atol=1e-5)
    assert content["extrapolation"].shape == (416,)


def test_more_frames_than_a_batch_keep_their_order(predict, finished_run, water, monkeypatch):
    from ase_flatten.report import predictions

    monkeypatch.setattr(predictions, "_BATCH", {True: 7, False: 7})
    positions = water.positions[:30] * np.where(np.arange(30) % 10 == 9, 1.5, 1)[:, None, None]
    write("water.xyz", [Atoms(water.numbers, frame) for frame in positions])
    status, out, _ = predict("water.xyz", "-o", "out.xyz")
    assert status == 0
    found = read_dataset("out.xyz")
    np.testing.assert_allclose(found.positions, positions, atol=1e-6)
    expected = load_calculator(finished_run.folder).predict(positions)
    np.testing.assert_allclose(found.energies, expected.energies, atol=1e-6)
    assert "3 of 30 frames lie outside the training geometries" in out


def test_a_reference_method(predict, frames, water):
    write("water.xyz", frames)
    assert predict("water.xyz", "-o", "out.xyz", "--workers", 1, model="tblite:GFN2-xTB")[0] == 0
    found = read_dataset("out.xyz")
    np.testing.assert_allclose(found.forces, water.forces[:20], atol=1e-4)
    assert "extrapolation" not in read("out.xyz").info


def test_nothing_is_overwritten_unless_asked(predict, frames):
    write("water.xyz", frames)
    Path("out.xyz").write_text("mine")
    status, _, err = predict("water.xyz", "-o", "out.xyz")
    assert status == 2 and "--overwrite" in err and Path("out.xyz").read_text() == "mine"
    assert predict("water.xyz", "-o", "out.xyz", "--overwrite")[0] == 0
    status, _, err = predict("water.xyz", "-o", "water.xyz", "--overwrite")
    assert status == 2 and "for both" in err


MISTAKES = {
    "other order": "expected H2O in the order O H H, found H H O in frame 1",
    "periodic": "found a periodic frame 1",
    "not finite": "found NaN or infinity in frame 1",
    "coincident": "found two in the same place in frame 1",
    "empty": "whose format it does not know",
    "missing": "found no file",
    "unknown": "whose format it does not know",
    "keys": "expected the keys z and R",
    "shape": "correct the arrays",
    "unknown element": "expected atomic numbers from 1 to 118, found [500, 1, 1] in frame 0",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_sentence_and_writes_nothing(predict, frames, water, name):
    good, bad = frames[0], frames[1].copy()
    path = "in.extxyz"
    if name == "other order":
        bad = bad[::-1]
    elif name == "periodic":
        bad.cell, bad.pbc = [9, 9, 9], True
    elif name == "coincident":
        bad.positions[1] = bad.positions[0]
    write(path, [good, bad])
    if name == "empty":
        Path(path).write_text("")
    elif name == "missing":
        path = "nowhere.xyz"
    elif name == "unknown":
        path = "in.txt"
        Path(path).write_text("hello")
    elif name in ("not finite", "keys", "shape", "unknown element"):
        path = "in.npz"
        positions = water.positions[:2].copy()
        positions[1, 0, 0] = np.nan
        arrays = {
            "not finite": {"R": positions},
            "keys": {"Q": positions},
            "shape": {"R": positions[:, :2]},
            "unknown element": {"R": water.positions[:2], "z": [500, 1, 1]},
        }[name]
        np.savez(path, **{"z": water.numbers, "r_unit": "Ang", **arrays})
    before = sorted(Path.cwd().iterdir())
    status, _, err = predict(path, "-o", "out.xyz")
    assert status == 2 and MISTAKES[name] in err and "Traceback" not in err and "Warning" not in err
    assert sorted(Path.cwd().iterdir()) == before


def test_an_unknown_kind_of_output(predict, frames):
    write("water.xyz", frames)
    assert "out.csv; rename it" in predict("water.xyz", "-o", "out.csv")[2]
