"""What is known of a molecule, and what molecular dynamics may therefore not do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.md.langevin import Langevin

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.data.known_molecule import KnownMolecule, data_temperature
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.md import Protocol
from ase_flatten.md.criteria import WINDOW_PS, Criteria
from ase_flatten.md.engines import Frame
from ase_flatten.md.expected_energy import expected_energy
from ase_flatten.md.recorder import Recorder
from ase_flatten.md.results import Settings

BUNDLED = Path(__file__).parents[2] / "examples" / "data" / "salicylic_gfn2_500K.npz"


def molecule_of(dataset):
    return KnownMolecule.of_dataset(dataset)


def frame_of(dataset, rng):
    """All frames of a data set as replicas of one moment."""
    momenta = rng.normal(size=dataset.positions.shape)
    return Frame(0, dataset.positions, momenta, dataset.forces, dataset.energies, dataset.energies)


def failures(known, dataset, rng, temperature_K=500.0):
    criteria = Criteria.of_molecule(known, temperature_K)
    return criteria.unphysical(frame_of(dataset, rng), np.ones(dataset.n_frames, dtype=bool))


@pytest.fixture(scope="module")
def salicylic():
    dataset = read_dataset(BUNDLED)
    return dataset.take(np.arange(0, dataset.n_frames, 4))


@pytest.fixture(scope="module")
def malonaldehyde():
    """Malonaldehyde's enol, GFN2-xTB, 900 K: the proton changes sides within a picosecond."""
    from tblite.ase import TBLite

    place = [
        [-1.307, 1.133, 0], [-1.223, -0.089, 0], [0.016, -0.813, 0], [1.191, -0.135, 0], [1.29, 1.172, 0],
        [0.361, 1.54, 0], [-2.137, -0.704, 0], [0, -1.888, 0], [2.149, -0.646, 0],
    ]  # fmt: skip
    atoms = Atoms("OCCCOHHHH", place)
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    rng = np.random.default_rng(4)
    atoms.set_momenta(rng.normal(size=(9, 3)) * np.sqrt(atoms.get_masses() * units.kB * 1400)[:, None])
    dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=900, friction=0.02 / units.fs, fixcm=False, rng=rng)
    frames = []
    for _ in range(260):
        dynamics.run(5)
        frames.append((atoms.get_positions(), atoms.get_potential_energy(), atoms.get_forces()))
    positions, energies, forces = (np.array(part) for part in zip(*frames, strict=True))
    return Dataset(atoms.numbers, positions, energies, forces)


