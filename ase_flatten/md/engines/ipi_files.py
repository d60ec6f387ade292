"""Files of i-PI: its input, made from ``md/ipi.xml``, and its outputs in the units of ASE."""

import os
import xml.etree.ElementTree as ET
from copy import deepcopy
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from ase import units
from ase.data import atomic_masses, chemical_symbols

from ase_flatten.md.protocol import Protocol
from ase_flatten.utils.typing import FloatArray, IntArray

ADDRESS = "flatten"
"""Name of the socket in the template."""

_ELECTRON = units._me / units._amu
"""Unit of mass in i-PI, amu."""

_VELOCITY = units.Bohr / units.AUT
_FORCE = units.Hartree / units.Bohr
CHECKPOINT_STEPS = 1000
"""Approximate number of steps between two checkpoints of i-PI; writing one takes longer than many steps."""

_NO_END = "1000000000000"
"""Number of steps after which i-PI would end by itself."""


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs of i-PI at one step.

    Parameters
    ----------
    step : (n_replicas,) int array
    positions, momenta, forces : (n_replicas, n_atoms, 3) arrays, Å, ASE's unit of momentum, eV/Å
    potential, kinetic, conserved : (n_replicas,) arrays, eV
    """

    step: IntArray
    positions: FloatArray
    momenta: FloatArray
    forces: FloatArray
    potential: FloatArray
    kinetic: FloatArray
    conserved: FloatArray


def first_input(
    folder: Path,
    numbers: IntArray,
    positions: FloatArray,
    momenta: FloatArray,
    protocol: Protocol,
    *,
    thermostat: str,
    stride: int,
    seed: int,
) -> str:
    """Return the input of dynamics that start from (n_replicas, n_atoms, 3) positions and momenta.

    All numbers are in atomic units: the conversion factors of i-PI have eight digits only.
    """
    root = ET.fromstring((files("ase_flatten.md") / "protocols" / "ipi.xml").read_text(encoding="utf-8"))
    _set(root, "prng/seed", seed)
    template = _at(root, "system")
    _set(template, "ensemble/temperature", protocol.temperature_K * units.kB / units.Hartree)
    dynamics = _at(template, "motion/dynamics")
    _set(dynamics, "timestep", protocol.timestep_fs * units.fs / units.AUT)
    if thermostat == "none":
        dynamics.set("mode", "nve")
        dynamics.remove(_at(dynamics, "thermostat"))
    else:
        _at(dynamics, "thermostat").set("mode", thermostat)
        _set(dynamics, "thermostat/tau", units.fs / protocol.friction_per_fs / units.AUT)
    template.remove(_at(template, "initialize"))
    root.remove(template)
    for replica in range(len(positions)):
        system = deepcopy(template)
        system.set("prefix", _prefix(replica))
        system.append(_beads(numbers, positions[replica], momenta[replica]))
        # Large enough, and never used: molecules have no cell.
        ET.SubElement(system, "cell", shape="(3, 3)").text = _list(1e4 * np.eye(3))
        root.append(system)
    return _for_folder(root, folder, stride)


def checkpoint_step(checkpoint: str) -> int:
    """Return the step of a checkpoint, as i-PI counts."""
    return int(ET.fromstring(checkpoint).findtext("step", "0"))  # left out at zero


def next_input(folder: Path, checkpoint: str, *, stride: int) -> str:
    """Return the input of dynamics that continue from a checkpoint, with steps counted from zero again."""
    root = ET.fromstring(checkpoint)
    for step in root.findall("step"):
        root.remove(step)
    return _for_folder(root, folder, stride)


class OutputReader:
    """Reader of the last frame that i-PI wrote of each replica.

    Parameters
    ----------
    folder : Path
        Where i-PI runs; it has written the first frame only.
    numbers : (n_atoms,) int array
    n_replicas : int
    """

    def __init__(self, folder: Path, numbers: IntArray, n_replicas: int) -> None:
        self._numbers = numbers
        self._energies = [folder / f"{_prefix(replica)}_md.energies" for replica in range(n_replicas)]
        self._arrays = [
            [folder / f"{_prefix(replica)}_md.{what}_0.bin" for replica in range(n_replicas)]
            for what in ("positions", "velocities", "forces")
        ]
        # All frames of a file have the same length.
        self._length = {path: path.stat().st_size for paths in self._arrays for path in paths}

    def read(self) -> Outputs:
        """Read, and free the space of all that was written so far: long runs would fill the disk."""
        rows = np.array([_last_line(path) for path in self._energies])
        positions, velocities, forces = (np.array([self._last(path) for path in paths]) for paths in self._arrays)
        for path in (*self._energies, *self._length):
            os.truncate(path, 0)
        return Outputs(
            rows[:, 0].astype(np.int64), positions * units.Bohr,
            velocities * _VELOCITY * atomic_masses[self._numbers][:, None], forces * _FORCE,
            *(rows[:, 1:].T * units.Hartree),
        )  # fmt: skip

    def _last(self, path: Path) -> FloatArray:
        """Return the numbers of the last frame, which follow the cell and their count."""
        n_numbers = 3 * len(self._numbers)
        with path.open("rb") as stream:
            stream.seek(-self._length[path] + 8 * 9, os.SEEK_END)
            count, *_ = np.frombuffer(stream.read(8), np.int64)
            assert 3 * count == n_numbers, f"{path} holds frames of {count} atoms"
            return np.frombuffer(stream.read(8 * n_numbers), np.float64).reshape(-1, 3)


def _for_folder(root: ET.Element, folder: Path, stride: int) -> str:
    """Set what is common to all inputs, and return the text."""
    root.set("sockets_prefix", f"{folder}/")
    root.set("safe_stride", _NO_END)
    for output in _at(root, "output"):
        output.set("stride", str(stride if output.tag != "checkpoint" else stride * max(1, CHECKPOINT_STEPS // stride)))
    _set(root, "total_steps", _NO_END)
    # i-PI then ends when this process is killed.
    exit_on_disconnect = root.find("ffsocket/exit_on_disconnect")
    if exit_on_disconnect is None:
        exit_on_disconnect = ET.SubElement(_at(root, "ffsocket"), "exit_on_disconnect")
    exit_on_disconnect.text = "true"
    return ET.tostring(root, encoding="unicode")


def _beads(numbers: IntArray, positions: FloatArray, momenta: FloatArray) -> ET.Element:
    beads = ET.Element("beads", natoms=str(len(numbers)), nbeads="1")
    masses = atomic_masses[numbers] / _ELECTRON
    for name, values in (
        ("q", positions / units.Bohr),
        ("p", momenta / atomic_masses[numbers][:, None] / _VELOCITY * masses[:, None]),
    ):
        ET.SubElement(beads, name, shape=f"(1, {values.size})").text = _list(values)
    ET.SubElement(beads, "m", shape=f"({len(masses)})").text = _list(masses)
    names = ", ".join(chemical_symbols[number] for number in numbers)
    ET.SubElement(beads, "names", shape=f"({len(masses)})").text = f"[ {names} ]"
    return beads


def _at(parent: ET.Element, path: str) -> ET.Element:
    found = parent.find(path)
    assert found is not None, f"md/ipi.xml has no {path}"
    return found


def _set(parent: ET.Element, path: str, value: float | str) -> None:
    """Set a value in atomic units."""
    element = _at(parent, path)
    element.text = f" {value!r} " if isinstance(value, float) else f" {value} "
    element.attrib.pop("units", None)


def _list(values: FloatArray) -> str:
    return f"[ {', '.join(f'{value:.17g}' for value in np.ravel(values))} ]"


def _prefix(replica: int) -> str:
    return f"replica-{replica:02d}"


def _last_line(path: Path) -> list[float]:
    """Return step, potential, kinetic and conserved energy, Hartree."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 200))
        # Freed space reads as zeros.
        return [float(word) for word in stream.read().strip(b"\0").splitlines()[-1].split()]
