"""No damaged file of a run folder brings a traceback, hangs, or fills the memory."""

import os
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from damage import damage

from ase_flatten import load_calculator
from ase_flatten.data.io import read_dataset
from ase_flatten.evaluation.claims import make_claims
from ase_flatten.models import model_folder
from ase_flatten.report import cluster_sections, error_sections, page
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow import run_folder
from ase_flatten.workflow.run_folder import Run
from ase_flatten.workflow.train_run import train

BEFORE = Path(__file__).parent / "before"
N_CASES = int(os.environ.get("ASE_FLATTEN_FUZZ", "100"))
"""Of the test here; `make fuzz` asks for more."""

MOST_SECONDS = 60
READ = ("*.json", "*.jsonl", "*.npz")


@pytest.fixture(scope="module")
def data():
    return read_dataset(BEFORE / "water.npz")


@pytest.fixture
def quick(monkeypatch):
    """Read all that is read, draw nothing, resample little, and look for families once."""
    picture = BEFORE / "protocol.toml"
    monkeypatch.setattr(run_folder, "make_claims", partial(make_claims, n_resamples=20))
    monkeypatch.setattr(model_folder, "family", cache(model_folder.family))
    for sections in (cluster_sections, error_sections):
        for name in filter(lambda name: name.startswith("plot_"), vars(sections).copy()):
            monkeypatch.setattr(sections, name, lambda *args, **options: [picture])
        monkeypatch.setattr(sections, "small_data_uri", lambda png: "")
    monkeypatch.setattr(cluster_sections, "structure_png", lambda atoms, **options: b"")


class TooSlowError(BaseException):
    """What no reader takes for an error of the file."""


def readers(folder: Path, data) -> list[Callable[[], object]]:
    """What a user may do with a run."""
    return [
        lambda: page.write_report(Run(folder)),
        lambda: load_calculator(folder).predict(data.positions[:2]),
        lambda: train(data, folder, Run(folder).settings, resume=True),
    ]


def complaints(folder: Path, data, seed: int) -> list[str]:
    """Damage one file by a seed, and use the run; return what should not have come of it."""
    rng = np.random.default_rng(seed)
    paths = sorted(path for pattern in READ for path in folder.rglob(pattern))
    path = paths[rng.integers(len(paths))]
    case = f"seed {seed}, {path.relative_to(folder)}: {damage(path, rng)}"
    found = []
    for number, use in enumerate(readers(folder, data)):
        signal.alarm(MOST_SECONDS)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                use()
        except InputError as error:
            if len(str(error)) > 1500 or not str(error).isprintable() or folder.name not in str(error):
                found.append(f"{case}, use {number}: {str(error)[:1500]!r}")
        except (Exception, TooSlowError) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            found.append(
                f"{case}, use {number}: {type(error).__name__} {str(error)[:200]} at {where.filename}:{where.lineno}"
            )
        finally:
            signal.alarm(0)
    return found


def test_a_damaged_file_is_understood_or_refused_in_a_sentence(data, tmp_path, quick):
    def too_slow(*_):
        raise TooSlowError(f"more than {MOST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_slow)
    try:
        found = []
        for seed in range(N_CASES):
            folder = Path(shutil.copytree(BEFORE / "run", tmp_path / "damaged"))
            found += complaints(folder, data, seed)
            shutil.rmtree(folder)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not found, "\n".join(found)
