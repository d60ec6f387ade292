"""How figures look: colours that are told apart with any colour vision, text of 7 to 9 points at their printed size."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ase_flatten.utils.atomic_files import writing

COLOURS = {"default": "#d95f02", "improved": "#1f78b4"}
DARK = {"default": "#7a3300", "improved": "#08304f"}
POPULATION = "#8a8a8a"
INK = "#222222"
WORST = "#882255"

WIDTH = 7.2
"""Inches; the page and the PDF show figures at this size."""

DASHES = (0, (5, 2))
HALO = [withStroke(linewidth=3, foreground="white")]
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "pdf.fonttype": 42,  # text remains editable
}
_DPI = 220


def panels(
    width: float, height: float, *, n_rows: int = 1, n_columns: int = 1, **options: Any
) -> tuple[Figure, tuple[Axes, ...]]:
    """Return a figure without a window and its panels, row by row; `options` are those of `Figure.subplots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, tuple(figure.subplots(n_rows, n_columns, squeeze=False, **options).ravel())


def save(figure: Figure, path_stem: str | Path) -> list[Path]:
    """Write PNG and PDF, a dot in the name being no suffix; the same numbers give the same files."""
    stem = Path(path_stem)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
    for path, metadata in zip(paths, ({}, {"CreationDate": None}), strict=True):
        with writing(path) as beside:
            figure.savefig(beside, dpi=_DPI, metadata=metadata)
    return paths


def three_digits(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:#.3g}".rstrip(".")
