"""Imports point one way, as DESIGN says."""

import ast
from pathlib import Path

import ase_flatten

PACKAGE = Path(ase_flatten.__file__).parent

LAYERS = [
    {"exceptions"},
    {"units", "files", "progress"},
    {"dataset"},
    {"io", "descriptors", "strata", "threads"},
    {"assignment", "energy_forces", "bonds", "distributions", "extrapolation", "groups", "findings"},
    {"clustering", "known_molecule", "models", "reference", "atom_order", "force_constants", "geometry_checks"},
    {"splits", "errors", "label_checks"},
    {"subset", "checks"},
    {"selection", "cleaning"},
    {"quarantine"},
    {"flattening", "evaluation", "bootstrap", "group_intervals"},
    {"claims"},
    {"over_runs"},
    {"run"},
    {"training"},
    {"calculators"},
    {"ipi", "torchsim"},
    {"md"},
    {"sample"},
    {"structures"},
    {"conclusions", "figures", "quarantine_report"},
    {"report", "outliers", "testing"},
    {"console"},
    {"cli", "__init__"},
    {"ase_plugin"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
COMMANDS = {("md.__main__", "console"), ("ipi.__main__", "console")}


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
        home = parts[0]
        for target in imports(path) - {home}:
            if (".".join(parts), target) in COMMANDS:
                continue
            if LEVEL[target] >= LEVEL[home]:
                wrong.append(f"{'.'.join(parts)} imports {target}")
    return wrong


def test_every_module_has_a_layer():
    modules = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert modules <= set(LEVEL)


def test_imports_point_one_way():
    assert wrong_imports() == []


def test_the_check_can_fail(monkeypatch):
    monkeypatch.setitem(LEVEL, "dataset", 99)
    assert "io imports dataset" in wrong_imports()


def test_a_plain_import_is_light():
    import subprocess
    import sys

    code = "import sys, ase_flatten; print([m for m in ('torch', 'sklearn', 'matplotlib', 'ase') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
