"""Symmetries of molecules with thermal-like displacements, rotated methyl groups, and exchanged atoms."""

from math import pi
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from conftest import needs

from ase_flatten.data.io import read_dataset
from ase_flatten.geometry import bond_symmetries as bond_symmetries_module
from ase_flatten.geometry import symmetries
from ase_flatten.geometry.bond_symmetries import bond_symmetries
from ase_flatten.geometry.symmetries import Symmetries, find_symmetries
from ase_flatten.geometry.symmetry_group import SymmetryGroup

needs("networkx", extra="sgdml")

N_FRAMES = 120
EXAMPLE = Path(__file__).parents[2] / "examples" / "data" / "salicylic_gfn2_500K.npz"


def frames_of(atoms: Atoms, *rotors: tuple[int, int, list[int]], seed: int = 0) -> np.ndarray:
    """Displace all atoms at random, and turn each rotor (axis, centre, leaves) by a random angle."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(N_FRAMES):
        turned = atoms.copy()
        for axis, centre, leaves in rotors:
            direction = turned.positions[centre] - turned.positions[axis]
            part = turned[leaves]
            part.rotate(np.degrees(rng.uniform(0, 2 * pi)), direction, center=turned.positions[centre])
            turned.positions[leaves] = part.positions
        found.append(turned.positions + rng.normal(scale=0.03, size=(len(atoms), 3)))
    return np.array(found)


def found_in(name: str, *rotors: tuple[int, int, list[int]]) -> Symmetries:
    atoms = molecule(name)
    return find_symmetries(atoms.numbers, frames_of(atoms, *rotors))


def contains(found: Symmetries, *cycles: tuple[int, ...]) -> bool:
    permutation = np.arange(found.permutations.shape[1])
    for cycle in cycles:
        permutation[list(cycle)] = np.roll(cycle, -1)
    return bool((found.permutations == permutation).all(axis=1).any())


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("H2", 2), ("HCl", 1), ("H2O", 2), ("NH3", 6), ("CH4", 24), ("C2H2", 2), ("C2H4", 4), ("C2F4", 4),
        ("C6H6", 12), ("C4H4NH", 2), ("butadiene", 2), ("C3H4_D2d", 8), ("cyclobutane", 8), ("CF4", 24),
        ("CH3CHO", 6), ("C2H6SO", 18), ("CH3OCH3", 36), ("C2H6", 36), ("isobutane", 162), ("HCOOH", 1),
    ],
)  # fmt: skip
def test_rigid_molecules_have_the_permutations_of_their_point_groups_times_rotations_of_methyl(name, order):
    """Reflections count, as pair distances do not see them: benzene has 24 operations, but 12 permutations."""
    found = found_in(name)
    assert len(found.permutations) == order, found
    assert np.array_equal(found.permutations[0], np.arange(found.permutations.shape[1]))
    assert len(SymmetryGroup.of(found.permutations)) == len(found.permutations)  # a group


@pytest.mark.parametrize(("numbers", "order"), [([18, 18], 2), ([18, 10], 1), ([18, 18, 18], 6), ([18, 10, 18], 2)])
def test_atoms_without_any_bond(numbers, order, rng):
    """Noble gases, 4 Å apart."""
    places = np.array([[0, 0, 0], [4, 0, 0], [2, 3.5, 0]])[: len(numbers)]
    frames = places + rng.normal(scale=0.1, size=(N_FRAMES, len(numbers), 3))
    found = find_symmetries(np.array(numbers), frames)
    assert not bond_symmetries(np.array(numbers), frames).bonds.any()
    assert len(found.permutations) == order


def test_mirror_image_of_ethanol():
    found = found_in("CH3CH2OH")
    atoms = molecule("CH3CH2OH")
    assert atoms.get_chemical_symbols() == ["C", "C", "O", "H", "H", "H", "H", "H", "H"]
    assert len(found.permutations) == 6
    assert "methyl" in found.kept[0] and found.kept[1].startswith("mirror image with exchange of ")
    assert len(found.kept) == 2


def test_exchange_that_the_data_do_not_visit_is_left_out_and_kept_as_soon_as_they_do():
    """Acetamide: the rotation about the amide bond is slow."""
    atoms = molecule("CH3CONH2")
    amide = [4, 8]
    assert atoms.get_chemical_symbols()[3] == "C" and all(atoms.get_distance(2, atom) < 1.1 for atom in amide)
    frames = frames_of(atoms, (1, 3, [5, 6, 7]))
    before = find_symmetries(atoms.numbers, frames)
    assert len(before.permutations) == 6
    assert not contains(before, (4, 8))
    assert "exchange of H4 and H8: not visited by the data" in before.left_out
    frames[::10, amide] = frames[::10, amide[::-1]]
    after = find_symmetries(atoms.numbers, frames)
    assert len(after.permutations) == 12
    assert contains(after, (4, 8))
    assert "exchange of H4 and H8: visited by the data" in after.kept


def test_an_exchange_is_not_lost_in_the_motion_of_distant_atoms(rng):
    atoms = molecule("CH3CONH2")
    frames = frames_of(atoms, (1, 3, [5, 6, 7]))
    far = rng.normal(size=(N_FRAMES, 5, 3)) * 2 + np.array(
        [[20, 0, 0], [0, 20, 0], [0, 0, 20], [-20, 0, 0], [0, -20, 0]]
    )
    numbers = np.concatenate([atoms.numbers, [2, 10, 18, 36, 54]])
    found = find_symmetries(numbers, np.concatenate([frames, far], axis=1))
    assert not contains(found, (4, 8))
    assert "exchange of H4 and H8: not visited by the data" in found.left_out


def test_rotation_of_a_methyl_group_is_kept_where_the_data_do_not_visit_it():
    atoms = molecule("CH3CONH2")
    frames = frames_of(atoms)
    assert any("3 rotations, not visited" in line for line in find_symmetries(atoms.numbers, frames).kept)
    frames = frames_of(atoms, (1, 3, [5, 6, 7]))
    assert any("3 rotations, visited" in line for line in find_symmetries(atoms.numbers, frames).kept)


def chiral() -> tuple[Atoms, tuple[int, int, list[int]]]:
    """CH3-CHFCl."""
    atoms = molecule("C2H6")
    for atom, symbol, length in ((2, "F", 1.36), (3, "Cl", 1.77)):
        centre = int(np.argmin(np.linalg.norm(atoms.positions[:2] - atoms.positions[atom], axis=1)))
        atoms.set_distance(centre, atom, length, fix=0)
        atoms.symbols[atom] = symbol
    return atoms, (centre, 1 - centre, [atom for atom in range(4, 8) if atoms.get_distance(1 - centre, atom) < 1.2])


def test_a_chiral_molecule_has_rotations_only_also_if_both_mirror_images_are_in_the_data():
    atoms, rotor = chiral()
    frames = frames_of(atoms, rotor)
    assert len(find_symmetries(atoms.numbers, frames).permutations) == 3
    frames[::2] *= -1
    assert len(find_symmetries(atoms.numbers, frames).permutations) == 3


def malonaldehyde() -> Atoms:
    return Atoms(
        "OCCCOHHHH",
        [
            [-1.28, -1.0, 0], [-1.2, 0.25, 0], [0, 0.95, 0], [1.2, 0.28, 0], [1.28, -0.95, 0], [-0.35, -1.35, 0],
            [-2.12, 0.85, 0], [0, 2.03, 0], [2.15, 0.86, 0],
        ],
    )  # fmt: skip


def test_a_proton_that_changes_sides_maps_one_set_of_bonds_onto_the_other():
    atoms, reverse = malonaldehyde(), [4, 3, 2, 1, 0, 5, 8, 7, 6]
    frames = frames_of(atoms)
    assert len(find_symmetries(atoms.numbers, frames).permutations) == 1
    frames[::3] = frames[::3][:, reverse]
    found = find_symmetries(atoms.numbers, frames)
    assert np.array_equal(found.permutations, [np.arange(9), reverse])


def permethylated(n_silicon: int) -> tuple[np.ndarray, np.ndarray]:
    """Permethylated polysilanes on a diamond lattice: numbers and positions."""
    directions = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
    numbers, positions, place = [], [], np.zeros(3)
    for k in range(n_silicon):
        sign, forward = (1, 0) if k % 2 == 0 else (-1, 1)
        taken = {forward} if k < n_silicon - 1 else set()
        taken |= {1 - forward} if k else set()
        numbers.append(14)
        positions.append(place)
        for d in set(range(4)) - taken:
            carbon = place + 1.88 * sign * directions[d]
            numbers += [6, 1, 1, 1]
            positions += [carbon, *(carbon - 1.09 * sign * directions[e] for e in range(4) if e != d)]
        place = place + 2.35 * sign * directions[forward]
    return np.array(numbers), np.array(positions)


def test_the_largest_group_is_limited_and_says_what_is_missing():
    """Three silicon atoms, eight methyl groups: 3^8 rotations, of which the most visited six remain."""
    numbers, positions = permethylated(3)
    rng = np.random.default_rng(0)
    frames = positions + rng.normal(scale=0.03, size=(60, *positions.shape))
    turned = np.flatnonzero(numbers == 6)[-1]  # the last methyl group alone is visited
    leaves = np.arange(turned + 1, turned + 4)
    frames[::3, leaves] = frames[::3][:, np.roll(leaves, 1)]
    frames[1::3, leaves] = frames[1::3][:, np.roll(leaves, 2)]
    found = find_symmetries(numbers, frames)
    assert len(found.permutations) == 3**6 <= symmetries.MOST_PERMUTATIONS
    assert contains(found, tuple(leaves.tolist()))
    assert sum("rotations, would make more than 1000 permutations" in line for line in found.left_out) == 2


def test_many_equal_branches_are_never_all_listed(monkeypatch):
    """Five silicon atoms: 576 automorphisms of the heavy atoms alone."""
    monkeypatch.setattr(bond_symmetries_module, "MOST_CANDIDATES", 50)
    numbers, positions = permethylated(5)
    frames = positions + np.random.default_rng(0).normal(scale=0.03, size=(20, *positions.shape))
    found = bond_symmetries(numbers, frames)
    assert not found.complete
    assert len(found.rotors) == 12
    assert len(found.others)
    for permutation in found.others:
        assert np.array_equal(found.bonds[permutation][:, permutation], found.bonds)
        assert np.array_equal(numbers[permutation], numbers)
    for end in (slice(0, 13), slice(-13, None)):  # the trimethylsilyl groups turn alone
        others = np.delete(np.arange(len(numbers)), end)
        alone = (found.others[:, others] == others).all(axis=1)
        assert any((permutation != np.arange(len(numbers))).sum() == 12 for permutation in found.others[alone])


def test_methyl_groups_that_are_exchanged_on_top_of_their_own_rotations():
    group = SymmetryGroup.of(found_in("isobutane").permutations)
    assert [len(factor) for factor in group.factors] == [3, 3, 3]
    assert len(group.outer) == 6


def test_the_order_of_the_atoms_does_not_matter(rng):
    atoms = molecule("CH3CONH2")
    frames = frames_of(atoms, (1, 3, [5, 6, 7]))
    order = rng.permutation(len(atoms))
    back = np.argsort(order)
    found = find_symmetries(atoms.numbers[order], frames[:, order]).permutations
    expected = find_symmetries(atoms.numbers, frames).permutations
    assert np.array_equal(np.unique(order[found][:, back], axis=0), expected)


def test_images_are_positions_taken_in_the_order_of_the_permutation():
    """The image of a frame has the bonds of the frame."""
    atoms = malonaldehyde()
    (other,) = [p for p in bond_symmetries(atoms.numbers, both_wells(atoms)).others if p[0] == 4]
    image = atoms.positions[other]
    assert np.linalg.norm(image[5] - image[4]) == pytest.approx(np.linalg.norm(atoms.positions[5] - atoms.positions[0]))


def both_wells(atoms: Atoms) -> np.ndarray:
    frames = frames_of(atoms)
    frames[::2] = frames[::2][:, [4, 3, 2, 1, 0, 5, 8, 7, 6]]
    return frames


@pytest.mark.parametrize("n_frames", [1, 2, 3])
def test_few_frames(n_frames):
    atoms = molecule("CH3CH2OH")
    found = find_symmetries(atoms.numbers, frames_of(atoms)[:n_frames])
    assert len(found.permutations) in (3, 6)


def test_real_salicylic_acid_has_none():
    dataset = read_dataset(EXAMPLE)
    found = find_symmetries(dataset.numbers, dataset.positions[::100])
    assert len(found.permutations) == 1 and found.kept == ()


def test_a_single_atom():
    assert np.array_equal(find_symmetries(np.array([18]), np.zeros((5, 1, 3))).permutations, [[0]])
