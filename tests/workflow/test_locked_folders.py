"""Run folders and md folders: one process at a time, and nothing left of a process that was killed."""

import shutil
import time

import numpy as np
import pytest
from conftest import WATER_SETTINGS, needs

from ase_flatten.data.known_molecule import KnownMolecule
from ase_flatten.md import load_protocol
from ase_flatten.md.validate import Subject, Validation, validate
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.locks import lock_folder
from ase_flatten.workflow.train_run import train


def test_a_second_training_into_a_folder_is_refused(water, tmp_path):
    with (
        lock_folder(tmp_path / "run"),
        pytest.raises(InputError, match=r"expected .*run to be free, but process \d+ on .* is writing to it"),
    ):
        train(water, tmp_path / "run", WATER_SETTINGS)
    assert not (tmp_path / "run").exists()


def test_a_second_validation_into_a_folder_is_refused(tmp_path):
    needs("pymbar", extra="md")
    known = KnownMolecule(np.array([1, 1]), 0.0, 1.0, np.array([0.74]))
    subject = Subject({}, known, np.zeros((1, 2, 3)), tmp_path / "md")
    with lock_folder(tmp_path / "md"), pytest.raises(InputError, match="is writing to it"):
        validate(subject, Validation([300.0], load_protocol("quick")))


def test_a_finished_run_holds_no_lock_and_nothing_of_killed_writes(water, finished_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    assert not (folder / ".lock").exists()
    (folder / ".lock").write_text('{"pid": 1}')  # as a killed process leaves it
    (folder / ".writing-a.json").touch()
    (folder / "steps" / ".writing-b").mkdir()
    time.sleep(0.02)
    train(water, folder, WATER_SETTINGS, resume=True)
    assert not list(folder.rglob(".*"))
