"""What distinguishes the frames of a group of clusters from other frames, in one coordinate and in words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from ase.data import chemical_symbols

from ase_flatten.clustering.clusters import Clustering
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.frame_groups import Groups
from ase_flatten.geometry.bonds import bonded_pairs
from ase_flatten.geometry.internal_coordinates import Coordinate, bonded_coordinates, measure
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.records import read_record, understood, write_record
from ase_flatten.utils.typing import BoolArray, FloatArray, IntArray

FORMAT = 1
DISTINCTIONS = "distinctions.json"

DISTINGUISHES = 0.95
"""A coordinate distinguishes a group if it orders at least this share of the pairs of a frame in and one outside."""

MOST_FRAMES = 20_000
"""Of larger data sets this many frames are compared, evenly spread."""

_LEAST_FRAMES = 10
"""With fewer frames of a group, one of the many coordinates separates them by chance."""

_HYDROGEN, _CARBON = 1, 6

_PREFERRED = 0.03
"""Simpler coordinates, those along bonds first, are preferred to others that separate better by no more than this."""


@dataclass(frozen=True)
class Spread:
    """The mean of a coordinate and its standard deviation, Å or degrees."""

    mean: float
    std: float


@dataclass(frozen=True)
class Difference:
    """A coordinate in which the frames of a group differ from other frames.

    Parameters
    ----------
    atoms : tuple of int
        Two atoms of a distance, three of an angle, or four of a dihedral.
    bonded : bool
        Whether each is bonded to the next.
    signed : bool
        Whether a dihedral counts with its sign, in which mirror images differ; otherwise its absolute value counts.
    separation : float
        The share of the pairs of a frame of the group and another one that the coordinate orders alike, from 0.5 to 1:
        the area under the ROC curve.
    here, elsewhere : Spread
        Of the coordinate, in the group and in the other frames.
    """

    atoms: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(min_length=2, max_length=4)]
    bonded: bool
    signed: bool
    separation: float
    here: Spread
    elsewhere: Spread

    @property
    def standardized(self) -> float:
        """The difference of the means, in units of the standard deviation."""
        shift = abs(self.here.mean - self.elsewhere.mean)
        if self.signed:
            shift = min(shift, 360 - shift)
        return shift / max(float(np.hypot(self.here.std, self.elsewhere.std)), 1e-12)


@dataclass(frozen=True)
class Distinction:
    """How the frames of a group of clusters differ from others.

    Parameters
    ----------
    clusters : tuple of int
        The clusters of the group.
    energy : (float, float), eV
        The energy of the middle 80 % of its frames, relative to the median of all other frames.
    difference : Difference or None
        The coordinate that separates it best from frames of other geometric clusters; None if no single one
        distinguishes it.
    """

    clusters: tuple[int, ...]
    energy: tuple[float, float]
    difference: Difference | None = None


@dataclass(frozen=True)
class _Saved:
    """The content of distinctions.json: lengths in Å, angles in degrees, energies in eV."""

    groups: tuple[Distinction, ...]
    format: int = FORMAT


def distinguish(
    dataset: Dataset, clustering: Clustering, groups: Groups, *, progress: Progress = SILENT
) -> tuple[Distinction, ...]:
    """Find the distance, angle or dihedral in which the frames of each group differ most from others.

    The other frames are those of other geometric clusters: the clusters that one of them was split into have the same
    shape, and differ in energy. Without other geometric clusters they are all other frames.

    Returns
    -------
    tuple of Distinction
        One for each group; none if there is only one.
    """
    if len(groups.members) < 2:
        return ()
    frames = np.unique(np.linspace(0, dataset.n_frames - 1, min(MOST_FRAMES, dataset.n_frames)).astype(np.int64))
    positions, energies = dataset.positions[frames], dataset.energies[frames]
    group, geometry = groups.of_cluster[clustering.labels[frames]], clustering.geometry[frames]
    inside = [group == number for number in range(len(groups.members))]
    others = [_others(one, geometry) for one in inside]
    judged = [one for one, some in enumerate(inside) if some.sum() >= _LEAST_FRAMES and others[one].any()]
    found: list[list[Difference]] = [[] for _ in inside]
    bonded_pair = bonded_pairs(dataset.numbers, np.median(dataset.pair_distances, axis=0))
    candidates = _candidates(dataset.n_atoms, bonded_pair)
    with progress.task("finding what distinguishes clusters", len(candidates)) as advance:
        for atoms, bonded in candidates:
            values = measure(positions, atoms)
            for signed in (False, True) if len(atoms) == 4 else (False,):
                ordered = _Ordered.of(np.sin(np.radians(values)) if signed else np.abs(values))
                for one in judged:
                    share = ordered.separation(inside[one], others[one])
                    if share >= DISTINGUISHES:
                        here, elsewhere = (_spread(values[some], signed=signed) for some in (inside[one], others[one]))
                        found[one].append(Difference(atoms, bonded, signed, share, here, elsewhere))
            advance(1)
    on_carbon = _hydrogens_on_carbon(dataset.numbers, bonded_pair)
    return tuple(
        Distinction(members, _relative(energies, inside[one]), _clearest(found[one], on_carbon))
        for one, members in enumerate(groups.members)
    )


def read_distinctions(path: Path, numbers: IntArray) -> dict[tuple[int, ...], Distinction]:
    """Read distinctions.json, by the clusters of each group; raise InputError if it is damaged.

    Parameters
    ----------
    numbers : (n_atoms,) int array
        Of the molecule.
    """
    words = {
        "what": "what distinguishes the clusters of a run",
        "remedy": "delete it, and find it again with: ase-flatten train --resume --out RUN",
    }
    saved = read_record(path, _Saved, version=FORMAT, **words)
    with understood(path, **words):
        if any(max(one.difference.atoms) >= len(numbers) for one in saved.groups if one.difference is not None):
            raise ValueError(f"atoms beyond the {len(numbers)} of the molecule")
    return {one.clusters: one for one in saved.groups}


def write_distinctions(path: Path, distinctions: tuple[Distinction, ...]) -> None:
    """Write distinctions.json."""
    write_record(path, _Saved(distinctions))


def in_words(distinction: Distinction, numbers: IntArray, units: OutputUnits) -> str:
    """Describe how the frames of a group differ, without the name of the group.

    Returns
    -------
    str
        Such as "O9–H15 is 1.62 ± 0.10 Å here and 0.99 ± 0.03 Å elsewhere; its frames have 3 to 9 kcal/mol more energy
        than the median of the others", with atoms as their element and their number, counted from 0.
    """
    return f"{_coordinate_words(distinction.difference, numbers)}; {_energy_words(distinction.energy, units)}"


def _coordinate_words(found: Difference | None, numbers: IntArray) -> str:
    if found is None:
        return "no single distance, angle or dihedral distinguishes it"
    symbols = [f"{chemical_symbols[numbers[atom]]}{atom}" for atom in found.atoms]
    if len(symbols) == 2:
        subject, decimals, unit = "–".join(symbols) if found.bonded else f"the distance {'···'.join(symbols)}", 2, " Å"
    else:
        kind = "angle" if len(symbols) == 3 else "dihedral" if found.signed else "absolute dihedral"
        subject, decimals, unit = f"the {kind} {'–'.join(symbols)}", 0, "°"
    here, elsewhere = (
        f"{one.mean:.{decimals}f} ± {one.std:.{decimals}f}{unit}" for one in (found.here, found.elsewhere)
    )
    return f"{subject} is {here} here and {elsewhere} elsewhere"


def _energy_words(energy: tuple[float, float], units: OutputUnits) -> str:
    low, high = (value * units.scale for value in energy)
    decimals = int(np.clip(1 - np.floor(np.log10(max(abs(low), abs(high), 1e-9))), 0, 4))
    least, most = (f"{value:.{decimals}f}" for value in sorted((abs(low), abs(high))))
    if low > 0 or high < 0:
        words = f"{least} to {most} {units.energy} {'more' if low > 0 else 'less'}"
    else:
        words = f"{-low:.{decimals}f} {units.energy} less to {high:.{decimals}f} {units.energy} more"
    return f"its frames have {words} energy than the median of the others"


@dataclass(frozen=True, eq=False)
class _Ordered:
    """Frames in the order of a coordinate.

    Parameters
    ----------
    frames : (n_frames,) int array
        In rising order of their values.
    first, last : (n_frames,) int arrays
        For each of them, where equal values begin, and one past where they end.
    """

    frames: IntArray
    first: IntArray
    last: IntArray

    @classmethod
    def of(cls, values: FloatArray) -> "_Ordered":
        rounded = np.round(values, 6)
        frames = np.argsort(rounded, kind="stable")
        ordered = rounded[frames]
        return cls(frames, np.searchsorted(ordered, ordered, "left"), np.searchsorted(ordered, ordered, "right"))

    def separation(self, inside: BoolArray, others: BoolArray) -> float:
        """Return the share of pairs of a frame inside and another one that are in the usual order; ties are halves."""
        below = np.concatenate([[0], np.cumsum(others[self.frames])])
        mine = inside[self.frames]
        share = float(np.mean(below[self.first[mine]] + below[self.last[mine]]) / (2 * below[-1]))
        return max(share, 1 - share)


def _others(inside: BoolArray, geometry: IntArray) -> BoolArray:
    """Return the frames that a group is compared with."""
    others = ~np.isin(geometry, np.unique(geometry[inside]))
    return others if others.any() else ~inside


def _candidates(n_atoms: int, bonded: BoolArray) -> list[tuple[Coordinate, bool]]:
    """List the coordinates of a molecule, and whether each is one along its bonds, (n_pairs,)."""
    i, j = np.tril_indices(n_atoms, -1)
    across = [(int(b), int(a)) for a, b in zip(i[~bonded], j[~bonded], strict=True)]
    return [*((atoms, True) for atoms in bonded_coordinates(n_atoms, bonded)), *((atoms, False) for atoms in across)]


def _hydrogens_on_carbon(numbers: IntArray, bonded: BoolArray) -> set[int]:
    i, j = np.tril_indices(len(numbers), -1)
    ends = [(int(a), int(b)) for a, b in zip(i[bonded], j[bonded], strict=True)]
    return {a for pair in ends for a, b in (pair, pair[::-1]) if (numbers[a], numbers[b]) == (_HYDROGEN, _CARBON)}


def _clearest(found: list[Difference], on_carbon: set[int]) -> Difference | None:
    """Choose the difference to tell: of those that separate about equally well, of the simplest kind the largest.

    Bond lengths are simpler than angles, these than dihedrals, and all of them than other distances. Coordinates with
    fewer of the hydrogen atoms on carbon are simpler than others of their kind.
    """

    def kind(one: Difference) -> tuple[bool, int, bool, int]:
        return not one.bonded, len(one.atoms), one.signed, sum(atom in on_carbon for atom in one.atoms)

    highest = max((one.separation for one in found), default=0.0)
    equal = [one for one in found if one.separation >= highest - _PREFERRED]
    return min(equal, key=lambda one: (kind(one), -one.standardized), default=None)


def _spread(values: FloatArray, *, signed: bool) -> Spread:
    if not signed:
        values = np.abs(values)
        return Spread(float(values.mean()), float(values.std()))
    direction = np.mean(np.exp(1j * np.radians(values)))
    length = min(max(float(abs(direction)), 1e-12), 1.0)
    return Spread(float(np.degrees(np.angle(direction))), float(np.degrees(np.sqrt(-2 * np.log(length)))))


def _relative(energies: FloatArray, inside: BoolArray) -> tuple[float, float]:
    """Return the middle 80 % of the energies of a group, relative to the median of all others."""
    if not inside.any() or inside.all():
        return 0.0, 0.0
    low, high = np.quantile(energies[inside], (0.1, 0.9)) - np.median(energies[~inside])
    return float(low), float(high)
