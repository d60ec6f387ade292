"""What a folder of results is about, so that results of something else are not replaced."""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase_flatten.data.dataset import Dataset
from ase_flatten.models.model_folder import versions
from ase_flatten.models.resolver import NamedCalculator
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.records import read_record

FORMAT = 1
RECORD = "results.json"

_LONGEST_NAME = 120


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Data or a model that results are about.

    Parameters
    ----------
    name : str
        As the user gave it.
    digest : str
        Identifies it.
    """

    name: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class ResultsRecord:
    """The content of results.json.

    Parameters
    ----------
    format : int
    dataset : Subject
    model : Subject or None
        None for results on data alone.
    test : Subject or None
        The test set that the model was judged on instead of the data set.
    settings : mapping
        Everything else that was asked for.
    found : mapping
        What was found besides tables, such as the difference of energies that was removed.
    versions : mapping
        Versions of packages.
    """

    format: int = FORMAT
    dataset: Subject
    model: Subject | None = None
    test: Subject | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    found: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=versions)

    @property
    def subjects(self) -> tuple[str | None, ...]:
        """Digests of what the results are about; equal ones may replace each other."""
        return tuple(None if one is None else one.digest for one in (self.dataset, self.model, self.test))

    @property
    def title(self) -> str:
        """What the results are about, in words."""
        of = f"{printable(self.model.name)} on " if self.model else ""
        on = f"{printable(self.test.name)} in the clusters of " if self.test else ""
        return f"{of}{on}{printable(self.dataset.name)}"


def subject_of_data(dataset: Dataset, name: str | Path) -> Subject:
    """Return a data set as what results are about."""
    return Subject(name=str(name), digest=dataset.digest)


def subject_of_model(named: NamedCalculator) -> Subject:
    """Return a model or a calculator as what results are about."""
    return Subject(name=named.spec, digest=hashlib.sha256(named.digest.encode()).hexdigest())


def check_replaceable(folder: Path, record: ResultsRecord, files: Collection[str], *, overwrite: bool) -> None:
    """Refuse to replace results that are about something else; raise InputError.

    Parameters
    ----------
    record : ResultsRecord
        What the new results are about.
    files : collection of str
        The files that will be written.
    overwrite : bool
        Whether anything may be replaced.
    """
    if overwrite or not any((folder / name).exists() for name in (RECORD, *files)):
        return
    remedy = "choose another --out, or add --overwrite to replace them"
    if not (folder / RECORD).exists():
        raise InputError(
            f"expected a new folder for the results, found files in {folder} that do not say what they are about "
            f"(no {RECORD}); {remedy}"
        )
    found = read_record(folder / RECORD, ResultsRecord, version=FORMAT, what="what results are about", remedy=remedy)
    if found.subjects != record.subjects:
        changed = " (these have changed since)" if found.title == record.title else ""
        raise InputError(
            f"expected results of {record.title} or a new folder, found those of {found.title}{changed} in {folder}; "
            f"{remedy}"
        )


def folder_name(*parts: str | Path) -> str:
    """Return the name of a folder for results of data, models and test sets, fit for any file system.

    Files are named without their ending; a run or model folder by its path below ``runs``.

    Examples
    --------
    >>> folder_name("data/ethanol.npz", "runs/mine/default", "errors")
    'ethanol-mine-default-errors'
    >>> folder_name("ethanol.npz", "tblite:GFN2-xTB", "errors")
    'ethanol-tblite-GFN2-xTB-errors'
    """
    return "-".join(filter(None, map(_safe, map(str, parts))))[:_LONGEST_NAME].strip("-.")


def _safe(part: str) -> str:
    path = Path(part)
    if ":" in part:
        steps: list[str] = [part]
    else:
        steps = list((path if path.is_dir() else path.with_suffix("")).parts)
        first = len(steps) - steps[::-1].index("runs") if "runs" in steps else -1
        steps = steps[first:]
    return re.sub(r"[^\w.+]+", "-", "-".join(steps)).strip("-.")
