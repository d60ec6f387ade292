"""Tables and frames that say where a model is wrong: errors.csv, errors.json and the frames of the worst clusters."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import write_frames
from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.accuracy import Accuracy
from ase_flatten.selection.cluster_errors import ClusterErrors, FrameErrors
from ase_flatten.utils.atomic_files import write_json, write_npz, write_text
from ase_flatten.utils.typing import FloatArray, IntArray

MAX_FRAMES_WRITTEN = 1000
_RELATIVE = ("force_rmse_relative", "energy_rmse_relative")


def write_tables(
    folder: Path,
    errors: ClusterErrors,
    accuracy: Accuracy,
    relative_rmse: tuple[FloatArray, FloatArray],
    units: OutputUnits,
) -> None:
    """Write errors.csv and errors.json: a row for each cluster, worst first, and one over all frames.

    Parameters
    ----------
    relative_rmse : two (n_clusters,) arrays
        Of the forces and of the energies, see `ase_flatten.report.outliers.Outliers`.
    """
    columns = ("force_rmse", "force_rmse_half_width", "force_mae", "energy_rmse", "energy_mae")
    by_column = (errors.rmse, half_width_of(errors), errors.mae, errors.energy_rmse, errors.energy_mae)
    overall = (
        errors.overall_rmse, errors.overall_half_width, errors.overall_mae,
        errors.overall_energy_rmse, errors.overall_energy_mae,
    )  # fmt: skip
    rows: list[dict[str, Any]] = [
        {
            "cluster": int(label),
            "population": int(errors.populations[label]),
            "n_frames": int(errors.counts[label]),
            **{name: float(values[label]) * units.scale for name, values in zip(columns, by_column, strict=True)},
            **dict(zip(_RELATIVE, (_finite(values[label]) for values in relative_rmse), strict=True)),
        }
        for label in errors.ascending[::-1]
    ]
    total: dict[str, Any] = {
        "cluster": "all",
        "population": int(errors.populations.sum()),
        "n_frames": int(errors.counts.sum()),
        **{name: value * units.scale for name, value in zip(columns, overall, strict=True)},
        **dict(
            zip(_RELATIVE, map(_finite, (accuracy.relative_force_rmse, accuracy.relative_energy_rmse)), strict=True)
        ),
    }
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(total), lineterminator="\n")
    writer.writeheader()
    for row in [*rows, total]:
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    write_text(folder / "errors.csv", text.getvalue())
    write_json(
        folder / "errors.json",
        {"units": {"energy": units.energy, "forces": units.force}, "overall": total, "clusters": rows},
    )


def half_width_of(errors: ClusterErrors) -> FloatArray:
    """Return the half width of the interval about the force RMSE of each cluster, (n_clusters,), eV/Å."""
    return np.zeros_like(errors.rmse) if errors.half_width is None else errors.half_width


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def write_worst_frames(
    folder: Path,
    dataset: Dataset,
    labels: IntArray,
    of_frames: FrameErrors,
    worst: IntArray,
    units: OutputUnits,
) -> None:
    """Write the errors of all predicted frames, and the frames of the worst clusters for `ase gui`.

    Parameters
    ----------
    labels : (n_frames,) int array
        The cluster of each frame of the data set.
    worst : int array
        The worst clusters.
    """
    labels = labels[of_frames.frames]
    columns = {
        "force_rmse": of_frames.force_rmse * units.scale,
        "force_mae": of_frames.force_mae * units.scale,
        "energy_error": of_frames.energy * units.scale,
    }
    write_npz(folder / "frame_errors.npz", {"frames": of_frames.frames, "labels": labels, **columns})
    rows = np.flatnonzero(np.isin(labels, worst))
    rows = rows[np.argsort(-columns["force_rmse"][rows], kind="stable")][:MAX_FRAMES_WRITTEN]
    info: dict[str, Any] = {name: values[rows] for name, values in columns.items()}
    write_frames(folder / "worst_frames.extxyz", dataset, of_frames.frames[rows], cluster=labels[rows], **info)
