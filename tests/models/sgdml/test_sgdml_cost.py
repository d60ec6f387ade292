"""Estimates of time and memory, held against real trainings."""

import time

import numpy as np

from ase_flatten.models import family
from ase_flatten.models.sgdml import cost
from ase_flatten.models.sgdml.factor import bytes_to_factorise


def test_a_training_takes_about_as_long_as_estimated(ethanol_like):
    """Within a factor that allows for a busy machine; on a quiet one it is below two."""
    trainer = family("sgdml").trainer(sigma=20, symmetries=False)
    frames = np.arange(150)
    estimated = min(trainer.cost(ethanol_like, 150).seconds for _ in range(2))
    start = time.perf_counter()
    trainer.fit(ethanol_like, frames, frames + 150, rng=np.random.default_rng(0))
    assert 0.2 < (time.perf_counter() - start) / estimated < 5


def test_the_factorisation_dominates_large_trainings(ethanol_like):
    trainer = family("sgdml").trainer(sigma=20, symmetries=False)
    small, large = (trainer.cost(ethanol_like, n) for n in (2000, 4000))
    assert 6 < large.seconds / small.seconds < 8.1
    assert large.memory_bytes > bytes_to_factorise(ethanol_like.n_atoms, 4000)


def test_the_search_for_the_length_scale_takes_trainings_of_its_own():
    fixed, searched = (family("sgdml").trainer(symmetries=False, **given) for given in ({"sigma": 20}, {}))
    assert fixed.trial_sizes(200) == []
    assert searched.trial_sizes(200) == [200] * 3  # and the model itself
    assert searched.trial_sizes(3000) == [300] * 4


def test_large_molecules_are_estimated_quickly():
    start = time.perf_counter()
    found = cost.training_cost(370, 100, matched_frames=1000)
    assert time.perf_counter() - start < 5
    assert found.seconds > 100 * cost.training_cost(20, 100, matched_frames=1000).seconds
