import logging
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from sklearn.cluster import AgglomerativeClustering
from threadpoolctl import threadpool_info, threadpool_limits

from ase_flatten.clustering import assignment, clusters
from ase_flatten.clustering.assignment import ASSIGNMENTS, assign
from ase_flatten.clustering.clusters import Clustering, cluster, fine_clusters, n_clusters_for, representatives
from ase_flatten.data.dataset import Dataset
from ase_flatten.geometry.pair_distances import pair_distances, squared_distances
from ase_flatten.utils.exceptions import InputError

N_RARE = 6

BRUTE_FORCE = {
    "average": lambda members, frame: np.mean([np.linalg.norm(member - frame) for member in members]),
    "maximum": lambda members, frame: np.max([np.linalg.norm(member - frame) for member in members]),
    "ward": lambda members, frame: spread(np.vstack([members, frame])) - spread(members),
}


def spread(members):
    return np.sum((members - members.mean(axis=0)) ** 2)


def molecule_frames(rng, *, n_frames=300, n_rare=0, energies=None):
    """Frames of a noisy six-atom chain; the last `n_rare` have its end folded over."""
    chain = np.column_stack([1.3 * np.arange(6), 0.7 * (np.arange(6) % 2), np.zeros(6)])
    positions = np.tile(chain, (n_frames, 1, 1))
    positions[n_frames - n_rare :, 5] = [4.0, 2.2, 0.9]
    positions += rng.normal(0, 0.08, positions.shape)
    if energies is None:
        energies = rng.normal(-13_000, 0.2, n_frames)
    return Dataset(np.array([8, 6, 6, 6, 6, 1]), positions, energies, np.zeros_like(positions))


def same_partition(a, b):
    """Tell whether two labellings make the same clusters, whatever they are called."""
    pairs = set(zip(a.tolist(), b.tolist()))
    return len(pairs) == len(set(a.tolist())) == len(set(b.tolist()))


def brute_force_labels(name, descriptors, known, labels, others):
    clusters = [descriptors[known[labels == label]] for label in range(labels.max() + 1)]
    return [
        int(np.argmin([BRUTE_FORCE[name](members, descriptors[frame]) for members in clusters])) for frame in others
    ]


class Recorder:
    def __init__(self):
        self.tasks = {}

    @contextmanager
    def task(self, what, total):
        done = []
        yield done.append
        self.tasks[what] = (total, sum(done))


@pytest.fixture
def labelled(rng):
    """Descriptors, some of them in clusters, one of which is a single frame."""
    descriptors = pair_distances(molecule_frames(rng, n_frames=240, n_rare=40).positions)
    known = np.sort(rng.choice(240, 100, replace=False))
    labels = AgglomerativeClustering(4, linkage="ward").fit_predict(descriptors[known])
    labels[0] = 4
    return descriptors, known, labels, np.setdiff1d(np.arange(240), known)


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_assignment_is_that_of_loops_over_frames(name, labelled):
    found = assign(*labelled, rule=ASSIGNMENTS[name])
    expected = brute_force_labels(name, *labelled)
    assert len(set(expected)) >= 3
    np.testing.assert_array_equal(found, expected)


def test_the_rules_differ(labelled):
    found = [tuple(assign(*labelled, rule=rule)) for rule in ASSIGNMENTS.values()]
    assert len(set(found)) == 3


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_assignment_is_the_same_in_small_tiles(name, labelled, monkeypatch):
    whole = assign(*labelled, rule=ASSIGNMENTS[name])
    monkeypatch.setattr(assignment, "_TILE_BYTES", 4 * 3 * (100 + 15))
    recorder = Recorder()
    np.testing.assert_array_equal(assign(*labelled, rule=ASSIGNMENTS[name], progress=recorder), whole)
    assert recorder.tasks == {"assigning frames": (140, 140)}


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_assignment_is_right_where_single_precision_is_not(name, labelled):
    descriptors, known, labels, others = labelled
    # An atom that has flown away takes the digits of single precision from all frames.
    descriptors = np.vstack([descriptors, descriptors[:1] + 3e4])
    known, labels = np.append(known, len(descriptors) - 1), np.append(labels, 5)
    expected = brute_force_labels(name, descriptors, known, labels, others)
    found = assign(descriptors, known, labels, others, rule=ASSIGNMENTS[name])
    np.testing.assert_array_equal(found, expected)
    assert single_precision_labels(name, descriptors, known, labels, others) != expected


def single_precision_labels(name, descriptors, known, labels, others):
    centre = descriptors[known].mean(axis=0)
    shifted = (descriptors - centre).astype(np.float32)
    scores = np.empty((len(others), labels.max() + 1))
    for label in range(labels.max() + 1):
        members = shifted[known[labels == label]]
        n = len(members)
        if name == "ward":
            scores[:, label] = n / (n + 1) * squared_distances(shifted[others], members.mean(axis=0)[None])[:, 0]
        else:
            distances = np.sqrt(squared_distances(shifted[others], members))
            scores[:, label] = distances.max(axis=1) if name == "maximum" else distances.mean(axis=1)
    return np.argmin(scores, axis=1).tolist()


