"""Every defect planted into sound data is found, and named."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.data import atomic_masses

from ase_flatten.checking import check
from ase_flatten.checking.check import Finding, check_dataset
from ase_flatten.checking.force_constants import stiffness
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.energy_force_consistency import energy_slope, explain_slope, rank_correlation, trapezoid

KCAL = units.kcal / units.mol
LAST = 8


@pytest.fixture
def findings(rng):
    def run(dataset: Dataset) -> dict[str, Finding]:
        found = {finding.what: finding for finding in check_dataset(dataset, rng=rng)}
        for finding in found.values():
            assert "\n" not in finding.message and not finding.message.endswith(".")
        return found

    return run


@pytest.fixture
def refused(findings):
    def run(dataset: Dataset) -> dict[str, str]:
        return {what: finding.message for what, finding in findings(dataset).items() if finding.level == "refused"}

    return run


def changed(array: np.ndarray, frame: int, value: float) -> np.ndarray:
    array = array.copy()
    array[frame] = value
    return array


def turned(dataset: Dataset, rng: np.random.Generator) -> Dataset:
    """Rotate and move every frame at random."""
    rotations = np.linalg.qr(rng.normal(size=(dataset.n_frames, 3, 3)))[0]
    rotations *= np.linalg.det(rotations)[:, None, None]
    shift = rng.normal(size=(dataset.n_frames, 1, 3))
    return replace(dataset, positions=dataset.positions @ rotations + shift, forces=dataset.forces @ rotations)


def mirrored(dataset: Dataset) -> Dataset:
    mirror = np.array([-1.0, 1.0, 1.0])
    return replace(dataset, positions=dataset.positions * mirror, forces=dataset.forces * mirror)


def test_sound_data_pass(ethanol_like, findings):
    assert findings(ethanol_like) == {}


def test_sound_data_pass_in_any_orientation(ethanol_like, findings, rng):
    assert findings(turned(ethanol_like, rng)) == {}


def test_sound_data_pass_in_any_order(ethanol_like, findings, rng):
    assert findings(ethanol_like.take(rng.permutation(ethanol_like.n_frames))) == {}


def test_sparse_data_are_not_refused(ethanol_like, refused):
    assert refused(ethanol_like.take(np.arange(0, 300, 7))) == {}


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4, 10])
def test_few_frames_are_noted_and_nothing_is_decided(ethanol_like, findings, n_frames):
    found = findings(ethanol_like.take(np.arange(n_frames) * 20))
    assert set(found) == {"few frames", "energies undecided"}
    assert f"found {n_frames};" in found["few frames"].message


def test_the_slope_is_one(ethanol_like):
    frames = np.arange(ethanol_like.n_frames - 1)
    slope = energy_slope(ethanol_like, np.column_stack([frames, frames + 1]))
    assert slope.low == pytest.approx(1, abs=0.02) and slope.high == pytest.approx(1, abs=0.02)
    assert slope.correlation > 0.99 and slope.outside < 0.02


def test_turned_frames_superpose_and_mirror_images_do_not(ethanol_like, rng):
    frames = np.arange(40)
    pairs = np.column_stack([frames, frames + 40])
    first = ethanol_like.take(frames)
    for second, least, most in ((turned(first, rng), 0, 1e-9), (mirrored(first), 0.05, 2)):
        both = Dataset(
            first.numbers,
            np.concatenate([first.positions, second.positions]),
            np.zeros(80),
            np.concatenate([first.forces, second.forces]),
        )
        work, rmsd = trapezoid(both, pairs)
        assert np.all(rmsd >= least) and np.all(rmsd < most)
        np.testing.assert_allclose(work, 0, atol=1e-9)


MISTAKES = [
    (KCAL, 1.0, "energies look like eV where the forces are in kcal/(mol Å)"),
    (1 / KCAL, 1.0, "energies look like kcal/mol where the forces are in eV/Å"),
    (1 / units.Hartree, 1.0, "energies look like Hartree where the forces are in eV/Å"),
    (1.0, 1 / units.Hartree, "energies look like eV where the forces are in Hartree/Å"),
    (1.0, units.Bohr / units.Hartree, "energies look like eV where the forces are in Hartree/Bohr"),
    (1 / KCAL, units.Bohr / units.Hartree, "energies look like kcal/mol where the forces are in Hartree/Bohr"),
    (4.184, 1.0, "energies look like kJ/mol where the forces are in kcal/(mol Å)"),
    (2.0, 1.0, "energies look like Rydberg where the forces are in Hartree/Å"),
    (1.0, units.Bohr, "forces look like energy per Bohr where the positions are in Å"),
    (1.0, 1 / units.Bohr, "forces look like energy per Å where the positions are in Bohr"),
    (1.0, 10.0, "forces look like energy per nm where the positions are in Å"),
    (1 / 9, 1.0, "energies look like energies per atom"),
    (1.0, -1.0, "forces look like gradients"),
    (
        1 / KCAL,
        -1.0,
        "energies look like kcal/mol where the forces are in eV/Å; write both in one unit, and the forces ",
    ),
]


@pytest.mark.parametrize(("energy", "force", "words"), MISTAKES, ids=[words[:60] for *_, words in MISTAKES])
@pytest.mark.parametrize("stride", [1, 6])
def test_mistakes_of_units_and_sign_are_named(ethanol_like, findings, energy, force, words, stride):
    wrong = replace(ethanol_like, energies=ethanol_like.energies * energy, forces=ethanol_like.forces * force)
    found = findings(wrong.take(np.arange(0, 300, stride)))["energies and forces"]
    assert words in found.message
    if stride == 1 or not 0.25 < energy / force < 4:
        assert found.level == "refused" and "times as much as the forces imply" in found.message
    else:  # with 50 frames far apart, several mistakes may explain it
        assert "energies seem to change" in found.message


@pytest.mark.parametrize(("factor", "true", "declared"), [(1 / KCAL, "kcal/mol", "eV"), (KCAL, "eV", "kcal/mol")])
@pytest.mark.parametrize("stride", [7, 25])
def test_energies_and_forces_in_the_same_wrong_unit(ethanol_like, findings, factor, true, declared, stride):
    wrong = replace(ethanol_like, energies=ethanol_like.energies * factor, forces=ethanol_like.forces * factor)
    found = findings(wrong.take(np.arange(0, 300, stride)))
    what, level = ("energy unit", "refused") if stride == 7 else ("size of forces", "note")
    assert found[what].level == level and f"they look like {true} where {declared} was declared" in found[what].message


def test_wrong_units_are_found_where_energies_cannot_be_compared(ethanol_like, findings, monkeypatch):
    monkeypatch.setattr(check, "MIN_PAIRS", 1000)
    far = ethanol_like.take(np.arange(0, 300, 15))
    found = findings(replace(far, energies=far.energies / KCAL, forces=far.forces / KCAL))
    assert "energies undecided" in found and found["energy unit"].level == "refused"


def test_forces_of_a_molecule_without_hydrogen(findings, rng):
    """Carbon dioxide with harmonic bonds: no bond to hydrogen tells the unit."""
    positions = molecule("CO2").positions + rng.normal(scale=0.04, size=(60, 3, 3))
    energies, forces = np.zeros(60), np.zeros((60, 3, 3))
    for atom in (1, 2):
        bonds = positions[:, atom] - positions[:, 0]
        lengths = np.linalg.norm(bonds, axis=1)
        energies += 0.5 * 95 * (lengths - 1.17) ** 2
        pull = -95 * ((lengths - 1.17) / lengths)[:, None] * bonds
        forces[:, atom] += pull
        forces[:, 0] -= pull
    data = Dataset([6, 8, 8], positions, energies, forces)
    assert "size of forces" not in findings(data)
    found = findings(replace(data, energies=energies / KCAL, forces=forces / KCAL))["size of forces"]
    assert found.level == "note" and "they look like kcal/mol where eV was declared" in found.message
    assert "too small" in findings(replace(data, energies=energies / 50, forces=forces / 50))["size of forces"].message


def test_stiffness_of_bonds(ethanol_like, rng):
    n_bonds, found = stiffness(ethanol_like, ethanol_like.pair_distances, rng=rng)
    assert n_bonds == 8 and 25 < found < 45
    # Accelerating the whole molecule changes no bond.
    pushed = ethanol_like.forces + atomic_masses[ethanol_like.numbers][:, None] * rng.normal(size=(300, 1, 3))
    accelerated = replace(ethanol_like, forces=pushed)
    assert stiffness(accelerated, accelerated.pair_distances, rng=rng)[1] == pytest.approx(found)
    few = ethanol_like.take(np.arange(0, 300, 50))
    assert 20 < stiffness(few, few.pair_distances, rng=rng)[1] < 60
    held = ethanol_like.positions[0] + 1e-4 * rng.normal(size=(300, 9, 3))  # the bonds tell nothing of the forces
    rigid = replace(ethanol_like, positions=held)
    assert stiffness(rigid, rigid.pair_distances, rng=rng) is None


def test_a_slope_that_nothing_explains(ethanol_like, refused):
    found = refused(replace(ethanol_like, energies=ethanol_like.energies * 3.1))
    assert "no single mistake of units or sign explains this" in found["energies and forces"]
    assert explain_slope(1.0, 9) is None


@pytest.mark.parametrize("shift", [-1, 1])
def test_shifted_energies_are_named(ethanol_like, refused, shift):
    found = refused(replace(ethanol_like, energies=np.roll(ethanol_like.energies, shift)))
    assert "shifted relative to each other" in found["energies and forces"]
    assert ("next" if shift > 0 else "previous") in found["energies and forces"]


def test_shuffled_energies(ethanol_like, refused, rng):
    found = refused(replace(ethanol_like, energies=rng.permutation(ethanol_like.energies)))
    assert "do not belong to these forces" in found["energies and forces"]


def test_energies_that_do_not_change(ethanol_like, refused):
    found = refused(replace(ethanol_like, energies=np.full(300, -310.0)))
    assert "they hardly change" in found["energies and forces"]


def test_units_that_change_in_the_middle(ethanol_like, refused):
    energies = ethanol_like.energies - ethanol_like.energies.min()
    energies[180:] /= KCAL
    found = refused(replace(ethanol_like, energies=energies))
    assert "they disagree in some of the frames" in found["energies and forces"]


def test_frames_far_apart_are_not_decided(ethanol_like, findings, rng):
    # Large moves of a floppy molecule: whatever the labels, no pair of frames is close.
    positions = ethanol_like.positions[:150] * (1 + 0.002 * np.arange(150))[:, None, None]
    positions += rng.normal(scale=0.25, size=positions.shape)
    found = findings(replace(ethanol_like.take(np.arange(150)), positions=positions))
    assert found["energies undecided"].level == "note"
    assert "could not be decided" in found["energies undecided"].message


def test_shuffled_forces(ethanol_like, refused, rng):
    found = refused(replace(ethanol_like, forces=rng.permutation(ethanol_like.forces)))
    assert "forces that belong to other frames" in found["net torque"]
    assert "energies and forces" in found


def test_zero_forces(ethanol_like, refused):
    assert "found zeros only" in refused(replace(ethanol_like, forces=np.zeros((300, 9, 3))))["no forces"]


def test_net_force(ethanol_like, refused, findings):
    pushed = ethanol_like.forces + np.array([0.0, 0.0, 0.5])
    found = refused(replace(ethanol_like, forces=pushed))
    assert "300 of 300 frames (the first is frame 0)" in found["net force"]
    slightly = findings(replace(ethanol_like, forces=ethanol_like.forces + np.array([0.0, 0.0, 0.01])))
    assert slightly["net force"].level == "note" and "%" in slightly["net force"].message


def test_net_torque_of_one_frame(ethanol_like, refused):
    forces = ethanol_like.forces.copy()
    forces[7] += np.cross([0.0, 0.0, 0.5], ethanol_like.positions[7] - ethanol_like.positions[7].mean(axis=0))
    forces[7] -= forces[7].mean(axis=0)
    found = refused(replace(ethanol_like, forces=forces))
    assert "1 of 300 frames (the first is frame 7)" in found["net torque"]


@pytest.mark.parametrize(
    ("factor", "true", "declared"),
    [
        (1 / units.Bohr, "Bohr", "Ang"),
        (units.Bohr, "Ang", "Bohr"),
        (0.1, "nm", "Ang"),
        (10.0, "Ang", "nm"),
        (units.Bohr / 10, "nm", "Bohr"),
        (10 / units.Bohr, "Bohr", "nm"),
    ],
)
def test_wrong_length_units_are_named(ethanol_like, refused, factor, true, declared):
    found = refused(replace(ethanol_like, positions=ethanol_like.positions * factor))
    assert f"positions look like {true} where {declared} was declared; declare {true}" in found["length unit"]


def test_lengths_that_no_unit_explains(ethanol_like, refused):
    found = refused(replace(ethanol_like, positions=ethanol_like.positions * 4.5))
    assert "no unit explains this" in found["length unit"]


def test_an_atom_that_left(ethanol_like, refused):
    positions = ethanol_like.positions.copy()
    positions[200:220, LAST] += [0.0, 0.0, 4.0]
    found = refused(replace(ethanol_like, positions=positions))
    assert "20 of 300 frames (the first is frame 200), where atom 8 (H) has left" in found["broken molecules"]


def test_an_atom_that_left_early_and_stays_away(ethanol_like, refused):
    positions = ethanol_like.positions.copy()
    positions[40:, LAST] += [0.0, 0.0, 4.0]
    found = refused(replace(ethanol_like, positions=positions))
    assert "260 of 300 frames (the first is frame 40), where atom 8 (H)" in found["broken molecules"]


def test_atoms_that_fell_into_each_other(ethanol_like, refused):
    positions = ethanol_like.positions.copy()
    positions[11, 4] = positions[11, 0] + [0.0, 0.0, 0.2]
    found = refused(replace(ethanol_like, positions=positions))
    assert "1 of 300 frames (the first is frame 11)" in found["atoms too close"]


def test_a_complex_is_noted_and_not_refused(findings, rng):
    dimer = molecule("H2O")
    dimer += molecule("H2O")
    positions = np.tile(dimer.positions, (120, 1, 1)) + rng.normal(scale=0.02, size=(120, 6, 3))
    positions[:, 3:] += [0.0, 0.0, 4.0]
    forces = rng.normal(size=positions.shape)
    found = findings(Dataset(dimer.numbers, positions, rng.normal(size=120), forces))
    assert found["complex"].level == "note" and "found 2 in most frames" in found["complex"].message
    assert "broken molecules" not in found


def test_duplicates(ethanol_like, refused, rng):
    frames = np.concatenate([np.arange(300), [5, 17]])
    found = refused(turned(ethanol_like.take(frames), rng))
    assert set(found) == {"duplicates"}
    assert "found 4 of 302 frames that occur more than once (such as frames 5 and 300)" in found["duplicates"]


def test_duplicates_with_other_labels(ethanol_like, refused):
    twice = ethanol_like.take(np.concatenate([np.arange(300), [5, 17]]))
    found = refused(replace(twice, energies=changed(twice.energies, 301, twice.energies[17] + 0.1)))
    assert "some with other labels (such as frames 17 and 301)" in found["duplicates"]


def test_near_identical_frames_are_noted(ethanol_like, findings, rng):
    twice = ethanol_like.take(np.concatenate([np.arange(300), [5]]))
    positions = twice.positions.copy()
    positions[300] += rng.normal(scale=1e-3, size=(9, 3))
    found = findings(replace(twice, positions=positions))
    assert set(found) == {"near-identical"}
    assert found["near-identical"].level == "note" and "found 2 of 301" in found["near-identical"].message


def test_outliers_are_named(ethanol_like, findings):
    found = findings(replace(ethanol_like, energies=changed(ethanol_like.energies, 33, 0.0)))
    assert set(found) == {"wrong labels"} and found["wrong labels"].frames == (33,)
    found = findings(replace(ethanol_like, forces=changed(ethanol_like.forces, 44, 500.0)))
    assert found["wrong labels"].frames == (44,) and "force outliers" not in found
    few = ethanol_like.take(np.arange(120))
    energies = few.energies.copy()
    energies[:30] -= 40  # too many to be judged one by one
    found = findings(replace(few, energies=energies))
    assert "farthest in frame" in found["energy outliers"].message


def test_same_seed_same_findings(ethanol_like):
    wrong = replace(ethanol_like, energies=ethanol_like.energies * 2)
    first, second = (check_dataset(wrong, rng=np.random.default_rng(3)) for _ in range(2))
    assert first == second


def test_progress_is_told(ethanol_like, rng):
    class Recorder:
        def __init__(self):
            self.done = self.total = 0

        @contextmanager
        def task(self, what, total):
            self.total += total

            def advance(done):
                self.done += done

            yield advance

    recorder = Recorder()
    check_dataset(ethanol_like, rng=rng, progress=recorder)
    assert recorder.done == recorder.total > 0


def test_rank_correlation_of_a_constant_is_zero():
    assert rank_correlation(np.ones(5), np.arange(5.0)) == 0
    assert rank_correlation(np.arange(5.0), np.arange(5.0) ** 3) == pytest.approx(1)
