"""The run folder: what a run was asked to do, and what it has found."""

import json
import logging
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.clustering.clusters import N_WARD, Clustering, representatives
from ase_flatten.clustering.splits import Splits
from ase_flatten.evaluation.claims import Claims, make_claims
from ase_flatten.evaluation.frame_groups import merge_clusters
from ase_flatten.evaluation.held_out import Evaluation, HeldoutErrors
from ase_flatten.evaluation.other_clusterings import OTHER_CLUSTERINGS, read_other_groups
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.selection.flattening import Schedule
from ase_flatten.selection.frame_selection import SelectionRule
from ase_flatten.selection.quarantine import BEFORE_TRAINING, Quarantine
from ase_flatten.selection.sampled_errors import SubsetRule
from ase_flatten.utils.atomic_files import reading_npz, write_npz
from ase_flatten.utils.exceptions import InputError, nearest
from ase_flatten.utils.typing import FloatArray

log = logging.getLogger(__name__)

FORMAT = 1
CLUSTERS = "clusters.npz"


@dataclass(frozen=True)
class RunSettings:
    """Hold everything that decides what a run computes, beside its data.

    Parameters
    ----------
    family : str
        Name of the model family.
    trainer : mapping
        Settings of the family's trainer.
    schedule : Schedule
    seed : int
    holdout : float
        Share of the frames held out.
    subset : bool, optional
        Whether each step estimates the errors of the clusters on subsets; where it is not
        given, the family decides by whether it is expensive, and run.json holds its decision.
    subset_rule : SubsetRule
    default_draws : int, optional
        Default training sets of the final size, to tell what another draw would change; where it is
        not given, four, or one where training or prediction takes long. It may change on resuming.
    n_geometry, n_energy, n_ward, assignment
        See `ase_flatten.clustering.clusters.cluster`.
    quarantine : {"on", "off"} or tuple of int
        Whether labels are judged, and frames with contradicted ones set aside; or the frames to set aside.

    Raises
    ------
    InputError
        A quarantine that is none of these.
    """

    family: str = "sgdml"
    trainer: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0
    holdout: float = 0.2
    subset: bool | None = None
    subset_rule: SubsetRule = field(default_factory=SubsetRule)
    default_draws: int | None = None
    n_geometry: int = 10
    n_energy: int = 5
    n_ward: int = N_WARD
    assignment: str = "average"
    quarantine: str | tuple[int, ...] = "on"

    def __post_init__(self) -> None:
        if isinstance(self.quarantine, str) and self.quarantine not in ("on", "off"):
            raise InputError(f"quarantine must be on, off or a list of frames, got {self.quarantine!r}")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "RunSettings":
        """Rebuild settings from what `dataclasses.asdict` made of them; earlier runs had no quarantine."""
        schedule = dict(content["schedule"])
        schedule["rule"] = SelectionRule(**schedule["rule"])
        subset_rule = SubsetRule(**content.get("subset_rule", {}))
        quarantine = content.get("quarantine", "off")
        if not isinstance(quarantine, str):
            quarantine = tuple(quarantine)
        changed = {"schedule": Schedule(**schedule), "subset_rule": subset_rule, "quarantine": quarantine}
        return cls(**{**content, **changed})


def read_protocol(path: Path) -> RunSettings:
    """Read the settings of a run from a TOML file, laid out as run.json has them; what is left out keeps its default.

    Raises
    ------
    InputError
        No such file, no TOML, a setting that a run does not have, or a value that it cannot take.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"expected the settings of a run in {path}, could not read them: {error}") from error
    settings = asdict(RunSettings())
    try:
        _update(settings, content)
        return RunSettings.from_json(settings)
    except (TypeError, AttributeError) as error:
        raise InputError(f"expected settings of a run in {path}, found a value of another kind: {error}") from error


def _update(settings: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put changes into settings, table by table."""
    for name, value in changes.items():
        if name not in settings:
            raise InputError(f"{name!r} is no setting of a run; {nearest(name, list(settings))}")
        if isinstance(settings[name], dict) and name != "trainer":
            _update(settings[name], value)
        else:
            settings[name] = value


