"""What a user names as a model or a calculator, read in one place.

A name is a path, to a run folder, a model folder or a family's native file, or one of `KINDS`: a word, a colon
and what that kind needs. The command line and Python read it with `resolve`.
"""

import hashlib
import os
import re
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from ase.calculators.calculator import BaseCalculator

from ase_flatten.models import Model, family
from ase_flatten.models.ase_model import ASEModel
from ase_flatten.models.model_folder import CARD, NATIVE_FILES, SavedModel, card_digest, load_model
from ase_flatten.models.reference_methods import factory_calculator, tblite_calculator
from ase_flatten.utils.exceptions import InputError, not_installed, printable
from ase_flatten.utils.parallel import PerWorker
from ase_flatten.utils.typing import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class NamedCalculator:
    """A model or an ASE calculator that the user named, and what is known of it before it computes.

    Attributes
    ----------
    spec : str
        What the user wrote.
    name : str
        Short, and fit for the name of a folder.
    digest : str
        Differs if predictions may differ; work is resumed only with the same digest.
    expensive : bool
        Whether predictions take so long that errors are estimated on subsets by default.
    family : str or None
        The model family; None for an ASE calculator.
    path : Path or None
        The run folder, model folder or native file.
    saved : SavedModel or None
        What `path` holds.
    load : callable or None
        Loads the model for given atomic numbers, which its file does not hold.
    make : callable or None
        Makes the ASE calculator, a new one at each call.
    costly_to_make : bool
        Whether `ASEModel` keeps one ASE calculator in each worker, rather than make one for each task. What the
        calculator computes must then not depend on what it has computed before.
    """

    spec: str
    name: str
    digest: str
    expensive: bool
    family: str | None = None
    path: Path | None = None
    saved: SavedModel | None = None
    load: Callable[[IntArray], Model] | None = None
    make: Callable[[], BaseCalculator] | None = None
    costly_to_make: bool = False

    @property
    def numbers(self) -> IntArray | None:
        """Atomic numbers, (n_atoms,), in the model's order; None if they are not known."""
        return None if self.saved is None else self.saved.model.numbers

    @property
    def training_positions(self) -> FloatArray:
        """The geometries that it was trained on, (n_train, n_atoms, 3), Å; none if they are not known."""
        return np.empty((0, 0, 3)) if self.saved is None else self.saved.training_positions

    def train_frames(self, dataset_digest: str) -> IntArray:
        """Return the frames of a data set that it was trained on, as far as they are known."""
        known = self.saved is not None and self.saved.card.dataset_digest == dataset_digest
        return self.saved.train_frames if known and self.saved else np.empty(0, dtype=np.int64)

    @property
    def predicts_batches(self) -> bool:
        """Whether many configurations are predicted in one call, rather than one after the other."""
        return self.make is None

    def model(self, numbers: IntArray | None = None, *, executor: Executor | None = None) -> Model:
        """Return the model.

        Parameters
        ----------
        numbers : (n_atoms,) int array, optional
            The molecule; needed where `self.numbers` is None.
        executor : concurrent.futures.Executor, optional
            Runs the calculations of an ASE calculator; without one, this process does.

        Raises
        ------
        InputError
            The model or calculator cannot be loaded, or `numbers` is needed.
        """
        if self.saved is not None:
            return self.saved.model
        if numbers is None:
            raise InputError(
                f"expected the molecule's elements for {self.spec}, which does not know them, found none; "
                "pass the atomic numbers"
            )
        if self.load is not None:
            return self.load(numbers)
        assert self.make is not None
        make = PerWorker(self.make) if self.costly_to_make else self.make
        return ASEModel(make, numbers, name=self.spec, executor=executor)


@dataclass(frozen=True)
class Kind:
    """One kind of name with a word and a colon before it.

    Attributes
    ----------
    form : str
        How it is written, for messages and help.
    read : callable
        Returns the `NamedCalculator` of a whole name and of what follows its first colon.
    """

    form: str
    read: Callable[[str, str], NamedCalculator]


