"""Permutation groups of made-up molecules, for tests of sums over them."""

from itertools import permutations, product

import numpy as np

from ase_flatten.geometry.symmetry_group import SymmetryGroup


def moved(n_atoms, *cycles):
    """The permutation that turns each list of atoms by one place."""
    permutation = np.arange(n_atoms)
    for cycle in cycles:
        permutation[list(cycle)] = np.roll(cycle, -1)
    return permutation


def generated(*generators):
    """All products of permutations, the identity first."""
    group = {tuple(range(len(generators[0])))}
    while more := {tuple(one[list(other)]) for one in generators for other in group} - group:
        group |= more
    return np.array(sorted(group))


def _rotors(n_rotors):
    n_atoms = 3 * n_rotors + 2
    return generated(*[moved(n_atoms, range(3 * k, 3 * k + 3)) for k in range(n_rotors)])


def _of_2_3_and_6():
    everything = []
    for flip, turn, exchange in product((False, True), range(3), permutations((6, 7, 8))):
        one = np.arange(10)
        one[[0, 1]] = one[[1, 0]] if flip else one[[0, 1]]
        one[[3, 4, 5]] = np.roll([3, 4, 5], turn)
        one[[6, 7, 8]] = exchange
        everything.append(one)
    return np.array(everything)


GROUPS = {
    "two rotors": _rotors(2),
    "five rotors": _rotors(5),
    "factors of 2, 3 and 6": _of_2_3_and_6(),
    # Two rotors that change places, as the methyl groups of acetone do.
    "outer": generated(moved(8, (0, 1, 2)), moved(8, (3, 4, 5)), moved(8, (0, 3), (1, 4), (2, 5), (6, 7))),
    # A methyl group with all exchanges of its atoms, and a ring that flips two pairs of atoms at once.
    "toluene-like": generated(moved(9, (0, 1, 2)), moved(9, (0, 1)), moved(9, (3, 4), (5, 6))),
    # A rotor whose reflection exchanges two other atoms: no product, but a group.
    "ethanol-like": generated(moved(9, (0, 1, 2)), moved(9, (0, 1), (5, 6))),
}
"""All elements of each group."""


def molecule(name, n_frames, seed=0):
    """Positions of some frames, and the group."""
    rng = np.random.default_rng(seed)
    group = SymmetryGroup.of(GROUPS[name])
    n_atoms = group.outer.shape[1]
    grid = np.array(list(product(range(3), repeat=3)), dtype=float)[:n_atoms] * 1.3
    return grid + rng.uniform(-0.25, 0.25, size=(n_frames, n_atoms, 3)), group
