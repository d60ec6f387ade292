"""What a path holds: a data set, a model, a run, or results.

Each kind is described by a module of its own, which is imported when it is needed: a short answer is also quick.
"""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ase_flatten.data.units import FIELD_UNITS, OutputUnits
from ase_flatten.models.model_folder import NATIVE_FILES
from ase_flatten.report.overview.base import Overview
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.npz_files import reading_npz

_OF_FILES = {
    "run.json": "run.of_run",
    "model.json": "model.of_model",
    "errors.json": "results.of_errors",
    "summary.json": "results.of_dynamics",
    "clusters.npz": "results.of_clusters",
}
"""What describes a folder, by a file in it."""

_SUMMARIES = ("*/summary.json", "*/*/summary.json", "*/*/*/summary.json")


def overview(
    path: Path,
    *,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    units: OutputUnits | None = None,
) -> Overview:
    """Say what a path holds; nothing is written.

    Parameters
    ----------
    path : Path
        A data set; a model folder or a family's native file; a run folder; results of `md`, `errors` or `cluster`.
    energy_unit, length_unit : str, optional
        Of a data set that declares none.
    energy_key, forces_key : str, optional
        Names of the energies and forces in the file of a data set.
    units : OutputUnits, optional
        Of energies and forces in the text; by default kcal/mol.

    Raises
    ------
    InputError
        There is nothing, or something else; or it is damaged.
    """
    if not os.path.exists(path):  # noqa: PTH110  (Path.exists raises for a name that is too long)
        raise InputError(f"expected a data set, a model, a run or results, found no {printable(path)}; check the path")
    units = units or FIELD_UNITS
    if path.is_file() and path.name in _OF_FILES:
        return _describe(_OF_FILES[path.name])(path.parent, units)
    if path.is_dir():
        return _of_folder(path, units)
    if path.suffix in NATIVE_FILES:
        names = _names(path) if path.suffix == ".npz" else {"R_desc"}
        if "R_desc" in names:
            return _describe("model.of_model")(path, units)
        if {"labels", "geometry"} <= names:
            return _describe("results.of_clusters")(path, units)
    return _describe("dataset.of_dataset")(
        path, units, energy_unit=energy_unit, length_unit=length_unit, energy_key=energy_key, forces_key=forces_key
    )


def _of_folder(folder: Path, units: OutputUnits) -> Overview:
    for name, function in _OF_FILES.items():
        if (folder / name).exists():
            return _describe(function)(folder, units)
    if any(next(folder.glob(pattern), None) for pattern in _SUMMARIES):
        return _describe("results.of_dynamics")(folder, units)
    raise InputError(
        f"expected a model folder, a run, or results of md, errors or cluster, found none of {', '.join(_OF_FILES)} in "
        f"{printable(folder)}; name one of these folders, or the file of a data set"
    )


def _describe(function: str) -> Callable[..., Overview]:
    """Import a function of this package."""
    module, _, name = function.partition(".")
    found: Callable[..., Overview] = getattr(import_module(f"{__name__}.{module}"), name)
    return found


def _names(path: Path) -> set[str]:
    with reading_npz(path, "an npz file of plain arrays") as archive:
        return set(archive.files)
