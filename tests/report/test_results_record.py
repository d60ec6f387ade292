"""Results say what they are about, and are not replaced by those of something else."""

import pytest

from ase_flatten.report.results_record import RECORD, ResultsRecord, Subject, check_replaceable, folder_name
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.records import write_record

FILES = ("errors.csv",)
DATA, ONE, OTHER = (Subject(name=name, digest=f"digest of {name}") for name in ("a.npz", "tblite:GFN1-xTB", "runs/b"))
RESULTS = ResultsRecord(dataset=DATA, model=ONE)


def hold(folder, record, *, overwrite=False):
    check_replaceable(folder, record, FILES, overwrite=overwrite)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "errors.csv").write_text("cluster\n")
    write_record(tmp_path / RECORD, RESULTS)
    return tmp_path


def test_the_same_results_may_be_made_again(folder, tmp_path):
    hold(folder, ResultsRecord(dataset=DATA, model=ONE, settings={"n_worst": 5}))
    hold(tmp_path / "new", RESULTS)


@pytest.mark.parametrize(
    "record",
    [
        ResultsRecord(dataset=DATA, model=OTHER),
        ResultsRecord(dataset=Subject(name="c.npz", digest="c"), model=ONE),
        ResultsRecord(dataset=DATA, model=ONE, test=Subject(name="t.npz", digest="t")),
        ResultsRecord(dataset=DATA),
    ],
)
def test_others_are_refused_unless_asked(folder, record):
    with pytest.raises(InputError, match=r"found those of tblite:GFN1-xTB on a\.npz in .*add --overwrite"):
        hold(folder, record)
    hold(folder, record, overwrite=True)


def test_a_model_that_was_trained_again_is_another_one(folder):
    changed = ResultsRecord(dataset=DATA, model=Subject(name=ONE.name, digest="another"))
    with pytest.raises(InputError, match="these have changed since"):
        hold(folder, changed)


def test_results_that_do_not_say_what_they_are_about(folder):
    (folder / RECORD).write_text("{")
    with pytest.raises(InputError, match=r"could not read it.*--overwrite"):
        hold(folder, RESULTS)
    (folder / RECORD).unlink()
    with pytest.raises(InputError, match="do not say what they are about"):
        hold(folder, RESULTS)
    (folder / "errors.csv").unlink()
    (folder / "notes.txt").write_text("mine")
    hold(folder, RESULTS)  # nothing would be replaced


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("a.npz", "runs/mine", "errors"), "a-mine-errors"),
        (("data/a.npz", "/home/me/runs/mine/improved/", "errors"), "a-mine-improved-errors"),
        (("a.npz", "model.npz", "t.extxyz", "errors"), "a-model-t-errors"),
        (("a.npz", "schnetpack:x/best_model:kcal/mol", "", "errors"), "a-schnetpack-x-best_model-kcal-mol-errors"),
        (("a.npz", "ase:../../x y:make", "errors"), "a-ase-..-..-x-y-make-errors"),
    ],
)
def test_names_of_folders_are_safe(parts, name):
    assert folder_name(*parts) == name and "/" not in name
