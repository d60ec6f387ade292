"""The contract that `ase-flatten` has for every family."""

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT

from ase_flatten.calculators import load_calculator
from ase_flatten.data.dataset import Dataset
from ase_flatten.models import family
from ase_flatten.models.model_folder import save_model
from ase_flatten.selection.cluster_errors import frame_errors
from ase_flatten.testing import check_calculator, check_model
from ase_flatten.utils.exceptions import InputError


@pytest.fixture(scope="module")
def water() -> Dataset:
    rng = np.random.default_rng(0)
    atoms = molecule("H2O", calculator=EMT())
    positions = atoms.positions + rng.normal(scale=0.03, size=(120, 3, 3))
    energies, forces = np.empty(len(positions)), np.empty(positions.shape)
    for frame, configuration in enumerate(positions):
        atoms.positions = configuration
        energies[frame], forces[frame] = atoms.get_potential_energy(), atoms.get_forces()
    return Dataset(atoms.numbers, positions, energies, forces)


@pytest.fixture(scope="module")
def model(water):
    return family("ridge").trainer().fit(water, np.arange(60), np.arange(60, 80), rng=np.random.default_rng(0))


def test_model(model, water, tmp_path):
    check_model(model, water.positions[100:103], reload=family("ridge").load, folder=tmp_path)


def test_calculator(model, water, tmp_path):
    save_model(tmp_path / "model", model, family("ridge"), water, np.arange(60))
    check_calculator(load_calculator(tmp_path / "model"), water.numbers, water.positions[110])


def test_it_learns(model, water):
    errors = frame_errors(model, water, np.arange(80, 120))
    assert np.sqrt(errors.force_mse.mean()) < 0.1 * np.std(water.forces)
    assert np.std(errors.energy) < 0.1 * np.std(water.energies)


def test_a_misspelt_setting_is_refused():
    with pytest.raises(InputError, match="did you mean regularisation"):
        family("ridge").trainer(regularization=1)
