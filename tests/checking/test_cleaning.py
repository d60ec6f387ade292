"""The clean data set has the sound frames, and the list says what is missing and why."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from ase_flatten.checking.check import check_up
from ase_flatten.checking.cleaning import check_output, choose_frames, write_clean, write_scores
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.utils.exceptions import InputError


@pytest.fixture
def spoilt(ethanol_like) -> Dataset:
    """Frame 7 has zero forces; 300 repeats an earlier one; 301 has the geometry of 17 with another energy."""
    twice = ethanol_like.take(np.concatenate([np.arange(300), [5, 17]]))
    energies, forces = twice.energies.copy(), twice.forces.copy()
    energies[301] += 1
    forces[7] = 0
    return replace(twice, energies=energies, forces=forces)


@pytest.fixture
def checked(rng):
    return lambda dataset: check_up(dataset, rng=rng)


@pytest.mark.parametrize("name", ["clean.npz", "clean.extxyz"])
def test_bad_frames_are_left_out_and_listed(spoilt, checked, tmp_path, name):
    selection = choose_frames(spoilt, checked(spoilt))
    assert set(selection.left_out) == {7, 17, 300, 301}
    listed = check_output(tmp_path / "x.npz", tmp_path / name, overwrite=False)
    write_clean(tmp_path / name, listed, spoilt, selection)
    clean = read_dataset(tmp_path / name)
    np.testing.assert_allclose(clean.energies, spoilt.energies[selection.kept], atol=1e-9)
    np.testing.assert_allclose(clean.positions, spoilt.positions[selection.kept], atol=1e-7)
    assert checked(clean).refused == []
    with open(tmp_path / "clean_left_out.csv", encoding="utf-8") as stream:
        rows = {int(row["frame"]): row["reason"] for row in csv.DictReader(stream)}
    assert (
        "all forces are zero" in rows[7] and "an earlier frame is the same" in rows[300] and "other labels" in rows[17]
    )


def test_sound_data_stay_whole(ethanol_like, checked):
    selection = choose_frames(ethanol_like, checked(ethanol_like))
    assert len(selection.kept) == 300 and selection.left_out == {} and selection.summary == []


def test_a_fault_of_the_whole_set_is_no_matter_of_frames(ethanol_like, checked):
    gradients = replace(ethanol_like, forces=-ethanol_like.forces)
    with pytest.raises(InputError, match=r"whole set is at fault: energies and forces must agree.*gradients"):
        choose_frames(gradients, checked(gradients))


def test_exchanged_atoms_are_to_be_reordered(ethanol_like, checked):
    positions, forces = ethanol_like.positions.copy(), ethanol_like.forces.copy()
    order = np.arange(9)
    order[[0, 1]] = 1, 0
    positions[40:44], forces[40:44] = positions[40:44][:, order], forces[40:44][:, order]
    swapped = replace(ethanol_like, positions=positions, forces=forces)
    found = checked(swapped)
    message = {finding.what: finding.message for finding in found.refused}["order of atoms"]
    assert "atoms 0 (C) and 1 (C) (frames 40, 41, 42, 43)" in message and "remove" not in message
    with pytest.raises(InputError, match="these frames can be corrected"):
        choose_frames(swapped, found)


def test_elements_in_the_wrong_order(ethanol_like, checked):
    numbers = ethanol_like.numbers.copy()
    oxygen, carbon = int(np.flatnonzero(numbers == 8)[0]), int(np.flatnonzero(numbers == 6)[0])
    numbers[[oxygen, carbon]] = 6, 8
    message = {one.what: one.message for one in checked(replace(ethanol_like, numbers=numbers)).refused}
    assert f"{carbon} (O)" in message["order of elements"] and f"{oxygen} (C)" in message["order of elements"]


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (1 / KCAL_PER_MOL, "look like kcal/mol where eV was declared"),
        (KCAL_PER_MOL, "look like eV where kcal/mol was declared"),
        (27.2114, "look like eV where Hartree was declared"),
        (4.184, "look like kJ/mol where kcal/mol was declared"),
        (2.0, "look like Rydberg where Hartree was declared"),
    ],
)
def test_energies_and_forces_in_the_same_wrong_unit(ethanol_like, checked, factor, words):
    wrong = replace(ethanol_like, energies=ethanol_like.energies * factor, forces=ethanol_like.forces * factor)
    refused = {finding.what: finding.message for finding in checked(wrong).refused}
    assert set(refused) == {"energy unit"} and words in refused["energy unit"]


def test_outputs_are_protected(spoilt, tmp_path):
    source, other = tmp_path / "data.npz", tmp_path / "other.npz"
    source.touch(), other.touch()
    with pytest.raises(InputError, match=r"the data set .* itself"):
        check_output(source, source, overwrite=True)
    with pytest.raises(InputError, match="add --overwrite"):
        check_output(source, other, overwrite=False)
    assert check_output(source, other, overwrite=True).name == "other_left_out.csv"
    with pytest.raises(InputError, match="must end in one of"):
        check_output(source, tmp_path / "data.db", overwrite=False)


def test_scores_are_written_for_each_frame(spoilt, checked, tmp_path):
    found = checked(spoilt)
    write_scores(tmp_path / "scores.csv", found.labels)
    with open(tmp_path / "scores.csv", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["frame"]) for row in rows] == list(range(302))
    assert rows[7]["level"] == "wrong" and float(rows[7]["score"]) >= 2 and rows[8]["level"] == "sound"


def test_two_atoms_come_close_to_other_frames_by_chance(checked):
    rng = np.random.default_rng(0)
    lengths = rng.normal(1.1, 0.03, size=3000)
    positions = np.zeros((3000, 2, 3))
    positions[:, 1, 2] = lengths
    pull = 140.0 * (lengths - 1.1)
    forces = np.zeros_like(positions)
    forces[:, 0, 2], forces[:, 1, 2] = pull, -pull
    nitrogen = Dataset(np.array([7, 7]), positions, 70.0 * (lengths - 1.1) ** 2, forces)
    # Turned at random, as in a trajectory, no frame is a copy of another.
    rotations = np.linalg.qr(rng.normal(size=(3000, 3, 3)))[0]
    turned = replace(nitrogen, positions=positions @ rotations, forces=forces @ rotations)
    assert checked(turned).refused == []
    assert {one.what for one in checked(turned.take(np.append(np.arange(3000), 4))).refused} == {"duplicates"}


def test_a_weak_complex_is_not_broken(checked):
    benzene = molecule("C6H6")
    rng = np.random.default_rng(0)
    positions = np.empty((120, 13, 3))
    positions[:, :12] = benzene.positions + rng.normal(scale=0.02, size=(120, 12, 3))
    positions[:, 12] = rng.normal(loc=(0, 0, 3.6), scale=0.3, size=(120, 3))
    complexes = Dataset(
        np.append(benzene.numbers, 18), positions, rng.normal(size=120), rng.normal(size=positions.shape)
    )
    found = {finding.what: finding.level for finding in checked(complexes).findings}
    assert "broken molecules" not in found and found["complex"] == "note"
