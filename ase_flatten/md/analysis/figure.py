"""Figures of a temperature: total energy in the manner of the paper's Figure 8, survival, distances."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ase_flatten.geometry.distance_histograms import BIN_WIDTH, bin_centres, density
from ase_flatten.md.analysis.survival import Survival
from ase_flatten.md.analysis.time_series import running_average, running_error, total_energy
from ase_flatten.md.results import Comparison, DistanceError, Summary
from ase_flatten.md.saved_run import SavedRun, saved_runs
from ase_flatten.utils.atomic_files import writing
from ase_flatten.utils.typing import FloatArray, IntArray

COLOURS = {"default": "#d95f02", "improved": "#1f78b4", "reference": "#666666"}
"""A colour for each model, the same in every figure."""

_OTHER_COLOURS = ("#1b9e77", "#7570b3", "#e7298a", "#a6761d")
_DRAWN_POINTS = 1500
_STYLE: dict[Any, Any] = {"font.size": 10, "axes.titlesize": 10, "legend.fontsize": 9, "pdf.fonttype": 42}


def plot_total_energy(folder: str | Path) -> list[Path]:
    """Draw the total energy of every model below `folder`, such as ``RUN/md/400K``.

    Replicas are faint, the running average over all of them is bold, in a band of two standard
    errors; a cross on the average is where a replica failed. The average of a run that was shorter than
    others continues as a dashed line. The transient that is left out of means and drifts is grey; the expected
    energy, where it is known, is a dotted line in a band of two standard errors.

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
    runs = {run.name: run for run in saved_runs(folder)}
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        FigureCanvasAgg(figure)
        _draw(figure.add_subplot(), runs)
        return _save(figure, folder, "total_energy")


def plot_survival(folder: Path, curves: Mapping[str, Survival], comparison: Comparison) -> list[Path]:
    """Draw the fraction of replicas that have not failed, with its 95 % confidence interval, for each model.

    Parameters
    ----------
    curves : mapping
        By the name of the model.
    comparison : Comparison
        As `analyse` returns it.

    Returns
    -------
    list of Path
        ``survival.png`` and ``survival.pdf`` in that folder.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        # Curves often coincide: those below are wider.
        for rank, (name, colour) in enumerate(_coloured(curves)):
            curve = curves[name]
            label = f"{name}: {curve.fraction[-1]:.2f} ({curve.low[-1]:.2f} to {curve.high[-1]:.2f})"
            axes.fill_between(curve.time_ps, curve.low, curve.high, step="post", color=colour, alpha=0.12, linewidth=0)
            for limit in (curve.low, curve.high):
                axes.step(curve.time_ps, limit, where="post", color=colour, linewidth=0.8, linestyle=":")
            width = 1.4 + 1.2 * (len(curves) - 1 - rank)
            axes.step(curve.time_ps, curve.fraction, where="post", color=colour, linewidth=width, label=label)
            lost = np.flatnonzero(np.diff(curve.fraction, prepend=1.0))
            axes.plot(curve.time_ps[lost], curve.fraction[lost], "X", color=colour, markersize=8, markeredgecolor="w")
        end = max(model.duration_ps for model in comparison.models.values())
        axes.set_xlim(-0.01 * end, 1.01 * end)
        axes.set_ylim(-0.02, 1.04)
        axes.set_xlabel("time (ps)")
        axes.set_ylabel("surviving fraction of replicas")
        axes.spines[["top", "right"]].set_visible(False)
        title = f"{comparison.temperature_K:g} K: survival to the end and its 95 % interval{_chance(comparison)}"
        axes.legend(frameon=False, title=title, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _save(figure, folder, "survival")


def plot_distances(
    folder: Path,
    models: Mapping[str, Mapping[str, IntArray]],
    data: Mapping[str, IntArray],
    comparison: Comparison,
) -> list[Path]:
    """Draw the distributions of bond lengths and of all pair distances, and their difference from that of the data.

    Parameters
    ----------
    models : mapping
        By the name of the model and the kind of distance (bonds, pairs), the (n_bins,) counts of all replicas.
    data : mapping
        The same of the reference data.
    comparison : Comparison
        As `analyse` returns it.

    Returns
    -------
    list of Path
        ``distances.png`` and ``distances.pdf`` in that folder.
    """
    centres = bin_centres()
    with rc_context(_STYLE):
        figure = Figure(figsize=(9.0, 5.4), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, 2, sharex="col", height_ratios=(3, 2))
        for (above, below), kind, what in zip(panels.T, ("bonds", "pairs"), ("bond lengths", "all pair distances")):
            known = density(data[kind])
            above.fill_between(centres, known, color="#d0d0d0", linewidth=0, label="reference data")
            for name, colour in _coloured(models):
                found = density(models[name][kind])
                errors = comparison.models[name].distances["data"]
                label = f"{name}: {_plus_minus(errors.bonds if kind == 'bonds' else errors.pairs)}"
                under: dict[str, Any] = {"linewidth": 2.2, "alpha": 0.6, "zorder": 1} if name == "reference" else {}
                above.plot(centres, found, label=label, **{"color": colour, "linewidth": 1.1, **under})
                below.plot(centres, found - known, **{"color": colour, "linewidth": 0.9, **under})
            below.axhline(0, color="#999999", linewidth=0.6, zorder=0)
            taken = np.flatnonzero(np.sum([data[kind], *(of[kind] for of in models.values())], axis=0))
            if len(taken):
                above.set_xlim(centres[taken[0]] - 5 * BIN_WIDTH, centres[taken[-1]] + 5 * BIN_WIDTH)
            above.set_ylim(0)
            below.set_xlabel("distance r (Å)")
            title = f"{comparison.temperature_K:g} K, {what}: ∫ |h − h(data)| dr ± standard error"
            above.legend(frameon=False, title=title, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
            for axes in (above, below):
                axes.spines[["top", "right"]].set_visible(False)
        panels[0, 0].set_ylabel("h(r) (1/Å)")
        panels[1, 0].set_ylabel("h − h(data) (1/Å)")
        return _save(figure, folder, "distances")


def _coloured(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names, those with a colour of their own first, with the colour of each."""
    order = [name for name in COLOURS if name in names] + [name for name in names if name not in COLOURS]
    others = iter(_OTHER_COLOURS * len(order))
    return [(name, COLOURS.get(name) or next(others)) for name in order]


