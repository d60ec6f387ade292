"""The choice of an sGDML model's permutations: by the bonds, by the package's matching, from a file, or none."""

from difflib import get_close_matches
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from ase_flatten.data.dataset import Dataset
from ase_flatten.geometry.symmetries import Symmetries, find_symmetries
from ase_flatten.geometry.symmetry_group import SymmetryGroup
from ase_flatten.models.sgdml import sgdml_package
from ase_flatten.utils.exceptions import InputError, not_installed, printable
from ase_flatten.utils.typing import IntArray

GRAPH, MATCHING, NONE = CHOICES = ("graph", "matching", "none")

MATCHED_FRAMES = 1000
"""Most frames that are matched."""


def find(choice: str, dataset: Dataset, frames: IntArray, valid: IntArray, *, rng: np.random.Generator) -> Symmetries:
    """Find the permutations of a model.

    Parameters
    ----------
    choice : str
        graph: permutations that preserve the bonds and that training and validation frames visit
        (`ase_flatten.geometry.symmetries`). matching: by the `sgdml` package, from training frames. none: the identity.
        Otherwise a file of permutations, see `read_permutations`.

    Raises
    ------
    InputError
        The file is missing or does not fit the molecule; or networkx, which finds symmetries of graphs, is missing.
    """
    if choice == NONE:
        return Symmetries(np.arange(dataset.n_atoms)[None])
    if choice == MATCHING:
        some = frames if len(frames) <= MATCHED_FRAMES else rng.choice(frames, MATCHED_FRAMES, replace=False)
        matched = sgdml_package.find_permutations(dataset.positions[some], dataset.numbers)
        return Symmetries(matched, (f"by the matching of training frames: {len(matched)} permutations",))
    if choice == GRAPH:
        seen = np.unique(np.concatenate([frames, valid]))
        try:
            return find_symmetries(dataset.numbers, dataset.positions[seen])
        except ModuleNotFoundError as error:
            raise not_installed("finding symmetries by the bonds", "networkx", extra="sgdml", error=error) from error
    permutations = read_permutations(Path(choice), dataset.numbers)
    return Symmetries(permutations, (f"from {Path(choice).name}: {len(permutations)} permutations",))


def read_permutations(path: Path, numbers: IntArray) -> IntArray:
    """Read permutations of the atoms of a molecule.

    Parameters
    ----------
    path : Path
        A text file. Each line holds, for each atom, the index of the atom whose place it takes, starting from 0 and
        separated by white space or commas. Lines that begin with # are comments.
    numbers : (n_atoms,) int array

    Returns
    -------
    (n_permutations, n_atoms) int array, in lexicographic order

    Raises
    ------
    InputError
        The file cannot be read, or is one of another molecule; an atom is named twice, or exchanged for one of another
        element; or the permutations are no group.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        found = (error.strerror or "").lower() if isinstance(error, OSError) else "not a text file"
        similar = get_close_matches(str(path), CHOICES, n=1)
        raise InputError(
            f"expected symmetries {', '.join(CHOICES)} or a file of permutations, got {printable(path)} "
            f"({printable(found)}); {f'did you mean {similar[0]}?' if similar else 'check the path'}"
        ) from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    rows = [_row(line, f"line {number} of {path}", numbers) for number, line in lines if line and line[0] != "#"]
    if not rows:
        raise InputError(f"expected permutations in {path}, found none; write one a line")
    permutations = np.array(rows, dtype=np.int64)
    try:
        SymmetryGroup.of(permutations)
    except InputError as error:
        raise InputError(f"cannot use the permutations in {path}: {error}") from error
    return np.unique(permutations, axis=0)


def _row(line: str, where: str, numbers: IntArray) -> list[int]:
    n_atoms = len(numbers)
    try:
        row = [int(word) for word in line.replace(",", " ").split()]
    except ValueError:
        raise InputError(f"expected the indices of atoms in {where}, found {printable(line, most=60)!r}") from None
    if len(row) != n_atoms:
        raise InputError(f"expected {n_atoms} atoms in {where}, found {len(row)}; is the file one of another molecule?")
    if outside := [atom for atom in row if not 0 <= atom < n_atoms]:
        raise InputError(f"expected atoms 0 to {n_atoms - 1} in {where}, found {outside[0]}; indices start from 0")
    if len(set(row)) < n_atoms:
        twice = next(atom for atom in row if row.count(atom) > 1)
        raise InputError(f"expected each atom once in {where}, found {twice} twice; correct the line")
    unlike = np.flatnonzero(numbers[row] != numbers)
    if len(unlike):
        here, there = int(unlike[0]), row[unlike[0]]
        symbols = chemical_symbols[numbers[here]], chemical_symbols[numbers[there]]
        raise InputError(
            f"expected exchanges of like atoms in {where}, found {symbols[0]}{here} exchanged for {symbols[1]}{there}; "
            "is the file one of another molecule?"
        )
    return row
