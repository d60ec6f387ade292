"""Data that many tests share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tblite on 9 atoms is slower on more threads

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet

from ase_flatten.dataset import Dataset


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def ethanol_like() -> Dataset:
    """Real quantum-chemical data: 300 frames of ethanol, GFN2-xTB, NVE at about 400 K, 1 fs apart."""
    from tblite.ase import TBLite

    atoms: Atoms = molecule("CH3CH2OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    # Starting from the minimum, half of the kinetic energy goes into the potential.
    kicks = np.random.default_rng(1).normal(size=(len(atoms), 3))
    atoms.set_momenta(kicks * np.sqrt(atoms.get_masses() * units.kB * 800)[:, None])
    frames: list[tuple[np.ndarray, float, np.ndarray]] = []
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    dynamics.attach(
        lambda: frames.append((atoms.get_positions(), atoms.get_potential_energy(), atoms.get_forces())), interval=2
    )
    dynamics.run(800)
    positions, energies, forces = (np.array(part[101:]) for part in zip(*frames))
    return Dataset(atoms.numbers, positions, energies, forces, name="ethanol", theory="GFN2-xTB")
