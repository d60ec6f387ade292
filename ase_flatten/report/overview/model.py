"""What a model is."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_flatten.data.dataset import formula
from ase_flatten.data.units import OutputUnits
from ase_flatten.models import convergence_note
from ase_flatten.models.held_out_error import held_out_error
from ase_flatten.models.model_folder import CARD, ModelCard, load_model, read_card
from ase_flatten.report.overview.base import DIGITS, Overview
from ase_flatten.utils.records import understood


def of_model(path: Path, units: OutputUnits) -> Overview:
    """Describe a model folder, or a native file; the model itself is loaded only where there is no folder."""
    folder = path.parent if path.is_file() and (path.parent / CARD).exists() else path
    card = read_card(folder) if (folder / CARD).exists() else _card_of_file(path)
    with understood(folder / CARD, what="the card of a model", remedy="train the model again"):
        molecule = formula(Atoms(card.species).numbers)
    n_train = len(card.training_frames)
    facts = [
        ("family", card.family),
        ("molecule", f"{molecule}, {len(card.species)} atoms in the order {' '.join(card.species)}"),
        ("training", f"{n_train} frames" if n_train else "unknown: the model folder says it, the file alone does not"),
        ("data set", f"digest {card.dataset_digest[:DIGITS]}" if card.dataset_digest else "unknown"),
        ("hyper-parameters", in_words(card.hyper_parameters)),
    ]
    error = held_out_error(folder, n_train)
    if error is not None:
        facts.append(
            (
                "held-out errors",
                f"forces {error.force_rmse * units.scale:.3f} {units.force}, "
                f"energy {error.energy_rmse * units.scale:.3f} {units.energy} (RMSE)",
            )
        )
    if (note := convergence_note(card.hyper_parameters)) is not None:
        facts.append(("caution", note))
    facts += [
        ("versions", ", ".join(f"{name} {value}" for name, value in card.versions.items() if value != "unknown")),
        ("size", f"{_size(path if path.is_file() else folder) / 1e6:.1f} MB"),
    ]
    return Overview("model", facts)


def _card_of_file(path: Path) -> ModelCard:
    saved = load_model(path)
    return replace(saved.card, hyper_parameters=dict(saved.model.hyper_parameters))


def in_words(settings: Mapping[str, Any]) -> str:
    """List settings in one line, without those that are not set."""
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
