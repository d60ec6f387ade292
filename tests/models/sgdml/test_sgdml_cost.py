"""Estimates of time and memory, held against real trainings."""

import time

import numpy as np
import pytest

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


def test_the_search_for_the_length_scale_is_counted(ethanol_like):
    fixed, searched = (family("sgdml").trainer(symmetries=False, **given) for given in ({"sigma": 20}, {}))
    assert searched.cost(ethanol_like, 200).seconds == pytest.approx(4 * fixed.cost(ethanol_like, 200).seconds)
    large = [trainer.cost(ethanol_like, 3000).seconds for trainer in (searched, fixed)]
    assert 1 < large[0] / large[1] < 1.1


def test_large_molecules_are_estimated_quickly():
    start = time.perf_counter()
    found = cost.training_cost(370, 100, searched_frames=300, matched_frames=1000)
    assert time.perf_counter() - start < 5
    assert found.seconds > 100 * cost.training_cost(20, 100, searched_frames=300, matched_frames=1000).seconds
