"""Distances, angles and dihedrals, against ASE and by hand."""

import numpy as np
from ase import Atoms
from ase.build import molecule

from ase_flatten.geometry.bonds import bonded_pairs
from ase_flatten.geometry.internal_coordinates import bonded_coordinates, measure
from ase_flatten.geometry.pair_distances import pair_distances


def test_coordinates_agree_with_ase(rng):
    frames = [Atoms("CHFClBr", rng.normal(size=(5, 3))) for _ in range(20)]
    positions = np.array([atoms.positions for atoms in frames])
    np.testing.assert_allclose(measure(positions, (1, 3)), [atoms.get_distance(1, 3) for atoms in frames])
    np.testing.assert_allclose(measure(positions, (4, 0, 2)), [atoms.get_angle(4, 0, 2) for atoms in frames])
    dihedrals = np.array([atoms.get_dihedral(0, 1, 2, 4) for atoms in frames])
    np.testing.assert_allclose(measure(positions, (0, 1, 2, 4)), (dihedrals + 180) % 360 - 180)


def test_mirror_images_have_opposite_dihedrals(rng):
    positions = rng.normal(size=(9, 4, 3))
    mirrored = positions * [1, 1, -1]
    np.testing.assert_allclose(measure(mirrored, (0, 1, 2, 3)), -measure(positions, (0, 1, 2, 3)))


def test_atoms_on_a_line_are_measured():
    line = np.array([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]]])
    assert measure(line, (0, 1, 2))[0] == 180
    assert np.isfinite(measure(line, (0, 1, 2, 3))).all()


def test_the_bonds_of_a_molecule_give_its_coordinates():
    atoms = molecule("H2O2")
    found = bonded_coordinates(4, bonded_pairs(atoms.numbers, pair_distances(atoms.positions[None])[0]))
    assert found == [(0, 1), (0, 2), (1, 3), (1, 0, 2), (0, 1, 3), (2, 0, 1, 3)]
    ring = molecule("C3H6_D3h")
    coordinates = bonded_coordinates(9, bonded_pairs(ring.numbers, pair_distances(ring.positions[None])[0]))
    assert all(len(set(atoms)) == len(atoms) for atoms in coordinates)  # no dihedral round a ring of three
    assert len([atoms for atoms in coordinates if len(atoms) == 2]) == 9
