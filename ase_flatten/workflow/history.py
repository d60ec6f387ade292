"""The history of a run: one line of history.jsonl for each step."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.selection.flattening import Step
from ase_flatten.utils.records import read_lines, understood, write_lines

_WHAT = "a line for each step of a run"


@dataclass(frozen=True, kw_only=True)
class HistoryLine:
    """What happened in one step of improved training.

    Parameters
    ----------
    step : int
        0 for the initial model.
    train_frames, added_frames : list of int
        The training set, in the order of its growth, and what this step added.
    cluster_rmse : list of float or None, eV/Å
        Force RMSE of each broad cluster, over the frames of the pool that the model was not trained on; None for a
        cluster without such frames.
    overall_rmse : float, eV/Å
        Over all these frames.
    n_predicted : int, optional
        How many frames the errors are over; as all of the following fields, it is missing from old runs.
    bad_clusters : list of int
        The clusters that the added frames come from.
    hyper_parameters : mapping, optional
        Of the model.
    quarantined_frames, released_frames, alarm_frames : list of int, optional
        The frames that entered quarantine, left it, and raised an alarm.
    seconds : mapping
        Time of each stage, s.
    """

    step: int
    train_frames: list[int]
    added_frames: list[int]
    cluster_rmse: list[float | None]
    overall_rmse: float
    n_predicted: int | None = None
    bad_clusters: list[int]
    hyper_parameters: Mapping[str, Any] | None = None
    quarantined_frames: list[int] | None = None
    released_frames: list[int] | None = None
    alarm_frames: list[int] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of_step(cls, step: Step) -> "HistoryLine":
        """Describe a step that is done."""
        return cls(
            step=step.number,
            train_frames=step.train_frames.tolist(),
            added_frames=step.added_frames.tolist(),
            cluster_rmse=[float(rmse) if np.isfinite(rmse) else None for rmse in step.errors.rmse],
            overall_rmse=step.errors.overall_rmse,
            n_predicted=int(step.errors.counts.sum()),
            bad_clusters=step.bad_clusters.tolist(),
            hyper_parameters=dict(step.model.hyper_parameters),
            **step.quarantine.changes(step.number),
            seconds=step.seconds,
        )

    @property
    def worst_rmse(self) -> float:
        """The largest force RMSE of a cluster, eV/Å."""
        return max((rmse for rmse in self.cluster_rmse if rmse is not None), default=float("nan"))


def read_history(path: Path, *, n_frames: int, remedy: str) -> list[HistoryLine]:
    """Read history.jsonl.

    Parameters
    ----------
    n_frames : int
        Of the data set.
    remedy : str
        What the user can do where the file is damaged.

    Raises
    ------
    InputError
        The file is damaged.
    """
    lines = read_lines(path, HistoryLine, what=_WHAT, remedy=remedy)
    with understood(path, what=_WHAT, remedy=remedy):
        if [line.step for line in lines] != list(range(len(lines))):
            raise ValueError("steps that do not follow one another")
        for line in lines:
            frames = [*line.train_frames, *line.added_frames]
            if not frames or not all(0 <= frame < n_frames for frame in frames):
                raise ValueError(f"training frames of step {line.step} that the data set does not have")
    return lines


def write_history(path: Path, lines: Iterable[HistoryLine]) -> None:
    """Write history.jsonl, atomically; what old runs lack stays out."""
    write_lines(
        path,
        ({one.name: value for one in fields(line) if (value := getattr(line, one.name)) is not None} for line in lines),
    )
