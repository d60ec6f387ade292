"""Imports point one way, as DESIGN says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ase_flatten

PACKAGE = Path(ase_flatten.__file__).parent

LAYERS = [
    {"utils"},
    {"geometry"},
    {"data"},
    {"clustering", "models"},
    {"checking", "calculators"},
    {"selection"},
    {"evaluation"},
    {"workflow", "ipi", "torchsim"},
    {"md"},
    {"sampling", "report", "testing"},
    {"cli", "__init__"},
    {"ase_plugin"},
]
"""The folders and files of the top level, from what knows nothing of the others to what knows all of them."""

FORMER_HOMES = {"dataset", "exceptions"}
"""Where plugins of third parties import from; nothing here does."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> set[str]:
    """Name the modules of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ase_flatten"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names if alias.name in LEVEL}
    return found


def wrong_imports() -> list[str]:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        home = "cli" if parts[-1] == "__main__" else parts[0]  # `python -m ase_flatten.md` is a command
        if home in FORMER_HOMES:
            continue
        for target in imports(path) - {home}:
            if target in FORMER_HOMES or LEVEL[target] >= LEVEL[home]:
                wrong.append(f"{'.'.join(parts)} imports {target}")
    return wrong


def test_every_module_has_a_layer():
    modules = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert modules == set(LEVEL) | FORMER_HOMES


def test_imports_point_one_way():
    assert wrong_imports() == []


def test_the_check_can_fail(monkeypatch):
    monkeypatch.setitem(LEVEL, "geometry", 99)
    assert "data.known_molecule imports geometry" in wrong_imports()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("ase_flatten", ("torch", "numba", "networkx", "sklearn", "matplotlib", "ase")),
        ("ase_flatten.models.sgdml", ("torch", "numba", "networkx")),
    ],
)
def test_a_plain_import_is_light(module, heavy):
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