@pytest.mark.parametrize("half", ["first", "random"])
def test_the_other_half_of_the_data_is_sound(salicylic, rng, half):
    n_frames = salicylic.n_frames
    order = np.arange(n_frames) if half == "first" else rng.permutation(n_frames)
    known = molecule_of(salicylic.take(np.sort(order[: n_frames // 2])))
    assert known.mean_energy is not None
    assert failures(known, salicylic.take(order[n_frames // 2 :]), rng) == {}


def test_a_proton_that_changes_sides_is_no_break_and_one_that_flies_away_is(malonaldehyde, rng):
    distances = pair_distances(malonaldehyde.positions)
    known = molecule_of(malonaldehyde)
    assert len(known.bond_graphs) == 2
    order = rng.permutation(malonaldehyde.n_frames)
    half = molecule_of(malonaldehyde.take(np.sort(order[:130])))
    assert failures(half, malonaldehyde.take(order[130:]), rng, 900.0) == {}
    pairs = np.tril_indices(9, -1)
    to_oxygen = [np.flatnonzero((pairs[0] == 5) & (pairs[1] == oxygen))[0] for oxygen in (0, 4)]
    assert distances[:, to_oxygen].argmin(axis=1).std() > 0
    assert "bond H5-O" in broken(malonaldehyde, known, 5, [0, 0, 20.0], rng)


def broken(dataset, known, atoms, shift, rng):
    """What is said of the first frame with atoms moved by a shift, Å."""
    positions = dataset.positions[:1].copy()
    positions[0, atoms] += shift
    moved = Dataset(dataset.numbers, positions, dataset.energies[:1], dataset.forces[:1])
    return failures(known, moved, rng)[0]


def test_breaks_and_collapses_are_named(malonaldehyde, rng):
    known = molecule_of(malonaldehyde)
    bond = malonaldehyde.positions[0, 1] - malonaldehyde.positions[0, 2]
    assert "the bond C2-C1 is" in broken(malonaldehyde, known, [0, 1, 6], 2 * bond, rng)
    towards = malonaldehyde.positions[0, 7] - malonaldehyde.positions[0, 8]
    assert "the bond H8-C3 is" in broken(malonaldehyde, known, 8, 0.9 * towards, rng)
    reason = broken(malonaldehyde, known, 2, 0.45 * bond, rng)
    assert "C2-C1 are" in reason and "apart, closer than" in reason


def test_what_old_run_folders_know_is_enough(salicylic, rng):
    distances = pair_distances(salicylic.positions)
    old = {
        "numbers": salicylic.numbers, "lowest_energy": salicylic.energies.min(), "energies": salicylic.energies,
        "mean_pair_distances": distances.mean(axis=0),
    }  # fmt: skip
    known = KnownMolecule.of_arrays(old)
    assert expected_energy(known, 400.0) is None
    criteria = Criteria.of_molecule(known, 400.0)
    margin = known.highest_energy - known.lowest_energy
    assert criteria.energy.low == pytest.approx(known.lowest_energy - margin)
    assert failures(known, salicylic, rng) == {}


def test_what_is_known_survives_its_file(salicylic, tmp_path):
    known = molecule_of(salicylic)
    np.savez(tmp_path / "reference.npz", **known.arrays)
    with np.load(tmp_path / "reference.npz") as arrays:
        again = KnownMolecule.of_arrays(dict(arrays))
    assert expected_energy(again, 350.0) == expected_energy(known, 350.0)
    assert np.array_equal(again.bond_graphs, known.bond_graphs)


def harmonic(n_frames, temperature_K, rng, *, n_atoms=8):
    """Canonical frames of atoms that springs hold in place, each in all directions."""
    stiffness, place = 20.0, 1.5 * np.stack(np.unravel_index(np.arange(n_atoms), (2, 2, 2)), axis=1)
    moved = rng.normal(scale=np.sqrt(units.kB * temperature_K / stiffness), size=(n_frames, n_atoms, 3))
    moved -= moved.mean(axis=1, keepdims=True)
    energies = 0.5 * stiffness * np.sum(moved**2, axis=(1, 2))
    return Dataset(np.full(n_atoms, 6), place + moved, energies, -stiffness * moved)


def test_the_temperature_and_the_energy_of_harmonic_atoms_are_right(rng):
    data = harmonic(8000, 500.0, rng)
    temperature, error = data_temperature(data, pair_distances(data.positions))
    assert error < 10 and abs(temperature - 500) < 4 * error
    for other in (300.0, 700.0):
        expected = expected_energy(molecule_of(data), other)
        exact = harmonic(8000, other, rng).energies
        assert abs(expected.mean - exact.mean()) < 4 * expected.error
        assert expected.std == pytest.approx(exact.std(), rel=0.1)
        assert expected.source.startswith("the data at")


def test_data_that_are_no_canonical_sample_say_nothing(rng):
    data = harmonic(500, 500.0, rng)
    even = Dataset(data.numbers, data.positions, data.energies.mean() + 0 * data.energies, data.forces)
    assert expected_energy(molecule_of(even), 500.0) is None
    assert molecule_of(data.take(np.arange(50))).mean_energy is None


def test_energies_that_the_temperature_does_not_have_are_unphysical(salicylic, rng):
    known = molecule_of(salicylic)
    criteria = Criteria.of_molecule(known, 400.0)
    expected = criteria.energy.expected
    one = salicylic.take(np.array([0]))
    assert criteria.energy.low < known.lowest_energy and criteria.energy.high > known.highest_energy
    for energy, words in ((criteria.energy.low, "below"), (criteria.energy.high, "above")):
        for inside in (True, False):
            sign = 1 if (words == "below") == inside else -1
            frame = replace(frame_of(one, rng), potential=np.array([energy + 0.01 * sign]))
            found = criteria.unphysical(frame, np.array([True]))
            assert (found == {}) == inside
        assert f"kcal/mol {words} the mean expected from the data at" in found[0]
    assert expected.mean - 6 * expected.std > criteria.energy.low


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_replica_that_has_sunk_is_found_by_its_average(salicylic, rng, tmp_path, interrupted):
    criteria = Criteria.of_molecule(molecule_of(salicylic), 400.0)
    interval = 100
    protocol = Protocol("test", 400.0, 0.5, 0.01, 10 * interval * 20, 2, interval)
    recorder = Recorder(tmp_path / "partial", Settings(zero_energy_eV=0.0), protocol, criteria)
    recorder.last_state(resume=False)
    n_window = round(1000 * WINDOW_PS / (interval * 0.5))
    low = 0.5 * (criteria.energy.low + criteria.energy.window_low)
    for record in range(2 * n_window):
        if interrupted and record == n_window - 5:
            recorder.checkpoint({})
            recorder = Recorder(tmp_path / "partial", Settings(zero_energy_eV=0.0), protocol, criteria)
            recorder.last_state(resume=True)
        frame = frame_of(salicylic.take(np.array([0, 1])), rng)
        recorder.take(replace(frame, step=record * interval, potential=np.array([low, frame.potential[1]])))
    assert recorder.alive.tolist() == [False, True]
    assert recorder.failures[0].step == (n_window - 1) * interval
    assert "averaged over the last 1 ps is" in recorder.failures[0].reason
    assert "kcal/mol below the mean expected from the data at" in recorder.failures[0].reason
