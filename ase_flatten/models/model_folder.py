"""Model folders: a family's native file, model.json beside it, and the training geometries."""

import json
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ase_flatten.data.dataset import Dataset
from ase_flatten.models import Family, Model, family
from ase_flatten.utils.atomic_files import reading_npz, write_json, write_npz, writing_folder
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.typing import FloatArray, IntArray

FORMAT = 1
CARD = "model.json"
NATIVE_FILES = {".npz": "sgdml", ".pt": "schnet", ".xml": "gap"}
"""The families whose native files can be named without their model folder, by the ending of the file."""

TRAINING = "training.npz"


@dataclass(frozen=True, eq=False)
class SavedModel:
    """Hold a model with what its folder says of it.

    Parameters
    ----------
    model : Model
    card : dict
        The content of model.json; of a bare native file, its family only.
    training_positions : (n_train, n_atoms, 3) array, Å
        The geometries that it was trained on; none for a bare native file.
    """

    model: Model
    card: dict[str, Any]
    training_positions: FloatArray

    @property
    def family(self) -> str:
        """The name of the model family."""
        return str(self.card["family"])

    @property
    def train_frames(self) -> IntArray:
        """The frames of its data set that the model was trained on."""
        return np.asarray(self.card.get("training_frames", []), dtype=np.int64)


def save_model(folder: Path, model: Model, made_by: Family, dataset: Dataset, train_frames: IntArray) -> None:
    """Write a model folder, atomically."""
    with writing_folder(folder) as beside:
        model.save(beside)
        write_npz(beside / TRAINING, {"positions": dataset.positions[train_frames]})
        write_json(
            beside / CARD,
            {
                "format": FORMAT,
                "family": made_by.name,
                "species": [chemical_symbols[number] for number in model.numbers],
                "units": dict(made_by.units),
                "training_frames": train_frames,
                "dataset_digest": dataset.digest,
                "hyper_parameters": dict(model.hyper_parameters),
                "versions": versions(made_by.distribution),
            },
        )


def load_model(path: str | Path) -> SavedModel:
    """Load a model from a run folder (its improved model), a model folder or one of `NATIVE_FILES`.

    Raises
    ------
    InputError
        Nothing there, no model, or one of a later format.
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
        bare = family(name).load(path)
        return SavedModel(bare, {"family": name}, np.empty((0, len(bare.numbers), 3)))
    folder = next((folder for folder in (path, path / "improved") if (folder / CARD).is_file()), None)
    if folder is None:
        raise InputError(f"expected a run folder or a model folder, found no {CARD} in {path}; check the path")
    card = read_card(folder)
    model = family(card["family"]).load(folder)
    species = [chemical_symbols[number] for number in model.numbers]
    if species != card["species"]:
        raise InputError(f"{folder / CARD} says {card['species']}, the model file holds {species}; train it again")
    with reading_npz(folder / TRAINING, "the training geometries") as archive:
        return SavedModel(model, card, archive["positions"])


def read_card(folder: Path) -> dict[str, Any]:
    """Read model.json; raise InputError where it is damaged or of a later format."""
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
        readable = card["format"] <= FORMAT and {"family", "species", "training_frames"} <= set(card)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"expected a model card in {folder / CARD}, could not read it: {error}") from error
    if not readable:
        raise InputError(f"expected format {FORMAT} of {folder / CARD}, found {card['format']}; update ase-flatten")
    return card


def versions(*distributions: str) -> dict[str, str]:
    """Return the versions of Python, of the packages in use, and of `distributions`."""
    found = {"python": platform.python_version()}
    for name in ("ase-flatten", "ase", "numpy", "scipy", "scikit-learn", "torch", *distributions):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
