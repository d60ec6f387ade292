import numpy as np
from ase.build import molecule

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.energy_force_consistency import work_residuals


def test_one_near_frame_alone_does_not_judge_an_energy(rng):
    """Its only partner may be the one that is wrong, also if it is both the nearest frame and the next in the file."""
    water = molecule("H2O")
    positions = np.array([water.positions * scale for scale in (1.0, 1.01, 1.02, 1.6, 1.61, 3.0)])
    energies = np.array([0.0, 0.0, 0.0, 0.0, 5.0, 0.0])
    data = Dataset(water.numbers, positions, energies, np.zeros_like(positions))
    near = np.array([[1], [0], [1], [4], [3], [4]])
    ratios, residuals = work_residuals(data, near)
    assert ratios[3:].tolist() == residuals[3:].tolist() == [0, 0, 0]
    data = Dataset(water.numbers, positions, np.array([0.0, 5.0, 0.0, 0.0, 0.0, 0.0]), np.zeros_like(positions))
    assert work_residuals(data, near)[1][1] == 5