def _chance(comparison: Comparison) -> str:
    test = comparison.log_rank
    if test is None or all(comparison.models[name].survival == 1 for name in test.models):
        return ""
    return f" (log-rank p = {test.p_value:.2g})"


def _plus_minus(found: DistanceError) -> str:
    if found.error is None:
        return "no frames"
    spread = "" if found.standard_error is None else f" ± {found.standard_error:.3f}"
    return f"{found.error:.3f}{spread}"


def _draw(axes: Axes, runs: dict[str, SavedRun]) -> None:
    totals = []
    end = max(run.duration_ps for run in runs.values())
    for name, colour in _coloured(runs):
        run = runs[name]
        totals.append(total_energy(run.energies.potential, run.energies.kinetic, run.settings.zero_energy_eV))
        _draw_model(axes, run.energies.time_ps, totals[-1], _label(run.summary), colour, end)
    _limit(axes, totals)
    _draw_expected(axes, [run.summary for run in runs.values()], end)
    axes.set_xlabel("time (ps)")
    axes.set_ylabel("total energy (kcal/mol)")
    axes.set_title(f"{run.summary.temperature_K:g} K: replicas, and running average ± 2 standard errors")
    axes.margins(x=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")


def _draw_expected(axes: Axes, summaries: list[Summary], end: float) -> None:
    """Mark the longest transient that was left out, and the expected total energy with two standard errors."""
    left_out = max((summary.equilibration_ps or 0.0 for summary in summaries), default=0.0)
    if left_out > 0:
        axes.axvspan(0, left_out, color="#bbbbbb", alpha=0.35, linewidth=0, zorder=0, label="transient, left out")
    for summary in summaries:
        if summary.expected is None or summary.expected_total is None:
            continue
        mean, error = summary.expected_total, summary.expected.error
        axes.fill_between([0, end], mean - 2 * error, mean + 2 * error, color="k", alpha=0.12, linewidth=0, zorder=0)
        axes.plot([0, end], [mean, mean], color="k", linewidth=1.2, linestyle=":", zorder=5, label="expected")
        break


def _draw_model(axes: Axes, time: FloatArray, total: FloatArray, label: str, colour: str, end: float) -> None:
    drawn = np.unique(np.linspace(0, len(time) - 1, _DRAWN_POINTS).astype(int))
    for replica in total.T:
        axes.plot(time[drawn], replica[drawn], color=colour, linewidth=0.5, alpha=0.3, zorder=1)
    average, error = running_average(total), running_error(total)
    average[~np.isfinite(total).any(axis=1)] = np.nan
    low, high = average - 2 * error, average + 2 * error
    axes.fill_between(time[drawn], low[drawn], high[drawn], color=colour, alpha=0.25, linewidth=0, zorder=2)
    axes.plot(time[drawn], average[drawn], color=colour, linewidth=2.2, zorder=3, label=label)
    if time[-1] < end:  # a shorter run, for comparison with the longer ones
        axes.plot([time[-1], end], [average[-1]] * 2, color=colour, linewidth=1.4, linestyle="--", zorder=3)
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


def _label(summary: Summary) -> str:
    n_replicas = summary.n_replicas
    if summary.n_failed:
        return f"{summary.model} ({summary.n_failed} of {n_replicas} replicas failed)"
    return f"{summary.model} ({n_replicas} {'replica' if n_replicas == 1 else 'replicas'})"


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.{suffix}" for suffix in ("png", "pdf")]
    for path in paths:
        with writing(path) as beside:
            figure.savefig(beside, dpi=200)
    return paths
