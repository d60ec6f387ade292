"""Pictures of molecules: a static one for print, and the data of an interactive one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon
from scipy.sparse.csgraph import shortest_path

from ase_flatten.utils.typing import FloatArray

_HYDROGEN = 1
_ACCEPTORS = (7, 8, 9)

# In sums of two covalent radii.
_WHOLE, _SHORT = 1.2, 0.72
_STRETCHED = 1.35
_STRETCHED_HYDROGEN = 1.45
_CONTACT = 2.2

_GEMINAL = 3
"""Atoms up to this many bonds apart, as H and O in HO-C=O, are close without a hydrogen bond."""

_WIDTH = {"bond": 0.15, "stretched": 0.11, "contact": 0.06}
_DASH = {"stretched": (0.17, 0.12), "contact": (0.07, 0.13)}
_INSIDE = 0.9
"""A bond begins at this fraction of an atom's radius, so that it does not cross the atom."""

_MOST_NUMBERS = 30
"""In larger molecules most hydrogen atoms have no number."""

_SIZE, _HYDROGEN_SIZE = 6.5, 5.0
"""Of the numbers on atoms, points."""

_MARK = "#882255"

_LONGEST_ARROW = 1.0
"""Length of the longest force that is drawn, Å."""

_FOG = 0.35
_FLAT = 1.0
_LEAST_HALF = 1.8
_EDGE = "#333333"
_BOND = "#8a8a8a"


@dataclass(frozen=True)
class Bond:
    """Bond between two atoms of a picture.

    Parameters
    ----------
    first, second : int
    kind : {"bond", "stretched", "contact"}
        An ordinary bond; an unusually long or short one, or half of a shared proton; a hydrogen bond.
    """

    first: int
    second: int
    kind: str


def find_bonds(atoms: Atoms) -> list[Bond]:
    """Find the bonds to draw, from distances relative to sums of covalent radii.

    A hydrogen atom close to two heavy atoms is a shared proton, and both of its bonds are stretched. So is the bond
    between a detached atom and its nearest neighbour.
    """
    numbers = atoms.numbers
    radii = covalent_radii[numbers]
    lengths = atoms.get_all_distances() / (radii[:, None] + radii[None, :])
    np.fill_diagonal(lengths, np.inf)
    hydrogen, acceptor = numbers == _HYDROGEN, np.isin(numbers, _ACCEPTORS)
    joined = lengths < np.where(hydrogen[:, None] != hydrogen[None, :], _STRETCHED_HYDROGEN, _STRETCHED)
    shared = hydrogen & (np.sum(joined & ~hydrogen[None, :], axis=1) > 1)
    acidic = hydrogen & np.any(joined & acceptor[None, :], axis=1)
    for lone in np.flatnonzero(~joined.any(axis=1)):
        nearest = np.argmin(lengths[lone])
        joined[lone, nearest] = joined[nearest, lone] = lengths[lone, nearest] < _CONTACT
    bonds_apart = shortest_path(joined, directed=False, unweighted=True)
    bonds = []
    for i, j in zip(*np.triu_indices(len(numbers), 1), strict=True):
        length = lengths[i, j]
        if joined[i, j]:
            whole = _SHORT < length < _WHOLE and not shared[i] and not shared[j]
            bonds.append(Bond(int(i), int(j), "bond" if whole else "stretched"))
        elif (
            length < _CONTACT and bonds_apart[i, j] > _GEMINAL and (acidic[i] & acceptor[j] or acidic[j] & acceptor[i])
        ):
            bonds.append(Bond(int(i), int(j), "contact"))
    return bonds


def upright(atoms: Atoms) -> Atoms:
    """Rotate a molecule so that its longest axis lies along x and its shortest along the line of sight, z.

    A molecule that is not flat is then tilted, so that atoms do not hide behind others.
    """
    positions = atoms.positions - atoms.positions.mean(axis=0)
    axes = np.linalg.svd(positions, full_matrices=True)[2]
    for axis in (0, 1):
        axes[axis] *= np.copysign(1, axes[axis, axis])  # the smallest of the four possible rotations
    axes[2] *= np.sign(np.linalg.det(axes))  # a mirror image would be another molecule
    turned = Atoms(atoms.numbers, positions @ axes.T)
    if np.ptp(turned.positions[:, 2]) > _FLAT:
        turned.rotate(20, "y")
        turned.rotate(12, "x")
    return turned


def superposed(atoms: Atoms, onto: Atoms) -> Atoms:
    """Superpose a molecule on another configuration of it."""
    turned = Atoms(atoms.numbers, atoms.positions)
    minimize_rotation_and_translation(onto, turned)
    turned.positions -= turned.positions.mean(axis=0)
    return turned


