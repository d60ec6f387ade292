"""Errors of the default and the improved model on frames that neither has seen."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ase_flatten.clustering.clusters import Clustering
from ase_flatten.clustering.splits import Splits
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import write_frames
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.evaluation.frame_groups import Groups
from ase_flatten.evaluation.predictions import HELDOUT_PREDICTIONS, ForceCounts, HeldoutPredictions, force_edges
from ase_flatten.models.model_folder import load_model
from ase_flatten.selection.cluster_errors import ClusterErrors, FrameErrors, by_cluster, frame_errors
from ase_flatten.utils.atomic_files import write_npz, write_text
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.records import read_arrays, read_record, understood, write_record
from ase_flatten.utils.typing import FloatArray, IntArray

SCHEMES = ("default", "improved")
N_WORST = 3
"""Number of clusters whose held-out frames are written to a file."""

_ERRORS = "errors.csv"
CURVES = "curves.json"
HELDOUT_ERRORS = "heldout_errors.npz"
_DRAWS = "default_draws"
_AGAIN = "compute them again with: ase-flatten train --resume --out RUN"


@dataclass(frozen=True, eq=False)
class Curve:
    """Held-out errors of one model.

    Parameters
    ----------
    scheme : {"default", "improved"}
    n_train : int
        Its training frames.
    force_rmse, energy_rmse : float, eV/Å and eV
        Over all held-out frames, forces per component.
    cluster_force_rmse, cluster_energy_rmse : (n_clusters,) arrays, eV/Å and eV
        NaN for a cluster without held-out frames.
    """

    scheme: str
    n_train: int
    force_rmse: float
    energy_rmse: float
    cluster_force_rmse: np.ndarray
    cluster_energy_rmse: np.ndarray

    @property
    def worst(self) -> float:
        """Force RMSE of the worst cluster, eV/Å."""
        return float(np.nanmax(self.cluster_force_rmse))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Held-out errors of all models that are compared.

    Parameters
    ----------
    curves : tuple of Curve
        Of all sizes and both schemes.
    populations, n_heldout : (n_clusters,) int arrays
        Number of frames of each cluster: all, and held-out ones.
    default_draws : tuple of Curve
        Default models of the final size on other training sets, drawn by the same scheme; may be empty.
    """

    curves: tuple[Curve, ...]
    populations: np.ndarray
    n_heldout: np.ndarray
    default_draws: tuple[Curve, ...] = ()

    def of(self, scheme: str) -> list[Curve]:
        """Return the curves of one scheme, by increasing size."""
        return sorted((curve for curve in self.curves if curve.scheme == scheme), key=lambda curve: curve.n_train)

    @property
    def final(self) -> tuple[Curve, Curve]:
        """The final default and the final improved model."""
        return self.of("default")[-1], self.of("improved")[-1]

    def grouped(self, groups: Groups) -> "Evaluation":
        """Return the errors on groups of clusters instead of single clusters."""
        of_cluster = groups.of_cluster

        def of_groups(curve: Curve) -> Curve:
            squares = (
                np.bincount(of_cluster, weights=self.n_heldout * np.nan_to_num(values) ** 2)
                for values in (curve.cluster_force_rmse, curve.cluster_energy_rmse)
            )
            counts = np.where(groups.n_heldout > 0, groups.n_heldout, np.nan)
            return Curve(
                curve.scheme, curve.n_train, curve.force_rmse, curve.energy_rmse,
                *(np.sqrt(of / counts) for of in squares),
            )  # fmt: skip

        return Evaluation(
            tuple(map(of_groups, self.curves)),
            np.bincount(of_cluster, weights=self.populations).astype(np.int64),
            groups.n_heldout,
            tuple(map(of_groups, self.default_draws)),
        )

    @classmethod
    def read(cls, path: Path, *, n_clusters: int) -> "Evaluation":
        """Read curves.json, as `evaluate` wrote it; raise InputError if it is damaged."""
        words = {"what": "the held-out errors of a run", "remedy": _AGAIN}
        saved = read_record(path, _SavedCurves, version=None, **words)
        with understood(path, **words):
            evaluation = cls(
                tuple(map(_read_curve, saved.curves)),
                np.array(saved.populations, dtype=np.int64),
                np.array(saved.n_heldout, dtype=np.int64),
                tuple(map(_read_curve, saved.default_draws)),
            )
            _check(evaluation, n_clusters)
        return evaluation


