"""Force constants of X-H bonds from the data, which reveal a unit that is wrong for both energies and forces.

If both are in the same wrong unit, energies and forces are consistent with each other. Bonds to hydrogen, however, are
so stiff that their force constants hardly depend on the rest of the molecule.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from ase_flatten.checking.findings import Finding
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import ENERGY_UNITS
from ase_flatten.geometry.bonds import bonded_pairs
from ase_flatten.utils.typing import FloatArray

EXPECTED = {6: 31.0, 7: 40.0, 8: 46.0}
"""Force constants of C-H, N-H and O-H bonds, eV/Å²."""
BAND = (0.6, 1.55)
"""In units of `EXPECTED`: sound data show 0.64 to 1.08; the nearest mistake, Rydberg for Hartree, is a factor 2."""
UNIT_TOLERANCE = np.log(1.35)

_MAX_FRAMES = 2000
_LEAST_FRAMES = 20
_LEAST_CORRELATION = 0.7


@dataclass(frozen=True)
class Stretch:
    """Force constants of bonds to hydrogen, relative to those expected."""

    n_bonds: int
    ratio: float
    """Median over the bonds of the force constant divided by the expected one."""
    force_constant: float
    """Median over the bonds, eV/Å²."""


def stretch(dataset: Dataset, distances: FloatArray, *, rng: np.random.Generator) -> Stretch | None:
    """Regress the force on hydrogen atoms along their bonds on the bond lengths.

    Parameters
    ----------
    distances : (n_frames, n_pairs) array, Å

    Returns
    -------
    Stretch or None
        None if no bond of C, N or O to hydrogen can be judged.
    """
    if dataset.n_frames < _LEAST_FRAMES:
        return None
    frames = np.sort(rng.permutation(dataset.n_frames)[:_MAX_FRAMES])
    bonded = bonded_pairs(dataset.numbers, np.median(distances[frames], axis=0))
    i, j = np.tril_indices(dataset.n_atoms, -1)
    found = []
    for a, b in zip(i[bonded], j[bonded], strict=True):
        hydrogen, heavy = (a, b) if dataset.numbers[a] == 1 else (b, a)
        expected = EXPECTED.get(int(dataset.numbers[heavy]))
        if dataset.numbers[hydrogen] != 1 or expected is None:
            continue
        bond = dataset.positions[frames, hydrogen] - dataset.positions[frames, heavy]
        length = np.linalg.norm(bond, axis=1)
        force = np.einsum("fx,fx->f", dataset.forces[frames, hydrogen], bond) / length
        if np.ptp(length) > 0 and np.ptp(force) > 0 and np.corrcoef(length, force)[0, 1] < -_LEAST_CORRELATION:
            constant = -float(np.polyfit(length, force, 1)[0])
            found.append((constant / expected, constant))
    if not found:
        return None
    ratio, constant = np.median(found, axis=0)
    return Stretch(len(found), float(ratio), float(constant))


def energy_unit(dataset: Dataset, distances: FloatArray, *, rng: np.random.Generator) -> list[Finding]:
    """Check for energies and forces that are both in a unit other than the declared one."""
    found = stretch(dataset, distances, rng=rng)
    if found is None or BAND[0] <= found.ratio <= BAND[1]:
        return []
    options = [
        f"they look like {true} where {declared} was declared"
        for true, declared in permutations(ENERGY_UNITS, 2)
        if abs(np.log(found.ratio * ENERGY_UNITS[true] / ENERGY_UNITS[declared])) < UNIT_TOLERANCE
    ]
    message = (
        f"force constants of bonds to hydrogen must be 27 to 50 eV/Å², found {found.force_constant:.3g} eV/Å² over "
        f"{found.n_bonds} bonds, {found.ratio:.3g} times the usual value: "
    )
    if not options:
        return [Finding("note", "energy unit", message + "no unit explains this; check the forces on hydrogen atoms")]
    advice = f"{', or '.join(options)}; declare the right unit for energies and forces"
    return [Finding("refused", "energy unit", message + advice)]