def draw_structure(axes: Axes, atoms: Atoms, *, marked: Sequence[int] = (), numbered: bool = True) -> Axes:
    """Draw a molecule as seen along z, with distant atoms paler than near ones.

    Parameters
    ----------
    marked : sequence of int
        Atoms that are drawn with a bold edge.
    numbered : bool
        Whether atoms show their number; in large molecules hydrogen atoms do so only if they are marked.
    """
    positions, radii = atoms.positions, _drawn_radii(atoms)
    depth = positions[:, 2]
    nearness = 1 - (depth.max() - depth) / max(float(np.ptp(depth)), 1.0)
    for bond in find_bonds(atoms):
        ends = [bond.first, bond.second]
        order = 2 * depth[ends].mean() - 0.01
        along = positions[bond.second] - positions[bond.first]
        along /= max(float(np.linalg.norm(along)), 1e-6)
        start, end = (
            positions[bond.first] + _INSIDE * radii[bond.first] * along,
            positions[bond.second] - _INSIDE * radii[bond.second] * along,
        )
        for corners in _strips(start[:2], end[:2], bond.kind):
            colour = _fogged(_BOND, float(nearness[ends].mean()))
            axes.add_patch(Polygon(corners, facecolor=colour, edgecolor="none", zorder=100 + order))
    for atom, (x, y) in enumerate(positions[:, :2]):
        near = float(nearness[atom])
        axes.add_patch(
            Circle(
                (x, y),
                radii[atom],
                facecolor=_fogged(_colour(atoms.numbers[atom]), near),
                edgecolor=_MARK if atom in marked else _fogged(_EDGE, near),
                linewidth=1.8 if atom in marked else 0.6,
                zorder=100 + 2 * depth[atom],
            )
        )
    for atom in _numbered(atoms, marked) if numbered else ():
        (x, y), number = positions[atom, :2], atoms.numbers[atom]
        size = _HYDROGEN_SIZE if number == _HYDROGEN else _SIZE
        axes.text(
            x, y, str(atom), fontsize=size, color=_ink_on(number), ha="center", va="center_baseline",
            zorder=100 + 2 * depth[atom] + 0.005, clip_on=True,
        )  # fmt: skip
    margin = radii.max() + 0.15
    middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
    half = np.maximum(np.ptp(positions, axis=0) / 2 + margin, _LEAST_HALF)
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0)
    axes.update_datalim([(middle - half)[:2], (middle + half)[:2]])
    axes.autoscale_view()
    return axes


def turned_vectors(vectors: FloatArray, before: Atoms, after: Atoms) -> FloatArray:
    """Rotate vectors on atoms, (n_atoms, 3), as the molecule was rotated between two configurations."""
    old, new = (atoms.positions - atoms.positions.mean(axis=0) for atoms in (before, after))
    u, _, vt = np.linalg.svd(old.T @ new)
    u[:, 2] *= np.linalg.det(u @ vt)  # no mirror image
    return np.asarray(vectors @ u @ vt)


def draw_forces(axes: Axes, atoms: Atoms, forces: Mapping[str, FloatArray]) -> None:
    """Draw forces on atoms as arrows on a common scale; the longest one has a fixed length.

    Parameters
    ----------
    forces : dict of (n_atoms, 3) arrays, by colour
    """
    longest = max(float(np.linalg.norm(vectors, axis=1).max()) for vectors in forces.values())
    for colour, vectors in forces.items():
        shafts = vectors[:, :2] * (_LONGEST_ARROW / max(longest, 1e-12))
        axes.quiver(
            *atoms.positions[:, :2].T, *shafts.T, color=colour, angles="xy", scale_units="xy", scale=1,
            width=0.012, headwidth=3.2, headlength=3.6, headaxislength=3.2, minlength=0, zorder=1000,
        )  # fmt: skip
        axes.update_datalim(atoms.positions[:, :2] + shafts)
    axes.autoscale_view()


def structure_png(atoms: Atoms, forces: Mapping[str, FloatArray] | None = None, *, marked: Sequence[int] = ()) -> bytes:
    """Draw a molecule without a frame, and return the picture in PNG format.

    Parameters
    ----------
    marked : sequence of int
        See `draw_structure`.
    forces : dict of (n_atoms, 3) arrays, by colour, optional
        Drawn on the atoms as arrows.
    """
    figure = Figure(figsize=(2.4, 1.8))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    draw_structure(axes, atoms, marked=marked)
    if forces:
        draw_forces(axes, atoms, forces)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=200)
    return stream.getvalue()


def scene(atoms: Atoms, *, marked: Sequence[int] = ()) -> dict[str, Any]:
    """Return the data that the viewer needs to draw a molecule, as numbers and strings; lengths in Å."""
    return {
        "positions": np.round(atoms.positions, 3).tolist(),
        "radii": np.round(_drawn_radii(atoms), 3).tolist(),
        "colours": [_colour(number) for number in atoms.numbers],
        "bonds": [[bond.first, bond.second, bond.kind] for bond in find_bonds(atoms)],
        "numbered": _numbered(atoms, marked),
        "ink": [_ink_on(number) for number in atoms.numbers],
        "marked": list(marked),
    }


def _numbered(atoms: Atoms, marked: Sequence[int]) -> list[int]:
    """Return the atoms whose number is shown."""
    few = len(atoms) <= _MOST_NUMBERS
    return [atom for atom, number in enumerate(atoms.numbers) if few or number != _HYDROGEN or atom in marked]


def _drawn_radii(atoms: Atoms) -> FloatArray:
    return np.where(atoms.numbers == _HYDROGEN, 0.22, 0.5 * covalent_radii[atoms.numbers])


def _colour(number: int) -> str:
    return str(to_hex(jmol_colors[number]))


def _ink_on(number: int) -> str:
    """Return the colour of text on an atom: white on dark elements."""
    return "white" if float(np.dot(jmol_colors[number], (0.299, 0.587, 0.114))) < 0.5 else _EDGE


def _fogged(colour: str, nearness: float) -> tuple[float, ...]:
    fog = _FOG * (1.0 - nearness)
    channels = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return tuple(channels * (1 - fog) + fog)


def _strips(start: FloatArray, end: FloatArray, kind: str) -> list[FloatArray]:
    """Return the dashes of a line, each as the four corners of a rectangle."""
    length = float(np.linalg.norm(end - start))
    if length < 1e-6:
        return []
    along = (end - start) / length
    aside = 0.5 * _WIDTH[kind] * np.array([-along[1], along[0]])
    dash, gap = _DASH.get(kind, (length, 0.0))
    starts = np.arange(0.0, length - 1e-9, dash + gap)
    pieces = [(start + along * at, start + along * np.minimum(at + dash, length)) for at in starts]
    return [np.array([a + aside, b + aside, b - aside, a - aside]) for a, b in pieces]
