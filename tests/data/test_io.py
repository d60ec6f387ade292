"""Data sets on disk: what is read, what is refused and why, and writes that are whole or not at all."""

import errno
import gzip
import os
import re
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read as ase_read
from ase.io import write as ase_write

from ase_flatten.data.dataset import Dataset, formula
from ase_flatten.data.io import read_dataset, sgdml_md5, write_dataset, write_frames
from ase_flatten.data.units import KCAL_PER_MOL, energy_in_eV, length_in_angstrom, output_units
from ase_flatten.utils.atomic_files import write_json, write_npz, write_text, writing, writing_folder
from ase_flatten.utils.exceptions import InputError

N_FRAMES = 5


@pytest.fixture
def water(rng) -> Dataset:
    return Dataset(
        [8, 1, 1],
        rng.normal(size=(N_FRAMES, 3, 3)),
        rng.normal(size=N_FRAMES) - 2000,
        rng.normal(size=(N_FRAMES, 3, 3)),
        name="water",
        theory="none",
    )


def sgdml_arrays(data: Dataset) -> dict:
    return {
        "z": data.numbers.astype(np.uint8),
        "R": data.positions,
        "E": data.energies[:, None] / KCAL_PER_MOL,
        "F": data.forces / KCAL_PER_MOL,
        "e_unit": "kcal/mol",
        "r_unit": "Ang",
    }


def same(a: Dataset, b: Dataset, tolerance: float = 1e-12) -> bool:
    return np.array_equal(a.numbers, b.numbers) and all(
        np.allclose(getattr(a, field), getattr(b, field), rtol=tolerance, atol=tolerance)
        for field in ("positions", "energies", "forces")
    )


def labelled(data: Dataset, **info) -> list[Atoms]:
    frames = []
    for frame in range(data.n_frames):
        atoms = data.atoms(frame)
        atoms.info.update(info)
        atoms.calc = SinglePointCalculator(atoms, energy=data.energies[frame], forces=data.forces[frame])
        frames.append(atoms)
    return frames


def refusal(path, **declared) -> str:
    with pytest.raises(InputError) as caught:
        read_dataset(path, **declared)
    message = str(caught.value)
    assert path.name in message and "\n" not in message
    return message


# npz


def test_sgdml_layout(tmp_path, water):
    np.savez(tmp_path / "a.npz", **sgdml_arrays(water), name="water", theory=np.bytes_(b"PBE"))
    data = read_dataset(tmp_path / "a.npz")
    assert same(data, water)
    assert (data.name, data.theory, data.formula) == ("water", "PBE", "H2O")


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_rmd17_layout(tmp_path, water, shape):
    arrays = {
        "nuclear_charges": water.numbers,
        "coords": water.positions,
        "energies": water.energies.reshape(shape) / KCAL_PER_MOL,
        "forces": water.forces / KCAL_PER_MOL,
    }
    np.savez(tmp_path / "a.npz", **arrays)
    both = refusal(tmp_path / "a.npz")
    assert "does not declare its energy unit and length unit; state them with --energy-unit (one of eV, " in both
    assert both.endswith("and --length-unit (one of Ang, Bohr, nm)")
    assert "does not declare its length unit; state it" in refusal(tmp_path / "a.npz", energy_unit="kcal/mol")
    assert "does not declare its energy unit; state it" in refusal(tmp_path / "a.npz", length_unit="Ang")
    assert same(read_dataset(tmp_path / "a.npz", energy_unit="kcal/mol", length_unit="Å"), water)


def test_hartree_and_bohr(tmp_path, water):
    arrays = sgdml_arrays(water) | {
        "R": water.positions / units.Bohr,
        "E": water.energies / units.Hartree,
        "F": water.forces / (units.Hartree / units.Bohr),
        "e_unit": "Hartree",
        "r_unit": "bohr",
    }
    np.savez(tmp_path / "a.npz", **arrays)
    assert same(read_dataset(tmp_path / "a.npz"), water)


def test_units_that_contradict_each_other(tmp_path, water):
    np.savez(tmp_path / "a.npz", **sgdml_arrays(water))
    assert "declares the energy unit kcal/mol, but --energy-unit eV was given" in refusal(
        tmp_path / "a.npz", energy_unit="eV"
    )
    assert "declares the length unit Ang" in refusal(tmp_path / "a.npz", length_unit="Bohr")
    assert same(read_dataset(tmp_path / "a.npz", energy_unit="kcal mol-1", length_unit="angstrom"), water)


