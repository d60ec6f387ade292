"""Outlier detection for any model, with its tables, its figure and the worst frames (Figures 2 and 4)."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.clustering.clusters import Clustering, cluster, representatives
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import write_frames
from ase_flatten.data.units import OutputUnits
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.models import Model, family
from ase_flatten.models.ase_model import ASEModel, ASEModelPool
from ase_flatten.models.model_folder import load_model
from ase_flatten.models.reference_methods import is_reference, reference_calculator
from ase_flatten.report.figures import plot_outliers
from ase_flatten.selection.cluster_errors import ClusterErrors, FrameErrors
from ase_flatten.selection.frame_selection import SelectionRule
from ase_flatten.selection.sampled_errors import SubsetRule, complete, estimate_errors
from ase_flatten.utils.atomic_files import write_json, write_npz, write_text
from ase_flatten.utils.exceptions import InputError, not_installed
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray
from ase_flatten.workflow.run_folder import CLUSTERS, Run, read_clusters, write_clusters

MAX_FRAMES_WRITTEN = 1000
_DEPTH_IN_RUN = 3
"""Folders from a model file up to its run, RUN/steps/0003/model.npz, at most."""

MAX_WORKERS = 8
"""Processes for a calculator, where nobody says how many: each holds the calculator once more in memory."""


@dataclass(frozen=True, eq=False)
class Outliers:
    """Hold what `find_outliers` found.

    Parameters
    ----------
    errors : ClusterErrors
    n_frames : int
        Frames that the errors are about; `errors.counts` says how many of them were predicted.
    stratum : str
        Which frames these are, in words.
    clusters_of : Path or None
        The run folder or file that the clusters were read from; none where the data were clustered anew.
    """

    errors: ClusterErrors
    n_frames: int
    stratum: str
    clusters_of: Path | None = None

    @property
    def how(self) -> str:
        """Say in words how many of them were predicted, if not all were."""
        n_predicted = int(self.errors.counts.sum())
        return "" if n_predicted == self.n_frames else f", estimated from {n_predicted} of them"

    @property
    def columns(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Force RMSE, its half width and MAE (eV/Å), and energy RMSE (eV) of each cluster."""
        return self.errors.rmse, _half_width(self.errors), self.errors.mae, self.errors.energy_rmse


def find_outliers(
    dataset: Dataset,
    spec: str,
    folder: Path,
    *,
    n_worst: int,
    units: OutputUnits,
    seed: int = 0,
    subset: bool | None = None,
    n_workers: int = 0,
    clusters: Path | None = None,
    progress: Progress = SILENT,
) -> Outliers:
    """Measure a model on each cluster of the data and write what is found.

    Frames that the model was trained on are left out where they are known; its validation frames count.
    The clusters are those of `clusters`, or of the run on these very data that the model belongs to,
    so that their numbers mean the same as there; without either the data are clustered anew.

    Parameters
    ----------
    spec : str
        A run folder, a model folder, an sGDML file, ``schnetpack:FILE:UNIT`` for a model that SchNetPack wrote
        with its energy unit, or an ASE calculator as in `reference_calculator`.
    folder : Path
        Gets errors.csv, errors.json, frame_errors.npz, clusters.npz, worst_frames.extxyz and the figure.
    subset : bool, optional
        Whether to estimate the errors of the clusters on random frames of each, and to predict
        all frames of the `n_worst` worst only. Without it, calculators and models of families
        that are expensive are judged so.
    n_workers : int
        Processes for an ASE calculator, for which the calling script needs the guard
        ``if __name__ == "__main__"``; without any, this process does the work.
    clusters : Path, optional
        A run folder, or a clusters.npz.

    Raises
    ------
    InputError
        No such model, or one of another molecule; clusters of other data.
    """
    run = _run_of(spec, dataset)
    clusters_of = clusters or (run.folder if run else None)
    given = None if clusters_of is None else _clusters_of(clusters_of, dataset)
    with _model(spec, dataset, n_workers) as (model, train_frames, expensive):
        frames = np.setdiff1d(np.arange(dataset.n_frames), train_frames)
        clustering = given or cluster(dataset, rng=np.random.default_rng(seed), progress=progress)
        found = estimate_errors(
            model, dataset, clustering, frames, factor=SelectionRule.factor,
            rule=SubsetRule() if (expensive if subset is None else subset) else None,
            rng=np.random.default_rng([seed, 1]), progress=progress,
        )  # fmt: skip
        worst = found.clusters.ascending[::-1][:n_worst]
        found = complete(found, model, dataset, clustering, frames, worst, progress=progress)
    of_frames, errors = found.errors, found.clusters
    stratum = f"beside the {len(train_frames)} training frames" if len(train_frames) else "of the data set"
    if run:
        stratum += f", the {len(run.splits.valid)} validation frames among them"

    descriptors = pair_distances(dataset.positions)
    write_clusters(folder / CLUSTERS, clustering, descriptors)
    _write_tables(folder, errors, units)
    _write_frames(folder, dataset, clustering, of_frames, worst, units)
    typical = int(representatives(clustering, descriptors)[errors.worst])
    plot_outliers(errors, folder / "outliers", units=units, title=dataset.formula, structure=dataset.atoms(typical))
    return Outliers(errors, len(frames), stratum, clusters_of)


