"""What a data set is."""

from pathlib import Path

import numpy as np

from ase_flatten.data.io import read_dataset
from ase_flatten.data.label_keys import LabelKeys
from ase_flatten.data.npz_layouts import text_entry
from ase_flatten.data.trajectory_files import read_frames
from ase_flatten.data.units import OutputUnits
from ase_flatten.report.overview.base import DIGITS, Overview
from ase_flatten.utils.npz_files import reading_npz


def of_dataset(
    path: Path,
    units: OutputUnits,
    *,
    energy_unit: str | None,
    length_unit: str | None,
    energy_key: str | None,
    forces_key: str | None,
) -> Overview:
    """Describe a data set; no work is done on pairs of atoms or frames."""
    dataset = read_dataset(
        path, energy_unit=energy_unit, length_unit=length_unit, energy_key=energy_key, forces_key=forces_key
    )
    declared, energies = _declared(path), dataset.energies
    in_file = [f"{kind} in {declared[kind]}" for kind in ("energies", "lengths") if declared[kind]]
    facts = [
        ("molecule", f"{dataset.formula}, {dataset.n_atoms} atoms"),
        ("frames", f"{dataset.n_frames}"),
        ("theory", dataset.theory or "not declared"),
        ("units of the file", ", ".join(in_file) or "not declared"),
        (
            "energies",
            f"{energies.min():.3f} eV and up to {np.ptp(energies) * units.scale:.2f} {units.energy} above, "
            f"on average {(energies.mean() - energies.min()) * units.scale:.2f}",
        ),
        (
            "forces",
            f"{np.sqrt(np.mean(dataset.forces**2)) * units.scale:.2f} {units.force} (RMS of the components), "
            f"the largest {np.abs(dataset.forces).max() * units.scale:.2f}",
        ),
    ]
    if declared["temperature"]:
        facts.append(("temperature", f"{declared['temperature']} K, as sampled"))
    return Overview("data set", [*facts, ("digest", dataset.digest[:DIGITS])], dataset=dataset)


def _declared(path: Path) -> dict[str, str | None]:
    """Return the units and the temperature that the file of a data set declares."""
    if path.suffix == ".npz":
        entries = {"energies": "e_unit", "lengths": "r_unit", "temperature": "temperature_K"}
        with reading_npz(path, "an npz file of plain arrays") as archive:
            return {name: text_entry(path, archive, key) for name, key in entries.items()}
    energy, length = next(read_frames(path, LabelKeys())).units
    return {"energies": energy, "lengths": length, "temperature": None}
