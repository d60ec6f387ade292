"""Figures of single predictions: predicted against true values, and the distribution of force errors."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.ticker import FixedLocator

from ase_flatten.data.units import FIELD_UNITS, OutputUnits
from ase_flatten.evaluation.held_out import SCHEMES, Evaluation, HeldoutErrors
from ase_flatten.evaluation.predictions import HeldoutPredictions
from ase_flatten.report.figure_style import COLOURS, DARK, HALO, INK, STYLE, WIDTH, panels, save, three_digits
from ase_flatten.utils.typing import FloatArray, IntArray

QUANTILES = {0.5: "o", 0.9: "s", 0.99: "D"}
"""The quantiles that are marked, with the shape of their marks."""

_N_ENERGY_BINS = 80
_SHADES = {
    scheme: LinearSegmentedColormap.from_list(scheme, ["#e4e4e4", COLOURS[scheme], DARK[scheme]]) for scheme in SCHEMES
}


def plot_predictions(
    predictions: HeldoutPredictions,
    errors: HeldoutErrors,
    evaluation: Evaluation,
    path_stem: str | Path,
    *,
    units: OutputUnits = FIELD_UNITS,
) -> list[Path]:
    """Draw predicted against true forces (top) and energies (bottom) of the default (left) and the improved model."""
    with rc_context(STYLE):
        figure, axes = panels(WIDTH, 6.2, n_rows=2, n_columns=2)
        scale = units.scale
        edges = predictions.force_edges * scale
        true = predictions.energies * scale
        found = {scheme: true + errors.energy_error[scheme] * scale for scheme in SCHEMES}
        both = np.concatenate([true, *found.values()])
        bins = np.linspace(both.min(), max(both.max(), both.min() + 1e-6), _N_ENERGY_BINS + 1)
        for above, below, scheme, curve in zip(axes[:2], axes[2:], SCHEMES, evaluation.final, strict=True):
            draw_density(above, predictions.force_counts[scheme], edges, scheme)
            _state(above, f"RMSE {three_digits(curve.force_rmse * scale)} {units.force}")
            above.set(xlabel=f"true force component [{units.force}]", ylabel=f"predicted [{units.force}]")
            above.set_title(f"{scheme} model", color=COLOURS[scheme], fontweight="bold")
            draw_density(below, np.histogram2d(true, found[scheme], bins=(bins, bins))[0], bins, scheme)
            _state(below, f"RMSE {three_digits(curve.energy_rmse * scale)} {units.energy}")
            below.set(xlabel=f"true energy above the lowest [{units.energy}]", ylabel=f"predicted [{units.energy}]")
        return save(figure, path_stem)


def draw_density(axes: Axes, counts: IntArray | FloatArray, edges: FloatArray, scheme: str) -> Axes:
    """Draw how often pairs of a true and a predicted value occur, on a logarithmic scale, with the identity line.

    Parameters
    ----------
    counts : (n_bins, n_bins) array
        By the true value (rows) and the predicted one (columns).
    edges : (n_bins + 1,) array
        Of the bins of both, equally spaced.
    """
    shown = np.ma.masked_equal(counts.T, 0)
    norm = LogNorm(1, max(float(counts.max()), 2.0))
    span = (edges[0], edges[-1])
    image = axes.imshow(
        shown, norm=norm, cmap=_SHADES[scheme], origin="lower", extent=(*span, *span), interpolation="nearest"
    )
    axes.plot(span, span, color=INK, linewidth=0.8, linestyle=":", zorder=3)
    axes.figure.colorbar(image, ax=axes, shrink=0.75, pad=0.02, label="count")
    return axes


def _state(axes: Axes, words: str) -> None:
    axes.annotate(words, (0.04, 0.96), xycoords="axes fraction", va="top", color=INK, path_effects=HALO)


def plot_error_distribution(
    errors: HeldoutErrors, path_stem: str | Path, *, units: OutputUnits = FIELD_UNITS
) -> list[Path]:
    """Draw how the force errors of held-out frames are distributed: how often they occur, and how often larger ones."""
    with rc_context(STYLE):
        figure, (left, right) = panels(WIDTH, 2.9, n_columns=2)
        draw_error_histogram(left, errors, units=units)
        draw_exceedance(right, errors, units=units)
        figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=5)
        return save(figure, path_stem)


def draw_error_histogram(axes: Axes, errors: HeldoutErrors, *, units: OutputUnits = FIELD_UNITS) -> Axes:
    """Draw a histogram of the force RMSE of frames for both models, on a logarithmic axis."""
    values = {scheme: _positive(errors.force_rmse[scheme]) * units.scale for scheme in SCHEMES}
    every = np.concatenate(list(values.values()))
    low, high = float(every.min()), float(every.max())
    bins = np.geomspace(low / 1.02, high * 1.02, 46)
    for scheme, style in zip(SCHEMES, ("-", "--"), strict=True):
        share = 100 * np.histogram(values[scheme], bins)[0] / len(values[scheme])
        axes.stairs(share, bins, color=COLOURS[scheme], fill=True, alpha=0.25)
        axes.stairs(share, bins, color=COLOURS[scheme], linewidth=1.4, linestyle=style)
        for quantile, shape in QUANTILES.items():
            axes.plot(
                np.quantile(values[scheme], quantile), 0, shape, color=COLOURS[scheme], markeredgecolor=INK,
                markeredgewidth=0.5, markersize=5, clip_on=False, zorder=5,
            )  # fmt: skip
    _error_axis(axes, units)
    axes.set_ylim(0)
    axes.set_ylabel("share of held-out frames [% per bin]")
    return axes


def draw_exceedance(axes: Axes, errors: HeldoutErrors, *, units: OutputUnits = FIELD_UNITS) -> Axes:
    """Draw the share of frames with a larger force RMSE for both models, both axes logarithmic; mark quantiles."""
    for scheme, style in zip(SCHEMES, ("-", "--"), strict=True):
        values = np.sort(_positive(errors.force_rmse[scheme])) * units.scale
        larger = 100 * (1 - np.arange(len(values)) / len(values))
        axes.plot(
            values, larger, color=COLOURS[scheme], linewidth=1.6, linestyle=style, drawstyle="steps-pre", label=scheme
        )
        for quantile, shape in QUANTILES.items():
            axes.plot(
                np.quantile(values, quantile), 100 * (1 - quantile), shape, color=COLOURS[scheme],
                markeredgecolor=INK, markeredgewidth=0.5, markersize=5, zorder=5,
            )  # fmt: skip
    for quantile, shape in QUANTILES.items():
        axes.plot([], [], shape, color="white", markeredgecolor=INK, label=_quantile_name(quantile))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(FixedLocator([10.0**power for power in range(-4, 3)]))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_ylim(max(80.0 / max(map(len, errors.force_rmse.values())), 1e-4), 130)
    _error_axis(axes, units)
    axes.set_ylabel("frames with a larger error [%]")
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    return axes


def _quantile_name(quantile: float) -> str:
    return "median" if quantile == 0.5 else f"{100 * quantile:g} % quantile"


def _error_axis(axes: Axes, units: OutputUnits) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    subs = (1, 2, 5) if high < 200 * low else (1,)
    powers = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 1)
    ticks = [sub * 10.0**power for power in powers for sub in subs]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.set_xlabel(f"force RMSE of a frame [{units.force}]")


def _positive(values: FloatArray) -> FloatArray:
    """Return errors that a logarithmic axis can show: zeros become a millionth of the largest."""
    return np.maximum(values, 1e-6 * float(values.max()) or 1e-12)
