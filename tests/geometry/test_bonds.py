"""The three criteria of a bond agree on whole molecules, and differ where they should."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_flatten.geometry.bonds import bond_graphs, bonded_pairs, connected_pairs, count_fragments, smallest_fragment
from ase_flatten.geometry.pair_distances import pair_distances


def distances_of(*configurations: Atoms) -> np.ndarray:
    return pair_distances(np.array([atoms.positions for atoms in configurations]))


@pytest.mark.parametrize(("name", "n_bonds"), [("CH3CH2OH", 8), ("C6H6", 12), ("HCOOH", 4), ("H2O", 2)])
def test_all_criteria_find_the_bonds_of_a_molecule(name, n_bonds):
    atoms = molecule(name)
    distances = distances_of(atoms)
    bonded = bonded_pairs(atoms.numbers, distances[0])
    assert bonded.sum() == n_bonds
    (graph,), (count,), longest = bond_graphs(atoms.numbers, distances)
    assert np.array_equal(graph, bonded) and count == 1
    assert np.array_equal(longest, np.where(bonded, distances[0], 0))
    assert (connected_pairs(atoms.numbers, distances)[0] >= bonded).all()
    assert count_fragments(atoms.numbers, distances).tolist() == [1]


def test_a_proton_halfway_is_connected_to_both_and_bonded_to_neither():
    halfway = Atoms("OHO", [[0, 0, 0], [0, 0, 1.25], [0, 0, 2.5]])
    distances = distances_of(halfway)
    assert not bonded_pairs(halfway.numbers, distances[0]).any()
    assert connected_pairs(halfway.numbers, distances)[0].tolist() == [True, False, True]
    assert count_fragments(halfway.numbers, distances).tolist() == [1]


def test_a_lost_atom_is_the_smallest_fragment():
    whole, broken = molecule("H2O"), molecule("H2O")
    broken.positions[2] += [0, 0, 5]
    distances = distances_of(whole, broken)
    assert count_fragments(whole.numbers, distances).tolist() == [1, 2]
    assert smallest_fragment(whole.numbers, distances[1]) == (2, 1)