@dataclass(frozen=True)
class Run:
    """Read a run folder.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    InputError
        From any property whose file is missing or damaged.
    """

    folder: Path

    @cached_property
    def info(self) -> dict[str, Any]:
        """The content of run.json."""
        info: dict[str, Any] = _read_json(self.folder / "run.json", "ase-flatten train DATASET --out RUN")
        if info.get("format", FORMAT) > FORMAT:
            raise InputError(
                f"expected format {FORMAT} of {self.folder}, found {info['format']}; update ase-flatten to read it"
            )
        return info

    @cached_property
    def settings(self) -> RunSettings:
        """The settings of the run."""
        return RunSettings.from_json(self.info["settings"])

    @cached_property
    def clustering(self) -> Clustering:
        """The broad clusters."""
        return read_clusters(self.folder / CLUSTERS)

    @cached_property
    def splits(self) -> Splits:
        """Train pool, validation and held-out frames."""
        arrays = _read_npz(self.folder / "splits.npz")
        return Splits(arrays["pool"], arrays["valid"], arrays["heldout"])

    @property
    def quarantine(self) -> Quarantine:
        """Frames with contradicted labels; none in runs without a guard."""
        path = self.folder / "quarantine.json"
        if not path.exists():
            return Quarantine()
        try:
            return Quarantine.from_json(_read_json(path, "ase-flatten train DATASET --out RUN"))
        except (TypeError, KeyError) as error:
            raise InputError(f"could not read {path}: {error}; the run folder is damaged") from error

    def trainable(self, step: int) -> Splits:
        """Return the splits without the frames that could not be trained on after a step.

        The held-out frames stay: a choice among them would favour a model.
        """
        quarantine, splits = self.quarantine, self.splits
        return Splits(
            np.setdiff1d(splits.pool, quarantine.up_to(step).frames),
            np.setdiff1d(splits.valid, quarantine.up_to(BEFORE_TRAINING).frames),
            splits.heldout,
        )

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of history.jsonl, one a step; none before the first step is done."""
        path = self.folder / "history.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    @cached_property
    def evaluation(self) -> Evaluation:
        """Errors on the held-out frames."""
        return Evaluation.read(self.folder)

    @cached_property
    def claims(self) -> Claims:
        """What can be said of the errors on the held-out frames; the same each time it is asked."""
        evaluation, clustering = self.evaluation, self.clustering
        first = np.unique(clustering.labels, return_index=True)[1]
        groups = merge_clusters(
            evaluation.n_heldout,
            clustering.geometry[first],
            pair_distances(self.reference["positions"]),
            evaluation.populations,
        )
        rng = np.random.default_rng([self.settings.seed, 0, 4])
        errors = HeldoutErrors.read(self.folder)
        others = read_other_groups(self.folder / OTHER_CLUSTERINGS, len(errors.frames))
        return make_claims(errors, groups, evaluation.populations, rng=rng, other_groups=others)

    @cached_property
    def reference(self) -> dict[str, np.ndarray]:
        """What later stages need of the data set.

        numbers (n_atoms,); lowest_energy in eV and lowest_positions (n_atoms, 3) in Å of the
        frame of lowest energy; mean_pair_distances (n_pairs,) in Å; pair_distance_counts and
        bond_length_counts, (n_bins,) by `count_distances` over all frames, which earlier runs lack;
        energies (n_clusters,) in eV and positions (n_clusters, n_atoms, 3) in Å of the clusters'
        representatives. The fields of `ase_flatten.data.known_molecule.KnownMolecule` are among them.
        """
        return _read_npz(self.folder / "reference.npz")

    def step_folder(self, number: int, *, scheme: str = "improved") -> Path:
        """Return the model folder of a step, or of the default model of its size."""
        return self.folder / ("steps" if scheme == "improved" else "default_steps") / f"{number:04d}"


def open_run(folder: Path | None) -> Run:
    """Return the run of a folder, or the newest one; raise InputError where there is none."""
    run = Run(folder or newest_run())
    _ = run.info
    return run


def newest_run(runs: Path = Path("runs")) -> Path:
    """Find the run folder below `runs` that was begun last; raise InputError where there is none."""
    found = sorted(runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(
            f"expected a run folder below {runs}/, found none; make one with: "
            f"ase-flatten train DATASET --out {runs}/NAME"
        )
    return found[-1].parent


def write_clusters(path: Path, clustering: Clustering, descriptors: FloatArray) -> None:
    """Write clusters.npz: labels, populations, representatives."""
    write_npz(
        path,
        {
            "labels": clustering.labels,
            "geometry": clustering.geometry,
            "populations": clustering.populations,
            "representatives": representatives(clustering, descriptors),
            "n_ward": clustering.n_ward,
        },
    )


def read_clusters(path: Path) -> Clustering:
    """Read what `write_clusters` wrote; raise InputError for a file that is missing, damaged or something else."""
    with reading_npz(path, "clusters") as archive:
        return Clustering(archive["labels"], archive["geometry"], int(archive["n_ward"]))


def _read_json(path: Path, maker: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"expected a run folder, found no {path}; make one with: {maker}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"could not read {path}: {error}; the run folder is damaged") from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with reading_npz(path, "arrays of the run") as archive:
        return {name: archive[name] for name in archive.files}
