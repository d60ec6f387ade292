"""Type checkers see the public names as they are."""

import ast
from pathlib import Path

import pytest

import ase_flatten
import ase_flatten.md

mypy = pytest.importorskip("mypy.api")

USER = """\
from ase_flatten import Clustering, Dataset, FlattenedSGDML, cluster, flatten, load_calculator, read_dataset
from ase_flatten.md import Protocol, run_md, verdict

dataset = read_dataset("data.npz")
reveal_type(dataset)
cluster(nonsense=3)
reveal_type(load_calculator("runs/demo"))
FlattenedSGDML()
labels: int = Clustering.labels
flatten(dataset)
run_md(nonsense=3)
Protocol().temperature
from ase_flatten import nonsense
"""

EXPECTED = {
    5: 'Revealed type is "ase_flatten.data.dataset.Dataset"',
    6: 'Unexpected keyword argument "nonsense" for "cluster"',
    7: 'Revealed type is "ase_flatten.calculators.FlattenedCalculator | Any"',
    8: 'Missing positional argument "path" in call to "FlattenedSGDML"',
    10: "Missing positional arguments",
    11: 'Unexpected keyword argument "nonsense" for "run_md"',
    12: "has no attribute",
    13: 'Module "ase_flatten" has no attribute "nonsense"',
}
"""Some of the words that mypy has for each line of the user's file."""

# Without other packages, whose analysis takes most of the time; their types in signatures are Any.
CONFIGURATION = """\
[mypy]
strict = true
no_site_packages = true
ignore_missing_imports = true
[mypy-ase_flatten.*]
ignore_errors = true
"""


@pytest.mark.parametrize("package", [ase_flatten, ase_flatten.md])
def test_names_are_typed_from_the_modules_that_they_are_imported_from(package):
    (block,) = [
        node
        for node in ast.parse(Path(package.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    ]
    typed = {
        alias.asname: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert typed == {name: f"{package.__name__}.{home}" for name, home in package._HOME.items()}


def test_mypy_reports_a_users_mistakes(tmp_path, monkeypatch):
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "mypy.ini").write_text(CONFIGURATION)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MYPYPATH", str(Path(ase_flatten.__file__).parents[1]))
    output, errors, _ = mypy.run(["--config-file", "mypy.ini", "--cache-dir", str(tmp_path / "cache"), "user.py"])
    assert errors == ""
    found: dict[int, str] = {}
    for line in output.splitlines():
        _, number, message = line.split(":", 2) if line.startswith("user.py:") else ("", "0", line)
        found[int(number)] = found.get(int(number), "") + message
    for number, words in EXPECTED.items():
        assert words in found.get(number, ""), output
