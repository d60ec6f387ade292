"""Settings of trainers and hyper-parameters of models: checks that families share."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ase_flatten.utils.exceptions import InputError, nearest


def check_settings(settings: Mapping[str, Any], known_by: type, *others: str) -> None:
    """Refuse settings that are neither fields of the dataclass `known_by` nor among `others`.

    Raises
    ------
    InputError
        The family has no such setting; the message names the most similar one.
    """
    known = [*others, *(field.name for field in fields(known_by))]
    for name in settings:
        if name not in known:
            raise InputError(f"{name!r} is not a setting of this model family; {nearest(name, known)}")


def check_whole_numbers(settings: object, least: Mapping[str, int]) -> None:
    """Refuse settings that are not whole numbers, or are below the smallest sensible value.

    Parameters
    ----------
    least : mapping
        The smallest allowed value of each setting, by name.

    Raises
    ------
    InputError
        A setting of this kind.
    """
    for name, smallest in least.items():
        value = getattr(settings, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            raise InputError(f"{name} must be a whole number of at least {smallest}, got {value!r}")


def is_number(value: object) -> bool:
    """Return whether a setting is a finite number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def convergence_note(hyper_parameters: Mapping[str, Any]) -> str | None:
    """Return a note on a training that ended far from convergence; None if it converged or if nothing is known.

    Parameters
    ----------
    hyper_parameters : mapping
        Of a model or its card: `converged`, `validation_trend` and `gradient_steps`, all optional.
    """
    if hyper_parameters.get("converged", True):
        return None
    trend, n_steps = hyper_parameters.get("validation_trend"), hyper_parameters.get("gradient_steps")
    why = (
        "too few to judge convergence"
        if trend is None
        else f"doubling the number of steps lowered the validation error by {trend:.0%}"
    )
    return f"not converged after {n_steps:,} gradient steps ({why}): raise epochs before judging its errors"
