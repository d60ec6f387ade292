"""Total energy against time, in the manner of the paper's Figure 8."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ase_flatten.dataset import FloatArray
from ase_flatten.exceptions import InputError
from ase_flatten.files import writing
from ase_flatten.md.analysis import running_average, running_error, total_energy

COLOURS = {"default": "#d95f02", "improved": "#1f78b4", "reference": "#666666"}
"""A colour for each model, the same in every figure."""

_OTHER_COLOURS = ("#1b9e77", "#7570b3", "#e7298a", "#a6761d")
_DRAWN_POINTS = 1500
_STYLE: dict[Any, Any] = {"font.size": 10, "axes.titlesize": 10, "legend.fontsize": 9, "pdf.fonttype": 42}


def plot_total_energy(folder: str | Path) -> list[Path]:
    """Draw the total energy of every model below `folder`, such as ``RUN/md/400K``.

    Replicas are faint, the running average over all of them is bold, in a band of two standard
    errors; a cross on the average is where a replica failed.

    Returns
    -------
    list of Path
        ``total_energy.png`` and ``total_energy.pdf`` in that folder.

    Raises
    ------
    InputError
        No model has been run there.
    """
    folder = Path(folder)
    models = {path.parent.name: path for path in sorted(folder.glob("*/summary.json"))}
    if not models:
        raise InputError(f"expected runs of models in {folder}, found none; run python -m ase_flatten.md first")
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure.add_subplot(), models)
        return _save(figure, folder)


def _draw(axes: Axes, models: dict[str, Path]) -> None:
    order = [name for name in COLOURS if name in models] + [name for name in models if name not in COLOURS]
    others = iter(_OTHER_COLOURS * len(models))
    totals = []
    for name in order:
        summary = json.loads(models[name].read_text(encoding="utf-8"))
        with np.load(models[name].with_name("energies.npz"), allow_pickle=False) as arrays:
            time = arrays["time_ps"]
            totals.append(total_energy(arrays["potential"], arrays["kinetic"], summary["settings"]["zero_energy_eV"]))
        _draw_model(axes, time, totals[-1], _label(summary), COLOURS.get(name) or next(others))
    _limit(axes, totals)
    axes.set_xlabel("time (ps)")
    axes.set_ylabel("total energy (kcal/mol)")
    axes.set_title(f"{summary['temperature_K']:g} K: replicas, and running average ± 2 standard errors")
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")


def _draw_model(axes: Axes, time: FloatArray, total: FloatArray, label: str, colour: str) -> None:
    drawn = np.unique(np.linspace(0, len(time) - 1, _DRAWN_POINTS).astype(int))
    for replica in total.T:
        axes.plot(time[drawn], replica[drawn], color=colour, linewidth=0.5, alpha=0.3, zorder=1)
    average, error = running_average(total), running_error(total)
    average[~np.isfinite(total).any(axis=1)] = np.nan
    low, high = average - 2 * error, average + 2 * error
    axes.fill_between(time[drawn], low[drawn], high[drawn], color=colour, alpha=0.25, linewidth=0, zorder=2)
    axes.plot(time[drawn], average[drawn], color=colour, linewidth=2.2, zorder=3, label=label)
    # A cross on the average, since the energy of a replica that explodes is out of the picture.
    ends = np.isfinite(total).sum(axis=0) - 1
    lost = ends[(ends >= 0) & (ends < len(time) - 1)]
    axes.plot(time[lost], average[lost], "X", color=colour, markersize=9, markeredgecolor="white", zorder=4)


def _limit(axes: Axes, totals: list[FloatArray]) -> None:
    """Set the limits by where the replicas usually are: those that explode go far beyond."""
    known = np.concatenate([total[np.isfinite(total)] for total in totals])
    if known.size:
        low, high = np.percentile(known, [1, 99])
        margin = 0.2 * (high - low) + 0.1
        axes.set_ylim(low - margin, high + margin)


def _label(summary: dict[str, Any]) -> str:
    n_replicas = summary["n_replicas"]
    if summary["n_failed"]:
        return f"{summary['model']} ({summary['n_failed']} of {n_replicas} replicas failed)"
    return f"{summary['model']} ({n_replicas} {'replica' if n_replicas == 1 else 'replicas'})"


def _save(figure: Figure, folder: Path) -> list[Path]:
    paths = [folder / f"total_energy.{suffix}" for suffix in ("png", "pdf")]
    for path in paths:
        with writing(path) as beside:
            figure.savefig(beside, dpi=200)
    return paths