def test_single_precision_becomes_double(tmp_path, water):
    np.savez(tmp_path / "a.npz", **(sgdml_arrays(water) | {"R": water.positions.astype(np.float32)}))
    data = read_dataset(tmp_path / "a.npz")
    assert data.positions.dtype == np.float64 and same(data, water, 1e-6)


def test_object_arrays_are_never_unpickled(tmp_path, water):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.savez(tmp_path / "a.npz", **(sgdml_arrays(water) | {"R": np.array([Bomb()], dtype=object)}))
    assert "npz file of plain arrays" in refusal(tmp_path / "a.npz")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("z", "expected the keys z, R, E and F (or nuclear_charges,"),
        ("R", "expected the keys z, R, E and F (or nuclear_charges,"),
        ("E", "under the keys E and F, found forces alone in {path} (its keys: z, R, F, e_unit, r_unit); write the"),
        ("F", "under the keys E and F, found energies alone in {path} (its keys: z, R, E, e_unit, r_unit); write the"),
    ],
)
def test_missing_keys(tmp_path, water, key, words):
    arrays = sgdml_arrays(water)
    del arrays[key]
    np.savez(tmp_path / "a.npz", **arrays)
    assert words.format(path=tmp_path / "a.npz") in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("R", np.zeros((N_FRAMES, 4, 3)), "positions must have the shape (n_frames, 3, 3)"),
        ("R", np.zeros((0, 3, 3)), "at least one frame"),
        ("F", np.zeros((N_FRAMES, 3)), "forces must have the shape of the positions"),
        ("E", np.zeros(N_FRAMES + 1), "one for each of 5 frames"),
        ("E", np.array(1.0), "one for each of 5 frames"),
        ("E", np.full(N_FRAMES, "text"), "could not convert string"),
        ("z", np.array([8, 1, 0]), "atomic numbers must be"),
        ("z", np.array([8, 1, 119]), "atomic numbers must be"),
        ("z", np.array([8]), "positions must have the shape"),
        ("e_unit", "furlong", "the energy unit must be one of eV"),
        ("lattice", np.eye(3), "periodic data are not supported"),
    ],
)
def test_what_an_npz_may_not_hold(tmp_path, water, key, value, words):
    np.savez(tmp_path / "a.npz", **(sgdml_arrays(water) | {key: value}))
    with pytest.raises(InputError, match=r"^[^\n]*$") as caught:
        read_dataset(tmp_path / "a.npz")
    assert words in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("R", np.nan), ("E", np.inf), ("F", -np.inf)])
def test_numbers_that_are_not_finite(tmp_path, water, field, value):
    arrays = sgdml_arrays(water)
    arrays[field] = arrays[field].copy()
    arrays[field][3] = value
    np.savez(tmp_path / "a.npz", **arrays)
    assert "NaN or infinity in 1 of 5 frames (the first is frame 3)" in refusal(tmp_path / "a.npz")


def test_composition_for_each_frame(tmp_path, water):
    numbers = np.tile(water.numbers, (N_FRAMES, 1))
    np.savez(tmp_path / "a.npz", **(sgdml_arrays(water) | {"z": numbers}))
    assert same(read_dataset(tmp_path / "a.npz"), water)
    numbers[2] = [1, 8, 1]
    np.savez(tmp_path / "a.npz", **(sgdml_arrays(water) | {"z": numbers}))
    assert "found others in frame 2" in refusal(tmp_path / "a.npz")


def test_a_missing_file(tmp_path):
    assert "found no file" in refusal(tmp_path / "none.npz")


