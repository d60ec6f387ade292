"""What results hold: those of molecular dynamics, of errors by cluster, and clusters."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ase_flatten.data.units import OutputUnits
from ase_flatten.md.analysis.verdict import HEADS
from ase_flatten.md.analysis.verdict import table as md_table
from ase_flatten.md.result_files import read_summary
from ase_flatten.md.results import Summary
from ase_flatten.report.overview.base import Overview, Table
from ase_flatten.report.results_record import FORMAT, RECORD, ResultsRecord
from ase_flatten.utils.records import read_record, understood
from ase_flatten.workflow.run_folder import CLUSTERS, read_clusters

_SUMMARY = "summary.json"
_DEPTHS = (".", "*", "*/*", "*/*/*")
"""Where summaries lie in or below a folder of results of molecular dynamics."""


def of_dynamics(folder: Path, _: OutputUnits) -> Overview:
    """Describe runs of molecular dynamics; their energies are in kcal/mol."""
    summaries = summaries_below(folder)
    first = summaries[0]
    facts = [
        ("models", ", ".join(dict.fromkeys(summary.model for summary in summaries))),
        ("temperatures", ", ".join(f"{T:g} K" for T in sorted({summary.temperature_K for summary in summaries}))),
        (
            "length",
            f"{first.n_steps} steps of {first.timestep_fs:g} fs, {first.n_replicas} replicas, {first.thermostat} "
            f"thermostat, engine {first.engine or 'unknown'}",
        ),
    ]
    return Overview("molecular dynamics", facts, Table("Energies in kcal/mol, times in ps", HEADS, md_table(summaries)))


def summaries_below(folder: Path) -> list[Summary]:
    """Read the summaries of runs in or below a folder; those without a thermostat only where there are no others."""
    files = [file for depth in _DEPTHS for file in sorted(folder.glob(f"{depth}/{_SUMMARY}"))]
    found = [read_summary(file) for file in files]
    return [summary for summary in found if summary.thermostat != "none"] or found


@dataclass(frozen=True)
class _OverallError:
    """What is needed here of the row over all frames in errors.json."""

    n_frames: int
    force_rmse: float
    energy_rmse: float


@dataclass(frozen=True)
class _ClusterError(_OverallError):
    cluster: int


@dataclass(frozen=True)
class _SavedErrors:
    """What is needed here of errors.json."""

    units: dict[str, str]
    overall: _OverallError
    clusters: list[_ClusterError]


def of_errors(folder: Path, _: OutputUnits) -> Overview:
    """Describe errors by cluster, in the units of their file, and what results.json says they are about."""
    found = read_record(
        folder / "errors.json", _SavedErrors, what="errors by cluster", remedy="compute them with: ase-flatten errors"
    )
    force, energy = found.units.get("forces", ""), found.units.get("energy", "")
    worst = max(found.clusters, key=lambda one: np.nan_to_num(one.force_rmse), default=None)
    facts = [
        *_about(folder, energy),
        ("frames", f"{found.overall.n_frames} in {len(found.clusters)} clusters"),
        ("force RMSE", f"{found.overall.force_rmse:.3f} {force}"),
        ("energy RMSE", f"{found.overall.energy_rmse:.3f} {energy}"),
    ]
    if worst is not None:
        facts.append(("worst cluster", f"{worst.cluster}: {worst.force_rmse:.3f} {force} on {worst.n_frames} frames"))
    return Overview("errors", facts)


def _about(folder: Path, energy_unit: str) -> list[tuple[str, str]]:
    """Return what errors are about, and how energies were compared; nothing for those made before this was kept."""
    path, words = folder / RECORD, {"what": "what results are about", "remedy": "compute them again"}
    if not path.exists():
        return []
    record = read_record(path, ResultsRecord, version=FORMAT, **words)
    facts = [("about", record.title)]
    offset = record.found.get("energy_offset_removed")
    if offset is not None:
        with understood(path, **words):
            facts.append(
                ("energies", f"up to a constant: a mean difference of {float(offset):,.2f} {energy_unit} was removed")
            )
    return facts


def of_clusters(path: Path, _: OutputUnits) -> Overview:
    """Describe clusters.npz, or the one in a folder."""
    found = read_clusters(path / CLUSTERS if path.is_dir() else path)
    populations = found.populations
    facts = [
        ("clusters", f"{found.n_clusters} of {len(found.labels)} frames"),
        ("populations", f"{populations.min()} to {populations.max()} frames"),
    ]
    return Overview("clusters", facts)
