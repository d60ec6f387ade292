"""Where the permutations of an sGDML model come from, and files of permutations."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from ase_flatten.models.model_folder import load_model, read_card, save_model
from ase_flatten.models.sgdml import FAMILY, sgdml_package
from ase_flatten.models.sgdml.symmetries import read_permutations
from ase_flatten.selection.flattening import Schedule
from ase_flatten.testing import check_model
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.run_folder import RunSettings
from ase_flatten.workflow.train_run import train

ETHANOL = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
ROTATIONS = " # methyl\n0 1 2 3 4 5 6 7 8\n0, 1, 2, 3, 4, 6, 7, 5, 8\n\n0 1 2 3 4 7 5 6 8\n"
FRAMES, VALID = np.arange(0, 300, 6), np.arange(3, 300, 6)


def fit(dataset, **settings):
    trainer = FAMILY.trainer(sigma=10, **settings)
    return trainer.fit(dataset, FRAMES, VALID, rng=np.random.default_rng(0))


def methyl(dataset) -> list[int]:
    """The three hydrogen atoms that are bonded to one carbon atom."""
    mean = np.linalg.norm(dataset.positions[:, :, None] - dataset.positions[:, None], axis=3).mean(axis=0)
    near = mean < 1.3
    (centre,) = [atom for atom in np.flatnonzero(dataset.numbers == 6) if near[atom, dataset.numbers == 1].sum() == 3]
    return np.flatnonzero(near[centre] & (dataset.numbers == 1)).tolist()


def test_the_graph_finds_the_methyl_group_and_says_so(ethanol_like, caplog, tmp_path):
    with caplog.at_level(logging.INFO, "ase_flatten"):
        model = fit(ethanol_like)
    leaves = methyl(ethanol_like)
    rotation = np.arange(9)
    rotation[leaves] = np.roll(leaves, 1)
    assert (model.permutations == rotation).all(axis=1).any()
    first = model.hyper_parameters["symmetries"][0]
    assert first.startswith("methyl C") and f"(H{leaves[0]}, H{leaves[1]}, H{leaves[2]}): 3 rotations" in first
    assert f"symmetry: {first}" in caplog.messages
    check_model(model, ethanol_like.positions[::60], reload=FAMILY.load, folder=tmp_path)


def test_what_was_kept_is_saved_and_passed_on(ethanol_like, tmp_path):
    model = fit(ethanol_like)
    save_model(tmp_path / "model", model, FAMILY, ethanol_like, FRAMES)
    kept = model.hyper_parameters["symmetries"]
    assert read_card(tmp_path / "model").hyper_parameters["symmetries"] == kept
    loaded = load_model(tmp_path / "model").model
    assert loaded.hyper_parameters == model.hyper_parameters
    larger = FAMILY.trainer().fit(
        ethanol_like, np.arange(0, 300, 5), VALID, rng=np.random.default_rng(0), previous=loaded
    )
    assert larger.hyper_parameters["symmetries"] == kept


def test_settings_of_before(ethanol_like):
    """True was matching, false was none."""
    matched = fit(ethanol_like, symmetries=True)
    expected = sgdml_package.find_permutations(ethanol_like.positions[FRAMES], ethanol_like.numbers)
    assert np.array_equal(matched.permutations, expected)
    assert np.array_equal(fit(ethanol_like, symmetries="matching").permutations, expected)
    for nothing in (False, "none"):
        model = fit(ethanol_like, symmetries=nothing)
        assert np.array_equal(model.permutations, np.arange(9)[None])
        assert model.hyper_parameters["symmetries"] == []


def test_the_graph_needs_no_randomness(ethanol_like):
    rng = np.random.default_rng(0)
    FAMILY.trainer(sigma=10).fit(ethanol_like, FRAMES, VALID, rng=rng)
    assert rng.random() == np.random.default_rng(0).random()


def test_a_file(ethanol_like, tmp_path):
    leaves = methyl(ethanol_like)
    rows = np.tile(np.arange(9), (3, 1))
    rows[1, leaves], rows[2, leaves] = np.roll(leaves, 1), np.roll(leaves, 2)
    np.savetxt(tmp_path / "p.txt", rows[::-1], fmt="%d", header="permutations")
    model = fit(ethanol_like, symmetries=str(tmp_path / "p.txt"))
    assert sorted(model.permutations.tolist()) == sorted(rows.tolist())
    assert np.array_equal(model.permutations[0], np.arange(9))
    assert model.hyper_parameters["symmetries"] == ["from p.txt: 3 permutations"]


def test_comments_commas_and_empty_lines(tmp_path):
    (tmp_path / "p.txt").write_text(ROTATIONS)
    assert read_permutations(tmp_path / "p.txt", ETHANOL)[:, 5:8].tolist() == [[5, 6, 7], [6, 7, 5], [7, 5, 6]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 2\n", "expected 9 atoms in line 1 of .*, found 3; is the file one of another molecule?"),
        ("# three\n\n0 1 2 3 4 5 6 7 7\n", "expected each atom once in line 3 of .*, found 7 twice"),
        ("0 1 2 3 4 5 6 7 8\n2 1 0 3 4 5 6 7 8\n", "line 2 of .*, found C0 exchanged for O2; is the file one of"),
        ("0 1 2 3 4 5 6 7 8\n0 1 2 3 4 6 7 5 8\n", "p.txt: expected a group of permutations, found a product of two"),
        ("0 1 2 3 4 6 5 7 8\n", "expected a group"),
        ("0 1 2 3 4 5 6 7 8\n0 1 2 3 4 5 6 7 8\n", "expected different permutations, found one twice"),
        ("1 2 3 4 5 6 7 8 9\n", "expected atoms 0 to 8 in line 1 of .*, found 9; indices start from 0"),
        ("0 1 2 3 4 5 6 7 -1\n", "found -1"),
        ("C C O H H H H H H\n", "expected the indices of atoms in line 1 of"),
        ("0.0 1.0 2 3 4 5 6 7 8\n", "expected the indices of atoms in line 1 of"),
        ("# nothing\n", "expected permutations in .*, found none"),
        ("", "found none"),
        (b"\x93NUMPY\x01\x00\xff", "expected symmetries graph, matching, none or a file of permutations"),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    path = tmp_path / "p.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as error:
        read_permutations(path, ETHANOL)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("grahp", "or a file of permutations, got grahp \\(no such file or directory\\); did you mean graph?"),
        (".", "or a file of permutations, got . \\(is a directory\\); check the path"),
        ("water.txt", "expected 3 atoms in line 2 of water.txt, found 9; is the file one of another molecule?"),
        (3, "symmetries must be graph, matching, none or a file of permutations, got 3"),
        (None, "got None"),
    ],
)
def test_a_run_is_refused_before_it_is_begun(water, tmp_path, monkeypatch, setting, message):
    monkeypatch.chdir(tmp_path)
    Path("water.txt").write_text(ROTATIONS)
    with pytest.raises(InputError, match=message):
        train(
            water,
            tmp_path / "run",
            RunSettings(
                trainer={"sigma": 10, "symmetries": setting}, schedule=Schedule(n_steps=0, n_initial=10, step_size=5)
            ),
        )
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_run_that_was_begun_with_matching_goes_on_with_it(water, tmp_path, monkeypatch):
    settings = RunSettings(
        trainer={"sigma": 10}, schedule=Schedule(n_steps=0, n_initial=10, step_size=5), n_geometry=4, n_energy=3,
        quarantine="off", default_draws=1,
    )  # fmt: skip
    run = train(water, tmp_path / "run", settings)
    assert run.info.trainer["symmetries"] == "graph"
    content = json.loads((run.folder / "run.json").read_text())
    content["trainer"]["symmetries"] = True  # as an earlier version wrote it
    (run.folder / "run.json").write_text(json.dumps(content))
    grown = train(water, run.folder, settings, resume=True)
    assert grown.info.trainer["symmetries"] is True
    assert "symmetries" not in grown.settings.trainer
