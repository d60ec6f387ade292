import logging
import pickle
import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from ase_flatten import FlattenedSGDML, load_calculator
from ase_flatten.calculators import FlattenedCalculator
from ase_flatten.testing import check_calculator
from ase_flatten.utils.exceptions import InputError


@pytest.fixture
def atoms(finished_run, water):
    return Atoms(water.numbers, water.positions[1], calculator=load_calculator(finished_run.folder))


def test_contract(finished_run, water):
    check_calculator(FlattenedSGDML(finished_run.folder), water.numbers, water.positions[1])


def test_the_contract_can_fail(finished_run, water):
    class Careless(FlattenedCalculator):
        def set_atoms(self, atoms):
            pass

    with pytest.raises(AssertionError, match="accepted"):
        check_calculator(Careless(finished_run.folder), water.numbers, water.positions[1])


def test_a_run_folder_stands_for_its_improved_model(finished_run, water):
    energies = [
        Atoms(water.numbers, water.positions[5], calculator=load_calculator(path)).get_potential_energy()
        for path in (finished_run.folder, finished_run.folder / "improved", finished_run.folder / "default")
    ]
    assert energies[0] == energies[1] != energies[2]


def test_another_family_is_refused(finished_run):
    class Other(FlattenedCalculator):
        family = "schnet"

    with pytest.raises(InputError, match=r"expected a model of the family schnet .* found sgdml"):
        Other(finished_run.folder)


def test_it_optimizes_vibrates_and_moves(atoms, tmp_path, water):
    with BFGS(atoms, logfile=None) as optimizer:
        assert optimizer.run(fmax=1e-3, steps=100)
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"))
    vibrations.run()
    # GFN2-xTB's water: 1,538, 3,643 and 3,651 wavenumbers.
    assert np.allclose(np.sort(vibrations.get_frequencies().real)[-3:], [1538, 3643, 3651], rtol=0.05)
    atoms.set_momenta(np.random.default_rng(0).normal(size=(3, 3)) * np.sqrt(atoms.get_masses() * 0.02)[:, None])
    start = atoms.get_total_energy()
    VelocityVerlet(atoms, timestep=0.25 * units.fs).run(200)
    assert abs(atoms.get_total_energy() - start) < 2e-3


def test_results_are_written_and_read_by_ase(atoms, tmp_path):
    for suffix in ("traj", "extxyz"):
        atoms.get_forces()
        write(tmp_path / f"water.{suffix}", atoms)
        again = read(tmp_path / f"water.{suffix}")
        assert again.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-7)


def test_extrapolation_is_reported_once_and_names_the_distance(atoms, water, caplog):
    with caplog.at_level(logging.WARNING):
        atoms.get_potential_energy()
        assert atoms.calc.extrapolation < 1 and not caplog.records
        for stretch in (2.0, 2.1):  # training geometries have up to 1.6
            atoms.positions[1] = atoms.positions[0] + stretch * (water.positions[1, 1] - water.positions[1, 0])
            atoms.get_potential_energy()
    assert atoms.calc.extrapolation > 2
    (record,) = caplog.records
    length = 2.0 * np.linalg.norm(water.positions[1, 1] - water.positions[1, 0])
    assert record.message.startswith(f"the model extrapolates: the distance O0-H1 is {length:.2f} Å, outside the ")
    assert record.message.endswith("Å of its training geometries (reported once; see calc.extrapolation)")


def test_extrapolation_of_many_equals_that_of_each(atoms, water):
    many = atoms.calc.extrapolation_of(water.positions[:5])
    for row in range(5):
        atoms.positions = water.positions[row]
        atoms.get_potential_energy()
        assert atoms.calc.extrapolation == pytest.approx(many[row], rel=1e-4)


def test_without_training_geometries_extrapolation_is_unknown(finished_run, water):
    atoms = Atoms(water.numbers, water.positions[1])
    atoms.calc = load_calculator(finished_run.folder / "improved" / "model.npz")
    atoms.get_potential_energy()
    assert atoms.calc.extrapolation is None
    assert np.isnan(atoms.calc.extrapolation_of(water.positions[:3])).all()


