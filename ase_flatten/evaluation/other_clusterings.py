"""How far the worst group depends on the clustering: the same held-out errors under other clusterings.

Ward linkage on two random subsets of a trajectory agrees little (adjusted Rand index of about 0.2), so that a claim on
the worst group could depend on one clustering. Here held-out frames alone are clustered again, several times, each time
with other frames for Ward linkage and with half, as many or twice as many geometric clusters. Nothing is trained or
predicted again.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ase_flatten.clustering.clusters import cluster
from ase_flatten.data.dataset import Dataset
from ase_flatten.evaluation.frame_groups import merge_clusters
from ase_flatten.evaluation.held_out import SCHEMES, HeldoutErrors
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.records import read_arrays
from ase_flatten.utils.typing import FloatArray, IntArray

OTHER_CLUSTERINGS = "other_clusterings.npz"
"""The file of a run folder that holds the groups: `groups`, (n_clusterings, n_heldout)."""

N_CLUSTERINGS = 10
GEOMETRIES = (1.0, 0.5, 2.0)
"""The numbers of geometric clusters that are used in turn, relative to that of the run."""

N_FRAMES_LEAST = 200
"""With fewer held-out frames there are too few groups for clusterings to differ."""

N_WARD_MOST = 2000
"""Maximum number of frames for Ward linkage, which then takes 0.2 s each time."""


@dataclass(frozen=True, eq=False)
class OtherClusterings:
    """Force RMSE of the worst group under other clusterings of the held-out frames.

    Parameters
    ----------
    default, improved : (n_clusterings,) arrays
        In the unit of the errors.
    """

    default: FloatArray
    improved: FloatArray

    @property
    def ratios(self) -> FloatArray:
        """Improved over default, (n_clusterings,)."""
        return self.improved / self.default

    @property
    def n_better(self) -> int:
        """Number of clusterings under which the improved model has the smaller error."""
        return int(np.sum(self.ratios < 1))


def other_groups(
    dataset: Dataset,
    heldout: IntArray,
    *,
    rng: np.random.Generator,
    n_geometry: int,
    n_energy: int,
    progress: Progress = SILENT,
) -> IntArray:
    """Cluster the held-out frames in other ways.

    Parameters
    ----------
    heldout : (n_heldout,) int array
        Held-out frames of the data set.
    n_geometry, n_energy : int
        Those of the run's clustering, see `ase_flatten.clustering.clusters.cluster`.

    Returns
    -------
    (n_clusterings, n_heldout) int array
        The group of each held-out frame, with at least 20 frames in a group; no rows if there are fewer than
        `N_FRAMES_LEAST` held-out frames.
    """
    if len(heldout) < N_FRAMES_LEAST:
        return np.empty((0, len(heldout)), dtype=np.int64)
    frames = dataset.take(heldout)
    descriptors = frames.pair_distances
    groups = np.empty((N_CLUSTERINGS, len(heldout)), dtype=np.int64)
    with progress.task("clustering the held-out frames in other ways", N_CLUSTERINGS) as advance:
        for row in range(N_CLUSTERINGS):
            found = cluster(
                frames,
                rng=rng,
                n_geometry=max(1, round(GEOMETRIES[row % len(GEOMETRIES)] * n_geometry)),
                n_energy=n_energy,
                n_ward=max(2 * n_geometry, min(N_WARD_MOST, len(heldout) // 2)),
            )
            members = [found.members(label) for label in range(found.n_clusters)]
            geometry = np.array([found.geometry[of[0]] for of in members])
            centres = np.array([descriptors[of].mean(axis=0) for of in members])
            merged = merge_clusters(found.populations, geometry, centres, found.populations)
            groups[row] = merged.of_cluster[found.labels]
            advance(1)
    return groups


def read_other_groups(path: Path, n_heldout: int) -> IntArray | None:
    """Read what `other_groups` found; None if the file is missing, as in runs of earlier versions.

    Raises
    ------
    InputError
        A damaged file, or one of another number of held-out frames.
    """
    if not path.exists():
        return None
    remedy = "remove the file and compute it again with: ase-flatten train --resume --out RUN"
    groups = read_arrays(path, ["groups"], what="other clusterings", remedy=remedy)["groups"]
    if groups.ndim != 2 or groups.shape[1] != n_heldout or groups.dtype.kind != "i" or np.any(groups < 0):
        raise InputError(f"expected the groups of {n_heldout} held-out frames in {path}, found others; {remedy}")
    found: IntArray = np.array([np.unique(labels, return_inverse=True)[1] for labels in groups], dtype=np.int64)
    return found.reshape(groups.shape)


def worst_groups(errors: HeldoutErrors, groups: IntArray) -> OtherClusterings | None:
    """Compute the force RMSE of the worst group of each clustering, see `other_groups`; None if there are none."""
    if not len(groups):
        return None
    worst = {
        scheme: np.array([_largest(errors.force_rmse[scheme] ** 2, labels) for labels in groups]) for scheme in SCHEMES
    }
    return OtherClusterings(**worst)


def _largest(squares: FloatArray, labels: IntArray) -> float:
    counts = np.bincount(labels)
    return float(np.sqrt((np.bincount(labels, weights=squares) / counts).max()))