@pytest.mark.parametrize("suffix", [".npz", ".xyz", ".traj", ".db"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff nothing that anyone wrote \x80" * 20])
def test_files_that_hold_nothing(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert "expected" in refusal(path, energy_unit="eV", length_unit="Ang")


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_truncated_npz(tmp_path, water, part):
    np.savez_compressed(tmp_path / "a.npz", **sgdml_arrays(water))
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: int(len(content) * part)])
    assert "could not read" in refusal(tmp_path / "a.npz")


def test_a_damaged_npz(tmp_path, water):
    np.savez_compressed(tmp_path / "a.npz", **sgdml_arrays(water))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        start = archive.getinfo("R.npy").header_offset + 60
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[start : start + 200] = b"\xff" * 200
    (tmp_path / "a.npz").write_bytes(content)
    assert "could not read" in refusal(tmp_path / "a.npz")


def test_an_array_that_is_not_an_archive(tmp_path, water):
    with open(tmp_path / "a.npz", "wb") as stream:
        np.save(stream, water.positions)
    assert "a bare array" in refusal(tmp_path / "a.npz")


# Trajectories and databases


def test_extended_xyz_round_trip(tmp_path, water):
    write_dataset(tmp_path / "a.xyz", water)
    data = read_dataset(tmp_path / "a.xyz")
    assert same(data, water, 1e-7)
    np.testing.assert_allclose(data.energies, water.energies, rtol=1e-12)


def test_extended_xyz_without_units(tmp_path, water):
    ase_write(tmp_path / "a.xyz", labelled(water))
    assert "does not declare its energy unit" in refusal(tmp_path / "a.xyz")
    assert same(read_dataset(tmp_path / "a.xyz", energy_unit="eV", length_unit="Ang"), water, 1e-7)
    read = read_dataset(tmp_path / "a.xyz", energy_unit="Hartree", length_unit="Bohr")
    np.testing.assert_allclose(read.forces, water.forces * units.Hartree / units.Bohr, atol=1e-5)


KEYS = {"energy_key": "REF_energy", "forces_key": "REF_forces"}


def foreign(data: Dataset, *, energy: str = "REF_energy", forces: str = "REF_forces", **info) -> list[Atoms]:
    """Frames whose labels have names of their own."""
    frames = []
    for frame in range(data.n_frames):
        atoms = data.atoms(frame)
        atoms.info.update({energy: data.energies[frame], **info})
        atoms.arrays[forces] = data.forces[frame]
        frames.append(atoms)
    return frames


def test_labels_of_extended_xyz_under_other_names(tmp_path, water):
    ase_write(tmp_path / "a.xyz", foreign(water, energy_unit="eV", length_unit="Ang"))
    assert same(read_dataset(tmp_path / "a.xyz", **KEYS), water, 1e-7)


def test_labels_of_a_trajectory_under_other_names(tmp_path, water):
    frames = foreign(water)
    for atoms in frames:  # the format keeps no other columns
        atoms.info["REF_forces"] = atoms.arrays.pop("REF_forces")
    ase_write(tmp_path / "a.traj", frames)
    assert same(read_dataset(tmp_path / "a.traj", energy_unit="eV", **KEYS), water)
    # Only ASE's own results are in eV by definition.
    assert "does not declare its energy unit;" in refusal(tmp_path / "a.traj", **KEYS)


def test_labels_of_a_database_under_other_names(tmp_path, water):
    with connect(tmp_path / "a.db") as database:
        for frame, atoms in enumerate(labelled(water)):
            atoms.calc = None
            database.write(atoms, REF_energy=water.energies[frame], data={"REF_forces": water.forces[frame]})
    assert same(read_dataset(tmp_path / "a.db", energy_unit="eV", **KEYS), water)


def test_an_energy_of_a_database_is_one_number(tmp_path, water):
    with connect(tmp_path / "a.db") as database:
        for atoms in labelled(water):
            database.write(atoms, data={"dipole": np.arange(3.0)})
    message = refusal(tmp_path / "a.db", energy_key="dipole")
    assert "expected a number as dipole in every frame, found float64 of the shape (3,)" in message


def test_labels_of_an_npz_under_other_names(tmp_path, water):
    arrays = sgdml_arrays(water)
    arrays |= {"REF_energy": arrays.pop("E"), "REF_forces": arrays.pop("F")}
    np.savez(tmp_path / "a.npz", **arrays)
    assert same(read_dataset(tmp_path / "a.npz", **KEYS), water)
    assert refusal(tmp_path / "a.npz").endswith("add --energy-key REF_energy --forces-key REF_forces")


def isolated_atom(symbol: str, **info) -> Atoms:
    return Atoms(symbol, cell=[20, 20, 20], pbc=True, info={"REF_energy": -13.6, "config_type": "IsolatedAtom", **info})


def test_isolated_atoms_are_set_aside(tmp_path, water, caplog):
    frames = foreign(water, config_type="Default", REF_virial=np.zeros(9))
    ase_write(tmp_path / "a.extxyz", [isolated_atom("O"), *frames, isolated_atom("H"), isolated_atom("H")])
    with caplog.at_level("INFO"):
        data = read_dataset(tmp_path / "a.extxyz", energy_unit="eV", length_unit="Ang", **KEYS)
    assert same(data, water, 1e-7)
    assert "3 frames of isolated atoms (H, O) set aside;" in caplog.text


def test_isolated_atoms_alone(tmp_path):
    ase_write(tmp_path / "a.extxyz", [isolated_atom("O"), isolated_atom("H")])
    assert "expected at least one frame of a molecule" in refusal(tmp_path / "a.extxyz", **KEYS)


@pytest.mark.parametrize(
    ("energy", "forces", "words"),
    [
        ("REF_energy", "REF_forces", "(its keys: REF_energy, config_type, energy_unit; for each atom: REF_forces); if"),
        ("dft_energy", "dft_forces", "add --energy-key dft_energy --forces-key dft_forces"),
        ("Energy", "force", "add --energy-key Energy --forces-key force"),
        ("E", "F", "add --energy-key E --forces-key F"),
        ("U", "gradient", "if they are there under another name, add --energy-key NAME --forces-key NAME"),
    ],
)
def test_the_keys_that_were_found_are_named(tmp_path, water, energy, forces, words):
    ase_write(tmp_path / "a.xyz", foreign(water, energy=energy, forces=forces, config_type="Default", energy_unit="eV"))
    message = refusal(tmp_path / "a.xyz")
    assert "found neither in frame 0" in message and words in message


def test_a_key_that_is_not_there(tmp_path, water):
    ase_write(tmp_path / "a.xyz", foreign(water))
    message = refusal(tmp_path / "a.xyz", energy_key="REF_energy", forces_key="dft_forces")
    assert "found no dft_forces in frame 0" in message and "add --forces-key REF_forces" in message


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (KEYS | {"energy_key": "config_type"}, "expected a number as config_type in every frame, found str"),
        (KEYS | {"energy_key": "REF_forces"}, "expected a number as REF_forces in every frame, found float64 of the"),
        (KEYS | {"forces_key": "REF_energy"}, "expected three numbers for each atom as REF_energy in every frame"),
    ],
)
def test_a_key_of_something_else(tmp_path, water, keys, words):
    ase_write(tmp_path / "a.xyz", foreign(water, config_type="Default"))
    message = refusal(tmp_path / "a.xyz", **keys)
    assert words in message and message.endswith("-key")


