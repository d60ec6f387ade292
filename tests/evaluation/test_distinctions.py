"""What distinguishes a group of clusters: planted differences are found, and none is claimed where there is none."""

import numpy as np
import pytest
from ase.build import molecule
from conftest import RARE_WATER

from ase_flatten.clustering.clusters import Clustering
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.data.units import KCAL_PER_MOL, output_units
from ase_flatten.evaluation.distinctions import (
    DISTINCTIONS,
    Difference,
    Distinction,
    Spread,
    distinguish,
    in_words,
    read_distinctions,
    write_distinctions,
)
from ase_flatten.evaluation.frame_groups import Groups
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.run_folder import Run

KCAL = output_units("kcal/mol")
N = 200
PEROXIDE = molecule("H2O2")


def of_frames(positions: np.ndarray, labels: np.ndarray, energies: np.ndarray | None = None) -> tuple[Distinction, ...]:
    """What distinguishes each cluster of frames of hydrogen peroxide."""
    values = np.zeros(len(labels)) if energies is None else energies
    dataset = Dataset(PEROXIDE.numbers, positions, values, np.zeros_like(positions))
    clustering = Clustering(labels)
    members = tuple((cluster,) for cluster in range(clustering.n_clusters))
    return distinguish(dataset, clustering, Groups(members, clustering.populations))