def test_geometric_clusters_are_those_of_scikit_learn_where_all_frames_fit(rng):
    dataset = molecule_frames(rng)
    found = cluster(dataset, rng=rng, n_energy=1)
    expected = AgglomerativeClustering(10, linkage="ward").fit_predict(pair_distances(dataset.positions))
    assert found.n_clusters == 10
    assert found.n_ward == 300
    assert same_partition(found.labels, expected)


@pytest.mark.parametrize("name", ASSIGNMENTS)
def test_a_subset_is_clustered_and_the_others_are_assigned(name, rng):
    descriptors = pair_distances(molecule_frames(rng).positions)
    found = fine_clusters(descriptors, 8, rng=np.random.default_rng(3), n_ward=90, assignment=name)
    known = np.sort(np.random.default_rng(3).choice(300, 90, replace=False))
    others = np.setdiff1d(np.arange(300), known)
    expected = np.empty(300, dtype=int)
    expected[known] = AgglomerativeClustering(8, linkage="ward").fit_predict(descriptors[known])
    expected[others] = brute_force_labels(name, descriptors, known, expected[known], others)
    assert same_partition(found, expected)


def test_clusters_are_split_by_energy_and_numbered_in_order(rng):
    dataset = molecule_frames(rng, n_frames=600)
    found = cluster(dataset, rng=rng)
    assert found.n_clusters == 50
    assert found.populations.sum() == 600
    populations = np.bincount(found.geometry)
    assert len(populations) == 10
    assert np.all(np.diff(populations) <= 0)
    for group in range(10):
        parts = np.unique(found.labels[found.geometry == group])
        np.testing.assert_array_equal(parts, np.arange(5 * group, 5 * group + 5))
        highest = [dataset.energies[found.members(part)].max() for part in parts]
        lowest = [dataset.energies[found.members(part)].min() for part in parts]
        assert np.all(np.array(highest[:-1]) < lowest[1:])  # intervals, in rising order


def test_clusters_do_not_see_how_a_molecule_lies(rng):
    dataset = molecule_frames(rng)
    turns = Rotation.random(300, random_state=1).as_matrix()
    moved = np.einsum("fij,faj->fai", turns, dataset.positions) + rng.normal(size=(300, 1, 3))
    other = Dataset(dataset.numbers, moved, dataset.energies, dataset.forces)
    for n_ward in (300, 100):
        first, second = (
            cluster(data, rng=np.random.default_rng(0), n_ward=n_ward, n_energy=2) for data in (dataset, other)
        )
        np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize("n_ward", [300, 120])
def test_a_seed_gives_the_same_labels_on_any_number_of_threads(n_ward, rng):
    dataset = molecule_frames(rng)
    found = []
    for threads in (1, 2, 2):
        with threadpool_limits(limits=threads):
            found.append(cluster(dataset, rng=np.random.default_rng(5), n_ward=n_ward).labels)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[1], found[2])


def test_kmeans_runs_on_one_thread_since_several_add_up_in_any_order(rng, monkeypatch):
    threads = []

    class Watched(clusters.KMeans):
        def fit(self, X):
            threads.extend(library["num_threads"] for library in threadpool_info())
            return super().fit(X)

    monkeypatch.setattr(clusters, "KMeans", Watched)
    with threadpool_limits(limits=2):
        cluster(molecule_frames(rng), rng=rng)
    assert set(threads) == {1}


def test_another_seed_takes_another_subset(rng):
    descriptors = pair_distances(molecule_frames(rng).positions)
    first, second = (fine_clusters(descriptors, 10, rng=np.random.default_rng(seed), n_ward=60) for seed in (0, 1))
    assert not same_partition(first, second)


@pytest.mark.parametrize("n_ward", [400, 200])
def test_a_rare_conformer_gets_a_cluster_of_its_own(n_ward):
    for seed in range(5):
        dataset = molecule_frames(np.random.default_rng(seed), n_frames=400, n_rare=N_RARE)
        found = cluster(dataset, rng=np.random.default_rng(seed), n_energy=1, n_ward=n_ward)
        assert found.n_clusters == 10
        label = found.labels[-1]
        np.testing.assert_array_equal(found.members(label), np.arange(400 - N_RARE, 400))
        assert np.all(np.delete(found.populations, label) > N_RARE)


