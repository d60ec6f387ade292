"""What a path holds, in a few lines."""

from collections.abc import Sequence
from dataclasses import dataclass

from ase_flatten.data.dataset import Dataset

Facts = list[tuple[str, str]]
"""Names and values."""

DIGITS = 12
"""Digits of a digest that are shown."""


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Overview:
    """What a path holds.

    Parameters
    ----------
    kind : str
        data set, model, run, molecular dynamics, errors or clusters.
    facts : Facts
    table : Table, optional
    dataset : Dataset, optional
        The data set itself.
    """

    kind: str
    facts: Facts
    table: Table | None = None
    dataset: Dataset | None = None
