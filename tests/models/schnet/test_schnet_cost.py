"""Estimates of time, held against a real training."""

import time

import numpy as np
from conftest import needs

from ase_flatten.models import family

needs("schnetpack", extra="schnet")


def test_a_training_takes_about_as_long_as_estimated(ethanol_like):
    trainer = family("schnet").trainer(n_features=16, n_interactions=1, epochs=30)
    frames = np.arange(100)
    estimated = trainer.cost(ethanol_like, 100).seconds
    start = time.perf_counter()
    model = trainer.fit(ethanol_like, frames, frames + 100, rng=np.random.default_rng(0))
    assert model.hyper_parameters["gradient_steps"] == 500  # as many as were estimated
    assert 0.2 < (time.perf_counter() - start) / estimated < 5


def test_the_cost_grows_with_the_gradient_steps(ethanol_like):
    trainer = family("schnet").trainer(n_features=16, n_interactions=1, epochs=100)
    few, many = (trainer.cost(ethanol_like, n) for n in (100, 400))
    assert abs(many.seconds / few.seconds - 4) < 1e-9 and many.memory_bytes == few.memory_bytes
