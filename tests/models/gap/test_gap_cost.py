"""The empirical formula, at the trainings that it was fitted to."""

import numpy as np
import pytest

from ase_flatten.models.gap.cost import fit_bytes, fit_cost
from ase_flatten.models.gap.trainer import PRESETS, GAPTrainer

SETTINGS = {name: vars(GAPTrainer(**preset)) for name, preset in PRESETS.items()}


@pytest.mark.parametrize(("preset", "n_frames", "seconds"), [("small", 100, 3.7), ("paper", 40, 9.7)])
def test_measured_times_are_met(ethanol_like, preset, n_frames, seconds):
    """Seconds that `gap_fit` took for ethanol on one core."""
    assert 0.5 < fit_cost(ethanol_like, n_frames, SETTINGS[preset]).seconds / seconds < 2


def test_memory_is_that_of_the_check_before_a_fit(ethanol_like):
    frames = np.arange(100)
    expected = fit_bytes(ethanol_like, frames, SETTINGS["paper"])
    assert fit_cost(ethanol_like, 100, SETTINGS["paper"]).memory_bytes == pytest.approx(expected, rel=0.15)


def test_few_frames_have_fewer_atoms_than_sparse_points(ethanol_like):
    costs = [fit_cost(ethanol_like, 10, SETTINGS["paper"] | {"n_sparse": n}).seconds for n in (400, 800)]
    assert costs[0] == costs[1]
