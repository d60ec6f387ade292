"""An external test set: both final models of a run, judged on frames from elsewhere that served nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols

from ase_flatten.clustering.clusters import Clustering
from ase_flatten.clustering.other_frames import labels_of_other_frames
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import KCAL_PER_MOL, OutputUnits
from ase_flatten.evaluation.accuracy import accuracies_of, compared_in_words
from ase_flatten.evaluation.claims import Claims
from ase_flatten.evaluation.conclusions import NAMES, formats, moved
from ase_flatten.evaluation.frame_groups import N_LEAST
from ase_flatten.evaluation.held_out import (
    SCHEMES,
    Evaluation,
    HeldoutErrors,
    curve_of,
    errors_of_folder,
    errors_table,
    frame_arrays,
)
from ase_flatten.geometry.bonds import bonded_pairs, connected_pairs
from ase_flatten.geometry.pair_distances import NEAR_IDENTICAL, near_identical_to, pair_distances
from ase_flatten.models.model_folder import read_card
from ase_flatten.selection.cluster_errors import by_cluster
from ase_flatten.utils.atomic_files import write_npz, write_text
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.records import read_arrays, understood
from ase_flatten.utils.typing import FloatArray, IntArray

TEST_TABLE = "test_errors.csv"
TEST_ERRORS = "test_errors.npz"

_AGAIN = "compute them again with: ase-flatten train --resume --out RUN"
_NEARLY = f"RMS difference of pair distances below {NEAR_IDENTICAL} Å"
_FAR_APART = 10
"""Mean energies are of another method, or relative to another zero, beyond this multiple of their range."""
_SAME_DIATOMIC = 1e-5
"""Tolerance for two atoms, Å: their single distance comes near another one by chance."""


@dataclass(frozen=True, eq=False)
class ExternalTest:
    """Errors of the final models on an external test set.

    Parameters
    ----------
    errors : HeldoutErrors
        Its `frames` are those of the test set, and its labels the clusters of the run that they were assigned to.
    in_data, in_training : (n_frames,) bool arrays
        Frames that are nearly identical to one of the run's data set, and to one that either model was trained or
        validated on.
    """

    errors: HeldoutErrors
    in_data: np.ndarray
    in_training: np.ndarray

    @classmethod
    def read(cls, path: Path, *, n_clusters: int) -> "ExternalTest":
        """Read test_errors.npz, as `evaluate_test_set` wrote it; raise InputError if it is damaged."""
        errors, names = HeldoutErrors.read(path, n_clusters=n_clusters), ("in_data", "in_training")
        words = {"what": "the errors on a test set", "remedy": _AGAIN}
        arrays = read_arrays(path, names, shapes=dict.fromkeys(names, "bool frames"), **words)
        with understood(path, **words):
            if len(arrays["in_data"]) != len(errors.frames):
                raise ValueError(f"{len(arrays['in_data'])} marks of {len(errors.frames)} frames")
        return cls(errors, arrays["in_data"], arrays["in_training"])


def check_test_set(test: Dataset, dataset: Dataset, *, name: str) -> None:
    """Refuse a test set that cannot judge models of a data set.

    Parameters
    ----------
    name : str
        What the test set is called in messages.

    Raises
    ------
    InputError
        Another molecule, another order of the atoms, energies of another method, or the data set itself.
    """
    if not np.array_equal(test.numbers, dataset.numbers):
        order = " in another order" if test.formula == dataset.formula else ""
        raise InputError(
            f"expected a test set of {dataset.formula} with its atoms in the data set's order, found {test.formula}"
            f"{order} in {printable(name)}; give a test set of this molecule, or reorder its atoms"
        )
    if test.digest == dataset.digest:
        raise InputError(
            f"expected a test set other than the data, found the data themselves in {printable(name)}; errors on the "
            "held-out frames need no --test"
        )
    apart = abs(test.energies.mean() - dataset.energies.mean())
    if apart > _FAR_APART * max(np.ptp(dataset.energies), np.ptp(test.energies)) > 0:
        raise InputError(
            f"expected energies of the data set's method and zero, found those of {printable(name)} "
            f"{apart / KCAL_PER_MOL:,.0f} kcal/mol apart on average; compute the labels of both in the same way"
        )
    typical = np.median(dataset.pair_distances, axis=0)
    bonds = np.flatnonzero(bonded_pairs(dataset.numbers, typical))
    closest = test.pair_distances.min(axis=0)
    lost = bonds[~connected_pairs(dataset.numbers, closest[None])[0, bonds]]
    if len(lost) > 1:  # a single one may be a proton that has moved
        one, other = (indices[lost[0]] for indices in np.tril_indices(dataset.n_atoms, -1))
        symbols = [chemical_symbols[dataset.numbers[atom]] for atom in (one, other)]
        raise InputError(
            f"expected the atoms in the order of the data set, where atoms {one} ({symbols[0]}) and {other} "
            f"({symbols[1]}) are bonded, found these and {len(lost) - 1} more such pairs apart in all frames of "
            f"{printable(name)}; reorder its atoms"
        )


def near_training(test: Dataset, positions: FloatArray) -> np.ndarray:
    """Return which frames of a test set are nearly identical to training geometries, (n_frames,) bool.

    Pair distances are compared, so that position and orientation do not matter.

    Parameters
    ----------
    positions : (n_train, n_atoms, 3) array, Å
        May be empty.
    """
    if not len(positions):
        return np.zeros(test.n_frames, dtype=bool)
    return near_identical_to(test.pair_distances, pair_distances(positions), tolerance=_tolerance(test))


def _tolerance(test: Dataset) -> float:
    return NEAR_IDENTICAL if test.n_atoms > 2 else _SAME_DIATOMIC


def evaluate_test_set(
    folder: Path,
    test: Dataset,
    dataset: Dataset,
    clustering: Clustering,
    models: Mapping[str, Path],
    *,
    used_frames: IntArray,
    assignment: str,
    rng: np.random.Generator,
    progress: Progress = SILENT,
) -> None:
    """Compute the errors of both final models on a test set, and write test_errors.csv and test_errors.npz.

    Parameters
    ----------
    folder : Path
        The run folder.
    models : mapping of scheme to model folder
    used_frames : int array
        The frames of the data set that training and validation of either model used.
    assignment : str
        The run's rule for frames that join its clusters.
    """
    n_data, frames = dataset.n_frames, np.arange(test.n_frames)
    labels = labels_of_other_frames(clustering, dataset, test, rng=rng, assignment=assignment, progress=progress)
    joint = Clustering(np.concatenate([clustering.labels, labels]))
    errors = {scheme: errors_of_folder(path, test, frames, progress) for scheme, path in models.items()}
    curves = tuple(
        curve_of(
            scheme,
            len(read_card(models[scheme]).training_frames),
            by_cluster(errors[scheme].renumbered(frames + n_data), joint),
        )
        for scheme in SCHEMES
    )
    counts = np.bincount(labels, minlength=clustering.n_clusters)
    in_data = near_identical_to(test.pair_distances, dataset.pair_distances, tolerance=_tolerance(test))
    in_training = near_training(test, dataset.positions[used_frames])
    arrays = {"frames": frames, "labels": labels, **frame_arrays(test, errors)}
    write_npz(folder / TEST_ERRORS, {**arrays, "in_data": in_data, "in_training": in_training})
    write_text(folder / TEST_TABLE, errors_table(Evaluation(curves, clustering.populations, counts)))


def overlap_in_words(n_near: int, n_frames: int, *, what: str) -> str:
    """Say how many frames of a test set are no independent test.

    Parameters
    ----------
    what : str
        What they are nearly identical to, such as "training frames".
    """
    if not n_near:
        return f"None of them is nearly identical to {what} ({_NEARLY})."
    return (
        f"{n_near:,} of the {n_frames:,} frames {'is' if n_near == 1 else 'are'} nearly identical to {what} "
        f"({_NEARLY}): on these the errors are no independent test."
    )


def conclude_test(found: ExternalTest, claims: Claims, units: OutputUnits, *, name: str) -> list[str]:
    """Return sentences on what was found on a test set.

    Parameters
    ----------
    claims : Claims
        On these frames alone, see `ase_flatten.evaluation.claims.make_claims`.
    name : str
        What the test set is called.
    """
    force, _ = formats(claims, units)
    n_frames = len(found.errors.frames)
    sentences = [
        f"On the test set {name} ({n_frames:,} frames), the {NAMES['overall']} "
        f"{moved(claims.of['overall'], force, units.force)}, and the {NAMES['worst_group']} "
        f"{moved(claims.of['worst_group'], force)}; the noise is that of these frames, since other default draws "
        "were not judged on them.",
        *compared_in_words(accuracies_of(found.errors), units, frames="the test set"),
    ]
    if n_frames < N_LEAST:
        sentences.append(
            f"A test set of fewer than {N_LEAST} frames says little: the intervals are too narrow, and better or "
            "worse may be chance."
        )
    n_data, n_training = int(found.in_data.sum()), int(found.in_training.sum())
    if n_data or n_training:
        sentences.append(overlap_in_words(n_data, n_frames, what="frames of the data set"))
        sentences.append(overlap_in_words(n_training, n_frames, what="training or validation frames"))
    else:
        sentences.append(overlap_in_words(0, n_frames, what="frames of the data set"))
    return sentences
