"""Model families: what a family offers, and how families are found.

A family is one module and one entry point in the group ``ase_flatten.models`` that names an object with the
attributes of `Family`. A third-party package adds a family by declaring such an entry point.
"""

from ase_flatten.models.base import MODEL_ERRORS, Cost, Family, Model, MovableModel, Prediction, Trainer, Workplace
from ase_flatten.models.hyper_parameters import check_settings, check_whole_numbers, convergence_note, is_number
from ase_flatten.models.registry import ENTRY_POINT_GROUP, families, family

__all__ = [
    "ENTRY_POINT_GROUP",
    "MODEL_ERRORS",
    "Cost",
    "Family",
    "Model",
    "MovableModel",
    "Prediction",
    "Trainer",
    "Workplace",
    "check_settings",
    "check_whole_numbers",
    "convergence_note",
    "families",
    "family",
    "is_number",
]
