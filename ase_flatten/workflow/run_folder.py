"""The run folder: the settings of a run and its results."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ase_flatten.clustering.clusters import HOLDOUT, N_WARD, Clustering
from ase_flatten.clustering.splits import Splits
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.known_molecule import Reference
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.evaluation.claims import Claims, make_claims
from ase_flatten.evaluation.distinctions import DISTINCTIONS, Distinction, read_distinctions
from ase_flatten.evaluation.external_test import TEST_ERRORS, ExternalTest
from ase_flatten.evaluation.frame_groups import Groups, merge_clusters
from ase_flatten.evaluation.held_out import CURVES, HELDOUT_ERRORS, SCHEMES, Evaluation, HeldoutErrors
from ase_flatten.evaluation.other_clusterings import OTHER_CLUSTERINGS, read_other_groups
from ase_flatten.evaluation.predictions import HELDOUT_PREDICTIONS, HeldoutPredictions
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.selection.flattening import Schedule
from ase_flatten.selection.quarantine import BEFORE_TRAINING, Quarantine, read_quarantine
from ase_flatten.selection.sampled_errors import SubsetRule
from ase_flatten.utils.atomic_files import write_npz
from ase_flatten.utils.exceptions import InputError, nearest, printable
from ase_flatten.utils.notebook import html_table, short_repr
from ase_flatten.utils.records import read_arrays, read_record, understood
from ase_flatten.utils.typing import IntArray
from ase_flatten.workflow.history import HistoryLine, read_history
from ase_flatten.workflow.upgrades import upgrade_settings

FORMAT = 1
CLUSTERS = "clusters.npz"

MAX_DRAWS = 1000
"""Largest number of default training sets."""

_RESTORE = "restore the file from a copy, or train into a new folder"


@dataclass(frozen=True)
class RunSettings:
    """Everything besides its data that decides what a run computes.

    Parameters
    ----------
    family : str
        Name of the model family.
    trainer : mapping
        Settings of the trainer of the family.
    schedule : Schedule
    seed : int
    holdout : float
        Share of the frames that are held out.
    subset : bool, optional
        Whether each step estimates the errors of the clusters on subsets; by default, this is so for families that
        are expensive, and run.json records the decision.
    subset_rule : SubsetRule
    default_draws : int, optional
        Number of default training sets of the final size, to assess how much depends on the draw; by default four,
        or one if training or prediction takes long. It may change on resuming.
    n_geometry, n_energy : int, optional
        Clusters by geometry, and by energy within each; by default `n_clusters_for` the held-out frames, and run.json
        records the numbers.
    n_ward, assignment
        See `ase_flatten.clustering.clusters.cluster`.
    quarantine : {"on", "off"} or tuple of int
        Whether labels are judged and frames with contradicted labels set aside; or the frames to set aside.

    Raises
    ------
    InputError
        A quarantine that is none of these, a negative seed, or a number of default draws outside 1 to `MAX_DRAWS`.

    Examples
    --------
    >>> from ase_flatten import RunSettings, Schedule
    >>> settings = RunSettings(family="schnet", trainer={"epochs": 200}, schedule=Schedule(n_steps=4), seed=1)
    >>> settings.schedule.n_train(4)
    600
    """

    family: str = "sgdml"
    trainer: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0
    holdout: float = HOLDOUT
    subset: bool | None = None
    subset_rule: SubsetRule = field(default_factory=SubsetRule)
    default_draws: int | None = None
    n_geometry: int | None = None
    n_energy: int | None = None
    n_ward: int = N_WARD
    assignment: str = "average"
    quarantine: str | tuple[int, ...] = "on"

    def __post_init__(self) -> None:
        if isinstance(self.quarantine, str) and self.quarantine not in ("on", "off"):
            raise InputError(f"quarantine must be on, off or a list of frames, got {self.quarantine!r}")

        if self.seed < 0:
            raise InputError(f"the seed must be 0 or a positive integer, got {self.seed}")
        if self.default_draws is not None and not 1 <= self.default_draws <= MAX_DRAWS:
            raise InputError(f"default_draws must be from 1 to {MAX_DRAWS}, got {self.default_draws}")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RunSettings":
        """Rebuild settings from what `dataclasses.asdict` made of them, in this version or an earlier one.

        Raises
        ------
        InputError
            A setting that a run does not have, or an invalid value.
        """
        try:
            settings = msgspec.convert(upgrade_settings(content), cls)
        except (msgspec.ValidationError, TypeError) as error:
            raise InputError(printable(error)) from error
        _update(asdict(settings), content)
        return settings


def read_protocol(path: Path) -> RunSettings:
    """Read the settings of a run from a TOML file with the layout of run.json; missing settings keep their defaults.

    Raises
    ------
    InputError
        No such file, not TOML, a setting that a run does not have, or an invalid value.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"expected the settings of a run in {path}, could not read them: {error}") from error
    settings = asdict(RunSettings())
    try:
        _update(settings, content)
        return RunSettings.from_json(settings)
    except InputError as error:
        raise InputError(f"expected the settings of a run in {path}: {error}") from error


