"""Data that many tests share."""

import importlib.util
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tblite on 9 atoms is slower on more threads

import numpy as np
import psutil
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset, write_dataset
from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils.exceptions import installation
from ase_flatten.workflow.run_folder import Run, RunSettings
from ase_flatten.workflow.train_run import train


def needs(package: str, *, extra: str) -> None:
    """Skip the module or the test that calls this where an optional package is missing.

    On a user's machine that is no failure: extras are a choice, and what was not installed cannot be tested there.
    CI installs all of them and sets ASE_FLATTEN_REQUIRE=all, with which a missing package is an error: no test
    goes unrun there unnoticed. Every skip of the suite goes through here, and says which extra has the package.
    """
    if importlib.util.find_spec(package) is not None:
        return
    reason = f"{package} is not installed; {installation(extra)}"
    if os.environ.get("ASE_FLATTEN_REQUIRE") == "all":
        raise ImportError(reason)
    pytest.skip(reason=reason, allow_module_level=True)


def ipi_of(starter: int) -> tuple[psutil.Process, Path]:
    """Wait for the i-PI that a process starts; give it and its private folder.

    A child that has only just been forked is still in its starter's folder: that is not the one meant here.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process(starter).children():
            with suppress(psutil.NoSuchProcess):
                folder = Path(child.cwd())
                if is_private(folder):
                    return child, folder
    raise TimeoutError(f"process {starter} has started no i-PI")


def is_private(folder: Path) -> bool:
    """Tell whether a folder is one that i-PI was given to run in."""
    return folder.name.startswith("flatten-") and folder.parent in (Path("/dev/shm"), Path(tempfile.gettempdir()))


def remove_private(folder: Path) -> None:
    """Remove the folder of an i-PI whose starter was killed: it holds files only."""
    assert is_private(folder), f"{folder} is no folder of i-PI's"
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """Undo what a command has done to the library's log."""
    library = logging.getLogger("ase_flatten")
    before = library.handlers, library.propagate, library.level
    yield
    library.handlers, library.propagate = before[:2]
    library.setLevel(before[2])


@pytest.fixture
def ipi() -> None:
    """The package of i-PI."""
    needs("ipi", extra="md")


@pytest.fixture(params=["ase", "ipi"])
def sampling_engine(request: pytest.FixtureRequest) -> str:
    """Each engine that makes data sets."""
    if request.param == "ipi":
        request.getfixturevalue("ipi")
    return str(request.param)


@pytest.fixture
def torch() -> ModuleType:
    """The package of that name."""
    needs("torch", extra="schnet")
    return importlib.import_module("torch")


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


@pytest.fixture(scope="session")
def water_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real quantum-chemical data with a rare event: 400 thermal frames of water, 16 with one bond far out."""
    from tblite.ase import TBLite

    rng = np.random.default_rng(3)
    atoms = molecule("H2O")
    positions = atoms.positions + rng.normal(scale=0.04, size=(416, 3, 3))
    out = atoms.positions[1] - atoms.positions[0]
    positions[RARE_WATER, 1] = atoms.positions[0] + np.linspace(1.3, 1.6, 16)[:, None] * out
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    energies, forces = np.empty(416), np.empty((416, 3, 3))
    for frame, configuration in enumerate(positions):
        atoms.positions = configuration
        energies[frame], forces[frame] = atoms.get_potential_energy(), atoms.get_forces()
    path = tmp_path_factory.mktemp("data") / "water.npz"
    write_dataset(path, Dataset(atoms.numbers, positions, energies, forces, name="water", theory="GFN2-xTB"))
    return path


@pytest.fixture(scope="session")
def water(water_file: Path) -> Dataset:
    """The water data."""
    return read_dataset(water_file)


RARE_WATER = np.arange(16) * 26
"""The frames of the water data with a stretched bond."""


@pytest.fixture(scope="session")
def finished_run(water: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run on the water data."""
    folder = tmp_path_factory.mktemp("runs") / "water"
    return train(water, folder, WATER_SETTINGS, source="water.npz")


WATER_SETTINGS = RunSettings(
    trainer={"sigma": 10}, schedule=Schedule(n_steps=3, n_initial=10, step_size=5), n_geometry=4, n_energy=3, seed=1
)
