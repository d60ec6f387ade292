"""Write a data set without its refused frames, and a list of the frames that were left out and why."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ase_flatten.checking.check import Checkup
from ase_flatten.checking.findings import count_reasons
from ase_flatten.checking.labels import LabelJudgement
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import write_dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.utils.atomic_files import write_text
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.typing import IntArray

FORMATS = (".npz", ".xyz", ".extxyz")


@dataclass(frozen=True, eq=False)
class CleanSelection:
    """Frames that are kept, and why the others are not.

    Parameters
    ----------
    kept : (n_kept,) int array
        Ascending.
    left_out : dict of int to str
        Frames in ascending order, with the reason.
    """

    kept: IntArray
    left_out: dict[int, str]

    @property
    def summary(self) -> list[tuple[str, int]]:
        """Reasons with the number of frames, the most frequent first."""
        return count_reasons(self.left_out.values())


def choose_frames(dataset: Dataset, found: Checkup, *, doubtful: bool = False) -> CleanSelection:
    """Choose the frames to keep.

    Parameters
    ----------
    found : Checkup
        From `check_up` of this data set.
    doubtful : bool
        Leave out frames with doubtful labels as well.

    Raises
    ------
    InputError
        The whole set is at fault, or no frame would be left.
    """
    fault = found.whole_set
    if fault is not None:
        why = "these frames can be corrected" if fault.frames else "the whole set is at fault"
        raise InputError(f"leaving out frames is no remedy, since {why}: {fault.message}")
    reasons: dict[int, list[str]] = {}
    for finding in found.findings:
        if finding.level == "refused" or (doubtful and finding.what == "doubtful labels"):
            for row, frame in enumerate(finding.frames):
                reasons.setdefault(frame, []).append(finding.reason(row))
    kept = np.setdiff1d(np.arange(dataset.n_frames), list(reasons))
    if not len(kept):
        raise InputError(
            f"expected some sound frames, found a reason to leave out each of {dataset.n_frames}; "
            "see ase-flatten check, and correct the data at their source"
        )
    return CleanSelection(kept, {frame: "; ".join(reasons[frame]) for frame in sorted(reasons)})


def check_output(source: Path, output: Path, *, overwrite: bool) -> Path:
    """Refuse an output that would replace the data set or another file; return the path of the list.

    Raises
    ------
    InputError
        A format other than npz and extended XYZ; the data set itself; an existing file, without `overwrite`.
    """
    if output.suffix not in FORMATS:
        raise InputError(f"the output must end in one of {', '.join(FORMATS)}, got {output}; choose one of them")
    listed = output.with_name(f"{output.stem}_left_out.csv")
    for path in (output, listed):
        if path.exists() and source.exists() and path.samefile(source):
            raise InputError(f"expected a new file, got the data set {source} itself; choose another --output")
        if path.exists() and not overwrite:
            raise InputError(f"expected a new file, found {path}; choose another --output or add --overwrite")
    return listed


def write_clean(output: Path, listed: Path, dataset: Dataset, selection: CleanSelection) -> None:
    """Write the frames that are kept, in their order, and the list of the others (frame, reason) as CSV."""
    write_dataset(output, dataset.take(selection.kept))
    write_text(listed, _csv(("frame", "reason"), list(selection.left_out.items())))


def write_scores(path: Path, labels: LabelJudgement) -> None:
    """Write the judgement of each frame as CSV: scores, residuals in kcal/mol, and the reason."""
    rows = [
        (frame, f"{score:.3f}", level, f"{difference:.4f}", f"{residual / KCAL_PER_MOL:.3f}", reason)
        for frame, score, level, difference, residual, reason in zip(
            labels.frames,
            labels.scores,
            labels.levels,
            labels.force_differences,
            labels.energy_residuals,
            labels.reasons,
            strict=True,
        )
    ]
    columns = ("frame", "score", "level", "force_difference", "energy_residual_kcal_per_mol", "reason")
    write_text(path, _csv(columns, rows))


def _csv(columns: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
