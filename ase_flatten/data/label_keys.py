"""The names of energies and forces in a file, and what is said where they are not found."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ase_flatten.utils.exceptions import InputError, printable

SHOWN_KEYS = 20
"""Largest number of keys that a message lists."""

_PLURAL = {"energy": "energies", "forces": "forces"}
_LOOKS_LIKE = {"energy": re.compile(r"energ(?!y_unit)|^e$", re.I), "forces": re.compile(r"forc|^f$", re.I)}


@dataclass(frozen=True)
class LabelKeys:
    """The names of energies and forces in a file; None for the usual ones of its format."""

    energy: str | None = None
    forces: str | None = None


def labels_missing(
    expected: str,
    place: str,
    *,
    keys: LabelKeys,
    missing: Sequence[str],
    found: Sequence[str],
    of_atoms: Sequence[str] = (),
) -> InputError:
    """Return the error for energies or forces that a file does not hold under the names that were looked for.

    Parameters
    ----------
    expected, place : str
        What the file should hold, and where in it they are missing, for the message.
    missing : sequence of str
        "energy", "forces" or both.
    found, of_atoms : sequences of str
        The names of all values that are there instead, and of those that each atom has.
    """
    there = "; for each atom: ".join(filter(None, (_listed(found), _listed(of_atoms)))) or "none"
    likely = {label: [name for name in (*found, *of_atoms) if _LOOKS_LIKE[label].search(name)] for label in missing}
    certain = all(len(names) == 1 for names in likely.values())
    options = " ".join(f"--{label}-key {names[0] if certain else 'NAME'}" for label, names in likely.items())
    remedy = f"if these are meant, add {options}"
    if not certain:
        what = " and ".join(_PLURAL[label] for label in missing)
        remedy = f"write the {what} into the file, or, if they are there under another name, add {options}"
    return InputError(
        f"expected {expected}, found {_what_is_found(keys, missing)} {place} (its keys: {there}); {printable(remedy)}"
    )


def other_labels(keys: LabelKeys, found: Sequence[str]) -> list[str]:
    """Return the names of energies and forces that a file has beside those that are read without being named."""
    return [
        name
        for label in ("energy", "forces")
        if getattr(keys, label) is None
        for name in found
        if name.lower().endswith(label) and name not in (label, "free_energy")
    ]


def _what_is_found(keys: LabelKeys, missing: Sequence[str]) -> str:
    named = [key for label in missing if (key := getattr(keys, label))]
    if named:
        return printable(" and ".join(f"no {key}" for key in named))
    return "neither" if len(missing) == 2 else "energies alone" if "forces" in missing else "forces alone"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_KEYS
    shown = ", ".join(printable(name, most=30) for name in names[:SHOWN_KEYS])
    return shown + (f" and {more} more" if more > 0 else "")
