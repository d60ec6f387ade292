"""ASE calculators as models: in this process, and in processes of their own."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from ase_flatten.models.ase_model import ASEModel, ASEModelPool
from ase_flatten.models.reference_methods import reference_calculator
from ase_flatten.selection.cluster_errors import frame_errors
from ase_flatten.utils.exceptions import InputError

FACTORIES = """
import os
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT

class Weak(EMT):
    def calculate(self, *args):
        super().calculate(*args)
        if self.results["energy"] > {limit}:
            {act}

def factory():
    return Weak()
"""


def test_an_ase_calculator_is_a_model(ethanol_like):
    model = ASEModel(reference_calculator("tblite:GFN2-xTB"), ethanol_like.numbers)
    errors = frame_errors(model, ethanol_like, np.arange(3))
    assert errors.force_mse.max() < 1e-8 and np.abs(errors.energy).max() < 1e-4
    with pytest.raises(InputError, match="no model that could be saved"):
        model.save(Path())


@pytest.fixture
def emt():
    return partial(reference_calculator, "ase:ase.calculators.emt:EMT")


@pytest.fixture
def weak(ethanol_like, emt, tmp_path, monkeypatch):
    """Make a calculator that does something bad on the configurations highest in energy."""

    def make(name, act):
        energies = ASEModel(emt(), ethanol_like.numbers).predict(ethanol_like.positions).energies
        (tmp_path / f"{name}.py").write_text(FACTORIES.format(limit=np.quantile(energies, 0.9), act=act))
        monkeypatch.syspath_prepend(tmp_path)
        return partial(reference_calculator, f"ase:{name}:factory")

    return make


def test_processes_give_what_one_gives_and_leave_nothing_behind(ethanol_like, emt):
    before = {child.pid for child in psutil.Process().children()}
    with ASEModelPool(emt, ethanol_like.numbers, name="emt", n_workers=2) as pool:
        several = [pool.predict(ethanol_like.positions[frames]) for frames in (slice(0, 60), slice(60, 61))]
        workers = {child.pid for child in multiprocessing.active_children()}
        assert len(workers) == 2
    one = ASEModel(emt(), ethanol_like.numbers).predict(ethanol_like.positions[:61])
    for name in ("energies", "forces"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in several]), getattr(one, name))
    left = {child.pid for child in psutil.Process().children()} - before
    assert not left & workers


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_calculator_that_fails_ends_in_a_sentence(ethanol_like, weak, n_workers):
    make = weak(f"failing{n_workers}", "raise CalculationFailed('no convergence')")
    expected = pytest.raises(InputError, match="weak failed on a configuration of these data: no convergence")
    if not n_workers:
        with expected:
            ASEModel(make(), ethanol_like.numbers, name="weak").predict(ethanol_like.positions)
        return
    with ASEModelPool(make, ethanol_like.numbers, name="weak", n_workers=n_workers) as pool, expected:
        pool.predict(ethanol_like.positions)
    assert not multiprocessing.active_children()


def test_a_process_that_dies_ends_in_a_sentence(ethanol_like, weak):
    make = weak("dying", "os._exit(9)")
    with (
        ASEModelPool(make, ethanol_like.numbers, name="weak", n_workers=2) as pool,
        pytest.raises(InputError, match="a process with weak ended"),
    ):
        pool.predict(ethanol_like.positions)


def test_a_wrong_name_is_told_before_any_process_begins(ethanol_like):
    make = partial(reference_calculator, "ase:ase.calculators.emt:NoEMT")
    with pytest.raises(InputError, match="could not call it"):
        ASEModelPool(make, ethanol_like.numbers, name="none", n_workers=2)


ENDLESS = """
import sys
import numpy as np
from functools import partial
from ase_flatten.models.external import ASEModelPool
from ase_flatten.reference import reference_calculator
if __name__ == "__main__":
    positions = np.random.default_rng(0).normal(scale=3, size=(8, 3, 3))
    make = partial(reference_calculator, "ase:ase.calculators.emt:EMT")
    with ASEModelPool(make, np.array([8, 1, 1]), name="emt", n_workers=2) as pool:
        pool.predict(positions)
        print("going", flush=True)
        while True:
            pool.predict(positions)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_processes_end_with_the_one_that_asks(tmp_path, how):
    (tmp_path / "endless.py").write_text(ENDLESS)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "endless.py")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None and process.stdout.readline() == b"going\n"
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    os.kill(process.pid, how)
    process.wait(timeout=30)
    process.stdout.close()
    deadline = time.monotonic() + 15
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.1)
