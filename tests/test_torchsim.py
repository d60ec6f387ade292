"""Models of this project in torch-sim."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from conftest import needs

from ase_flatten import load_calculator
from ase_flatten.utils.exceptions import InputError

needs("torch_sim", extra="torchsim")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch-sim's matter: it uses what torch would see go
    import torch
    import torch_sim


def states(dataset, frames):
    molecules = [Atoms(dataset.numbers, dataset.positions[frame], cell=np.eye(3) * 30) for frame in frames]
    return torch_sim.io.atoms_to_state(molecules, torch.device("cpu"), torch.float64)


def test_it_predicts_what_the_calculator_does(finished_run, water):
    from ase_flatten.torchsim import FlattenedTorchSim

    frames = [1, 5, 9]
    found = FlattenedTorchSim(finished_run.folder)(states(water, frames))
    expected = load_calculator(finished_run.folder).predict(water.positions[frames])
    np.testing.assert_allclose(found["energy"].numpy(), expected.energies)
    np.testing.assert_allclose(found["forces"].numpy().reshape(-1, 3, 3), expected.forces)


def test_its_integrators_run(finished_run, water):
    from ase_flatten.torchsim import FlattenedTorchSim

    model = FlattenedTorchSim(finished_run.folder)
    init, step = torch_sim.nvt_langevin(model, dt=torch.tensor(0.0005), kT=torch.tensor(0.0259))
    state = init(states(water, [1, 2]))
    for _ in range(20):
        state = step(state)
    assert torch.isfinite(state.energy).all()


def test_other_molecules_are_refused(finished_run, water):
    from ase_flatten.torchsim import FlattenedTorchSim

    other = torch_sim.io.atoms_to_state([Atoms("H2O" * 2)], torch.device("cpu"), torch.float64)
    with pytest.raises(InputError, match="expected systems of H2O only"):
        FlattenedTorchSim(finished_run.folder)(other)
