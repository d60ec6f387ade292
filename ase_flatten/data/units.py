"""Units: eV and Å inside, the user's own at the edges."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ase import units

from ase_flatten.utils.exceptions import InputError, printable

KCAL_PER_MOL = units.kcal / units.mol
"""One kcal/mol in eV."""

ENERGY_UNITS = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": units.kJ / units.mol,
    "Hartree": units.Hartree,
    "Rydberg": units.Rydberg,
}
LENGTH_UNITS = {"Ang": 1.0, "Bohr": units.Bohr, "nm": units.nm}

_ALIASES = {
    "ev": "eV",
    "mev": "meV",
    "kcal/mol": "kcal/mol",
    "kcalmol": "kcal/mol",
    "kcal mol-1": "kcal/mol",
    "kj/mol": "kJ/mol",
    "hartree": "Hartree",
    "ha": "Hartree",
    "eh": "Hartree",
    "rydberg": "Rydberg",
    "ry": "Rydberg",
    "ang": "Ang",
    "angstrom": "Ang",
    "å": "Ang",
    "a": "Ang",
    "bohr": "Bohr",
    "nm": "nm",
}


def energy_in_eV(unit: str) -> float:
    """Return one `unit` of energy in eV; raise InputError for an unknown name."""
    return _factor(unit, ENERGY_UNITS, "energy")


def length_in_angstrom(unit: str) -> float:
    """Return one `unit` of length in Å; raise InputError for an unknown name."""
    return _factor(unit, LENGTH_UNITS, "length")


def check_agreement(
    path: Path, kind: str, declared: str | None, given: str | None, factor: Callable[[str], float]
) -> None:
    """Raise InputError if a file declares another unit than was given; either may be missing."""
    if declared is not None and given is not None and factor(declared) != factor(given):
        raise InputError(f"{path} declares the {kind} unit {declared}, but --{kind}-unit {given} was given; drop one")


def _factor(unit: str, table: dict[str, float], kind: str) -> float:
    name = _ALIASES.get(unit.strip().lower(), "")
    if name not in table:
        raise InputError(f"the {kind} unit must be one of {', '.join(table)}, got {printable(repr(unit), most=60)}")
    return table[name]


@dataclass(frozen=True)
class OutputUnits:
    """The units that tables, figures and reports are written in (lengths stay in Å)."""

    energy: str
    """Name of the unit of energy."""

    @property
    def scale(self) -> float:
        """Factor by which values in eV, or eV/Å, are multiplied."""
        return 1.0 / energy_in_eV(self.energy)

    @property
    def force(self) -> str:
        """Name of the unit of force."""
        return f"{self.energy}/Å" if "/" not in self.energy else f"{self.energy.split('/')[0]}/(mol Å)"


FIELD_UNITS = OutputUnits("kcal/mol")
"""The units of the field: kcal/mol, and kcal/(mol Å) for forces."""


def output_units(name: str) -> OutputUnits:
    """Choose output units by the name of their energy; raise InputError for an unknown one."""
    energy_in_eV(name)
    return OutputUnits(_ALIASES[name.strip().lower()])
