"""The external test set of a run: named once, remembered in run.json, and judged after training."""

from dataclasses import asdict, dataclass

import numpy as np

from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.evaluation.external_test import check_test_set, evaluate_test_set
from ase_flatten.evaluation.held_out import SCHEMES
from ase_flatten.models.model_folder import read_card
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.workflow.run_folder import DataFile, DatasetInfo, Run


@dataclass(frozen=True, eq=False)
class TestSet:
    """A test set and where it was read from.

    Parameters
    ----------
    frames : Dataset
    file : DataFile
        Where it was read from.
    """

    __test__ = False  # not one of pytest's

    frames: Dataset
    file: DataFile

    @property
    def info(self) -> DatasetInfo:
        """What run.json says about it."""
        return DatasetInfo.of(self.frames, self.file)


def agreed_test_set(run: Run, dataset: Dataset, asked: TestSet | None, *, resume: bool) -> TestSet | None:
    """Return the test set of a run: the one asked for, or the one that the run remembers; None if there is none.

    Parameters
    ----------
    resume : bool
        Whether a run in the folder is resumed; otherwise what it remembers does not count.

    Raises
    ------
    InputError
        A test set that cannot judge models of the data set, another one than the run remembers, or one whose file is
        gone or has changed.
    """
    known = run.info.test if resume and (run.folder / "run.json").exists() else None
    found = asked
    if asked is None and known is not None:
        found = _read_again(run, known)
    if found is None:
        return None
    check_test_set(found.frames, dataset, name=found.file.path)
    if known is not None and known.digest != found.frames.digest:
        raise InputError(
            f"expected the test set of {run.folder} ({printable(known.source)}, {known.n_frames} frames), found other "
            f"frames in {found.file.path}; judge on a further test set with: ase-flatten errors DATASET {run.folder} "
            "--test FILE"
        )
    return found


def _read_again(run: Run, known: DatasetInfo) -> TestSet:
    assert known.file is not None, "a test set is read from a file"
    try:
        return TestSet(read_dataset(**asdict(known.file)), known.file)
    except (InputError, OSError) as error:
        raise InputError(
            f"expected the test set of {run.folder} in {printable(known.file.path)}, could not read it again "
            f"({error}); say where it is with --test FILE"
        ) from error


def judge_on_test_set(
    run: Run, data: PreparedData, test: TestSet, *, rng: np.random.Generator, progress: Progress = SILENT
) -> None:
    """Compute the errors of the final models on the test set; see `evaluate_test_set`."""
    models = {scheme: run.folder / scheme for scheme in SCHEMES}
    trained = [np.array(read_card(folder).training_frames, dtype=np.int64) for folder in models.values()]
    evaluate_test_set(
        run.folder, test.frames, data.dataset, data.clustering, models,
        used_frames=np.unique(np.concatenate([*trained, data.splits.valid])), assignment=run.settings.assignment,
        rng=rng, progress=progress,
    )  # fmt: skip
