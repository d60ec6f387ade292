"""ASE calculators as models: in this process, and through an executor."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ase_flatten.models.ase_model import ASEModel
from ase_flatten.models.reference_methods import factory_calculator
from ase_flatten.models.resolver import resolve
from ase_flatten.selection.cluster_errors import frame_errors
from ase_flatten.utils.exceptions import BackendError, InputError
from ase_flatten.utils.parallel import LocalExecutor

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

EMT = "ase:ase.calculators.emt:EMT"


@pytest.fixture(scope="module")
def processes():
    with LocalExecutor(2) as executor:
        yield executor


def test_an_ase_calculator_is_a_model(ethanol_like):
    model = resolve("tblite:GFN2-xTB").model(ethanol_like.numbers)
    errors = frame_errors(model, ethanol_like, np.arange(3))
    assert errors.force_mse.max() < 1e-8 and np.abs(errors.energy).max() < 1e-4
    assert model.predict(ethanol_like.positions[:0]).forces.shape == (0, 9, 3)
    with pytest.raises(InputError, match="cannot be saved as a model"):
        model.save(Path())


@pytest.mark.parametrize("spec", [EMT, "tblite:GFN2-xTB"])
def test_predictions_do_not_depend_on_who_computes_them(ethanol_like, processes, spec):
    positions = ethanol_like.positions[:: 1 if spec == EMT else 10]
    here = resolve(spec).model(ethanol_like.numbers).predict(positions)
    with ThreadPoolExecutor(2) as threads:
        for executor in (processes, *([threads] if spec == EMT else [])):
            there = resolve(spec).model(ethanol_like.numbers, executor=executor).predict(positions)
            assert np.array_equal(there.energies, here.energies) and np.array_equal(there.forces, here.forces)


@pytest.fixture
def weak(ethanol_like, tmp_path, monkeypatch):
    """Name a calculator that does something bad on the configurations highest in energy."""

    def make(name, act):
        energies = resolve(EMT).model(ethanol_like.numbers).predict(ethanol_like.positions).energies
        (tmp_path / f"{name}.py").write_text(FACTORIES.format(limit=np.quantile(energies, 0.9), act=act))
        monkeypatch.syspath_prepend(tmp_path)
        return partial(factory_calculator, f"{name}:factory")

    return make


def test_a_calculator_that_fails_ends_in_a_sentence(ethanol_like, weak):
    make = weak("failing", "raise CalculationFailed('no convergence')")
    with LocalExecutor(1) as executor:
        for model in (
            ASEModel(make, ethanol_like.numbers, name="weak"),
            ASEModel(make, ethanol_like.numbers, name="weak", executor=executor),
        ):
            with pytest.raises(BackendError, match="weak failed on a configuration of these data: no convergence"):
                model.predict(ethanol_like.positions)


def test_a_process_that_dies_ends_in_a_sentence(ethanol_like, weak):
    make = weak("dying", f"os.getpid() != {os.getpid()} and os._exit(9)")
    with LocalExecutor(1) as executor:
        model = ASEModel(make, ethanol_like.numbers, name="weak", executor=executor)
        with pytest.raises(BackendError, match=r"a process with weak ended .*try --workers 1"):
            model.predict(ethanol_like.positions)


def test_a_wrong_name_is_told_before_any_process_begins(ethanol_like, processes):
    with pytest.raises(InputError, match="could not call it"):
        resolve("ase:ase.calculators.emt:NoEMT").model(ethanol_like.numbers, executor=processes)