def _run_of(spec: str, dataset: Dataset) -> Run | None:
    """Find the run on this very data set that a model belongs to: its folder, or one that holds the model."""
    path = Path(spec)
    if is_reference(spec) or not path.exists():
        return None
    for folder in (path, *path.resolve().parents[:_DEPTH_IN_RUN]):
        run = Run(folder)
        if (folder / "run.json").is_file() and (folder / CLUSTERS).is_file():
            return Run(_shortest(folder)) if run.info.dataset.digest == dataset.digest else None
    return None


def _shortest(folder: Path) -> Path:
    """Name a folder from where the user is, if it is below."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _clusters_of(path: Path, dataset: Dataset) -> Clustering:
    """Read the clusters of a run folder or a file; raise InputError where they are those of other data."""
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


@contextmanager
def _model(spec: str, dataset: Dataset, n_workers: int) -> Iterator[tuple[Model, IntArray, bool]]:
    """Load a model, the frames of this very data set that it was trained on, and whether it is slow."""
    none = np.empty(0, dtype=np.int64)
    if is_reference(spec):
        make = partial(reference_calculator, spec)
        if n_workers:
            with ASEModelPool(make, dataset.numbers, name=spec, n_workers=n_workers) as pool:
                yield pool, none, True
        else:
            yield ASEModel(make(), dataset.numbers, name=spec), none, True
        return
    if spec.startswith("schnetpack:"):
        yield _of_schnetpack(spec, dataset), none, False
        return
    if not Path(spec).exists():
        raise InputError(f"expected a model, found no file or folder {spec}; check the path")
    saved = load_model(spec)
    same = saved.card.dataset_digest == dataset.digest
    expensive = family(saved.card.family).expensive
    yield saved.model, saved.train_frames if same else none, expensive


def _of_schnetpack(spec: str, dataset: Dataset) -> Model:
    """Load what SchNetPack has trained; its files do not tell the unit of energy."""
    _, _, rest = spec.partition(":")
    path, _, unit = rest.rpartition(":")
    if not path:
        raise InputError(
            f"expected schnetpack:FILE:UNIT with the energy unit of the model, such as schnetpack:best_model:kcal/mol, "
            f"found {spec!r}; name the unit that it was trained in"
        )
    try:
        from ase_flatten.models.schnet import load_best_model
    except ImportError as error:
        raise not_installed(spec, "schnetpack", extra="schnet", error=error) from error
    return load_best_model(Path(path), dataset.numbers, unit)


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
    """Write the errors of all frames that were predicted, and the worst clusters' frames for `ase gui`."""
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
