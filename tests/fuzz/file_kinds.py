"""The kinds of files whose mutants are read: each with a function that makes it and one that reads it."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write
from mutations import Build, Read

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset, write_dataset
from ase_flatten.sampling.partial_run import LabelledFrame, PartialRun, State

N_FRAMES = 4


def water() -> Dataset:
    rng = np.random.default_rng(0)
    positions = molecule("H2O").positions + 0.1 * rng.normal(size=(N_FRAMES, 3, 3))
    return Dataset([8, 1, 1], positions, rng.normal(size=N_FRAMES), rng.normal(size=positions.shape), "water", "none")


def labelled() -> list[Atoms]:
    data, frames = water(), []
    for frame in range(N_FRAMES):
        atoms = data.atoms(frame)
        atoms.calc = SinglePointCalculator(atoms, energy=data.energies[frame], forces=data.forces[frame])
        frames.append(atoms)
    return frames


def write_data(path: Path) -> None:
    write_dataset(path, water())


def write_plain_npz(path: Path) -> None:
    data = water()
    arrays = {"z": data.numbers, "R": data.positions, "E": data.energies, "F": data.forces}
    np.savez(path, **arrays, e_unit="eV", r_unit="Ang", name="water", theory=np.bytes_(b"none"))


def write_trajectory(path: Path) -> None:
    write(path, labelled())


def write_database(path: Path) -> None:
    with connect(path) as database:
        for atoms in labelled():
            database.write(atoms)
    database.metadata = {"_property_unit_dict": {"energy": "eV", "forces": "eV/Ang"}, "_distance_unit": "Ang"}


def write_schnetpack_database(path: Path) -> None:
    data = water()
    with connect(path) as database:
        for frame in range(N_FRAMES):
            labels = {"energy": data.energies[[frame]], "forces": data.forces[frame]}
            database.write(data.atoms(frame), data=labels)
    database.metadata = {"_property_unit_dict": {"energy": "eV", "forces": "eV/Ang"}, "_distance_unit": "Ang"}


def partial_run(folder: Path) -> PartialRun:
    record = {"calculator": "none", "dtype": "float64", "frames": N_FRAMES, "seed": 1, "versions": {"ase": "3"}}
    return PartialRun(folder.with_suffix(""), water().numbers, record)


def write_partial_run(folder: Path) -> None:
    run, data = partial_run(folder), water()
    run.open(resume=True)
    generator = dict(np.random.default_rng(1).bit_generator.state)
    for frame in range(N_FRAMES):
        labelled_frame = LabelledFrame(data.positions[frame], float(data.energies[frame]), data.forces[frame])
        run.save(State(frame + 1, data.positions[frame], data.forces[frame], generator), [labelled_frame])


def finish_partial_run(folder: Path) -> Dataset:
    run = partial_run(folder)
    run.open(resume=True)
    return run.finish()


DATA_FILES: dict[str, tuple[Build, Read]] = {
    "packed.npz": (write_data, read_dataset),
    "plain.npz": (write_plain_npz, read_dataset),
    "data.xyz": (write_data, read_dataset),
    "ase.db": (write_database, read_dataset),
    "schnetpack.db": (write_schnetpack_database, read_dataset),
    "data.traj": (write_trajectory, read_dataset),
}

PARTIAL_RUNS: dict[str, tuple[Build, Read]] = {"water.npz.partial": (write_partial_run, finish_partial_run)}