def _update(settings: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Apply changes to settings, table by table."""
    for name, value in changes.items():
        if name not in settings:
            raise InputError(f"{printable(name)!r} is not a setting of a run; {nearest(name, list(settings))}")
        if isinstance(settings[name], dict) and name != "trainer":
            if not isinstance(value, Mapping):
                raise InputError(f"{name} must be a table of settings, got {printable(value)}")
            _update(settings[name], value)
        else:
            settings[name] = value


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """The file of a data set, and how it was read: what a run needs in order to read it again.

    Parameters
    ----------
    path : str
        Absolute.
    energy_unit, length_unit : str, optional
        Units that were given because the file declares none.
    energy_key, forces_key : str, optional
        Names of the energies and forces in the file that were given.
    """

    path: str
    energy_unit: str | None = None
    length_unit: str | None = None
    energy_key: str | None = None
    forces_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What run.json says about the data set of a run.

    Parameters
    ----------
    source : str
        Name of the data set, such as that of its file.
    digest : str
        Identifies the data set.
    formula : str
        Of the molecule.
    n_frames : int
    theory : str
        The level of theory of the labels; empty if it is not known.
    file : DataFile, optional
        Missing if the data set was not read from a file, and from old runs.
    """

    source: str = ""
    digest: str
    formula: str = ""
    n_frames: int
    theory: str = ""
    file: DataFile | None = None

    @classmethod
    def of(cls, dataset: Dataset, file: DataFile | None = None, *, source: str = "") -> "DatasetInfo":
        """Describe a data set; its source is by default the name of its file."""
        return cls(
            source=source or (Path(file.path).name if file else ""),
            digest=dataset.digest,
            formula=dataset.formula,
            n_frames=dataset.n_frames,
            theory=dataset.theory,
            file=file,
        )


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The content of run.json.

    Parameters
    ----------
    format : int
        The version of the run folder.
    settings : mapping
        The settings as they were written; `Run.settings` is what they mean.
    trainer : mapping
        All settings of the family's trainer.
    dataset : DatasetInfo
    test : DatasetInfo or None
        The external test set.
    versions : mapping
        Versions of the packages that the run was begun with, and of those it was last resumed with.
    """

    format: int = FORMAT
    settings: dict[str, Any]
    trainer: dict[str, Any] = field(default_factory=dict)
    dataset: DatasetInfo
    test: DatasetInfo | None = None
    versions: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return short_repr("RunInfo", self.facts)

    def _repr_html_(self) -> str:
        return html_table("Run", self.facts)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What the run is, as names and values."""
        data = self.dataset
        return [
            ("family", str(self.settings.get("family", "unknown"))),
            ("molecule", data.formula or "unknown"),
            ("data", f"{data.n_frames} frames of {data.source or 'an unnamed set'}"),
        ]


@dataclass(frozen=True)
class Run:
    """A run folder.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    InputError
        From any property whose file is missing or damaged, or does not belong to the others.
    """

    folder: Path

    def __repr__(self) -> str:
        return short_repr(f"Run {self.folder}", self._facts())

    def _repr_html_(self) -> str:
        return html_table(f"Run {self.folder}", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """Return what the run is, how far it is, and its errors; never raise for the sake of a display."""
        try:
            facts, n_done = self.info.facts, len(self.history)
            facts.append(("state", f"{max(0, n_done - 1)} of {self.settings.schedule.n_steps} steps"))
            if (self.folder / CURVES).exists():
                facts += [
                    (f"force RMSE, {one.scheme}", f"{one.force_rmse / KCAL_PER_MOL:.3f} kcal/(mol Å)")
                    for one in self.evaluation.final
                ]
        except InputError as error:
            return [("unreadable", str(error))]
        return facts

    @cached_property
    def info(self) -> RunInfo:
        """The content of run.json."""
        path, what = self.folder / "run.json", "the settings of a run"
        if not path.exists():
            raise InputError(
                f"expected a run folder, found no {path}; make one with: ase-flatten train DATASET --out RUN"
            )
        info = read_record(path, RunInfo, version=FORMAT, what=what, remedy=_RESTORE)
        with understood(path, what=what, remedy=_RESTORE):
            if not 0 < info.dataset.n_frames < 2**62:
                raise ValueError(f"{info.dataset.n_frames} frames")
        return info

    @cached_property
    def settings(self) -> RunSettings:
        """The settings of the run."""
        content = self.info.settings
        with understood(self.folder / "run.json", what="the settings of a run", remedy=_RESTORE):
            return RunSettings.from_json(content)

    @cached_property
    def clustering(self) -> Clustering:
        """The broad clusters."""
        path = self.folder / CLUSTERS
        clustering = read_clusters(path)
        n_frames = self.info.dataset.n_frames
        with understood(path, what="the clusters of a run", remedy=_RESTORE):
            if len(clustering.labels) != n_frames:
                raise ValueError(f"labels of {len(clustering.labels)} frames, not {n_frames}")
        return clustering

    @cached_property
    def splits(self) -> Splits:
        """Train pool, validation and held-out frames."""
        path, what, n_frames = self.folder / "splits.npz", "the splits of a run", self.info.dataset.n_frames
        names = ("pool", "valid", "heldout")
        shapes = {name: f"int {name}" for name in names}
        arrays = read_arrays(path, names, what=what, remedy=_RESTORE, shapes=shapes)
        with understood(path, what=what, remedy=_RESTORE):
            for name in names:
                if np.any((arrays[name] < 0) | (arrays[name] >= n_frames)):
                    raise ValueError(f"{name} holds frames that the data set does not have")
        return Splits(arrays["pool"], arrays["valid"], arrays["heldout"])

    @property
    def quarantine(self) -> Quarantine:
        """Frames with contradicted labels; none in runs that do not judge labels."""
        path = self.folder / "quarantine.json"
        if not path.exists():
            return Quarantine()
        quarantine = read_quarantine(path, remedy=_RESTORE)
        with understood(path, what="the quarantine of a run", remedy=_RESTORE):
            named = [*(look.frame for look in quarantine.looks), *(alarm.frame for alarm in quarantine.alarms)]
            if not all(0 <= frame < self.info.dataset.n_frames for frame in named):
                raise ValueError("frames that the data set does not have")
        return quarantine

    def trainable(self, step: int) -> Splits:
        """Return the splits without the frames that were in quarantine after a step.

        Held-out frames are kept: leaving some of them out would favour a model.
        """
        quarantine, splits = self.quarantine, self.splits
        return Splits(
            np.setdiff1d(splits.pool, quarantine.up_to(step).frames),
            np.setdiff1d(splits.valid, quarantine.up_to(BEFORE_TRAINING).frames),
            splits.heldout,
        )

    @property
    def history(self) -> list[HistoryLine]:
        """The steps that are done; none before the first one."""
        path = self.folder / "history.jsonl"
        if not path.exists():
            return []
        return read_history(path, n_frames=self.info.dataset.n_frames, remedy=_RESTORE)

    @cached_property
    def evaluation(self) -> Evaluation:
        """Errors on the held-out frames."""
        path = self._of_finished_run(CURVES)
        return Evaluation.read(path, n_clusters=self.clustering.n_clusters)

    @cached_property
    def heldout_errors(self) -> HeldoutErrors:
        """Errors of the final models on each held-out frame."""
        path = self._of_finished_run(HELDOUT_ERRORS)
        return HeldoutErrors.read(path, n_clusters=self.clustering.n_clusters)

    @cached_property
    def heldout_predictions(self) -> HeldoutPredictions | None:
        """Predicted against true values on the held-out frames; None in runs made before these were kept."""
        path = self.folder / HELDOUT_PREDICTIONS
        if not path.exists():
            return None
        return HeldoutPredictions.read(path, SCHEMES, n_heldout=len(self.heldout_errors.frames))

    @cached_property
    def distinctions(self) -> Mapping[tuple[int, ...], Distinction]:
        """What distinguishes each group of clusters; empty in runs made before this was found."""
        path = self.folder / DISTINCTIONS
        return read_distinctions(path, self.reference.molecule.numbers) if path.exists() else {}

    @cached_property
    def external_test(self) -> ExternalTest | None:
        """Errors of the final models on the external test set; None if there is no test set."""
        path = self.folder / TEST_ERRORS
        return ExternalTest.read(path, n_clusters=self.clustering.n_clusters) if path.exists() else None

    @cached_property
    def test_claims(self) -> Claims | None:
        """What can be said about the errors on the external test set; None if there is no test set."""
        found = self.external_test
        if found is None:
            return None
        counts = np.bincount(found.errors.labels, minlength=self.clustering.n_clusters)
        rng = np.random.default_rng([self.settings.seed, 0, 7])
        return make_claims(found.errors, self._groups(counts), counts, rng=rng)

    @cached_property
    def claims(self) -> Claims:
        """What can be said about the errors on the held-out frames; the same each time it is computed."""
        evaluation = self.evaluation
        groups = self._groups(evaluation.n_heldout)
        rng = np.random.default_rng([self.settings.seed, 0, 4])
        errors = self.heldout_errors
        others = read_other_groups(self.folder / OTHER_CLUSTERINGS, len(errors.frames))
        return make_claims(errors, groups, evaluation.populations, rng=rng, other_groups=others)

    def _groups(self, counts: IntArray) -> Groups:
        """Merge clusters into groups that have enough of the frames that are judged."""
        clustering = self.clustering
        first = np.unique(clustering.labels, return_index=True)[1]
        centres = pair_distances(self.reference.positions)
        return merge_clusters(counts, clustering.geometry[first], centres, clustering.populations)

    @cached_property
    def reference(self) -> Reference:
        """What later stages need of the data set."""
        path = self.folder / "reference.npz"
        reference = Reference.read(path, remedy=_RESTORE)
        with understood(path, what="what a run keeps of its data set", remedy=_RESTORE):
            if len(reference.positions) != self.clustering.n_clusters:
                raise ValueError(f"{len(reference.positions)} clusters, not {self.clustering.n_clusters}")
        return reference

    def _of_finished_run(self, name: str) -> Path:
        path = self.folder / name
        if not path.exists():
            raise InputError(
                f"expected a finished run, found no {name} in {self.folder}; "
                f"finish it with: ase-flatten train --resume --out {self.folder}"
            )
        return path

    def step_folder(self, number: int, *, scheme: str = "improved") -> Path:
        """Return the model folder of a step, or of the default model of the same size."""
        return self.folder / ("steps" if scheme == "improved" else "default_steps") / f"{number:04d}"


def open_run(folder: str | Path | None) -> Run:
    """Return the run in a folder, or the newest one below ``runs``; raise InputError if there is none.

    Examples
    --------
    >>> from ase_flatten import open_run
    >>> open_run("runs/nowhere")
    Traceback (most recent call last):
        ...
    ase_flatten.utils.exceptions.InputError: expected a run folder, found no runs/nowhere/run.json; ...
    """
    run = Run(newest_run() if folder is None else Path(folder))
    _ = run.info
    return run


def newest_run(runs: Path = Path("runs")) -> Path:
    """Return the run folder below `runs` that was started last; raise InputError if there is none."""
    found = sorted(runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(
            f"expected a run folder below {runs}/, found none; make one with: "
            f"ase-flatten train DATASET --out {runs}/NAME"
        )
    return found[-1].parent


def write_clusters(path: Path, clustering: Clustering, representatives: IntArray) -> None:
    """Write clusters.npz: labels, populations, and the frame that represents each cluster, (n_clusters,)."""
    write_npz(
        path,
        {
            "labels": clustering.labels,
            "geometry": clustering.geometry,
            "populations": clustering.populations,
            "representatives": representatives,
            "n_ward": clustering.n_ward,
        },
    )


def read_clusters(path: Path) -> Clustering:
    """Read clusters.npz; raise InputError if it is missing, damaged or something else."""
    words = {"what": "clusters", "remedy": "make them with: ase-flatten cluster DATASET"}
    shapes = {"labels": "int frames", "geometry": "int frames", "n_ward": "int"}
    arrays = read_arrays(path, list(shapes), shapes=shapes, **words)
    with understood(path, **words):
        return Clustering(arrays["labels"], arrays["geometry"], int(arrays["n_ward"]))
