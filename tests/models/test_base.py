"""What trainers inherit, and what becomes of those that do not."""

import numpy as np
import pytest

from ase_flatten.models import Trainer, Workplace
from ase_flatten.models.sgdml.trainer import SGDMLFamily, SGDMLTrainer
from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils.progress import SILENT
from ase_flatten.workflow import plan, train_run
from ase_flatten.workflow.run_folder import RunSettings


class Minimal(Trainer):
    def fit(self, dataset, frames, valid, *, rng, previous=None):
        return frames


def test_a_trainer_need_only_fit(water):
    trainer = Minimal()
    pool = np.arange(100, 200)
    frames = trainer.default_frames(water, pool, 30, rng=np.random.default_rng(0))
    assert np.array_equal(frames, np.random.default_rng(0).choice(pool, 30, replace=False))
    models = trainer.settle(water, [(frames, "one"), (frames, "two")], pool, rng=np.random.default_rng(0))
    assert models == ["one", "two"] and not trainer.trains_long
    with pytest.raises(TypeError, match="fit"):
        Trainer()


def test_a_workplace_is_no_setting(tmp_path):
    trainer = SGDMLTrainer(sigma=10)
    within = trainer.within(Workplace(tmp_path, SILENT))
    assert within == trainer and within.workplace.folder == tmp_path
    assert trainer.workplace.folder is None
    assert SGDMLFamily().settings(within) == {"sigma": 10, "regularisation": 1e-10, "symmetries": "graph"}


class WithoutBase:
    """A trainer as plugins had them before there was a base class."""

    def __init__(self, trainer):
        self.default_frames, self.fit, self.settle = trainer.default_frames, trainer.fit, trainer.settle


class FormerFamily(SGDMLFamily):
    def trainer(self, **settings):
        return WithoutBase(super().trainer(**settings))

    def settings(self, trainer):
        return {}


def test_a_trainer_without_the_base_class_is_used(water, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "family", lambda name: FormerFamily())
    settings = RunSettings(
        trainer={"sigma": 10}, schedule=Schedule(n_steps=0, n_initial=10, step_size=5), n_geometry=4, n_energy=3,
        quarantine="off",
    )  # fmt: skip
    run = train_run.train(water, tmp_path / "run", settings)
    assert len(run.evaluation.default_draws) == plan.N_DEFAULT_DRAWS - 1
