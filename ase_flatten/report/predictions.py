"""Predictions for all frames of a file: energies and forces of any model or calculator."""

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write

from ase_flatten.data.dataset import Dataset, formula
from ase_flatten.data.io import write_dataset
from ase_flatten.data.structures import Structures
from ase_flatten.geometry.extrapolation import training_region
from ase_flatten.models import Prediction
from ase_flatten.models.resolver import NamedCalculator, resolve
from ase_flatten.utils.atomic_files import writing
from ase_flatten.utils.exceptions import BackendError, InputError, printable
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray

SUFFIXES = (".xyz", ".extxyz", ".npz")

_BATCH = {True: 500, False: 32}
"""Frames at a time, for models that predict batches and for others."""


@dataclass(frozen=True)
class PredictedFile:
    """What was predicted.

    Parameters
    ----------
    n_frames : int
    formula : str
        The molecule.
    n_outside : int or None
        Frames outside the training geometries, with an extrapolation above 1; None if it is not known.
    """

    n_frames: int
    formula: str
    n_outside: int | None


def predict_file(
    spec: str | Path | NamedCalculator,
    path: Path,
    output: Path,
    *,
    length_unit: str | None = None,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress = SILENT,
) -> PredictedFile:
    """Predict energies and forces for all frames of a file, and write them atomically with the structures.

    All frames are checked first. Only one batch of an extended XYZ is in memory at a time.

    Parameters
    ----------
    spec : str or Path
        A model or a calculator, as `ase_flatten.models.resolver.resolve` reads it.
    path : Path
        Structures in any format that ASE reads, or an npz file with atomic numbers and positions; their energies and
        forces, if any, are ignored.
    output : Path
        Extended XYZ in eV and Å, or an npz file that `read_dataset` reads. Each frame has its `extrapolation` where
        the training geometries are known.
    length_unit : str, optional
        Of a file that declares none; by default Å for formats that ASE reads, and needed for npz.
    executor : concurrent.futures.Executor, optional
        Runs the calculations of an ASE calculator.

    Raises
    ------
    InputError
        A file that cannot be read, holds another molecule, another order of atoms, a periodic cell or positions that
        are not finite; an output that exists or is of another kind.
    BackendError
        The calculator fails, or predicts no finite number.
    """
    _check_output(path, output, overwrite=overwrite)
    named = resolve(spec)
    structures = Structures.of(path, length_unit, named.numbers)
    predictor = _Predictor(named, structures.numbers, executor)
    n_outside = 0

    def predicted() -> Iterator[tuple[FloatArray, Prediction, FloatArray | None]]:
        nonlocal n_outside
        done = 0
        with progress.task("predicting frames", structures.n_frames) as advance:
            for positions in structures.batches(_BATCH[named.predicts_batches]):
                prediction, extrapolation = predictor(positions, first=done)
                if extrapolation is not None:
                    n_outside += int(np.sum(extrapolation > 1))
                done += len(positions)
                yield positions, prediction, extrapolation
                advance(len(positions))

    write = _write_npz if output.suffix == ".npz" else _write_xyz
    write(output, structures.numbers, predicted(), named.name)
    return PredictedFile(
        structures.n_frames, formula(structures.numbers), n_outside if predictor.knows_its_region else None
    )


def _check_output(path: Path, output: Path, *, overwrite: bool) -> None:
    if output.suffix not in SUFFIXES:
        raise InputError(f"expected an output that ends in {', '.join(SUFFIXES)}, got {printable(output)}; rename it")
    if output.exists() and path.exists() and output.samefile(path):
        raise InputError(f"expected another output than the structures, got {output} for both; rename the output")
    if output.exists() and not overwrite:
        raise InputError(f"expected a new file, found {output}; choose another one, or replace it with --overwrite")


class _Predictor:
    """Predictions and extrapolation of batches."""

    def __init__(self, named: NamedCalculator, numbers: IntArray, executor: Executor | None) -> None:
        self._model, self._name = named.model(numbers, executor=executor), named.spec
        self._region = training_region(named.training_positions, self._model.permutations)

    @property
    def knows_its_region(self) -> bool:
        """Whether the training geometries are known."""
        return self._region is not None

    def __call__(self, positions: FloatArray, *, first: int) -> tuple[Prediction, FloatArray | None]:
        with np.errstate(all="ignore"):  # what is not finite is refused below
            prediction = self._model.predict(positions)
        finite = np.isfinite(prediction.energies) & np.isfinite(prediction.forces).all(axis=(1, 2))
        if not finite.all():
            raise BackendError(
                f"expected finite energies and forces of {self._name}, found others in frame "
                f"{first + np.argmin(finite)}; remove it, or choose another model"
            )
        return prediction, None if self._region is None else self._region.extrapolation(positions)


_Predicted = Iterator[tuple[FloatArray, Prediction, FloatArray | None]]


def _write_xyz(output: Path, numbers: IntArray, predicted: _Predicted, model: str) -> None:
    def labelled() -> Iterator[Atoms]:
        for positions, prediction, extrapolation in predicted:
            for row, frame in enumerate(positions):
                atoms = Atoms(numbers, frame)
                atoms.info = {"energy_unit": "eV", "length_unit": "Ang", "model": model}
                if extrapolation is not None:
                    atoms.info["extrapolation"] = round(float(extrapolation[row]), 4)
                atoms.calc = SinglePointCalculator(
                    atoms, energy=prediction.energies[row], forces=prediction.forces[row]
                )
                yield atoms

    with writing(output) as beside:
        ase_write(beside, labelled(), format="extxyz")  # type: ignore[arg-type]  # ASE takes an iterator as well


def _write_npz(output: Path, numbers: IntArray, predicted: _Predicted, model: str) -> None:
    positions, predictions, extrapolations = zip(*predicted, strict=True)
    energies, forces = (np.concatenate([getattr(one, name) for one in predictions]) for name in ("energies", "forces"))
    known = {} if extrapolations[0] is None else {"extrapolation": np.concatenate(extrapolations)}
    write_dataset(
        output, Dataset(numbers, np.concatenate(positions), energies, forces, name=output.stem, theory=model), **known
    )
