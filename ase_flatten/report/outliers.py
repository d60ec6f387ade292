"""Outlier detection: the errors of any model on each cluster, as tables, a figure and frames (Figures 2 and 4)."""

import csv
import io
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.clustering.clusters import HOLDOUT, Clustering, cluster, n_clusters_for, representatives
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import write_frames
from ase_flatten.data.units import OutputUnits
from ase_flatten.models.resolver import NamedCalculator, resolve
from ase_flatten.report.figures import plot_outliers
from ase_flatten.selection.cluster_errors import ClusterErrors, FrameErrors, frame_errors
from ase_flatten.selection.frame_selection import SelectionRule
from ase_flatten.selection.sampled_errors import SubsetRule, complete, estimate_errors
from ase_flatten.utils.atomic_files import write_json, write_npz, write_text
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray
from ase_flatten.workflow.run_folder import CLUSTERS, Run, read_clusters, write_clusters

MAX_FRAMES_WRITTEN = 1000
_DEPTH_IN_RUN = 3
"""Folders from a model file up to its run, RUN/steps/0003/model.npz, at most."""

MAX_WORKERS = 8
"""Default number of processes for a calculator, each of which holds its own calculator in memory."""


@dataclass(frozen=True, eq=False)
class Outliers:
    """Errors of a model on each cluster of a data set.

    Parameters
    ----------
    errors : ClusterErrors
    n_frames : int
        Frames that the errors describe; `errors.counts` says how many of them were predicted.
    which_frames : str
        Description of these frames.
    clusters_of : Path or None
        The run folder or file that the clusters were read from; None if the data were clustered anew.
    """

    errors: ClusterErrors
    n_frames: int
    which_frames: str
    clusters_of: Path | None = None

    @property
    def how(self) -> str:
        """Description of how many of the frames were predicted; empty if all were."""
        n_predicted = int(self.errors.counts.sum())
        return "" if n_predicted == self.n_frames else f", estimated from {n_predicted} of them"

    @property
    def columns(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Force RMSE, its half width and MAE (eV/Å), and energy RMSE (eV) of each cluster."""
        return self.errors.rmse, _half_width(self.errors), self.errors.mae, self.errors.energy_rmse


def find_outliers(
    dataset: Dataset,
    spec: str | Path,
    folder: Path,
    *,
    n_worst: int,
    units: OutputUnits,
    seed: int = 0,
    subset: bool | None = None,
    executor: Executor | None = None,
    clusters: Path | None = None,
    progress: Progress = SILENT,
) -> Outliers:
    """Compute the errors of a model on each cluster of a data set, and write tables, a figure and the worst frames.

    Frames that the model was trained on are left out if they are known; its validation frames are included.
    The clusters are those of `clusters`, or else those of the run that the model belongs to if that run is on the
    same data, so that cluster numbers mean the same as there. Otherwise the data are clustered anew.

    Parameters
    ----------
    spec : str or Path
        A model or a calculator, as `ase_flatten.models.resolver.resolve` reads it.
    folder : Path
        Gets errors.csv, errors.json, frame_errors.npz, clusters.npz, worst_frames.extxyz and the figure.
    subset : bool, optional
        Whether to estimate the error of each cluster on a random subset of its frames, and to predict all frames
        of the `n_worst` worst clusters only. By default, ASE calculators and models of expensive families are
        judged in this way.
    executor : concurrent.futures.Executor, optional
        Runs the calculations of an ASE calculator, such as `LocalExecutor`; without one, this process does.
        The results are the same.
    clusters : Path, optional
        A run folder, or a clusters.npz.

    Raises
    ------
    InputError
        No such model, or one of another molecule; clusters of other data.
    """
    named = resolve(spec)
    run = _run_of(named, dataset)
    clusters_of = clusters or (run.folder if run else None)
    given = None if clusters_of is None else _clusters_of(clusters_of, dataset)
    model = named.model(dataset.numbers, executor=executor)
    train_frames = named.train_frames(dataset.digest)
    frames = np.setdiff1d(np.arange(dataset.n_frames), train_frames)
    n_geometry, n_energy = n_clusters_for(round(HOLDOUT * dataset.n_frames))
    clustering = given or cluster(
        dataset, rng=np.random.default_rng(seed), n_geometry=n_geometry, n_energy=n_energy, progress=progress
    )
    errors_of = partial(frame_errors, model, dataset, progress=progress)
    found = estimate_errors(
        errors_of, clustering, frames, factor=SelectionRule.factor,
        rule=SubsetRule() if (named.expensive if subset is None else subset) else None,
        rng=np.random.default_rng([seed, 1]),
    )  # fmt: skip
    worst = found.clusters.ascending[::-1][:n_worst]
    found = complete(found, errors_of, clustering, frames, worst)
    of_frames, errors = found.errors, found.clusters
    which_frames = f"outside the {len(train_frames)} training frames" if len(train_frames) else "of the data set"
    if run:
        which_frames += f", including the {len(run.splits.valid)} validation frames"

    middle_frames = representatives(clustering, dataset.pair_distances)
    write_clusters(folder / CLUSTERS, clustering, middle_frames)
    _write_tables(folder, errors, units)
    _write_frames(folder, dataset, clustering, of_frames, worst, units)
    typical = dataset.atoms(int(middle_frames[errors.worst]))
    plot_outliers(errors, folder / "outliers", units=units, title=dataset.formula, structure=typical)
    return Outliers(errors, len(frames), which_frames, clusters_of)


def _run_of(named: NamedCalculator, dataset: Dataset) -> Run | None:
    """Find the run on this data set that a model belongs to: its own folder, or one of those above it."""
    path = named.path
    if path is None:
        return None
    for folder in (path, *path.resolve().parents[:_DEPTH_IN_RUN]):
        run = Run(folder)
        if (folder / "run.json").is_file() and (folder / CLUSTERS).is_file():
            return Run(_shortest(folder)) if run.info.dataset.digest == dataset.digest else None
    return None


def _shortest(folder: Path) -> Path:
    """Return a path relative to the current folder if it lies below it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _clusters_of(path: Path, dataset: Dataset) -> Clustering:
    """Read the clusters of a run folder or a file; raise InputError if they belong to other data."""
    file = path / CLUSTERS if path.is_dir() else path
    found = read_clusters(file)
    if len(found.labels) != dataset.n_frames:
        raise InputError(
            f"expected clusters of the {dataset.n_frames} frames of this data set, found labels of "
            f"{len(found.labels)} in {file}; give a run on these data, or cluster them: ase-flatten cluster DATASET"
        )
    if (file.parent / "run.json").is_file() and Run(file.parent).info.dataset.digest != dataset.digest:
        raise InputError(
            f"expected clusters of this data set, found those of a run on other data of the same size in {file}; "
            "give a run on these data, or cluster them: ase-flatten cluster DATASET"
        )
    return found


def _write_tables(folder: Path, errors: ClusterErrors, units: OutputUnits) -> None:
    columns = ("force_rmse", "force_rmse_half_width", "force_mae", "energy_rmse", "energy_mae")
    by_column = (errors.rmse, _half_width(errors), errors.mae, errors.energy_rmse, errors.energy_mae)
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


def _half_width(errors: ClusterErrors) -> FloatArray:
    return np.zeros_like(errors.rmse) if errors.half_width is None else errors.half_width


def _write_frames(
    folder: Path,
    dataset: Dataset,
    clustering: Clustering,
    of_frames: FrameErrors,
    worst: IntArray,
    units: OutputUnits,
) -> None:
    """Write the errors of all predicted frames, and the frames of the worst clusters for `ase gui`."""
    labels = clustering.labels[of_frames.frames]
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
