from dataclasses import replace

import numpy as np
import pytest

from ase_flatten.clustering.clusters import Clustering
from ase_flatten.selection.cluster_errors import FrameErrors, by_cluster
from ase_flatten.selection.frame_selection import SelectionRule, bad_clusters, select
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


def choose(scene, n_added, rule=None, *, train_frames=(), rng):
    errors, clustering, descriptors = scene
    train_frames = np.asarray(train_frames, dtype=np.int64)
    keep = ~np.isin(errors.frames, train_frames)
    errors = FrameErrors(*(getattr(errors, name)[keep] for name in ("frames", "force_mse", "force_mae", "energy")))
    rule = rule or SelectionRule()
    available = np.bincount(clustering.labels[errors.frames], minlength=clustering.n_clusters)
    bad = bad_clusters(by_cluster(errors, clustering), available, n_added, rule.factor)
    return select(errors, bad, clustering, descriptors, train_frames, n_added, rule, rng=rng)


def test_frames_come_from_the_bad_cluster_one_from_each_fine_cluster_of_the_worse_half(scene, rng):
    errors, clustering, _ = scene
    selection = choose(scene, 20, rng=rng)
    assert selection.bad_clusters.tolist() == [3]
    assert np.all(clustering.labels[selection.frames] == 3)
    assert selection.fine_labels.max() + 1 == 40
    fine = dict(zip(selection.candidates.tolist(), selection.fine_labels.tolist(), strict=True))
    mine = [fine[frame] for frame in selection.frames.tolist()]
    assert len(set(mine)) == 20
    rmse = np.array([np.mean(errors.force_mse[selection.candidates[selection.fine_labels == f]]) for f in range(40)])
    assert set(mine) == set(np.argsort(-rmse)[:20].tolist())
    for frame, label in zip(selection.frames, mine, strict=True):
        members = selection.candidates[selection.fine_labels == label]
        assert errors.force_mse[frame] == errors.force_mse[members].max()


def test_centroids_are_the_frames_nearest_the_middle(scene, rng):
    _, _, descriptors = scene
    selection = choose(scene, 20, SelectionRule(pick="centroid"), rng=rng)
    fine = dict(zip(selection.candidates.tolist(), selection.fine_labels.tolist(), strict=True))
    for frame in selection.frames.tolist():
        members = selection.candidates[selection.fine_labels == fine[frame]]
        distances = np.linalg.norm(descriptors[members] - descriptors[members].mean(axis=0), axis=1)
        assert frame in members[np.isclose(distances, distances.min())]


def test_random_picks_depend_on_the_seed_and_on_nothing_else(scene):
    rule = SelectionRule(pick="random")
    one, again, other = (choose(scene, 10, rule, rng=np.random.default_rng(seed)).frames.tolist() for seed in (0, 0, 1))
    assert one == again != other


def test_shares_by_population_weight_the_fine_clusters(scene, rng):
    selection = choose(scene, 30, SelectionRule(share="population", n_fine=8), rng=rng)
    fine = dict(zip(selection.candidates.tolist(), selection.fine_labels.tolist(), strict=True))
    taken = np.bincount([fine[frame] for frame in selection.frames.tolist()], minlength=8)
    populations = np.bincount(selection.fine_labels)
    assert np.count_nonzero(taken) == 4 and taken.sum() == 30
    chosen = np.flatnonzero(taken)
    expected = 30 * populations[chosen] / populations[chosen].sum()
    assert np.all(np.abs(taken[chosen] - expected) <= 1)


def test_near_identical_frames_are_not_both_chosen(scene, rng):
    errors, clustering, descriptors = scene
    descriptors[-50:] = descriptors[-1] + rng.normal(scale=1e-4, size=(50, 6))
    selection = choose((errors, clustering, descriptors), 20, rng=rng)
    assert np.sum(selection.frames >= N - 50) <= 1
    selection = choose((errors, clustering, descriptors), 20, train_frames=[N - 1], rng=rng)
    assert not np.any(selection.frames >= N - 50)


def test_a_flat_error_takes_the_next_worst_clusters(scene, rng, caplog):
    errors, clustering, descriptors = scene
    flat = replace(errors, force_mse=np.full(N, 1.0) + 1e-3 * clustering.labels)
    with caplog.at_level("INFO"):
        selection = choose((flat, clustering, descriptors), 20, rng=rng)
    assert selection.bad_clusters.tolist() == [3] and len(selection.frames) == 20
    assert "next worst" in caplog.text


def test_too_few_different_frames_are_refused(scene, rng):
    errors, clustering, descriptors = scene
    with pytest.raises(InputError, match="only 3 different ones are left"):
        choose((errors, clustering, np.zeros_like(descriptors) + 50 * clustering.labels[:, None]), 150, rng=rng)


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


def test_the_next_frame_of_its_fine_cluster_takes_the_place_of_a_contradicted_one(scene, rng):
    errors, clustering, descriptors = scene
    asked = []

    def contradicted(frames):
        asked.append(frames)
        return frames % 3 == 0

    seed = np.random.default_rng(1), np.random.default_rng(1)
    before = choose(scene, 20, rng=seed[0])
    bad = bad_clusters(by_cluster(errors, clustering), clustering.populations, 20, SelectionRule().factor)
    after = select(
        errors, bad, clustering, descriptors, np.empty(0, dtype=int), 20, SelectionRule(),
        rng=seed[1], contradicted=contradicted,
    )  # fmt: skip
    assert len(after.frames) == 20 and not np.any(after.frames % 3 == 0)
    assert np.isin(before.frames[before.frames % 3 != 0], after.frames).all()
    judged = np.concatenate(asked)
    assert len(set(judged.tolist())) == len(judged)
    fine = dict(zip(after.candidates.tolist(), after.fine_labels.tolist(), strict=True))
    populated = {label for label in fine.values() if sum(fine[f] == label and f % 3 for f in fine) > 0}
    wanted = {fine[frame] for frame in before.frames.tolist()} & populated
    assert wanted <= {fine[frame] for frame in after.frames.tolist()}