def test_fine_clusters_come_by_falling_population(rng):
    descriptors = pair_distances(molecule_frames(rng).positions)
    labels = fine_clusters(descriptors, 40, rng=rng)
    populations = np.bincount(labels)
    assert len(populations) == 40
    assert np.all(np.diff(populations) <= 0)
    assert populations[0] > populations[-1]
    first = [np.flatnonzero(labels == label)[0] for label in range(40)]
    equal = np.flatnonzero(np.diff(populations) == 0)
    assert len(equal)
    assert all(first[label] < first[label + 1] for label in equal)


def test_representatives_are_the_members_nearest_to_their_mean(rng):
    dataset = molecule_frames(rng)
    found = cluster(dataset, rng=rng)
    descriptors = pair_distances(dataset.positions)
    before = descriptors.copy()
    frames = representatives(found, descriptors)
    np.testing.assert_array_equal(descriptors, before)
    assert frames.shape == (found.n_clusters,)
    for label, frame in enumerate(frames):
        members = found.members(label)
        away = np.linalg.norm(descriptors[members] - descriptors[members].mean(axis=0), axis=1)
        assert frame == members[np.argmin(away)]


def test_progress_is_told_of_every_stage_to_its_end(rng):
    recorder = Recorder()
    cluster(molecule_frames(rng), rng=rng, n_ward=100, progress=recorder)
    assert recorder.tasks == {
        "clustering by geometry": (1, 1),
        "assigning frames": (200, 200),
        "clustering by energy": (10, 10),
    }


def test_ward_takes_fewer_frames_where_memory_is_short(rng, monkeypatch, caplog):
    dataset = molecule_frames(rng)
    monkeypatch.setattr(clusters.psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * 100**2 / 0.7 + 8))
    found = cluster(dataset, rng=rng)
    assert found.n_ward == 100
    assert found.n_clusters == 50
    assert "limited to 100 frames" in caplog.text
    monkeypatch.setattr(clusters.psutil, "virtual_memory", lambda: SimpleNamespace(available=0))
    assert cluster(dataset, rng=rng).n_ward == 10


def test_nothing_is_warned_of_where_all_is_well(rng, caplog):
    with caplog.at_level(logging.DEBUG, "ase_flatten"):
        cluster(molecule_frames(rng, n_frames=600), rng=rng)
    assert [record.getMessage() for record in caplog.records] == ["600 frames in 50 clusters of 10 geometries"]


def test_one_frame_is_one_cluster(rng, caplog):
    dataset = molecule_frames(rng, n_frames=1)
    found = cluster(dataset, rng=rng)
    assert found.labels.tolist() == found.geometry.tolist() == [0]
    assert "1 frames are too few for 10 clusters" in caplog.text
    assert representatives(found, pair_distances(dataset.positions)).tolist() == [0]


@pytest.mark.parametrize("n_frames", [2, 7])
def test_fewer_frames_than_clusters_are_clusters_of_their_own(n_frames, rng, caplog):
    found = cluster(molecule_frames(rng, n_frames=n_frames), rng=rng)
    assert found.labels.tolist() == list(range(n_frames))
    assert f"{n_frames} frames are too few for 10 clusters" in caplog.text


def test_identical_frames_are_one_geometry(rng, caplog):
    dataset = molecule_frames(rng, n_frames=40)
    turns = Rotation.random(40, random_state=2).as_matrix()
    copies = np.einsum("fij,aj->fai", turns, dataset.positions[0])
    found = cluster(Dataset(dataset.numbers, copies, dataset.energies, dataset.forces), rng=rng)
    assert found.geometry.tolist() == [0] * 40
    assert found.n_clusters == 5
    assert "only 1 of 40 frames differ" in caplog.text


@pytest.mark.parametrize("n_ward", [60, 20])
def test_copies_of_three_frames_are_three_geometries(n_ward, rng, caplog):
    dataset = molecule_frames(rng, n_frames=60)
    positions = dataset.positions[np.arange(60) % 3]
    copies = Dataset(dataset.numbers, positions, dataset.energies, dataset.forces)
    found = cluster(copies, rng=rng, n_ward=n_ward)
    assert found.geometry.tolist() == [0, 1, 2] * 20
    assert "only 3 of" in caplog.text


def test_frames_that_differ_join_a_single_cluster_where_the_subset_is_of_copies(rng):
    descriptors = np.vstack([np.ones((30, 6)), rng.normal(1, 0.1, (2, 6))])
    only_copies = SimpleNamespace(choice=lambda n_frames, size, replace: np.arange(size))
    assert fine_clusters(descriptors, 5, rng=only_copies, n_ward=20).tolist() == [0] * 32


