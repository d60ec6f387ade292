"""What an installed package holds, without the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import ase_flatten
from ase_flatten.md.protocol import protocol_names

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_protocols_and_the_template(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    source = tmp_path / "source"
    source.mkdir()
    # A copy, so that nothing is built into the checkout.
    for name in ("ase_flatten", "md", "setup.cfg", "pyproject.toml", "README.rst", "LICENSE"):
        subprocess.run(["cp", "-a", str(ROOT / name), str(source)], check=True)
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    for protocol in protocol_names():
        assert f"ase_flatten/md/protocols/{protocol}.toml" in names
    assert {"ase_flatten/report/templates/report.html", "ase_flatten/py.typed", "ase_flatten/cli/app.py"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "examples", "benchmarks"))]


def test_the_version_is_written_once_more_in_setup_cfg():
    assert f"version = {ase_flatten.__version__}\n" in (ROOT / "setup.cfg").read_text()


def test_public_names_are_there():
    for name in ase_flatten.__all__:
        assert getattr(ase_flatten, name).__doc__
    assert set(dir(ase_flatten)) == set(ase_flatten.__all__)


def test_names_that_families_of_third_parties_import_are_where_they_were():
    from ase_flatten import dataset, exceptions
    from ase_flatten.data.dataset import formula
    from ase_flatten.utils.exceptions import InputError, nearest, not_installed

    assert dataset.Dataset is ase_flatten.Dataset and dataset.formula is formula
    assert {dataset.FloatArray, dataset.IntArray} == {NDArray[np.float64], NDArray[np.int64]}
    found = exceptions.InputError, exceptions.nearest, exceptions.not_installed
    assert found == (InputError, nearest, not_installed)


@pytest.mark.parametrize(("name", "warned"), [("nt", True), ("posix", False)])
def test_other_platforms_are_told_what_works(name, warned):
    code = f"import os; os.name = {name!r}; import ase_flatten"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ("use WSL" in done.stderr) is warned
