"""Write the bundled data as other programs write extended XYZ, and a calculator as a user has one.

    python examples/first_hour/foreign_files.py DATASET FOLDER

DATASET is a set that ase-flatten reads; 600 of its frames are written. `examples/first_hour/first_hour.sh` uses the
files.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_flatten import Dataset, read_dataset

N_FRAMES = 600

CALCULATOR = '''\
"""A calculator of one's own: a function without arguments that returns it."""

from tblite.ase import TBLite


def make():
    return TBLite(method="GFN1-xTB", verbosity=0)
'''


def frames_of(dataset: Dataset, names: Mapping[str, str]) -> list[Atoms]:
    """Return frames whose energies and forces have the given names."""
    frames = []
    for number in range(dataset.n_frames):
        atoms = Atoms(dataset.numbers, dataset.positions[number])
        atoms.info[names["energy"]] = float(dataset.energies[number])
        atoms.arrays[names["forces"]] = dataset.forces[number]
        frames.append(atoms)
    return frames


def main(source: str, folder: str) -> None:
    """Write the files."""
    dataset, into = read_dataset(source), Path(folder)
    dataset = dataset.take(np.linspace(0, dataset.n_frames - 1, N_FRAMES).astype(int))
    into.mkdir(parents=True, exist_ok=True)
    of_ase = []
    for atoms in frames_of(dataset, {"energy": "e", "forces": "f"}):
        bare = Atoms(atoms.numbers, atoms.positions)
        bare.calc = SinglePointCalculator(bare, energy=atoms.info["e"], forces=atoms.arrays["f"])
        of_ase.append(bare)
    write(into / "ase.xyz", of_ase, format="extxyz")

    isolated = [Atoms([number], info={"REF_energy": -1.0, "config_type": "IsolatedAtom"}) for number in (1, 6, 8)]
    of_mace = frames_of(dataset, {"energy": "REF_energy", "forces": "REF_forces"})
    for atoms in isolated:
        atoms.arrays["REF_forces"] = np.zeros((1, 3))
    write(into / "mace.xyz", isolated + of_mace, format="extxyz")

    of_gap = frames_of(dataset, {"energy": "dft_energy", "forces": "dft_forces"})
    for atoms in of_gap:
        atoms.info.update(config_type="md", dft_virial=np.zeros(9))
        atoms.cell = [30.0, 30.0, 30.0]
    write(into / "gap.xyz", of_gap, format="extxyz")

    write(into / "other.xyz", frames_of(dataset, {"energy": "Energy", "forces": "force"}), format="extxyz")
    (into / "mycalc.py").write_text(CALCULATOR)


if __name__ == "__main__":
    main(*sys.argv[1:])