def test_an_exchange_of_equal_atoms_is_no_extrapolation(atoms, water):
    atoms.get_potential_energy()
    before = atoms.calc.extrapolation
    assert len(atoms.calc.model.permutations) == 2
    atoms.positions = water.positions[1, [0, 2, 1]]
    atoms.get_potential_energy()
    assert atoms.calc.extrapolation == pytest.approx(before)


def test_it_is_quiet(finished_run, water):
    code = f"""
import numpy as np
from ase import Atoms
from ase_flatten import load_calculator
atoms = Atoms({water.numbers.tolist()}, {water.positions[1].tolist()})
atoms.calc = load_calculator({str(finished_run.folder)!r})
atoms.get_forces()
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_many_configurations_at_once(atoms, water):
    prediction = atoms.calc.predict(water.positions[:7])
    assert prediction.forces.shape == (7, 3, 3)
    np.testing.assert_allclose(prediction.forces[1], atoms.get_forces(), atol=1e-10)


def test_lists_of_atoms_are_predicted_as_their_positions(atoms, water):
    frames = [water.atoms(frame) for frame in range(7)]
    expected = atoms.calc.predict(water.positions[:7])
    for given in (frames, tuple(frames), water.positions[:7].tolist()):
        np.testing.assert_array_equal(atoms.calc.predict(given).forces, expected.forces)
    np.testing.assert_array_equal(atoms.calc.extrapolation_of(frames), atoms.calc.extrapolation_of(water.positions[:7]))
    assert atoms.calc.predict(frames[0]).forces.shape == (1, 3, 3)
    assert atoms.calc.predict([]).forces.shape == (0, 3, 3)


def test_what_cannot_be_predicted_is_refused(atoms, water):
    good = water.atoms(0)
    periodic = good.copy()
    periodic.pbc = True
    for given, message in (
        ([good, good[::-1]], "configuration 1: expected H2O in the order O H H, found H H O"),
        ([good, periodic], "configuration 1: expected a molecule without periodic"),
        (
            water.positions[0],
            r"of the shape \(n_frames, 3, 3\) in Å, or a list of Atoms, found an array of the shape \(3, 3",
        ),
        (water.positions[:, :2], "found an array of the shape"),
        ([[1, 2], [3]], "found something else"),
        ("water", "found something else"),
        ([good, water.positions[0]], "found ndarray among Atoms; give one of these"),
    ):
        with pytest.raises(InputError, match=message):
            atoms.calc.predict(given)


def test_calculators_show_what_they_are(finished_run, tmp_path):
    calculator = load_calculator(finished_run.folder)
    error = finished_run.evaluation.final[1].force_rmse * 23.0605
    assert repr(calculator) == (
        f"<FlattenedCalculator {finished_run.folder}: family sgdml, molecule H2O, training frames 25, "
        f"held-out force RMSE {error:.3f} kcal/(mol Å)>"
    )
    assert repr(FlattenedSGDML(finished_run.folder)).startswith("<FlattenedSGDML ")
    assert f"<td style='text-align: left'>{error:.3f} kcal/(mol Å)</td>" in calculator._repr_html_()
    alone = load_calculator(finished_run.folder / "improved" / "model.npz")
    assert repr(alone).endswith("family sgdml, molecule H2O>")
    assert repr(pickle.loads(pickle.dumps(calculator))) == repr(calculator)
    prediction = calculator.predict(np.array([[[0.0, 0, 0], [0, 0, 1], [0, 1, 0]]]))
    assert repr(prediction).startswith("<Prediction: 1 frame of 3 atoms, energies -") and "eV/Å" in repr(prediction)
    assert "<table>" in prediction._repr_html_()
    assert repr(calculator.predict([])) == "<Prediction: 0 frames of 3 atoms>"


def test_a_family_without_a_choice_of_device_and_precision_says_so(finished_run):
    for given in ({"device": "cpu"}, {"dtype": "float32"}):
        with pytest.raises(InputError, match=r"expected a model of torch, .* of the family sgdml, which computes in"):
            load_calculator(finished_run.folder, **given)
        with pytest.raises(InputError, match="expected a model of torch"):
            FlattenedSGDML(finished_run.folder, **given)
        with pytest.raises(InputError, match=r"ase:ase.calculators.emt:EMT, an ASE calculator"):
            load_calculator("ase:ase.calculators.emt:EMT", **given)
