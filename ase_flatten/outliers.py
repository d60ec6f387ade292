"""Outlier detection for any model, with its tables, its figure and the worst frames (Figures 2 and 4)."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.clustering import Clustering, cluster, representatives
from ase_flatten.dataset import Dataset, FloatArray, IntArray
from ase_flatten.descriptors import pair_distances
from ase_flatten.errors import ClusterErrors, FrameErrors, by_cluster, frame_errors
from ase_flatten.exceptions import InputError
from ase_flatten.figures import plot_outliers
from ase_flatten.files import write_json, write_npz, write_text
from ase_flatten.io import write_frames
from ase_flatten.models import Model
from ase_flatten.models.external import ASEModel
from ase_flatten.models.folder import load_model
from ase_flatten.progress import SILENT, Progress
from ase_flatten.reference import reference_calculator
from ase_flatten.run import write_clusters
from ase_flatten.units import OutputUnits

MAX_FRAMES_WRITTEN = 1000


@dataclass(frozen=True, eq=False)
class Outliers:
    """Hold what `find_outliers` found.

    Parameters
    ----------
    errors : ClusterErrors
    n_frames : int
        Frames that were predicted.
    stratum : str
        Which frames these are, in words.
    """

    errors: ClusterErrors
    n_frames: int
    stratum: str

    @property
    def columns(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Force RMSE and MAE (eV/Å) and energy RMSE (eV) of each cluster."""
        return self.errors.rmse, self.errors.mae, self.errors.energy_rmse


def find_outliers(
    dataset: Dataset,
    spec: str,
    folder: Path,
    *,
    n_worst: int,
    units: OutputUnits,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Outliers:
    """Measure a model on each cluster of the data and write what is found.

    Frames that the model was trained on are left out where they are known.

    Parameters
    ----------
    spec : str
        A run folder, a model folder, an sGDML file, or an ASE calculator as in `reference_calculator`.
    folder : Path
        Gets errors.csv, errors.json, frame_errors.npz, clusters.npz, worst_frames.extxyz and the figure.

    Raises
    ------
    InputError
        No such model, or one of another molecule.
    """
    model, train_frames = _model(spec, dataset)
    frames = np.setdiff1d(np.arange(dataset.n_frames), train_frames)
    clustering = cluster(dataset, rng=np.random.default_rng(seed), progress=progress)
    of_frames = frame_errors(model, dataset, frames, progress=progress)
    errors = by_cluster(of_frames, clustering)
    stratum = f"beside the {len(train_frames)} training frames" if len(train_frames) else "of the data set"

    descriptors = pair_distances(dataset.positions)
    write_clusters(folder / "clusters.npz", clustering, descriptors)
    _write_tables(folder, errors, units)
    _write_frames(folder, dataset, clustering, of_frames, errors, n_worst, units)
    worst = int(representatives(clustering, descriptors)[errors.worst])
    plot_outliers(errors, folder / "outliers", units=units, title=dataset.formula, structure=dataset.atoms(worst))
    return Outliers(errors, len(frames), stratum)


def _model(spec: str, dataset: Dataset) -> tuple[Model, IntArray]:
    """Load a model, and the frames of this very data set that it was trained on."""
    if spec.startswith(("ase:", "tblite:")):
        return ASEModel(reference_calculator(spec), dataset.numbers, name=spec), np.empty(0, dtype=np.int64)
    if not Path(spec).exists():
        raise InputError(f"expected a model, found no file or folder {spec}; check the path")
    saved = load_model(spec)
    same = saved.card.get("dataset_digest") == dataset.digest
    return saved.model, saved.train_frames if same else np.empty(0, dtype=np.int64)


def _write_tables(folder: Path, errors: ClusterErrors, units: OutputUnits) -> None:
    columns = ("force_rmse", "force_mae", "energy_rmse", "energy_mae")
    by_column = (errors.rmse, errors.mae, errors.energy_rmse, errors.energy_mae)
    overall = (errors.overall_rmse, errors.overall_mae, errors.overall_energy_rmse, errors.overall_energy_mae)
    rows: list[dict[str, Any]] = [
        {
            "cluster": int(label),
            "population": int(errors.populations[label]),
            "n_frames": int(errors.counts[label]),
            **{name: float(values[label]) * units.scale for name, values in zip(columns, by_column, strict=True)},
        }
        for label in errors.ascending[::-1]
    ]
    total: dict[str, Any] = {
        "cluster": "all",
        "population": int(errors.populations.sum()),
        "n_frames": int(errors.counts.sum()),
        **{name: value * units.scale for name, value in zip(columns, overall, strict=True)},
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


def _write_frames(
    folder: Path,
    dataset: Dataset,
    clustering: Clustering,
    of_frames: FrameErrors,
    errors: ClusterErrors,
    n_worst: int,
    units: OutputUnits,
) -> None:
    """Write the errors of all frames, and the worst clusters' frames for `ase gui`."""
    labels = clustering.labels[of_frames.frames]
    columns = {
        "force_rmse": of_frames.force_rmse * units.scale,
        "force_mae": of_frames.force_mae * units.scale,
        "energy_error": of_frames.energy * units.scale,
    }
    write_npz(folder / "frame_errors.npz", {"frames": of_frames.frames, "labels": labels, **columns})
    rows = np.flatnonzero(np.isin(labels, errors.ascending[::-1][:n_worst]))
    rows = rows[np.argsort(-columns["force_rmse"][rows], kind="stable")][:MAX_FRAMES_WRITTEN]
    info: dict[str, Any] = {name: values[rows] for name, values in columns.items()}
    write_frames(folder / "worst_frames.extxyz", dataset, of_frames.frames[rows], cluster=labels[rows], **info)
