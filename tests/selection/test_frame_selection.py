from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ase_flatten.clustering.clusters import Clustering, fine_clusters
from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.selection.cluster_errors import FrameErrors, by_cluster
from ase_flatten.selection.frame_selection import SelectionRule, bad_clusters, candidates_of, select
from ase_flatten.utils.exceptions import InputError

N = 400


@pytest.fixture
def scene(rng):
    """Four broad clusters, the last one bad; descriptors in as many clouds."""
    labels = np.repeat(np.arange(4), N // 4)
    descriptors = rng.normal(size=(N, 6)) + 20 * labels[:, None]
    mse = rng.uniform(0.5, 1.0, size=N)
    mse[labels == 3] *= 9
    errors = FrameErrors(np.arange(N), mse, np.sqrt(mse), np.zeros(N))
    return errors, Clustering(labels), descriptors


def candidates_in(scene, n_added, factor=1.1, *, train_frames=()):
    errors, clustering, descriptors = scene
    train_frames = np.asarray(train_frames, dtype=np.int64)
    keep = ~np.isin(errors.frames, train_frames)
    errors = FrameErrors(*(getattr(errors, name)[keep] for name in ("frames", "force_mse", "force_mae", "energy")))
    available = np.bincount(clustering.labels[errors.frames], minlength=clustering.n_clusters)
    bad = bad_clusters(by_cluster(errors, clustering), available, n_added, factor)
    data = PreparedData(SimpleNamespace(pair_distances=descriptors), clustering, None)
    return candidates_of(errors, bad, data, train_frames)


def choose(scene, n_added, rule=None, *, train_frames=(), rng):
    rule = rule or SelectionRule()
    return select(
        candidates_in(scene, n_added, rule.factor, train_frames=train_frames), n_added, rule.selector, rng=rng
    )


def fine_labels(scene, n_added, n_fine):
    """The candidates and their fine clusters, as a selector with a generator of seed 7 sees them."""
    candidates = candidates_in(scene, n_added)
    labels = fine_clusters(candidates.descriptors, n_fine, rng=np.random.default_rng(7))
    return candidates.frames, labels, dict(zip(candidates.frames.tolist(), labels.tolist(), strict=True))


def test_frames_come_from_the_bad_cluster_one_from_each_fine_cluster_of_the_worse_half(scene):
    errors, clustering, _ = scene
    chosen = choose(scene, 20, rng=np.random.default_rng(7))
    frames, labels, fine = fine_labels(scene, 20, 40)
    assert np.all(clustering.labels[chosen] == 3) and np.array_equal(frames, clustering.members(3))
    mine = [fine[frame] for frame in chosen.tolist()]
    assert len(set(mine)) == 20
    rmse = np.array([np.mean(errors.force_mse[frames[labels == label]]) for label in range(40)])
    assert mine == np.argsort(-rmse)[:20].tolist()
    for frame, label in zip(chosen, mine, strict=True):
        members = frames[labels == label]
        assert errors.force_mse[frame] == errors.force_mse[members].max()


def test_centroids_are_the_frames_nearest_the_middle(scene):
    _, _, descriptors = scene
    chosen = choose(scene, 20, SelectionRule(pick="centroid"), rng=np.random.default_rng(7))
    frames, labels, fine = fine_labels(scene, 20, 40)
    for frame in chosen.tolist():
        members = frames[labels == fine[frame]]
        distances = np.linalg.norm(descriptors[members] - descriptors[members].mean(axis=0), axis=1)
        assert frame in members[np.isclose(distances, distances.min())]


def test_random_picks_depend_on_the_seed_and_on_nothing_else(scene):
    rule = SelectionRule(pick="random")
    one, again, other = (choose(scene, 10, rule, rng=np.random.default_rng(seed)).tolist() for seed in (0, 0, 1))
    assert one == again != other


def test_shares_by_population_weight_the_fine_clusters(scene):
    frames = choose(scene, 30, SelectionRule(share="population", n_fine=8), rng=np.random.default_rng(7))
    _, labels, fine = fine_labels(scene, 30, 8)
    taken = np.bincount([fine[frame] for frame in frames.tolist()], minlength=8)
    populations = np.bincount(labels)
    assert np.count_nonzero(taken) == 4 and taken.sum() == 30
    chosen = np.flatnonzero(taken)
    expected = 30 * populations[chosen] / populations[chosen].sum()
    assert np.all(np.abs(taken[chosen] - expected) <= 1)


@pytest.mark.parametrize("name", ["largest-error", "farthest-point"])
def test_near_identical_frames_are_not_both_chosen(scene, rng, name):
    errors, clustering, descriptors = scene
    descriptors[-50:] = descriptors[-1] + rng.normal(scale=1e-4, size=(50, 6))
    rule = SelectionRule(select=name)
    frames = choose((errors, clustering, descriptors), 20, rule, rng=rng)
    assert np.sum(frames >= N - 50) <= 1
    frames = choose((errors, clustering, descriptors), 20, rule, train_frames=[N - 1], rng=rng)
    assert not np.any(frames >= N - 50)


def test_a_flat_error_takes_the_next_worst_clusters(scene, rng, caplog):
    errors, clustering, descriptors = scene
    flat = replace(errors, force_mse=np.full(N, 1.0) + 1e-3 * clustering.labels)
    with caplog.at_level("INFO"):
        frames = choose((flat, clustering, descriptors), 20, rng=rng)
    assert np.all(clustering.labels[frames] == 3) and len(frames) == 20
    assert "next worst" in caplog.text


@pytest.mark.parametrize("name", ["largest-error", "farthest-point"])
def test_too_few_different_frames_are_refused(scene, rng, name):
    errors, clustering, descriptors = scene
    copies = errors, clustering, np.zeros_like(descriptors) + 50 * clustering.labels[:, None]
    with pytest.raises(InputError, match="only 3 different ones are left"):
        choose(copies, 150, SelectionRule(select=name), rng=rng)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"pick": "best"}, "pick must be one of largest-error"),
        ({"share": "two"}, "share must be one of one, population"),
        ({"factor": 0}, "must be positive"),
        ({"n_fine": 0}, "at least 1"),
    ],
)
def test_senseless_rules_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        SelectionRule(**setting)


def test_the_next_frame_of_its_fine_cluster_takes_the_place_of_a_contradicted_one(scene):
    asked = []

    def contradicted(frames):
        asked.append(frames)
        return frames % 3 == 0

    candidates, selector = candidates_in(scene, 20), SelectionRule().selector
    before = select(candidates, 20, selector, rng=np.random.default_rng(7))
    after = select(candidates, 20, selector, rng=np.random.default_rng(7), contradicted=contradicted)
    assert len(after) == 20 and not np.any(after % 3 == 0)
    assert np.isin(before[before % 3 != 0], after).all()
    judged = np.concatenate(asked)
    assert len(set(judged.tolist())) == len(judged)
    _, _, fine = fine_labels(scene, 20, 40)
    populated = {label for label in fine.values() if sum(fine[f] == label and f % 3 for f in fine) > 0}
    wanted = {fine[frame] for frame in before.tolist()} & populated
    assert wanted <= {fine[frame] for frame in after.tolist()}