def test_energies_or_forces_alone(tmp_path, water):
    frames = labelled(water)
    del frames[2].calc.results["forces"]
    ase_write(tmp_path / "a.xyz", frames)
    assert "found energies alone in frame 2" in refusal(tmp_path / "a.xyz")
    del frames[1].calc.results["energy"]
    ase_write(tmp_path / "a.xyz", frames)
    message = refusal(tmp_path / "a.xyz")
    assert "found forces alone in frame 1" in message and "write the energies into the file" in message


def test_other_labels_in_the_same_file_are_mentioned(tmp_path, water, caplog):
    frames = labelled(water, energy_unit="eV", length_unit="Ang", REF_energy=1.0)
    ase_write(tmp_path / "a.xyz", frames)
    with caplog.at_level("INFO"):
        assert same(read_dataset(tmp_path / "a.xyz"), water, 1e-7)
    assert "also holds REF_energy; to read these" in caplog.text


def test_units_that_change_within_a_file(tmp_path, water):
    frames = labelled(water, energy_unit="eV", length_unit="Ang")
    frames[3].info["energy_unit"] = "kcal/mol"
    ase_write(tmp_path / "a.xyz", frames)
    assert "found ('kcal/mol', 'Ang') in frame 3" in refusal(tmp_path / "a.xyz")


def test_frames_with_columns_and_comments(tmp_path, water):
    errors = np.arange(2 * 3.0).reshape(2, 3)
    write_frames(tmp_path / "a.xyz", water, np.array([3, 1]), arrays={"error": errors}, cluster=np.array([7, 9]))
    frames = ase_read(tmp_path / "a.xyz", index=":")
    assert [atoms.info["frame"] for atoms in frames] == [3, 1]
    assert [atoms.info["cluster"] for atoms in frames] == [7, 9]
    np.testing.assert_allclose(frames[1].arrays["error"], errors[1])
    np.testing.assert_allclose(frames[0].positions, water.positions[3], atol=1e-7)


