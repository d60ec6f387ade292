"""The contract of a model family, for the tests of this project and of third-party families."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator
from scipy.spatial.transform import Rotation

from ase_flatten.models import Model
from ase_flatten.utils.typing import FloatArray, IntArray


def check_model(model: Model, positions: FloatArray, *, reload: Callable[[Path], Model], folder: Path) -> None:
    """Assert the properties that every model must have.

    Inputs are not modified; predictions of a batch equal those of single configurations; forces are −dE/dx; energies
    are invariant, and forces equivariant, to rotations, translations and the model's permutations; net force and net
    torque are zero; a saved and reloaded model predicts the same.

    Parameters
    ----------
    positions : (n_frames, n_atoms, 3) array, Å
        Configurations of the molecule, at least two.
    reload : callable
        Loads the model from the folder that `Model.save` wrote to.
    folder : Path
        An empty folder.

    Raises
    ------
    AssertionError
        A property does not hold.
    """
    before = positions.copy()
    batch = model.predict(positions)
    assert np.array_equal(positions, before), "predict modifies its input"
    assert batch.energies.shape == (len(positions),), "energies have a wrong shape"
    assert batch.forces.shape == positions.shape, "forces have a wrong shape"
    scale = np.sqrt(np.mean(batch.forces**2))
    for row in range(2):
        single = model.predict(positions[row : row + 1])
        _close(single.energies[0], batch.energies[row], 1e-8, "a batch's energies differ from single ones")
        _close(single.forces[0], batch.forces[row], 1e-7 * scale, "a batch's forces differ from single ones")
    _close(batch.forces[0], _numerical_forces(model, positions[0]), 2e-5 * scale, "forces are not -dE/dx")
    _close(batch.forces.sum(axis=1), 0, 1e-7 * scale, "there is a net force")
    torque = np.cross(positions - positions.mean(axis=1, keepdims=True), batch.forces).sum(axis=1)
    _close(torque, 0, 1e-6 * scale, "there is a net torque")
    rotation = Rotation.random(rng=1).as_matrix()
    moved = model.predict(positions @ rotation.T + [1.0, -2.0, 3.0])
    _close(moved.energies, batch.energies, 1e-7, "rotation and translation change the energy")
    _close(moved.forces, batch.forces @ rotation.T, 1e-6 * scale, "forces do not turn with the molecule")
    assert np.array_equal(model.permutations[0], np.arange(len(model.numbers))), (
        "the first permutation is not the identity"
    )
    for permutation in model.permutations:
        exchanged = model.predict(positions[:, permutation])
        _close(exchanged.energies, batch.energies, 1e-6, "a permutation changes the energy")
    model.save(folder)
    loaded = reload(folder).predict(positions)
    _close(loaded.energies, batch.energies, 1e-9, "a saved model predicts other energies")
    _close(loaded.forces, batch.forces, 1e-8 * scale, "a saved model predicts other forces")


def check_calculator(calculator: Calculator, numbers: IntArray, positions: FloatArray) -> None:
    """Assert ASE's contract, and that atoms of other molecules and periodic cells are refused.

    Parameters
    ----------
    numbers : (n_atoms,) int array
    positions : (n_atoms, 3) array, Å

    Raises
    ------
    AssertionError
        A property does not hold.
    """
    atoms = Atoms(numbers, positions, calculator=calculator)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert isinstance(energy, float), "the energy is not a float"
    assert forces.shape == (len(atoms), 3), "the forces have a wrong shape"
    assert atoms.get_potential_energy(force_consistent=True) == energy, "free_energy differs from energy"
    forces[:] = np.nan
    assert np.isfinite(atoms.get_forces()).all(), "results are not copies"
    atoms.positions += 0.01 * np.sin(np.arange(positions.size)).reshape(positions.shape)
    assert atoms.get_potential_energy() != energy, "the energy does not follow the positions"
    for wrong in (
        Atoms(numbers[::-1], positions),
        Atoms(numbers[:-1], positions[:-1]),
        Atoms(numbers, positions, pbc=True),
    ):
        _refused(wrong, calculator)
    twin = pickle.loads(pickle.dumps(calculator))
    assert Atoms(numbers, positions, calculator=twin).get_potential_energy() == energy, "pickling changes the energy"


def _refused(atoms: Atoms, calculator: BaseCalculator) -> None:
    try:
        atoms.calc = calculator
    except ValueError as error:
        assert len(str(error)) > 20, "a refusal does not say why"
    else:
        raise AssertionError(f"{atoms.symbols} with pbc {atoms.pbc} is accepted")


def _numerical_forces(model: Model, positions: FloatArray, step: float = 1e-3) -> FloatArray:
    """Differentiate the energy by central differences of fourth order."""
    shifts = np.eye(positions.size).reshape(-1, *positions.shape) * step
    energies = [model.predict(positions + factor * shifts).energies for factor in (-2, -1, 1, 2)]
    slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
    return -slope.reshape(positions.shape)


def _close(value: FloatArray | float, expected: FloatArray | float, tolerance: float, message: str) -> None:
    error = float(np.abs(np.asarray(value) - expected).max())
    assert error <= tolerance, f"{message} ({error:.2g}, tolerance {tolerance:.2g})"
