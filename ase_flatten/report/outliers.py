"""Outlier detection: the errors of any model on each cluster of a data set (Figures 2 and 4)."""

from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.clustering.clusters import Clustering, cluster, n_clusters_of, representatives
from ase_flatten.clustering.other_frames import labels_of_other_frames
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.accuracy import Accuracy, accuracy_of
from ase_flatten.evaluation.external_test import check_test_set, near_training, overlap_in_words
from ase_flatten.models.resolver import NamedCalculator, resolve
from ase_flatten.report.figures import plot_outliers
from ase_flatten.report.outlier_tables import write_tables, write_worst_frames
from ase_flatten.report.results_record import (
    RECORD,
    ResultsRecord,
    check_replaceable,
    subject_of_data,
    subject_of_model,
)
from ase_flatten.selection.cluster_errors import ClusterErrors, FrameErrors, check_molecule, frame_errors
from ase_flatten.selection.frame_selection import SelectionRule
from ase_flatten.selection.sampled_errors import Estimate, SubsetRule, complete, estimate_errors
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.records import write_record
from ase_flatten.utils.typing import FloatArray, IntArray
from ase_flatten.workflow.run_folder import CLUSTERS, Run, read_clusters, write_clusters

FILES = ("errors.csv", "errors.json", "frame_errors.npz", "clusters.npz", "worst_frames.extxyz", "outliers.png")
FIGURE = "outliers"
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
        With the populations of the frames that were judged.
    accuracy : Accuracy
        Over all frames that were judged.
    relative_rmse : two (n_clusters,) arrays
        Force RMSE divided by the root mean square of the reference forces of the cluster, and energy RMSE divided by
        the standard deviation of all reference energies, which hardly vary within a cluster.
    n_frames : int
        Frames that the errors describe; `errors.counts` says how many of them were predicted.
    which_frames : str
        Description of these frames.
    clusters_of : Path or None
        The run folder or file that the clusters were read from; None if the data were clustered anew.
    energy_offset : float or None, eV
        The mean difference of energies that was removed; None if energies were compared as they are.
    overlap : str
        How many of the judged frames are nearly identical to what the model was trained on, in a sentence; empty if
        that is not known, and for frames of the data set that it was trained on.
    """

    errors: ClusterErrors
    accuracy: Accuracy
    relative_rmse: tuple[FloatArray, FloatArray]
    n_frames: int
    which_frames: str
    clusters_of: Path | None = None
    energy_offset: float | None = None
    overlap: str = ""

    @property
    def how(self) -> str:
        """Description of how many of the frames were predicted; empty if all were."""
        n_predicted = int(self.errors.counts.sum())
        return "" if n_predicted == self.n_frames else f", estimated from {n_predicted} of them"

    def to_record(self, units: OutputUnits) -> dict[str, Any]:
        """Return what is found besides the tables, as results.json has it."""
        offset = self.energy_offset
        return {
            "energy_offset_removed": None if offset is None else offset * units.scale,
            "overlap": self.overlap,
            "frames": f"{self.n_frames} {self.which_frames}{self.how}",
        }


def find_outliers(
    dataset: Dataset,
    spec: str | Path | NamedCalculator,
    folder: Path,
    *,
    n_worst: int,
    units: OutputUnits,
    seed: int = 0,
    subset: bool | None = None,
    executor: Executor | None = None,
    clusters: Path | None = None,
    test: Dataset | None = None,
    source: str = "",
    test_source: str = "",
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> Outliers:
    """Compute the errors of a model on each cluster of a data set, and write tables, a figure and the worst frames.

    Frames that the model was trained on are left out if they are known; its validation frames are included.
    The clusters are those of `clusters`, or else those of the run that the model belongs to if that run is on the
    same data, so that cluster numbers mean the same as there. Otherwise the data are clustered anew.

    Energies of a model that was not trained on these data are compared up to a constant.

    Parameters
    ----------
    spec : str or Path
        A model or a calculator, as `ase_flatten.models.resolver.resolve` reads it.
    folder : Path
        Gets errors.csv, errors.json, frame_errors.npz, clusters.npz, worst_frames.extxyz, the figure, and results.json,
        which says what they are about.
    subset : bool, optional
        Whether to estimate the error of each cluster on a random subset of its frames, and to predict all frames
        of the `n_worst` worst clusters only. By default, ASE calculators and models of expensive families are
        judged in this way.
    executor : concurrent.futures.Executor, optional
        Runs the calculations of an ASE calculator, such as `LocalExecutor`; without one, this process does.
        The results are the same.
    clusters : Path, optional
        A run folder, or a clusters.npz.
    test : Dataset, optional
        Other frames of the same molecule, which are judged instead of the data set, in its clusters.
    source, test_source : str
        What the data set and the test set are called.
    overwrite : bool
        Whether to replace results on other data or of another model.

    Raises
    ------
    InputError
        No such model, or one of another molecule; clusters of other data; a folder with other results.
    """
    named = resolve(spec)
    record = ResultsRecord(
        dataset=subject_of_data(dataset, source or dataset.name),
        model=subject_of_model(named),
        test=None if test is None else subject_of_data(test, test_source or test.name),
        settings={
            "n_worst": n_worst,
            "units": units.energy,
            "seed": seed,
            "subset": subset,
            "clusters": None if clusters is None else str(clusters),
        },
    )
    check_replaceable(folder, record, FILES, overwrite=overwrite)
    if test is not None:
        check_test_set(test, dataset, name=test_source or "the test set")
    run = _run_of(named, dataset)
    clusters_of = clusters or (run.folder if run else None)
    given = None if clusters_of is None else _clusters_of(clusters_of, dataset)
    model = named.model(dataset.numbers, executor=executor)
    check_molecule(model, dataset)
    n_geometry, n_energy = n_clusters_of(dataset.n_frames)
    clustering = given or cluster(
        dataset, rng=np.random.default_rng(seed), n_geometry=n_geometry, n_energy=n_energy, progress=progress
    )
    judged = _judged(named, dataset, clustering, test, run, seed=seed, progress=progress)
    its_own = run is not None or len(named.train_frames(dataset.digest)) > 0

    def errors_of(frames: IntArray) -> FrameErrors:
        return frame_errors(model, judged.dataset, frames - judged.first, progress=progress).renumbered(frames)

    found = estimate_errors(
        errors_of, judged.clustering, judged.frames, factor=SelectionRule.factor,
        rule=SubsetRule() if (named.expensive if subset is None else subset) else None,
        rng=np.random.default_rng([seed, 1]), up_to_a_constant=not its_own,
    )  # fmt: skip
    worst = found.clusters.ascending[::-1][:n_worst]
    found = complete(found, errors_of, judged.clustering, judged.frames, worst)
    outliers = _collect(found, judged, clusters_of, its_own=its_own)

    middle_frames = representatives(clustering, dataset.pair_distances)
    write_record(folder / RECORD, replace(record, found=outliers.to_record(units)))
    write_clusters(folder / CLUSTERS, clustering, middle_frames)
    write_tables(folder, outliers.errors, outliers.accuracy, outliers.relative_rmse, units)
    of_frames = found.errors.renumbered(found.errors.frames - judged.first)
    write_worst_frames(folder, judged.dataset, judged.labels, of_frames, worst, units)
    typical = dataset.atoms(int(middle_frames[outliers.errors.worst]))
    plot_outliers(outliers.errors, folder / FIGURE, units=units, title=dataset.formula, structure=typical)
    return outliers


@dataclass(frozen=True, eq=False)
class _Judged:
    """The frames that a model is judged on, in the clusters of a data set.

    Parameters
    ----------
    dataset : Dataset
        The data set, or the test set.
    clustering : Clustering
        Of the data set; frames of a test set follow its own.
    first : int
        Where the first frame of `dataset` is in the clustering.
    frames : int array
        The frames to judge, as the clustering numbers them.
    which : str
        Description of these frames.
    overlap : str
        See `Outliers`.
    """

    dataset: Dataset
    clustering: Clustering
    first: int
    frames: IntArray
    which: str
    overlap: str

    @property
    def labels(self) -> IntArray:
        """The cluster of each frame of `dataset`."""
        return self.clustering.labels[self.first :]


def _judged(
    named: NamedCalculator, dataset: Dataset, clustering: Clustering, test: Dataset | None, run: Run | None,
    *, seed: int, progress: Progress,
) -> _Judged:  # fmt: skip
    """Choose the frames to judge: of the test set if there is one, otherwise those not trained on."""
    used = named.training_positions
    if test is None:
        train_frames = named.train_frames(dataset.digest)
        frames = np.setdiff1d(np.arange(dataset.n_frames), train_frames)
        which = f"outside the {len(train_frames)} training frames" if len(train_frames) else "of the data set"
        if run:
            which += f", including the {len(run.splits.valid)} validation frames"
        overlap = "" if len(train_frames) else _overlap(dataset, used, "training frames")
        return _Judged(dataset, clustering, 0, frames, which, overlap)
    rule = run.settings.assignment if run else "average"
    labels = labels_of_other_frames(
        clustering, dataset, test, rng=np.random.default_rng([seed, 2]), assignment=rule, progress=progress
    )
    what = "training frames"
    if run:
        used, what = np.concatenate([used, dataset.positions[run.splits.valid]]), "training or validation frames"
    joint = Clustering(np.concatenate([clustering.labels, labels]))
    frames = dataset.n_frames + np.arange(test.n_frames)
    return _Judged(test, joint, dataset.n_frames, frames, "of the test set", _overlap(test, used, what))


def _overlap(judged: Dataset, used: FloatArray, what: str) -> str:
    """Say how many frames are nearly identical to geometries that a model was trained on; "" if none are known."""
    if not len(used):
        return ""
    return overlap_in_words(int(near_training(judged, used).sum()), judged.n_frames, what=what)


def _collect(found: Estimate, judged: _Judged, clusters_of: Path | None, *, its_own: bool) -> Outliers:
    """Put together what was found, with the errors relative to the reference."""
    n_clusters, rows = judged.clustering.n_clusters, judged.frames - judged.first
    labels = judged.labels
    errors = replace(found.clusters, populations=np.bincount(labels, minlength=n_clusters))
    accuracy = accuracy_of(errors, judged.dataset, rows)
    squares = np.mean(judged.dataset.forces[rows] ** 2, axis=(1, 2))
    counts = np.bincount(labels[rows], minlength=n_clusters)
    with np.errstate(divide="ignore", invalid="ignore"):
        force = errors.rmse / np.sqrt(np.bincount(labels[rows], weights=squares, minlength=n_clusters) / counts)
        energy = errors.energy_rmse / accuracy.reference_energy
    return Outliers(
        errors, accuracy, (force, energy), len(rows), judged.which, clusters_of,
        None if its_own else found.energy_offset, judged.overlap,
    )  # fmt: skip


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