def test_ase_trajectory_is_in_ase_units(tmp_path, water):
    ase_write(tmp_path / "a.traj", labelled(water))
    assert same(read_dataset(tmp_path / "a.traj"), water)
    assert "declares the energy unit eV" in refusal(tmp_path / "a.traj", energy_unit="kcal/mol")


def test_energies_as_arrays_of_one(tmp_path, water):
    frames = labelled(water)
    for atoms in frames:  # as some calculators give them
        atoms.calc.results["energy"] = np.array([atoms.calc.results["energy"]])
    ase_write(tmp_path / "a.traj", frames)
    assert same(read_dataset(tmp_path / "a.traj"), water)


def test_ase_database_is_in_ase_units(tmp_path, water):
    with connect(tmp_path / "a.db") as database:
        for atoms in labelled(water):
            database.write(atoms)
    assert same(read_dataset(tmp_path / "a.db"), water)


def schnetpack_database(path, data, metadata):
    with connect(path) as database:
        for frame in range(data.n_frames):
            labels = {"energy": data.energies[[frame]] / KCAL_PER_MOL, "forces": data.forces[frame] / KCAL_PER_MOL}
            database.write(data.atoms(frame), data=labels)
    database.metadata = metadata


def test_schnetpack_database(tmp_path, water):
    declared = {"_property_unit_dict": {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}, "_distance_unit": "Ang"}
    schnetpack_database(tmp_path / "a.db", water, declared)
    assert same(read_dataset(tmp_path / "a.db"), water)


def test_schnetpack_database_with_contradicting_or_missing_units(tmp_path, water):
    declared = {"_property_unit_dict": {"energy": "kcal/mol", "forces": "Hartree/Bohr"}, "_distance_unit": "Ang"}
    schnetpack_database(tmp_path / "a.db", water, declared)
    assert "declares forces in Hartree/Bohr, but energies in kcal/mol" in refusal(tmp_path / "a.db")
    schnetpack_database(tmp_path / "b.db", water, {"_property_unit_dict": {"forces": "kcal/mol/Ang"}})
    assert "does not declare its energy unit" in refusal(tmp_path / "b.db")


def test_a_changing_composition_and_order(tmp_path, water):
    for symbols, found in (("HOH", "H2O"), ("OHF", "HFO")):
        frames = labelled(water, energy_unit="eV", length_unit="Ang")
        frames[2].symbols = symbols
        ase_write(tmp_path / "a.xyz", frames)
        message = refusal(tmp_path / "a.xyz")
        assert "expected H2O with its atoms in the same order" in message and f"found {found} in frame 2" in message


def test_a_changing_number_of_atoms(tmp_path, water):
    frames = labelled(water, energy_unit="eV", length_unit="Ang")
    short = frames[1][:2]
    short.calc = SinglePointCalculator(short, energy=0.0, forces=np.zeros((2, 3)))
    ase_write(tmp_path / "a.xyz", [frames[0], short])
    assert "found HO in frame 1" in refusal(tmp_path / "a.xyz")


def test_periodic_frames(tmp_path, water):
    frames = labelled(water)
    frames[4].cell, frames[4].pbc = [9, 9, 9], True
    ase_write(tmp_path / "a.traj", frames)
    assert "found a periodic frame 4" in refusal(tmp_path / "a.traj")


def test_frames_without_labels(tmp_path, water):
    frames = labelled(water)
    frames[1].calc = None
    ase_write(tmp_path / "a.traj", frames)
    assert "expected an energy and forces in every frame, found neither in frame 1" in refusal(tmp_path / "a.traj")


# What is written


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_npz_round_trip(tmp_path, water, dtype):
    write_dataset(tmp_path / "a.npz", water, dtype=dtype, temperature_K=500.0)
    data = read_dataset(tmp_path / "a.npz")
    assert same(data, water, 1e-12 if dtype == "float64" else 1e-5)
    np.testing.assert_allclose(data.energies, water.energies, rtol=1e-14)  # always double: small on large numbers
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive["temperature_K"] == 500.0


