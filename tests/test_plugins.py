"""What other packages add to this one, and what this one adds to ASE."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ase_flatten import ase_plugin

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


@pytest.fixture(scope="module")
def with_plugin(tmp_path_factory):
    """Install the example package where only this module's processes see it."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")  # nothing is built into the checkout
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", folder / "site", folder / "source"], check=True, capture_output=True)

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(folder / "site")}
        return subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True)

    return run


def test_a_family_of_another_package_is_trained_and_used(with_plugin, water_file, tmp_path):
    train = ["-m", "ase_flatten.cli", "train", water_file, "--model", "ridge", "-n", 2, "-i", 10, "-s", 5]
    result = with_plugin(*train, "--set", "regularisation=1e-6", "--out", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert "step 2 of 2: 20 frames" in result.stdout and (tmp_path / "run" / "improved" / "ridge.npz").exists()
    use = f"import ase_flatten; calc = ase_flatten.load_calculator({str(tmp_path / 'run')!r}); print(calc.model)"
    assert "RidgeModel" in with_plugin("-c", use).stdout
    misspelt = with_plugin(*train, "--set", "regularization=1", "--out", tmp_path / "other")
    assert misspelt.returncode == 2 and "did you mean regularisation?" in misspelt.stderr


def test_the_example_passes_its_own_tests(with_plugin):
    result = with_plugin("-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE / "test_ridge.py")
    assert result.returncode == 0, result.stdout


def test_ase_lists_the_calculators():
    assert {plugin.name for plugin in ase_plugin.__ase_plugins__} >= {"FlattenedSGDML"}
    for plugin in ase_plugin.__ase_plugins__:
        assert plugin.implementation.__name__ == plugin.name
    command = [sys.executable, "-m", "ase", "info", "--plugins"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "ase_flatten" in listed and "FlattenedSGDML" in listed


def test_the_list_for_ase_imports_nothing_heavy():
    heavy = "('torch', 'sklearn', 'matplotlib', 'sgdml', 'tblite', 'typer')"
    code = f"import sys, ase_flatten.ase_plugin; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_another_version_of_ase_does_without_the_list():
    code = "import sys; sys.modules['ase._4.plugins.plugin'] = None; import ase_flatten.ase_plugin as p; "
    code += "print(p.__ase_plugins__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
