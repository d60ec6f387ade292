"""Model folders: the native file of a family, model.json, and the training geometries."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ase_flatten.data.dataset import Dataset
from ase_flatten.models import Family, Model, family
from ase_flatten.utils.atomic_files import write_npz, writing_folder
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.records import read_arrays, read_record, refusal, understood, write_record
from ase_flatten.utils.typing import FloatArray, IntArray

FORMAT = 1
CARD = "model.json"
NATIVE_FILES = {".npz": "sgdml", ".pt": "schnet", ".xml": "gap"}
"""The families whose native files can be named without their model folder, by the ending of the file."""

TRAINING = "training.npz"


_DAMAGED = "train the model again, or restore the folder from a copy"


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What model.json says about a model.

    Parameters
    ----------
    format : int
        The version of the model folder.
    family : str
        The model family.
    species : list of str
        Chemical symbols, in the order of the atoms.
    units : mapping
        Units of `energy` and `length` in the family's native file.
    training_frames : list of int
        The frames of its data set that the model was trained on.
    dataset_digest : str
        Digest that identifies this data set.
    hyper_parameters : mapping
        Hyper-parameters of the model.
    versions : mapping
        Versions of the packages that it was trained with.
    """

    format: int = FORMAT
    family: str
    species: list[str]
    units: Mapping[str, Any] = field(default_factory=dict)
    training_frames: list[int]
    dataset_digest: str = ""
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A model and what its folder says about it.

    Parameters
    ----------
    model : Model
    card : ModelCard
        For a bare native file, only the family and the species.
    training_positions : (n_train, n_atoms, 3) array, Å
        Geometries that the model was trained on; empty for a bare native file.
    """

    model: Model
    card: ModelCard
    training_positions: FloatArray

    @property
    def train_frames(self) -> IntArray:
        """The frames of its data set that the model was trained on."""
        return np.array(self.card.training_frames, dtype=np.int64)


def save_model(folder: Path, model: Model, made_by: Family, dataset: Dataset, train_frames: IntArray) -> None:
    """Write a model folder, atomically."""
    card = ModelCard(
        family=made_by.name,
        species=_species(model),
        units=dict(made_by.units),
        training_frames=train_frames.tolist(),
        dataset_digest=dataset.digest,
        hyper_parameters=dict(model.hyper_parameters),
        versions=versions(made_by.distribution),
    )
    with writing_folder(folder) as beside:
        model.save(beside)
        write_npz(beside / TRAINING, {"positions": dataset.positions[train_frames]})
        write_record(beside / CARD, card)


def load_model(path: str | Path) -> SavedModel:
    """Load a model from a run folder (its improved model), a model folder or one of `NATIVE_FILES`.

    Raises
    ------
    InputError
        There is no model, or it is damaged or of a later format.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix not in NATIVE_FILES:
            kinds = ", ".join(f"{suffix} of {name}" for suffix, name in NATIVE_FILES.items())
            raise InputError(
                f"expected a model file ({kinds}), found {printable(path)}; "
                "name what SchNetPack wrote as schnetpack:FILE:UNIT"
            )
        name = NATIVE_FILES[path.suffix]
        bare = _load_native(path, name)
        card = ModelCard(family=name, species=_species(bare), training_frames=[])
        return SavedModel(bare, card, np.empty((0, len(bare.numbers), 3)))
    folder = next((folder for folder in (path, path / "improved") if (folder / CARD).exists()), None)
    if folder is None:
        raise InputError(f"expected a run folder or a model folder, found no {CARD} in {path}; check the path")
    card = read_card(folder)
    model = _load_from_folder(folder, card.family)
    species = _species(model)
    if species != card.species:
        raise InputError(f"{folder / CARD} says {card.species}, the model file holds {species}; train it again")
    positions = read_arrays(
        folder / TRAINING, ["positions"], what="the training geometries of a model", remedy=_DAMAGED,
        shapes={"positions": f"float frames {len(species)} 3"},
    )["positions"]  # fmt: skip
    return SavedModel(model, card, positions)


def read_card(folder: Path) -> ModelCard:
    """Read model.json; raise InputError if it is damaged or of a later format."""
    path, words = folder / CARD, {"what": "the card of a model", "remedy": _DAMAGED}
    card = read_record(path, ModelCard, version=FORMAT, **words)
    with understood(path, **words):
        if any(not 0 <= frame < 2**62 for frame in card.training_frames):
            raise ValueError("training_frames holds numbers that are not frames")
    return card


def card_digest(folder: Path) -> str:
    """Return a text that identifies the model of a folder: the content of its card."""
    return str(read_record(folder / CARD, dict[str, Any], what="the card of a model", remedy=_DAMAGED))


def _load_from_folder(folder: Path, name: str) -> Model:
    for path in folder.iterdir():
        if path.exists() and not (path.is_file() or path.is_dir()):
            reason = ValueError("a pipe or a device, which may never end")
            raise refusal(path, f"a file of a model of the family {name}", _DAMAGED, reason)
    try:
        return _load_native(folder, name)
    except InputError as error:
        raise InputError(f"cannot load the model in {folder}: {printable(error, most=600)}") from error


def _load_native(path: Path, name: str) -> Model:
    """Load the native file of a family, which may be named by its folder."""
    made_by = family(name)
    try:
        return made_by.load(path)
    except InputError:
        raise
    except Exception as error:  # the packages behind a family raise whatever their parsers do
        raise refusal(path, f"a model of the family {name}", _DAMAGED, error) from error


def _species(model: Model) -> list[str]:
    return [chemical_symbols[number] for number in model.numbers]


def versions(*distributions: str) -> dict[str, str]:
    """Return the versions of Python, of the packages in use, and of `distributions`."""
    found = {"python": platform.python_version()}
    for name in ("ase-flatten", "ase", "numpy", "scipy", "scikit-learn", "torch", *distributions):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
