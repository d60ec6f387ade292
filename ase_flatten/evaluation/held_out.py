"""Default against improved on frames that neither has seen."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.clustering.clusters import Clustering
from ase_flatten.clustering.splits import Splits
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import write_frames
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.evaluation.frame_groups import Groups
from ase_flatten.models.model_folder import load_model
from ase_flatten.selection.cluster_errors import ClusterErrors, FrameErrors, by_cluster, frame_errors
from ase_flatten.utils.atomic_files import reading_npz, write_json, write_npz, write_text
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray

SCHEMES = ("default", "improved")
N_WORST = 3
"""Clusters whose held-out frames are written out."""

_ERRORS = "errors.csv"
_CURVES = "curves.json"
_FRAMES = "heldout_errors.npz"
_DRAWS = "default_draws"


@dataclass(frozen=True, eq=False)
class Curve:
    """Hold the held-out errors of one model, in kcal/mol and kcal/(mol Å), per component.

    Parameters
    ----------
    scheme : {"default", "improved"}
    n_train : int
    force_rmse, energy_rmse : float
        Over all held-out frames.
    cluster_force_rmse, cluster_energy_rmse : (n_clusters,) arrays
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
        """Force RMSE of the worst cluster."""
        return float(np.nanmax(self.cluster_force_rmse))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Hold the held-out errors of all models that are compared.

    Parameters
    ----------
    curves : tuple of Curve
        By rising size, for each scheme.
    populations, n_heldout : (n_clusters,) int arrays
        Frames of each cluster: all, and the held-out ones.
    default_draws : tuple of Curve
        Default models of the final size on other training sets, drawn by the same scheme; none where not trained.
    """

    curves: tuple[Curve, ...]
    populations: np.ndarray
    n_heldout: np.ndarray
    default_draws: tuple[Curve, ...] = ()

    def of(self, scheme: str) -> list[Curve]:
        """Return the curves of one scheme by rising size."""
        return sorted((curve for curve in self.curves if curve.scheme == scheme), key=lambda curve: curve.n_train)

    @property
    def final(self) -> tuple[Curve, Curve]:
        """The default and the improved model in the end."""
        return self.of("default")[-1], self.of("improved")[-1]

    def grouped(self, groups: Groups) -> "Evaluation":
        """Return the errors on groups of clusters, in place of those on clusters."""
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
    def read(cls, folder: Path) -> "Evaluation":
        """Read what `evaluate` wrote; raise InputError where it is not there yet."""
        try:
            content = json.loads((folder / _CURVES).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"expected a finished run, found no {_CURVES} in {folder}; finish it with: ase-flatten train --resume"
            ) from error
        curves, draws = (tuple(map(_read_curve, content.get(name, []))) for name in ("curves", "default_draws"))
        return cls(curves, np.array(content["populations"]), np.array(content["n_heldout"]), draws)


@dataclass(frozen=True, eq=False)
class HeldoutErrors:
    """Hold the final models' errors on each held-out frame, in kcal/mol and kcal/(mol Å).

    Parameters
    ----------
    frames : (n_heldout,) int array
        Frames of the data set, in rising order.
    labels : (n_heldout,) int array
        The broad cluster of each.
    force_rmse, energy_error : mapping of scheme to (n_heldout,) array
        Force RMSE of each frame, per component, and predicted minus reference energy.
    draws_force_rmse, draws_energy_error : (n_draws, n_heldout) arrays
        The same of default models on other training sets; no rows where none were trained.
    """

    frames: IntArray
    labels: IntArray
    force_rmse: Mapping[str, FloatArray]
    energy_error: Mapping[str, FloatArray]
    draws_force_rmse: FloatArray = field(default_factory=lambda: np.empty((0, 0)))
    draws_energy_error: FloatArray = field(default_factory=lambda: np.empty((0, 0)))

    @classmethod
    def read(cls, folder: Path) -> "HeldoutErrors":
        """Read what `evaluate` wrote; raise InputError where it is not there yet."""
        path = folder / _FRAMES
        if not path.exists():
            raise InputError(
                f"expected a finished run, found no {_FRAMES} in {folder}; finish it with: ase-flatten train --resume"
            )
        with reading_npz(path, "held-out errors") as archive:
            arrays = {name: archive[name] for name in archive.files}
        draws = [arrays[name] for name in (f"force_rmse_{_DRAWS}", f"energy_error_{_DRAWS}") if name in arrays]
        return cls(
            arrays["frames"],
            arrays["labels"],
            {scheme: arrays[f"force_rmse_{scheme}"] for scheme in SCHEMES},
            {scheme: arrays[f"energy_error_{scheme}"] for scheme in SCHEMES},
            *draws,
        )


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
    """Measure models on the held-out frames and write errors.csv and the frames of the worst clusters.

    Parameters
    ----------
    models : mapping of scheme to mapping of size to model folder
    default_draws : sequence of Path
        Folders of default models of the final size on other training sets.
    """
    curves: list[Curve] = []
    last: dict[str, FrameErrors] = {}
    for scheme, by_size in models.items():
        for n_train, model_folder in sorted(by_size.items()):
            model = load_model(model_folder).model
            last[scheme] = frame_errors(model, dataset, splits.heldout, progress=progress)
            curves.append(_curve(scheme, n_train, by_cluster(last[scheme], clustering)))
    draws = [frame_errors(load_model(path).model, dataset, splits.heldout, progress=progress) for path in default_draws]
    drawn = [_curve("default", max(models["default"]), by_cluster(errors, clustering)) for errors in draws]
    n_heldout = np.bincount(clustering.labels[splits.heldout], minlength=clustering.n_clusters)
    evaluation = Evaluation(tuple(curves), clustering.populations, n_heldout, tuple(drawn))
    _write_frames(folder, dataset, clustering, last, draws)
    write_text(folder / _ERRORS, _table(evaluation))
    write_json(
        folder / _CURVES,
        {
            "units": {"energy": "kcal/mol", "forces": "kcal/(mol Å)"},
            "populations": evaluation.populations,
            "n_heldout": n_heldout,
            "curves": [_written_curve(curve) for curve in curves],
            _DRAWS: [_written_curve(curve) for curve in drawn],
        },
    )
    return evaluation


def _curve(scheme: str, n_train: int, errors: ClusterErrors) -> Curve:
    return Curve(
        scheme,
        n_train,
        errors.overall_rmse / KCAL_PER_MOL,
        errors.overall_energy_rmse / KCAL_PER_MOL,
        errors.rmse / KCAL_PER_MOL,
        errors.energy_rmse / KCAL_PER_MOL,
    )


def _written_curve(curve: Curve) -> dict[str, Any]:
    return {name: _listed(value) if isinstance(value, np.ndarray) else value for name, value in vars(curve).items()}


def _read_curve(content: Mapping[str, Any]) -> Curve:
    return Curve(
        content["scheme"],
        content["n_train"],
        content["force_rmse"],
        content["energy_rmse"],
        _array(content["cluster_force_rmse"]),
        _array(content["cluster_energy_rmse"]),
    )


def _table(evaluation: Evaluation) -> str:
    """Write errors.csv: a row a cluster, and a last one over all held-out frames."""
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
            [cluster, population, n_heldout, *(f"{value:.6g}" if value == value else "" for value in values)]
        )
    overall = (default.force_rmse, improved.force_rmse, default.energy_rmse, improved.energy_rmse)
    writer.writerow(
        ["all", evaluation.populations.sum(), evaluation.n_heldout.sum(), *(f"{value:.6g}" for value in overall)]
    )
    return text.getvalue()


def _write_frames(
    folder: Path,
    dataset: Dataset,
    clustering: Clustering,
    errors: Mapping[str, FrameErrors],
    draws: Sequence[FrameErrors],
) -> None:
    """Write the errors of all held-out frames, and the frames of the default model's worst clusters."""
    heldout = errors["default"].frames
    labels = clustering.labels[heldout]
    arrays = {f"force_rmse_{scheme}": errors[scheme].force_rmse / KCAL_PER_MOL for scheme in SCHEMES}
    arrays |= {f"energy_error_{scheme}": errors[scheme].energy / KCAL_PER_MOL for scheme in SCHEMES}
    drawn = {
        f"force_rmse_{_DRAWS}": np.array([one.force_rmse / KCAL_PER_MOL for one in draws]),
        f"energy_error_{_DRAWS}": np.array([one.energy / KCAL_PER_MOL for one in draws]),
    }
    write_npz(folder / _FRAMES, {"frames": heldout, "labels": labels, **arrays, **(drawn if draws else {})})
    worst = by_cluster(errors["default"], clustering).ascending[::-1][:N_WORST]
    rows = np.flatnonzero(np.isin(labels, worst))
    rows = rows[np.argsort(-arrays["force_rmse_default"][rows], kind="stable")]
    info: dict[str, Any] = {name: values[rows] for name, values in arrays.items()}
    write_frames(folder / "worst_frames.extxyz", dataset, heldout[rows], cluster=labels[rows], **info)


def _listed(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _array(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])