@dataclass(frozen=True, eq=False)
class HeldoutErrors:
    """Errors of the final models on each held-out frame.

    Parameters
    ----------
    frames : (n_heldout,) int array
        Frames of the data set, in ascending order.
    labels : (n_heldout,) int array
        The broad cluster of each.
    force_rmse, energy_error : mapping of scheme to (n_heldout,) array, eV/Å and eV
        Force RMSE of each frame, per component, and predicted minus reference energy.
    draws_force_rmse, draws_energy_error : (n_draws, n_heldout) arrays, eV/Å and eV
        The same for default models on other training sets; no rows if none were trained.
    force_mae : mapping of scheme to (n_heldout,) array, eV/Å
        Mean absolute error of the components of each frame's forces; empty for runs made before it was kept.
    reference : tuple of two (n_heldout,) arrays or None, eV/Å and eV
        What the errors are errors of: root mean square of the components of each frame's forces, and energies relative
        to their mean; None for runs made before these were kept.
    """

    frames: IntArray
    labels: IntArray
    force_rmse: Mapping[str, FloatArray]
    energy_error: Mapping[str, FloatArray]
    draws_force_rmse: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    draws_energy_error: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    force_mae: Mapping[str, FloatArray] = field(default_factory=dict)
    reference: tuple[FloatArray, FloatArray] | None = None

    @classmethod
    def read(cls, path: Path, *, n_clusters: int) -> "HeldoutErrors":
        """Read heldout_errors.npz, as `evaluate` wrote it; raise InputError if it is damaged."""
        words = {"what": "the held-out errors of a run", "remedy": _AGAIN}
        names = ("frames", "labels", *_OF_FRAMES)
        shapes = {
            "frames": "int heldout",
            "labels": "int heldout",
            **dict.fromkeys((*_OF_FRAMES, *_ADDED), "float heldout"),
            **dict.fromkeys(_OF_DRAWS, "float draws heldout"),
        }
        arrays = read_arrays(path, names, shapes=shapes, **words)
        with understood(path, **words):
            labels = arrays["labels"]
            if not len(labels) or labels.min() < 0 or labels.max() >= n_clusters:
                raise ValueError(f"labels that are not of {n_clusters} clusters")
            drawn = [arrays[name] * KCAL_PER_MOL for name in _OF_DRAWS if name in arrays]
            if len(drawn) == 1:
                raise ValueError("forces or energies of the default draws without the other")
            added = [arrays[name] * KCAL_PER_MOL for name in _ADDED if name in arrays]
            if added and len(added) < len(_ADDED):
                raise ValueError(f"some of {', '.join(_ADDED)} without the others")
        return cls(
            arrays["frames"],
            labels,
            {scheme: arrays[f"force_rmse_{scheme}"] * KCAL_PER_MOL for scheme in SCHEMES},
            {scheme: arrays[f"energy_error_{scheme}"] * KCAL_PER_MOL for scheme in SCHEMES},
            **dict(zip(("draws_force_rmse", "draws_energy_error"), drawn, strict=False)),
            force_mae=dict(zip(SCHEMES, added, strict=False)),
            reference=(added[2], added[3]) if added else None,
        )


_OF_FRAMES = tuple(f"{kind}_{scheme}" for kind in ("force_rmse", "energy_error") for scheme in SCHEMES)
_ADDED = (*(f"force_mae_{scheme}" for scheme in SCHEMES), "reference_force_rms", "reference_energy")
"""Arrays that the first version did not write."""
_OF_DRAWS = (f"force_rmse_{_DRAWS}", f"energy_error_{_DRAWS}")


@dataclass(frozen=True)
class _SavedCurve:
    """A `Curve` as curves.json holds it, in kcal/mol and kcal/(mol Å)."""

    scheme: Literal["default", "improved"]
    n_train: int
    force_rmse: float
    energy_rmse: float
    cluster_force_rmse: list[float | None]
    cluster_energy_rmse: list[float | None]


@dataclass(frozen=True)
class _SavedCurves:
    """The content of curves.json."""

    units: dict[str, str]
    populations: list[int]
    n_heldout: list[int]
    curves: list[_SavedCurve]
    default_draws: list[_SavedCurve] = field(default_factory=list)