def resolve(spec: str | Path | NamedCalculator) -> NamedCalculator:
    """Read the name of a model or a calculator.

    Parameters
    ----------
    spec : str or Path
        A run folder (its improved model), a model folder, a native file of a family, or one of `KINDS`:
        ``schnetpack:FILE:UNIT``, what SchNetPack wrote with the energy unit of its data;
        ``tblite:METHOD``; ``ase:MODULE:FACTORY``, a function or class of an importable module that
        returns an ASE calculator when it is called without arguments. What was read before is returned as it is.

    Returns
    -------
    NamedCalculator

    Raises
    ------
    InputError
        No such path or kind, or no model there. A calculator's package, module or method is looked for
        only when the calculator is made.
    """
    if isinstance(spec, NamedCalculator):
        return spec
    text = str(spec)
    word, colon, rest = text.partition(":")
    if colon and word in KINDS and isinstance(spec, str):
        return KINDS[word].read(text, rest)
    if os.path.exists(text):  # noqa: PTH110  (Path.exists raises for a name that is too long)
        return _of_path(Path(text))
    raise InputError(f"expected {forms()}, found {printable(text)!r}; check the path, or name one of these kinds")


def forms() -> str:
    """Return how a model or a calculator can be named, in words."""
    *first, last = (kind.form for kind in KINDS.values())
    return f"a run folder, a model folder, a model file ({', '.join(NATIVE_FILES)}), {', '.join(first)} or {last}"


def _of_path(path: Path) -> NamedCalculator:
    saved = load_model(path)
    digest = (
        _file_digest(path) if path.is_file() else card_digest(path if (path / CARD).exists() else path / "improved")
    )
    name = path.stem if path.is_file() else path.name
    return NamedCalculator(
        str(path), path.resolve().name if name in ("", "..") else name, digest,
        family(saved.card.family).expensive, family=saved.card.family, path=path, saved=saved,
    )  # fmt: skip


def _schnetpack(spec: str, rest: str) -> NamedCalculator:
    file, _, unit = rest.rpartition(":")
    if not file:
        raise InputError(
            "expected schnetpack:FILE:UNIT with the energy unit of the model, such as schnetpack:best_model:kcal/mol, "
            f"found {spec!r}; name the unit that it was trained in"
        )
    path = Path(file)
    if not os.path.isfile(file):  # noqa: PTH113  (see `resolve`)
        raise InputError(f"expected a model of SchNetPack, found no file {printable(file)}; check the path")
    try:
        from ase_flatten.models.schnet import load_best_model
    except ImportError as error:
        raise not_installed(spec, "schnetpack", extra="schnet", error=error) from error

    def load(numbers: IntArray) -> Model:
        return load_best_model(path, numbers, unit)

    return NamedCalculator(
        spec, f"schnetpack-{path.stem}", f"{spec} {_file_digest(path)}", expensive=False, family="schnet", load=load
    )


def _tblite(spec: str, method: str) -> NamedCalculator:
    # It starts each calculation from the last one's density: a new one for each task gives the same digits anywhere.
    return _calculator(spec, partial(tblite_calculator, method), costly_to_make=False)


def _factory(spec: str, name: str) -> NamedCalculator:
    return _calculator(spec, partial(factory_calculator, name), costly_to_make=True)


def _calculator(spec: str, make: Callable[[], BaseCalculator], *, costly_to_make: bool) -> NamedCalculator:
    name = re.sub(r"[^\w.+-]", "-", spec)
    return NamedCalculator(spec, name, spec, expensive=True, make=make, costly_to_make=costly_to_make)


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


KINDS = {
    "schnetpack": Kind("schnetpack:FILE:UNIT", _schnetpack),
    "tblite": Kind("tblite:METHOD", _tblite),
    "ase": Kind("ase:MODULE:FACTORY", _factory),
}
"""The kinds of names other than paths, by the word before the first colon."""