@pytest.mark.filterwarnings("ignore")
def test_the_sgdml_package_accepts_what_is_written(tmp_path, water):
    from sgdml.utils import io as sgdml_io

    write_dataset(tmp_path / "a.npz", water)
    _, archive = sgdml_io.is_file_type(str(tmp_path / "a.npz"), "dataset")
    with archive:
        assert {"type", "code_version", "name", "theory", "z", "R", "E", "F", "r_unit", "e_unit", "md5"} <= set(archive)
        content = dict(archive)
    assert content["md5"].item() == sgdml_io.dataset_md5(content) == sgdml_md5(content)
    assert content["R"].shape == (N_FRAMES, 3, 3) and content["E"].shape == (N_FRAMES, 1)


def test_digest_knows_the_content(water):
    again = Dataset(water.numbers, water.positions.copy(), water.energies.copy(), water.forces.copy(), name="other")
    assert again.digest == water.digest
    assert replace(water, energies=water.energies + 1e-9).digest != water.digest


def test_a_dataset_is_read_only(water):
    with pytest.raises(ValueError, match="read-only"):
        water.positions[0] = 0
    assert same(water.take(np.array([1])), replace(water.take(np.array([0, 1])).take(np.array([1]))))


def test_a_dataset_shows_what_it_holds(water):
    assert repr(water) == "Dataset(5 frames of H2O, 3 atoms, none)"
    assert repr(replace(water, theory="").take([0])) == "Dataset(1 frame of H2O, 3 atoms)"
    shown = replace(water, name="<b>water</b>")._repr_html_()
    assert "&lt;b&gt;water&lt;/b&gt;" in shown and "H2O, 3 atoms" in shown
    assert f"{water.energies.min():.3f} to {water.energies.max():.3f} eV" in shown
    assert (
        f"{np.sqrt(np.mean(water.forces**2)):.3f} eV/Å" in shown and f"{np.abs(water.forces).max():.3f} eV/Å" in shown
    )


def test_one_atom_is_not_a_molecule():
    with pytest.raises(InputError, match="at least 2 atoms, found 1"):
        Dataset([8], np.zeros((1, 1, 3)), np.zeros(1), np.zeros((1, 1, 3)))


def test_formula_in_hill_order():
    assert formula(np.array([8, 1, 6, 1, 1, 1])) == "CH4O"


# Atomic writes


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), writing(path) as beside:
        beside.write_text("new")
        raise KeyError
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*a\.txt: No space left on device; free space"):
        write_text(path, "new")
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "new")
    with pytest.raises(InputError, match="cannot write"), writing_folder(tmp_path / "file" / "a"):
        pass  # pragma: no cover

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("tempfile.mkstemp", denied)
    with pytest.raises(InputError, match="Permission denied; free space or choose a folder that can be written"):
        write_text(tmp_path / "a.txt", "new")


