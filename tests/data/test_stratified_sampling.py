import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ase_flatten.data.stratified_sampling import energy_bins, proportional_counts, stratified_sample
from ase_flatten.utils.exceptions import InputError


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20), st.floats(0, 1))
def test_counts_add_up_and_respect_what_is_there(populations, share):
    populations = np.array(populations)
    total = int(share * populations.sum())
    counts = proportional_counts(populations, total)
    assert counts.sum() == total
    assert np.all((counts >= 0) & (counts <= populations))
    if total >= np.sum(populations > 0):
        assert np.all(counts[populations > 0] >= 1)


def test_counts_are_proportional():
    assert proportional_counts(np.array([100, 300, 600]), 10).tolist() == [1, 3, 6]


def test_more_than_there_are_is_refused():
    with pytest.raises(InputError, match=r"8 frames were asked for, but only 5 are available"):
        proportional_counts(np.array([2, 3]), 8)


def test_a_sample_keeps_the_distribution_and_draws_nothing_twice(rng):
    labels = rng.choice(4, size=2000, p=[0.5, 0.3, 0.15, 0.05])
    drawn = stratified_sample(labels, 200, rng=rng)
    assert len(np.unique(drawn)) == 200
    assert np.abs(np.bincount(labels[drawn]) / 200 - np.bincount(labels) / 2000).max() < 0.01


def test_energy_bins_reach_the_tails(rng):
    energies = np.concatenate([rng.normal(size=5000), [9.0]])
    sampled = [
        5000 in stratified_sample(energy_bins(energies, 100), 100, rng=np.random.default_rng(seed)) for seed in range(5)
    ]
    assert all(sampled)  # alone in its bin; one draw in fifty would find it by chance
    assert energy_bins(np.ones(10), 5).max() == energy_bins(np.ones(10), 5).min()
