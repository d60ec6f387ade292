"""The search for the length scale reports its progress, and can be interrupted between two length scales."""

from contextlib import contextmanager

import numpy as np
import pytest

from ase_flatten.models import Workplace
from ase_flatten.models.model_folder import load_model
from ase_flatten.models.sgdml import FAMILY, LENGTH_SCALES
from ase_flatten.selection.flattening import Schedule
from ase_flatten.workflow.run_folder import RunSettings
from ase_flatten.workflow.train_run import train


class Recorded:
    """Record the length scales that were reported; act as Ctrl-C after so many of them."""

    def __init__(self, stop_after=None):
        self.stop_after, self.totals, self.done = stop_after, [], 0

    @contextmanager
    def task(self, what, total):
        def advance(more):
            if what.startswith("comparing length scales"):
                self.done += more
                if self.done == self.stop_after:
                    raise KeyboardInterrupt

        if what.startswith("comparing length scales"):
            self.totals.append(total)
        yield advance


def test_each_length_scale_is_reported(water):
    progress = Recorded()
    trainer = FAMILY.trainer().within(Workplace(progress=progress))
    sets, valid = [np.arange(0, 416, 14), np.arange(1, 416, 14)], np.arange(5, 416, 9)
    model = trainer.fit(water, sets[0], valid, rng=np.random.default_rng(0))
    places = abs(LENGTH_SCALES.index(int(model.sigma)) - LENGTH_SCALES.index(20))
    assert progress.done == 3 + places and progress.totals == [9]
    alike = [trainer.fit(water, frames, valid, rng=np.random.default_rng(0), previous=model) for frames in sets]
    trainer.settle(water, list(zip(sets, alike, strict=True)), valid, rng=np.random.default_rng(0))
    assert progress.done >= 3 + places + 3 and len(progress.totals) == 2


def test_a_run_stopped_during_the_search_resumes_to_the_same_model(water, tmp_path):
    settings = RunSettings(
        schedule=Schedule(n_steps=0, n_initial=15, step_size=5), n_geometry=4, n_energy=3, default_draws=1,
        quarantine="off",
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        train(water, tmp_path / "broken", settings, progress=Recorded(stop_after=2))
    assert not (tmp_path / "broken" / "steps").exists()
    whole = train(water, tmp_path / "whole", settings)
    broken = train(water, tmp_path / "broken", settings, resume=True)
    one, other = (load_model(run.folder / "improved").model.content for run in (whole, broken))
    assert one["sig"] == other["sig"] and np.array_equal(one["alphas_F"], other["alphas_F"])