def test_writes_keep_the_suffix_and_obey_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with writing(tmp_path / "deep" / "a.tar.gz") as beside:
            assert beside.suffix == ".gz" and beside.parent == tmp_path / "deep"
        with writing_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "deep" / "a.tar.gz").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("old", "new"):
        with writing_folder(tmp_path / "model") as folder:
            (folder / f"{content}.txt").write_text(content)
    assert [entry.name for entry in (tmp_path / "model").iterdir()] == ["new.txt"]
    with pytest.raises(KeyError), writing_folder(tmp_path / "model") as folder:
        raise KeyError
    assert [entry.name for entry in (tmp_path / "model").iterdir()] == ["new.txt"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_put_in_place_is_put_back(tmp_path, monkeypatch):
    with writing_folder(tmp_path / "model") as folder:
        (folder / "old.txt").write_text("old")
    move = os.replace

    def full(source, target):
        if source.name.startswith(".writing-"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        move(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"), writing_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "model" / "old.txt").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_json_and_npz(tmp_path):
    write_json(tmp_path / "a.json", {"array": np.arange(2), "number": np.float64(0.5)})
    assert (tmp_path / "a.json").read_text() == '{\n  "array": [\n    0,\n    1\n  ],\n  "number": 0.5\n}\n'
    with pytest.raises(TypeError, match="set cannot be written as JSON"):
        write_json(tmp_path / "b.json", {"set": {1}})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", {"number": np.nan})
    write_npz(tmp_path / "a.npz", {"x": np.arange(3)})
    with np.load(tmp_path / "a.npz") as archive:
        assert archive["x"].tolist() == [0, 1, 2]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.json", "a.npz"]


# Units


def test_units_and_their_other_names():
    assert energy_in_eV("kcal/mol") == pytest.approx(0.0433641, rel=1e-5)
    assert energy_in_eV(" Ha ") == units.Hartree and energy_in_eV("ry") == units.Rydberg
    assert length_in_angstrom("angstrom") == length_in_angstrom("Å") == 1 and length_in_angstrom("bohr") == units.Bohr
    with pytest.raises(InputError, match="the length unit must be one of Ang, Bohr, nm, got 'eV'"):
        length_in_angstrom("eV")


def test_output_units():
    assert output_units("kcal/mol").force == "kcal/(mol Å)" and output_units("ev").force == "eV/Å"
    assert output_units("kcal/mol").scale * KCAL_PER_MOL == pytest.approx(1)
    with pytest.raises(InputError, match="got 'stone'"):
        output_units("stone")


# Damaged and hostile files


@pytest.mark.parametrize("key", ["e_unit", "r_unit", "name", "theory"])
def test_an_empty_array_in_place_of_text(tmp_path, water, key):
    np.savez(tmp_path / "a.npz", **sgdml_arrays(water) | {key: np.array([], dtype=str)})
    assert f"expected text as {key} in" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("numbers", [np.zeros((0, 3), int), np.zeros((3, 0), int), np.zeros(0, int), np.array(8)])
def test_atomic_numbers_of_no_size(tmp_path, water, numbers):
    np.savez(tmp_path / "a.npz", **sgdml_arrays(water) | {"z": numbers})
    refusal(tmp_path / "a.npz")


def test_text_where_numbers_belong(tmp_path, water):
    for key in "zREF":
        array = np.full(sgdml_arrays(water)[key].shape, "x\x1b\n")
        np.savez(tmp_path / "a.npz", **sgdml_arrays(water) | {key: array})
        assert refusal(tmp_path / "a.npz").isprintable()


def test_a_damaged_lzma_member(tmp_path, water):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        for key, array in sgdml_arrays(water).items():
            with archive.open(f"{key}.npy", "w") as stream:
                np.save(stream, array)
        start = archive.getinfo("R.npy").header_offset + 45
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[start : start + 60] = b"\xff" * 60
    (tmp_path / "a.npz").write_bytes(content)
    assert "could not read" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("value", [7, True, np.array([1.0, 2.0]), "x" * 5000, "a\x1b[31mb"])
def test_a_unit_that_is_no_name(tmp_path, water, value):
    ase_write(tmp_path / "a.xyz", labelled(water, energy_unit=value, length_unit="Ang"), format="extxyz")
    message = refusal(tmp_path / "a.xyz")
    assert "must be one of eV" in message and len(message) < 500 and message.isprintable()


def test_a_file_that_may_not_be_opened(tmp_path, water, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    write_dataset(tmp_path / "a.npz", water)
    write_dataset(tmp_path / "a.xyz", water)
    monkeypatch.setattr("builtins.open", denied)
    monkeypatch.setattr("pathlib.Path.open", denied)
    for name in ("a.npz", "a.xyz"):
        assert "Permission denied" in refusal(tmp_path / name)


def test_files_that_are_not_read_at_all(tmp_path):
    with pytest.raises(InputError, match="File name too long; check the path"):
        read_dataset(tmp_path / ("x" * 5000 + ".xyz"))
    os.mkfifo(tmp_path / "a.npz")
    (tmp_path / "b.xyz").symlink_to("/dev/zero")
    (tmp_path / "c.db").mkdir()
    for name in ("a.npz", "b.xyz", "c.db"):
        assert "not a regular file" in refusal(tmp_path / name)


def test_an_archive_of_far_more_than_its_size(tmp_path, water, monkeypatch):
    monkeypatch.setattr("ase_flatten.utils.npz_files.SMALL_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "a.npz", **sgdml_arrays(water) | {"R": np.zeros((1 << 17, 3, 3))})
    assert re.search(r"arrays of 0\.0 GiB in a file of 0\.0 MiB", refusal(tmp_path / "a.npz"))


def test_shapes_are_compared_before_arrays_are_read(tmp_path, water, monkeypatch):
    np.savez(tmp_path / "a.npz", **sgdml_arrays(water) | {"R": np.zeros((N_FRAMES, 4, 3))})
    with monkeypatch.context() as patch:
        patch.setattr("numpy.lib.npyio.NpzFile.__getitem__", None)
        assert "positions must have the shape (n_frames, 3, 3), found (5, 4, 3)" in refusal(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for key, array in sgdml_arrays(water).items():
            with archive.open(f"{key}.npy", "w") as stream:
                if key == "F":
                    header = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 3, 3)}
                    np.lib.format.write_array_header_2_0(stream, header)
                else:
                    np.save(stream, array)
    assert "F of the shape (1000000000, 3, 3) and the type float64 in 0 bytes" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("count", ["2147483648", "-1", "0", "x", "9" * 6000])
def test_an_atom_count_that_the_file_cannot_hold(tmp_path, count):
    (tmp_path / "a.xyz").write_text(f"{count}\nProperties=species:S:1:pos:R:3\nO 0 0 0\n")
    refusal(tmp_path / "a.xyz")


@pytest.mark.parametrize(
    "columns", ["pos:R:1099511627776", 'pos:R:3:x:I:1_000_000_000"', "pos:R:-1", "pos:R:" + "9" * 5000]
)
def test_columns_that_the_file_does_not_hold(tmp_path, columns):
    (tmp_path / "a.xyz").write_text(f"1\nProperties=species:S:1:{columns} energy=1\nO 0 0 0\n")
    refusal(tmp_path / "a.xyz")


def test_a_comment_that_looks_like_a_declaration(tmp_path, water):
    frames = labelled(water, energy_unit="eV", length_unit="Ang", note="a:R:1000000:x:S:many")
    ase_write(tmp_path / "a.xyz", frames, format="extxyz")
    assert same(read_dataset(tmp_path / "a.xyz"), water, 1e-7)


def test_compressed_extended_xyz(tmp_path, water, monkeypatch):
    ase_write(tmp_path / "a.xyz.gz", labelled(water, energy_unit="eV", length_unit="Ang"), format="extxyz")
    assert same(read_dataset(tmp_path / "a.xyz.gz"), water, 1e-7)
    monkeypatch.setattr("ase_flatten.data.trajectory_files.SMALL_BYTES", 0)
    with gzip.open(tmp_path / "b.xyz.gz", "wb") as stream:
        stream.write(bytes(1 << 22))
    assert re.search("more than 0 MiB in a file of 0.0 MiB", refusal(tmp_path / "b.xyz.gz"))


def test_forces_of_another_shape(tmp_path, water):
    frames = labelled(water)
    frames[2].calc.results["forces"] = np.zeros((3, 2))
    ase_write(tmp_path / "a.traj", frames)
    assert "found float64 of the shape (3, 2) in frame 2" in refusal(tmp_path / "a.traj")


def test_a_database_with_a_view_that_never_ends(tmp_path, water):
    with connect(tmp_path / "a.db") as database:
        for atoms in labelled(water):
            database.write(atoms)
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.executescript(f"ALTER TABLE systems RENAME TO s; CREATE VIEW systems AS {numbers} s.* FROM n, s;")
    assert "no table of systems, or views in its place" in refusal(tmp_path / "a.db")


def test_a_database_that_takes_far_longer_than_its_size(tmp_path, water, monkeypatch):
    with connect(tmp_path / "a.db") as database:
        for atoms in labelled(water):
            database.write(atoms)
    before = (tmp_path / "a.db").read_bytes()
    monkeypatch.setattr("ase_flatten.data.trajectory_files._SQLITE_STEPS", -len(before))
    monkeypatch.setattr("ase_flatten.data.trajectory_files._STEPS_BETWEEN_LOOKS", 10)
    assert "interrupted" in refusal(tmp_path / "a.db")
    assert (tmp_path / "a.db").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db"]


def test_a_file_that_is_no_database_is_not_made_one(tmp_path):
    (tmp_path / "a.db").touch()
    assert "no table of systems" in refusal(tmp_path / "a.db")
    assert (tmp_path / "a.db").stat().st_size == 0


def test_a_file_of_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    (tmp_path / "a.rst").write_text("Title\n=====\n")
    assert "whose format it does not know; give an npz, extended XYZ" in refusal(tmp_path / "a.rst")