def evaluate(
    folder: Path,
    dataset: Dataset,
    clustering: Clustering,
    splits: Splits,
    models: Mapping[str, Mapping[int, Path]],
    *,
    default_draws: Sequence[Path] = (),
    progress: Progress = SILENT,
) -> Evaluation:
    """Compute the errors of models on the held-out frames; write them, and the frames of the worst clusters.

    Parameters
    ----------
    models : mapping of scheme to mapping of size to model folder
    default_draws : sequence of Path
        Folders of default models of the final size on other training sets.
    """
    curves: list[Curve] = []
    last: dict[str, FrameErrors] = {}
    edges, counted = force_edges(dataset.forces[splits.heldout]), {}
    for scheme, by_size in models.items():
        for n_train, model_folder in sorted(by_size.items()):
            counted[scheme] = ForceCounts(edges)
            last[scheme] = errors_of_folder(
                model_folder, dataset, splits.heldout, progress, on_forces=counted[scheme].add
            )
            curves.append(curve_of(scheme, n_train, by_cluster(last[scheme], clustering)))
    draws = [errors_of_folder(path, dataset, splits.heldout, progress) for path in default_draws]
    drawn = [curve_of("default", max(models["default"]), by_cluster(errors, clustering)) for errors in draws]
    n_heldout = np.bincount(clustering.labels[splits.heldout], minlength=clustering.n_clusters)
    evaluation = Evaluation(tuple(curves), clustering.populations, n_heldout, tuple(drawn))
    _write_frames(folder, dataset, clustering, last, draws)
    energies = dataset.energies[splits.heldout] - dataset.energies.min()
    predictions = HeldoutPredictions(energies, edges, {scheme: one.counts for scheme, one in counted.items()})
    predictions.write(folder / HELDOUT_PREDICTIONS)
    write_text(folder / _ERRORS, errors_table(evaluation))
    saved = _SavedCurves(
        units={"energy": "kcal/mol", "forces": "kcal/(mol Å)"},
        populations=evaluation.populations.tolist(),
        n_heldout=n_heldout.tolist(),
        curves=list(map(_saved_curve, curves)),
        default_draws=list(map(_saved_curve, drawn)),
    )
    write_record(folder / CURVES, saved)
    return evaluation


def errors_of_folder(folder: Path, dataset: Dataset, frames: IntArray, progress: Progress, **watch: Any) -> FrameErrors:
    """Predict frames with the model of a folder; raise InputError if it cannot."""
    model = load_model(folder).model
    try:
        return frame_errors(model, dataset, frames, progress=progress, **watch)
    except InputError as error:
        raise InputError(f"cannot evaluate the model in {folder}: {error}") from error


def curve_of(scheme: str, n_train: int, errors: ClusterErrors) -> Curve:
    """Return the errors of a model by cluster as a curve."""
    return Curve(scheme, n_train, errors.overall_rmse, errors.overall_energy_rmse, errors.rmse, errors.energy_rmse)


def _saved_curve(curve: Curve) -> _SavedCurve:
    return _SavedCurve(
        curve.scheme,  # type: ignore[arg-type]
        curve.n_train,
        curve.force_rmse / KCAL_PER_MOL,
        curve.energy_rmse / KCAL_PER_MOL,
        _listed(curve.cluster_force_rmse / KCAL_PER_MOL),
        _listed(curve.cluster_energy_rmse / KCAL_PER_MOL),
    )


def _read_curve(saved: _SavedCurve) -> Curve:
    return Curve(
        saved.scheme,
        saved.n_train,
        saved.force_rmse * KCAL_PER_MOL,
        saved.energy_rmse * KCAL_PER_MOL,
        _array(saved.cluster_force_rmse) * KCAL_PER_MOL,
        _array(saved.cluster_energy_rmse) * KCAL_PER_MOL,
    )