@pytest.mark.parametrize(
    ("energies", "n_expected"),
    [
        (np.zeros(50), 1),
        (np.full(50, -13_000.1), 1),
        (-13_000 + 0.5 * (np.arange(50) % 2), 2),
        (-13_000 + 0.5 * (np.arange(50) % 4), 4),
        (np.repeat([0.0, 1e-8, 2e-8, 3e-8, 1e6], 10), 2),  # KMeans cannot tell the low ones apart
    ],
)
def test_equal_energies_make_fewer_clusters_and_no_warning(energies, n_expected, rng):
    dataset = molecule_frames(rng, n_frames=50, energies=energies)
    found = cluster(dataset, rng=rng, n_geometry=1)
    assert found.n_clusters == n_expected
    means = [dataset.energies[found.members(label)].mean() for label in range(n_expected)]
    assert np.all(np.diff(means) > 0)


def test_fewer_energies_are_said(rng, caplog):
    dataset = molecule_frames(rng, n_frames=50, energies=0.5 * (np.arange(50) % 2))
    with caplog.at_level(logging.INFO):
        cluster(dataset, rng=rng, n_geometry=1)
    assert "50 frames and 2 different energies: split into 2 of 5 energy clusters" in caplog.text


def test_a_cluster_too_small_to_split_stays_whole(caplog):
    dataset = molecule_frames(np.random.default_rng(0), n_frames=300, n_rare=4)
    with caplog.at_level(logging.INFO):
        found = cluster(dataset, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(found.members(found.labels[-1]), [296, 297, 298, 299])
    assert "has 4 frames and 4 different energies: split into 1 of 5" in caplog.text


def test_energies_are_split_as_well_far_from_zero(rng):
    energies = np.repeat([0.0, 1e-4, 2e-4, 3e-4, 4e-4], 20)
    dataset = molecule_frames(rng, n_frames=100, energies=energies - 1e5)
    found = cluster(dataset, rng=rng, n_geometry=1)
    np.testing.assert_array_equal(found.labels, np.repeat(np.arange(5), 20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_geometry": 0}, "n_geometry must be at least 1, got 0"),
        ({"n_energy": 0}, "n_energy must be at least 1, got 0"),
        ({"n_ward": 9}, "n_ward must be at least n_geometry, which is 10, got 9"),
        ({"assignment": "averge"}, "assignment must be one of average, ward, maximum, got 'averge'"),
    ],
)
def test_wrong_options_of_cluster_are_refused(options, message, rng):
    with pytest.raises(InputError, match=message):
        cluster(molecule_frames(rng), rng=rng, **options)


@pytest.mark.parametrize(
    ("n_frames", "n_clusters", "options", "message"),
    [
        (30, 0, {}, "n_clusters must be at least 1, got 0"),
        (30, 20, {"n_ward": 10}, "n_ward must be at least n_clusters"),
        (30, 5, {"assignment": "mean"}, "one of average, ward, maximum, got 'mean'"),
        (0, 5, {}, "at least one frame"),
    ],
)
def test_wrong_options_of_fine_clusters_are_refused(n_frames, n_clusters, options, message, rng):
    with pytest.raises(InputError, match=message):
        fine_clusters(np.ones((n_frames, 6)), n_clusters, rng=rng, **options)


def test_a_clustering_is_read_only_and_keeps_no_hold_of_what_it_was_given():
    given = np.array([0, 1, 1, 2])
    held = Clustering(given)
    given[0] = 2
    assert held.labels.tolist() == held.geometry.tolist() == [0, 1, 1, 2]
    assert held.labels.dtype == np.int64
    assert (held.n_clusters, held.n_ward) == (3, 4)
    assert held.populations.tolist() == [1, 2, 1]
    assert held.members(1).tolist() == [1, 2]
    for array in (held.labels, held.geometry, held.populations):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        held.labels = given
    for wrong in (-1, 3):
        with pytest.raises(InputError, match="from 0 to 2"):
            held.members(wrong)


@pytest.mark.parametrize(
    "labels",
    [np.array([0, 2]), np.array([1, 2]), np.array([-1, 0, 1]), np.array([0.0, 1.0]), np.zeros((2, 2), int), []],
)
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(InputError, match="labels must be"):
        Clustering(labels)


def test_geometry_of_other_frames_is_refused():
    with pytest.raises(InputError, match="of 3 frames as labels, found 2"):
        Clustering(np.array([0, 1, 2]), np.array([0, 1]))


def test_as_many_clusters_as_leave_twenty_held_out_frames_to_each():
    assert n_clusters_for(1000) == n_clusters_for(2000) == n_clusters_for(10**6) == (10, 5)
    numbers = [n_clusters_for(n_heldout) for n_heldout in range(40, 1000)]
    each = [n_heldout / (geometry * energy) for n_heldout, (geometry, energy) in enumerate(numbers, 40)]
    assert min(each) >= 20 and max(each) < 40
    assert all(geometry >= 2 and 1 <= energy <= 5 for geometry, energy in numbers) and n_clusters_for(1) == (2, 1)
