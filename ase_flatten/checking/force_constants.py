"""Force constants of bonds from the data, which reveal a unit that is wrong for both energies and forces.

If both are in the same wrong unit, energies and forces are consistent with each other. Bonds to hydrogen, however, are
so stiff that their force constants hardly depend on the rest of the molecule. Where there are none, or few frames, the
stiffness of all bonds still reveals forces that are many times too large or too small.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from ase.data import atomic_masses

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

USUAL_STIFFNESS = 35.0
"""Median over the bonds of an organic molecule of the change of the force with the length, eV/Å²: 25 to 45."""
STIFFNESS_BAND = (3.0, 250.0)
"""Forces are questioned beyond these, eV/Å²: bonds are between Na-Cl (7), I-I (11) and N≡N (140)."""
STIFFNESS_TOLERANCE = np.log(4)
_USUAL_UNITS = ("eV", "kcal/mol", "kJ/mol", "Hartree")

_MAX_FRAMES = 2000
_LEAST_FRAMES = 20
_LEAST_FRAMES_FOR_STIFFNESS = 5
_LEAST_SPREAD = 0.003
"""Bonds whose lengths vary less than this are held fixed, Å."""
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


def stiffness(dataset: Dataset, distances: FloatArray, *, rng: np.random.Generator) -> tuple[int, float] | None:
    """Compare how much forces along bonds vary with how much the bond lengths do.

    Parameters
    ----------
    distances : (n_frames, n_pairs) array, Å

    Returns
    -------
    n_bonds : int
    stiffness : float, eV/Å²
        Median over the bonds of the ratio of both standard deviations; the force is that on the reduced mass of the
        two atoms. None instead of both if there are no bonds that vary, or too few frames.
    """
    if dataset.n_frames < _LEAST_FRAMES_FOR_STIFFNESS:
        return None
    frames = np.sort(rng.permutation(dataset.n_frames)[:_MAX_FRAMES])
    bonded = bonded_pairs(dataset.numbers, np.median(distances[frames], axis=0))
    i, j = (atoms[bonded] for atoms in np.tril_indices(dataset.n_atoms, -1))
    lengths = distances[np.ix_(frames, np.flatnonzero(bonded))]
    bonds = dataset.positions[frames][:, i] - dataset.positions[frames][:, j]
    masses = atomic_masses[dataset.numbers]
    share = (masses[j] / (masses[i] + masses[j]))[:, None]
    along = share * dataset.forces[frames][:, i] - (1 - share) * dataset.forces[frames][:, j]
    forces = np.einsum("fbx,fbx->fb", along, bonds) / lengths
    spread = lengths.std(axis=0)
    varied = spread > _LEAST_SPREAD
    if not varied.any():
        return None
    return int(varied.sum()), float(np.median(forces.std(axis=0)[varied] / spread[varied]))


def energy_unit(dataset: Dataset, distances: FloatArray, *, rng: np.random.Generator) -> list[Finding]:
    """Check for energies and forces that are both in a unit other than the declared one."""
    found = stretch(dataset, distances, rng=rng)
    if found is None:
        return _force_size(stiffness(dataset, distances, rng=rng))
    if BAND[0] <= found.ratio <= BAND[1]:
        return []
    options = _mistakes(found.ratio, tuple(ENERGY_UNITS), tolerance=UNIT_TOLERANCE)
    message = (
        f"force constants of bonds to hydrogen must be 27 to 50 eV/Å², found {found.force_constant:.3g} eV/Å² over "
        f"{found.n_bonds} bonds, {found.ratio:.3g} times the usual value: "
    )
    if not options:
        return [Finding("note", "energy unit", message + "no unit explains this; check the forces on hydrogen atoms")]
    advice = f"{', or '.join(options)}; declare the right unit for energies and forces"
    return [Finding("refused", "energy unit", message + advice)]


def _force_size(found: tuple[int, float] | None) -> list[Finding]:
    """Question forces whose size no bonds explain."""
    if found is None or STIFFNESS_BAND[0] <= found[1] <= STIFFNESS_BAND[1]:
        return []
    n_bonds, stiffness = found
    options = _mistakes(stiffness / USUAL_STIFFNESS, _USUAL_UNITS, tolerance=STIFFNESS_TOLERANCE)
    size = "large" if stiffness > USUAL_STIFFNESS else "small"
    message = (
        f"forces along bonds must change by about {USUAL_STIFFNESS:g} eV/Å² with their lengths, found {stiffness:.3g} "
        f"eV/Å² over {n_bonds} bond{'s' if n_bonds > 1 else ''}, too {size} for most molecules: "
        + (", or ".join(options) or "no unit explains this")
        + "; check the units of energies and forces"
    )
    return [Finding("note", "size of forces", message)]


def _mistakes(ratio: float, units: tuple[str, ...], *, tolerance: float) -> list[str]:
    """Describe the mistakes of units that make forces `ratio` times as large as they are, the most likely first."""
    mismatches = [
        (abs(np.log(ratio * ENERGY_UNITS[true] / ENERGY_UNITS[declared])), true, declared)
        for true, declared in permutations(units, 2)
    ]
    return [
        f"they look like {true} where {declared} was declared"
        for mismatch, true, declared in sorted(mismatches)
        if mismatch < tolerance
    ]
