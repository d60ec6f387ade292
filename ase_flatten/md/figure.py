"""Total energy against time, in the manner of the paper's Figure 8."""

import json
from pathlib import Path
from typing import Any

import numpy as np
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


def plot_total_energy(folder: str | Path) -> list[Path]:
    """Draw the total energy of every model below `folder`, such as ``RUN/md/400K``.

    Replicas are faint, the running average over all of them is bold, in a band of two standard
    errors; a cross is where a replica failed.

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
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    order = [name for name in COLOURS if name in models] + [name for name in models if name not in COLOURS]
    others = iter(_OTHER_COLOURS * len(models))
    averages = []
    for name in order:
        summary = json.loads(models[name].read_text(encoding="utf-8"))
        with np.load(models[name].with_name("energies.npz"), allow_pickle=False) as arrays:
            time = arrays["time_ps"]
            total = total_energy(arrays["potential"], arrays["kinetic"], summary["settings"]["zero_energy_eV"])
        averages.append(_draw_model(axes, time, total, summary, COLOURS.get(name) or next(others)))
    _decorate(axes, summary["temperature_K"], averages)
    return _save(figure, folder)


def _draw_model(axes: Axes, time: FloatArray, total: FloatArray, summary: dict[str, Any], colour: str) -> FloatArray:
    """Draw one model and give its running average."""
    drawn = np.unique(np.linspace(0, len(time) - 1, _DRAWN_POINTS).astype(int))
    for replica in total.T:
        axes.plot(time[drawn], replica[drawn], color=colour, linewidth=0.4, alpha=0.25, zorder=1)
        last = np.flatnonzero(np.isfinite(replica))
        if len(last) and last[-1] < len(time) - 1:
            axes.plot(time[last[-1]], replica[last[-1]], "x", color=colour, markeredgewidth=1.6, zorder=4)
    alive = np.isfinite(total).any(axis=1)
    average, error = running_average(total), running_error(total)
    average[~alive] = np.nan
    axes.fill_between(
        time[drawn], (average - 2 * error)[drawn], (average + 2 * error)[drawn], color=colour, alpha=0.25, linewidth=0
    )
    axes.plot(time[drawn], average[drawn], color=colour, linewidth=2.2, zorder=3, label=_label(summary))
    return average


def _label(summary: dict[str, Any]) -> str:
    n_replicas = summary["n_replicas"]
    if summary["n_failed"]:
        return f"{summary['model']} ({summary['n_failed']} of {n_replicas} replicas failed)"
    return f"{summary['model']} ({n_replicas} {'replica' if n_replicas == 1 else 'replicas'})"


def _decorate(axes: Axes, temperature_K: float, averages: list[FloatArray]) -> None:
    axes.set_xlabel("time (ps)")
    axes.set_ylabel("total energy (kcal/mol)")
    axes.set_title(f"Total energy at {temperature_K:g} K: replicas and running average ± 2 s.e.", fontsize="medium")
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")


def _save(figure: Figure, folder: Path) -> list[Path]:
    paths = [folder / f"total_energy.{suffix}" for suffix in ("png", "pdf")]
    for path in paths:
        with writing(path) as beside:
            figure.savefig(beside, dpi=200)
    return paths
