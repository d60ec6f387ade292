"""Make the files that every later version must read.

    python tests/formats/make_files.py FOLDER

Only the command line and `load_calculator` are used, so that any version can make its own. The files in ``before/``
are of commit efc5191, the last one with all modules side by side, with figures and reports left out.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ase.build import molecule
from tblite.ase import TBLite

PROTOCOL = """
n_geometry = 3
n_energy = 2
seed = 1
default_draws = 2
trainer = {sigma = 10}
schedule = {n_steps = 2, n_initial = 10, step_size = 5}
"""

SCHNET = {"n_features": 8, "n_interactions": 1, "n_rbf": 8, "epochs": 5}
GAP = {"n_sparse": 15, "n_max": 2, "l_max": 2}
SMALL_RUN = ["-n", "0", "-i", "40", "-s", "5", "--quarantine", "off", "--default-draws", "1", "--seed", "1"]
SAMPLE = ["--calculator", "tblite:GFN2-xTB", "--T", "300", "--frames", "40", "--stride", "25", "--equilibration", "0.1"]


def write_data(path: Path) -> None:
    """Write 120 frames of water, GFN2-xTB, eight of them with one bond far out."""
    rng = np.random.default_rng(3)
    atoms = molecule("H2O")
    positions = atoms.positions + rng.normal(scale=0.04, size=(120, 3, 3))
    out = atoms.positions[1] - atoms.positions[0]
    positions[::15, 1] = atoms.positions[0] + np.linspace(1.3, 1.6, 8)[:, None] * out
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    energies, forces = np.empty(len(positions)), np.empty_like(positions)
    for frame, configuration in enumerate(positions):
        atoms.positions = configuration
        energies[frame], forces[frame] = atoms.get_potential_energy(), atoms.get_forces()
    arrays = {"z": atoms.numbers, "R": positions, "E": energies, "F": forces}
    np.savez_compressed(path, **arrays, e_unit="eV", r_unit="Ang", name="water", theory="GFN2-xTB")


def command(*arguments: object) -> None:
    """Run a command of the package."""
    subprocess.run([sys.executable, "-m", *map(str, arguments)], check=True)


def sample_until_killed(output: Path) -> None:
    """Sample, and kill the process once it has left two checkpoints."""
    arguments = ["-m", "ase_flatten.cli", "sample", "H2O", *SAMPLE, "-o", str(output)]
    process = subprocess.Popen([sys.executable, *arguments])
    while len(list(output.parent.glob(f"{output.name}.partial/chunk-*.npz"))) < 2:
        time.sleep(0.01)
    process.kill()
    process.wait()


def predict(folder: Path) -> None:
    """Write what the models say of the first three frames, energies in eV and forces in eV/Å."""
    from ase_flatten import load_calculator

    positions, found = np.load(folder / "water.npz")["R"][:3], {}
    for name in ("run", "schnet", "gap"):
        prediction = load_calculator(folder / name).predict(positions)
        found |= {f"{name}_energies": prediction.energies, f"{name}_forces": prediction.forces}
    np.savez(folder / "predictions.npz", **found)


def main(folder: Path) -> None:
    """Make all files."""
    folder.mkdir(parents=True)
    data, protocol = folder / "water.npz", folder / "protocol.toml"
    write_data(data)
    protocol.write_text(PROTOCOL)
    cli = "ase_flatten.cli"
    command(cli, "train", data, "--protocol", protocol, "--out", folder / "run")
    steps = ["--steps", "200", "--replicas", "2"]
    command("ase_flatten.md", folder / "run", "--T", "300", *steps)
    for family, settings in (("schnet", SCHNET), ("gap", GAP)):
        chosen = [argument for name, value in settings.items() for argument in ("--set", f"{name}={value}")]
        command(cli, "train", data, "--model", family, *SMALL_RUN, *chosen, "--out", folder / "whole")
        (folder / "whole" / "improved").rename(folder / family)
        shutil.rmtree(folder / "whole")
    predict(folder)
    command(cli, "sample", "H2O", *SAMPLE, "-o", folder / "sampled.npz")
    sample_until_killed(folder / "stopped.npz")
    for pattern in ("*.png", "*.pdf", "report.html"):
        for path in folder.rglob(pattern):
            path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