def _check(evaluation: Evaluation, n_clusters: int) -> None:
    """Raise ValueError unless the errors fit the clusters and suffice for a comparison."""
    populations, n_heldout = evaluation.populations, evaluation.n_heldout
    if len(populations) != n_clusters or len(n_heldout) != n_clusters:
        raise ValueError(f"{len(populations)} populations and {len(n_heldout)} counts of {n_clusters} clusters")
    if populations.min() < 1 or populations.max() > 2**40 or np.any((n_heldout < 0) | (n_heldout > populations)):
        raise ValueError("impossible counts of frames")
    if not n_heldout.any() or any(not evaluation.of(scheme) for scheme in SCHEMES):
        raise ValueError("no curve of one of the models, or no held-out frames")
    for curve in (*evaluation.curves, *evaluation.default_draws):
        if not 0 < curve.n_train < 2**40:
            raise ValueError(f"a model of {curve.n_train} training frames")
        for rmse in (curve.cluster_force_rmse, curve.cluster_energy_rmse):
            if (
                rmse.shape != (n_clusters,)
                or not np.array_equal(np.isfinite(rmse), n_heldout > 0)
                or np.nanmin(rmse) < 0
            ):
                raise ValueError(f"errors of the {curve.scheme} model that are not one for each cluster")
        if not (curve.force_rmse >= 0 and curve.energy_rmse >= 0):
            raise ValueError(f"errors of the {curve.scheme} model below 0")


def errors_table(evaluation: Evaluation) -> str:
    """Write errors.csv, in kcal/mol: one row for each cluster, and a last one over all held-out frames."""
    default, improved = evaluation.final
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [f"{kind}_rmse_{scheme}" for kind in ("force", "energy") for scheme in SCHEMES]
    writer.writerow(["cluster", "population", "n_heldout", *columns])
    for cluster, (population, n_heldout) in enumerate(zip(evaluation.populations, evaluation.n_heldout, strict=True)):
        values = (
            default.cluster_force_rmse[cluster],
            improved.cluster_force_rmse[cluster],
            default.cluster_energy_rmse[cluster],
            improved.cluster_energy_rmse[cluster],
        )
        writer.writerow(
            [
                cluster,
                population,
                n_heldout,
                *(f"{value / KCAL_PER_MOL:.6g}" if value == value else "" for value in values),
            ]
        )
    overall = (default.force_rmse, improved.force_rmse, default.energy_rmse, improved.energy_rmse)
    writer.writerow(
        [
            "all",
            evaluation.populations.sum(),
            evaluation.n_heldout.sum(),
            *(f"{value / KCAL_PER_MOL:.6g}" for value in overall),
        ]
    )
    return text.getvalue()


def _write_frames(
    folder: Path,
    dataset: Dataset,
    clustering: Clustering,
    errors: Mapping[str, FrameErrors],
    draws: Sequence[FrameErrors],
) -> None:
    """Write the errors of all held-out frames, in kcal/mol, and the frames of the default model's worst clusters."""
    heldout = errors["default"].frames
    labels = clustering.labels[heldout]
    arrays = frame_arrays(dataset, errors)
    drawn = {
        f"force_rmse_{_DRAWS}": np.array([one.force_rmse / KCAL_PER_MOL for one in draws]),
        f"energy_error_{_DRAWS}": np.array([one.energy / KCAL_PER_MOL for one in draws]),
    }
    write_npz(folder / HELDOUT_ERRORS, {"frames": heldout, "labels": labels, **arrays, **(drawn if draws else {})})
    worst = by_cluster(errors["default"], clustering).ascending[::-1][:N_WORST]
    rows = np.flatnonzero(np.isin(labels, worst))
    rows = rows[np.argsort(-arrays["force_rmse_default"][rows], kind="stable")]
    info: dict[str, Any] = {name: arrays[name][rows] for name in _OF_FRAMES}
    write_frames(folder / "worst_frames.extxyz", dataset, heldout[rows], cluster=labels[rows], **info)


def frame_arrays(dataset: Dataset, errors: Mapping[str, FrameErrors]) -> dict[str, np.ndarray]:
    """Return the errors of both models on each frame, and what they are errors of, in kcal/mol and kcal/(mol Å)."""
    frames = errors["default"].frames
    arrays = {f"force_rmse_{scheme}": errors[scheme].force_rmse for scheme in SCHEMES}
    arrays |= {f"energy_error_{scheme}": errors[scheme].energy for scheme in SCHEMES}
    arrays |= {f"force_mae_{scheme}": errors[scheme].force_mae for scheme in SCHEMES}
    arrays["reference_force_rms"] = np.sqrt(np.mean(dataset.forces[frames] ** 2, axis=(1, 2)))
    arrays["reference_energy"] = dataset.energies[frames] - dataset.energies[frames].mean()
    return {name: values / KCAL_PER_MOL for name, values in arrays.items()}


def _listed(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _array(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])
