"""The search for the length scale reports its progress, and can be interrupted between two length scales."""

import logging
from contextlib import contextmanager

import numpy as np
import pytest

from ase_flatten.data.units import output_units
from ase_flatten.models import Workplace
from ase_flatten.models.model_folder import load_model
from ase_flatten.models.sgdml import FAMILY, LENGTH_SCALES
from ase_flatten.models.sgdml.single_training import SingleTraining
from ase_flatten.selection.flattening import Schedule
from ase_flatten.workflow.run_folder import RunSettings
from ase_flatten.workflow.train_run import train


class Recorded:
    """Record the length scales that were reported; act as Ctrl-C after so many of them."""

    def __init__(self, stop_after=None):
        self.stop_after, self.totals, self.done, self.pairs = stop_after, [], 0, []

    @contextmanager
    def task(self, what, total):
        def advance(more, *, total=None):
            if what.startswith("kernel matrix"):
                self.pairs[-1][1] += more
            elif total is not None:
                self.totals[-1].append(total)
            if what.startswith("comparing length scales"):
                self.done += more
                if self.done == self.stop_after:
                    raise KeyboardInterrupt

        if what.startswith("kernel matrix"):
            self.pairs.append([total, 0])
        elif what.startswith("comparing length scales"):
            self.totals.append([total])
        yield advance


def test_each_length_scale_is_reported(water):
    progress = Recorded()
    trainer = FAMILY.trainer().within(Workplace(progress=progress))
    sets, valid = [np.arange(0, 416, 14), np.arange(1, 416, 14)], np.arange(5, 416, 9)
    model = trainer.fit(water, sets[0], valid, rng=np.random.default_rng(0))
    places = abs(LENGTH_SCALES.index(int(model.sigma)) - LENGTH_SCALES.index(20))
    assert progress.done == 3 + places and progress.totals == [[3, *range(3, 4 + places)]]
    alike = [trainer.fit(water, frames, valid, rng=np.random.default_rng(0), previous=model) for frames in sets]
    trainer.settle(water, list(zip(sets, alike, strict=True)), valid, rng=np.random.default_rng(0))
    assert progress.done >= 3 + places + 3 and len(progress.totals) == 2
    assert all(total == done for total, done in progress.pairs) and progress.pairs[0][0] == 30**2


def test_ctrl_c_stops_within_a_kernel_matrix(ethanol_like):
    """Also where the matrix is a single block row, long before it is done."""

    class Stopped:
        @contextmanager
        def task(self, what, total):
            def advance(done, *, total=None):
                assert done == 0, "the block row was finished"
                raise KeyboardInterrupt

            yield advance

    frames = np.arange(60)
    task = SingleTraining(ethanol_like, frames, frames[:0], np.arange(9)[None], 10, 1e-10, Stopped())
    with pytest.raises(KeyboardInterrupt):
        task.train()


def test_length_scales_are_told_in_the_units_that_were_asked_for(water, caplog):
    trainer, told = FAMILY.trainer(), []
    for name in ("eV", "kcal/mol"):
        caplog.clear()
        with caplog.at_level(logging.INFO, "ase_flatten"):
            trainer.within(Workplace(units=output_units(name))).fit(
                water, np.arange(0, 416, 14), np.arange(1, 416, 14), rng=np.random.default_rng(0)
            )
        told.append(caplog.records[0].getMessage().split("frames ")[1].split(maxsplit=1))
    (small, one), (large, other) = told
    assert (one, other) == ("eV/Å", "kcal/(mol Å)") and float(large) == pytest.approx(23.06 * float(small), rel=0.02)


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
