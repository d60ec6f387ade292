"""Outlier detection: where in configurational space a model is wrong (Fonseca et al. 2021, section II)."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ase_flatten.clustering.clusters import Clustering
from ase_flatten.data.dataset import Dataset, formula
from ase_flatten.models import Model
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray

log = logging.getLogger(__name__)

_FRAMES_A_CALL = 250


@dataclass(frozen=True, eq=False)
class FrameErrors:
    """Errors of a model on single frames.

    Parameters
    ----------
    frames : (n,) int array
        The frames of the data set that were predicted.
    force_mse, force_mae : (n,) arrays, (eV/Å)² and eV/Å
        Mean squared and mean absolute error over the components of a frame's forces.
    energy : (n,) array, eV
        Predicted minus reference energy.
    """

    frames: IntArray
    force_mse: FloatArray
    force_mae: FloatArray
    energy: FloatArray

    @property
    def force_rmse(self) -> FloatArray:
        """Force RMSE of each frame, per component, eV/Å."""
        return np.sqrt(self.force_mse)

    def joined(self, other: "FrameErrors") -> "FrameErrors":
        """Return the errors of these and other frames, in rising order of the frames."""
        mine, others = vars(self), vars(other)
        order = np.argsort(np.concatenate([self.frames, other.frames]), kind="stable")
        return FrameErrors(**{name: np.concatenate([mine[name], others[name]])[order] for name in mine})

    def renumbered(self, frames: IntArray) -> "FrameErrors":
        """Return the same errors under other frame numbers, (n,)."""
        return replace(self, frames=frames)


@dataclass(frozen=True, eq=False)
class ClusterErrors:
    """Errors of a model on each cluster, per component, over the frames that were predicted.

    Parameters
    ----------
    rmse, mae : (n_clusters,) arrays, eV/Å
        Of the forces; NaN for a cluster of which no frame was predicted.
    energy_rmse, energy_mae : (n_clusters,) arrays, eV
    counts : (n_clusters,) int array
        Predicted frames of each cluster.
    populations : (n_clusters,) int array
        All frames of each cluster.
    overall_rmse, overall_mae : float, eV/Å
    overall_energy_rmse, overall_energy_mae : float, eV
    half_width : (n_clusters,) array, eV/Å, optional
        Of the interval about `rmse` where that is an estimate, see `ase_flatten.selection.sampled_errors`; zero
        where all frames were predicted.
    overall_half_width : float, eV/Å
        Of the interval about `overall_rmse`.
    """

    rmse: FloatArray
    mae: FloatArray
    energy_rmse: FloatArray
    energy_mae: FloatArray
    counts: IntArray
    populations: IntArray
    overall_rmse: float
    overall_mae: float
    overall_energy_rmse: float
    overall_energy_mae: float
    half_width: FloatArray | None = None
    overall_half_width: float = 0.0

    @property
    def ascending(self) -> IntArray:
        """The clusters ordered by rising force RMSE, those without a predicted frame left out."""
        order = np.argsort(self.rmse, kind="stable")
        return order[np.isfinite(self.rmse[order])]

    @property
    def worst(self) -> int:
        """The cluster of largest force RMSE."""
        return int(self.ascending[-1])

    def above(self, factor: float) -> IntArray:
        """Return the clusters whose force RMSE exceeds `factor` times the overall one (section III)."""
        return np.flatnonzero(np.nan_to_num(self.rmse, nan=0.0) > factor * self.overall_rmse)


def check_molecule(model: Model, dataset: Dataset) -> None:
    """Raise InputError if a model is of another molecule than a data set, or has its atoms in another order."""
    if not np.array_equal(model.numbers, dataset.numbers):
        raise InputError(
            f"expected a model of {dataset.formula} with its atoms in the data set's order, "
            f"found one of {formula(model.numbers)}; choose the model of this molecule"
        )


def frame_errors(
    model: Model,
    dataset: Dataset,
    frames: IntArray | None = None,
    *,
    on_forces: Callable[[FloatArray, FloatArray], None] = lambda true, predicted: None,
    progress: Progress = SILENT,
) -> FrameErrors:
    """Predict frames and compare with the reference.

    Parameters
    ----------
    on_forces : callable
        Called with the true and the predicted forces of some frames at a time, (n, n_atoms, 3) arrays in eV/Å.

    Raises
    ------
    InputError
        The model is one of another molecule, or it predicts numbers that are not finite.
    """
    check_molecule(model, dataset)
    frames = np.arange(dataset.n_frames) if frames is None else frames
    mse, mae, energy = (np.empty(len(frames)) for _ in range(3))
    with progress.task("predicting", len(frames)) as advance:
        for start in range(0, len(frames), _FRAMES_A_CALL):
            rows = slice(start, start + _FRAMES_A_CALL)
            some = frames[rows]
            prediction = model.predict(dataset.positions[some])
            difference = prediction.forces - dataset.forces[some]
            mse[rows] = np.mean(difference**2, axis=(1, 2))
            mae[rows] = np.mean(np.abs(difference), axis=(1, 2))
            energy[rows] = prediction.energies - dataset.energies[some]
            usable = np.isfinite(mse[rows])  # other frames are refused below
            on_forces(dataset.forces[some][usable], prediction.forces[usable])
            advance(len(some))
    finite = np.isfinite(mse) & np.isfinite(energy)
    if not finite.all():
        raise InputError(f"the model predicts NaN or infinity for {np.sum(~finite)} frames; train it again")
    return FrameErrors(frames, mse, mae, energy)


def cluster_errors(
    model: Model,
    dataset: Dataset,
    clustering: Clustering,
    *,
    frames: IntArray | None = None,
    progress: Progress = SILENT,
) -> ClusterErrors:
    """Measure a model's errors on each cluster.

    Parameters
    ----------
    frames : int array, optional
        The frames to predict, such as the held-out ones; all by default.

    Raises
    ------
    InputError
        A model of another molecule, or clusters of other data.

    Examples
    --------
    >>> import numpy as np
    >>> from ase_flatten import cluster, cluster_errors, load_calculator, read_dataset
    >>> data = read_dataset("examples/data/salicylic_gfn2_500K.npz")
    >>> clusters = cluster(data, rng=np.random.default_rng(0), n_geometry=4, n_energy=2)
    >>> errors = cluster_errors(load_calculator("runs/demo").model, data, clusters)
    >>> errors.rmse.shape  # eV/Å
    (8,)
    >>> bool(errors.rmse[errors.worst] > errors.overall_rmse)
    True
    """
    return by_cluster(frame_errors(model, dataset, frames, progress=progress), clustering)


def by_cluster(errors: FrameErrors, clustering: Clustering) -> ClusterErrors:
    """Average the errors of frames over each cluster; raise InputError for clusters of other data."""
    if len(errors.frames) and errors.frames.max() >= len(clustering.labels):
        raise InputError(
            f"expected clusters of these data, found labels of {len(clustering.labels)} frames only; cluster again"
        )
    labels = clustering.labels[errors.frames]
    n_clusters = clustering.n_clusters
    counts = np.bincount(labels, minlength=n_clusters)

    def mean(values: FloatArray) -> FloatArray:
        sums = np.bincount(labels, weights=values, minlength=n_clusters)
        return np.divide(sums, counts, out=np.full(n_clusters, np.nan), where=counts > 0)

    return ClusterErrors(
        rmse=np.sqrt(mean(errors.force_mse)),
        mae=mean(errors.force_mae),
        energy_rmse=np.sqrt(mean(errors.energy**2)),
        energy_mae=mean(np.abs(errors.energy)),
        counts=counts,
        populations=clustering.populations,
        overall_rmse=float(np.sqrt(errors.force_mse.mean())),
        overall_mae=float(errors.force_mae.mean()),
        overall_energy_rmse=float(np.sqrt(np.mean(errors.energy**2))),
        overall_energy_mae=float(np.mean(np.abs(errors.energy))),
    )