def turned(angles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give frames of hydrogen peroxide with these dihedrals H2-O0-O1-H3 and thermal noise."""
    frames = []
    for angle in angles:
        atoms = PEROXIDE.copy()
        atoms.set_dihedral(2, 0, 1, 3, angle, indices=[3])
        atoms.rotate(float(rng.uniform(0, 360)), rng.normal(size=3))
        frames.append(atoms.positions + rng.normal(scale=0.02, size=(4, 3)))
    return np.array(frames)


LABELS = np.repeat([0, 1], [N, N // 4])


def test_a_planted_rotation_is_found_whichever_way_it_turns(rng):
    angles = np.where(LABELS == 1, rng.normal(170, 5, len(LABELS)), rng.normal(60, 10, len(LABELS)))
    signs = rng.choice([-1, 1], len(LABELS))
    found = of_frames(turned(signs * angles, rng), LABELS)[1]
    assert found.clusters == (1,) and found.difference.atoms == (2, 0, 1, 3) and not found.difference.signed
    assert found.difference.separation == pytest.approx(1, abs=0.01)
    assert found.difference.here.mean == pytest.approx(170, abs=3)
    assert found.difference.elsewhere.mean == pytest.approx(60, abs=3)
    assert in_words(found, PEROXIDE.numbers, KCAL).startswith("the absolute dihedral H2–O0–O1–H3 is 1")


def test_a_rotation_in_one_direction_counts_with_its_sign(rng):
    angles = np.where(LABELS == 1, 1, -1) * rng.normal(90, 8, len(LABELS))
    found = of_frames(turned(angles, rng), LABELS)[1].difference
    assert found.signed and found.here.mean == pytest.approx(90, abs=3)
    assert found.elsewhere.mean == pytest.approx(-90, abs=3) and found.elsewhere.std == pytest.approx(8, abs=3)


def test_a_mean_across_180_degrees_is_circular(rng):
    angles = np.where(LABELS == 1, rng.normal(-150, 5, len(LABELS)), rng.normal(150, 5, len(LABELS)))
    found = of_frames(turned(angles, rng), LABELS)[0].difference
    assert found.signed and abs(found.here.mean - 150) < 5 and found.here.std < 10


def test_a_stretched_bond_is_preferred_to_what_follows_from_it(rng):
    positions = turned(rng.normal(100, 15, len(LABELS)), rng)
    along = positions[:, 3] - positions[:, 1]
    positions[:, 3] += np.where(LABELS == 1, 0.6, 0)[:, None] * along
    energies = np.where(LABELS == 1, 6.0, 0.0) * KCAL_PER_MOL + rng.normal(scale=0.02, size=len(LABELS))
    found = of_frames(positions, LABELS, energies)[1]
    assert found.difference.atoms == (1, 3) and found.difference.bonded
    words = in_words(found, PEROXIDE.numbers, KCAL)
    assert words.startswith("O1–H3 is 1.5") and " here and 0.9" in words and "more energy than the median" in words


def test_nothing_is_claimed_of_frames_that_do_not_differ(rng):
    for labels in (LABELS, np.repeat([0, 1], [N, 4])):  # of so few, some coordinate always does
        for found in of_frames(turned(rng.normal(100, 15, len(labels)), rng), labels):
            assert found.difference is None
            assert "no single distance, angle or dihedral distinguishes it" in in_words(found, PEROXIDE.numbers, KCAL)


def test_equal_values_separate_nothing():
    positions = np.repeat(PEROXIDE.positions[None], len(LABELS), axis=0)
    assert [found.difference for found in of_frames(positions, LABELS)] == [None, None]


def test_clusters_of_one_shape_are_compared_with_other_shapes(rng):
    labels = np.repeat([0, 1, 2], [N, N // 2, N // 2])
    positions = turned(np.where(labels > 0, rng.normal(170, 5, len(labels)), rng.normal(60, 10, len(labels))), rng)
    dataset = Dataset(PEROXIDE.numbers, positions, np.zeros(len(labels)), np.zeros_like(positions))
    groups = Groups(((0,), (1,), (2,)), np.array([40, 20, 20]))
    apart = distinguish(dataset, Clustering(labels), groups)
    together = distinguish(dataset, Clustering(labels, np.minimum(labels, 1)), groups)
    assert [found.difference is None for found in apart] == [False, True, True]
    assert [found.difference.atoms for found in together] == [(2, 0, 1, 3)] * 3


def test_one_group_differs_from_nothing(rng):
    assert of_frames(turned(rng.normal(100, 15, 30), rng), np.zeros(30, dtype=int)) == ()


@pytest.mark.parametrize(
    ("energy", "words"),
    [
        ((3.0, 9.0), "3.0 to 9.0 kcal/mol more energy"),
        ((-12.0, -4.0), "4 to 12 kcal/mol less energy"),
        ((-0.5, 2.0), "0.5 kcal/mol less to 2.0 kcal/mol more energy"),
        ((0.0, 0.0), "0.0000 kcal/mol less to 0.0000 kcal/mol more energy"),
    ],
)
def test_energies_are_told_in_words(energy, words):
    found = Distinction((1,), (energy[0] * KCAL_PER_MOL, energy[1] * KCAL_PER_MOL))
    assert words in in_words(found, PEROXIDE.numbers, KCAL)


def test_coordinates_are_told_in_words():
    here, elsewhere = Spread(3.876, 0.14), Spread(2.15, 0.667)
    found = Distinction((1,), (0.0, 1.0), Difference((0, 3), False, False, 1.0, here, elsewhere))
    assert in_words(found, PEROXIDE.numbers, KCAL).startswith(
        "the distance O0···H3 is 3.88 ± 0.14 Å here and 2.15 ± 0.67 Å elsewhere; "
    )
    angle = Difference((2, 0, 1), True, False, 1.0, Spread(95.4, 3.2), Spread(110.2, 4.0))
    words = in_words(Distinction((1,), (0.0, 1.0), angle), PEROXIDE.numbers, KCAL)
    assert words.startswith("the angle H2–O0–O1 is 95 ± 3° here and 110 ± 4° elsewhere; ")


def test_the_stretched_bond_of_water_is_found(finished_run, water):
    clustering = finished_run.clustering
    members = tuple(
        tuple(np.unique(clustering.labels[clustering.geometry == one]).tolist())
        for one in np.unique(clustering.geometry)
    )
    found = distinguish(water, clustering, Groups(members, np.full(len(members), 20)))
    rare = int(clustering.geometry[RARE_WATER[0]])
    assert set(clustering.labels[RARE_WATER].tolist()) == set(found[rare].clusters)
    assert found[rare].difference.atoms == (0, 1) and found[rare].difference.here.mean > 1.25
    assert [one.difference for one in found if one is not found[rare]] == [None] * (len(members) - 1)


def test_a_run_keeps_what_was_found(finished_run, water):
    groups = finished_run.claims.groups
    found = distinguish(water, finished_run.clustering, groups)
    assert list(finished_run.distinctions.values()) == list(found)
    assert list(finished_run.distinctions) == list(groups.members)


def test_the_second_rotamer_of_salicylic_acid_is_found():
    data = read_dataset("examples/data/salicylic_gfn2_500K.npz").take(np.arange(0, 10_000, 5))
    turned_over = np.abs(np.degrees(_dihedral(data.positions, (0, 1, 3, 4)))) < 90
    labels = turned_over.astype(int) if turned_over.mean() < 0.5 else 1 - turned_over.astype(int)
    groups = Groups(((0,), (1,)), np.bincount(labels))
    found = distinguish(data, Clustering(labels), groups)[1].difference
    assert found.bonded and len(found.atoms) == 4 and found.atoms[1:3] in ((1, 3), (3, 1))


def _dihedral(positions: np.ndarray, atoms: tuple[int, ...]) -> np.ndarray:
    a, b, c, d = (positions[:, atom] for atom in atoms)
    first, second = np.cross(b - a, c - b), np.cross(c - b, d - c)
    cosine = np.einsum("fx,fx->f", first, second) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    return np.arccos(np.clip(cosine, -1, 1))


@pytest.mark.parametrize(
    ("old", "new"), [("[0,3]", "[0,4]"), ("[0,3]", "[-1,3]"), ("[0,3]", "[3]"), ('"groups"', '"gruops"')]
)
def test_a_damaged_file_is_refused(old, new, tmp_path):
    difference = Difference((0, 3), False, False, 1.0, Spread(1.0, 0.1), Spread(2.0, 0.1))
    path = tmp_path / DISTINCTIONS
    write_distinctions(path, (Distinction((0, 1), (0.5, 1.0), difference),))
    assert read_distinctions(path, PEROXIDE.numbers)[0, 1].difference == difference
    content = "".join(path.read_text().split())
    assert old in content
    path.write_text(content.replace(old, new))
    with pytest.raises(InputError, match="what distinguishes the clusters of a run"):
        read_distinctions(path, PEROXIDE.numbers)


def test_runs_of_before_have_none(tmp_path):
    assert Run(tmp_path).distinctions == {}
