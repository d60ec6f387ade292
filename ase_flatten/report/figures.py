"""Figures of a run, similar to Figures 2, 3 and 5 of the paper, as PNG and PDF.

A function `draw_...` draws into given axes and returns them; a function `plot_...` writes the files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.patches import ConnectionPatch
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

from ase_flatten.data.units import FIELD_UNITS, OutputUnits
from ase_flatten.evaluation.claims import Claims
from ase_flatten.evaluation.frame_groups import Groups
from ase_flatten.evaluation.held_out import SCHEMES, Curve, Evaluation
from ase_flatten.report.figure_style import (
    COLOURS,
    DARK,
    DASHES,
    HALO,
    INK,
    POPULATION,
    STYLE,
    WIDTH,
    WORST,
    panels,
    save,
    three_digits,
)
from ase_flatten.report.molecule_drawing import draw_structure, upright
from ase_flatten.selection.cluster_errors import ClusterErrors

_MOST_CURVES = 5
_MOST_NAMES = 70
"""More bars are not all labelled."""

_LONGEST_NAME = 12
"""Longer names of groups are cut on axes; their first cluster, which is in no other group, remains."""


def plot_outliers(
    errors: ClusterErrors,
    path_stem: str | Path,
    *,
    units: OutputUnits = FIELD_UNITS,
    title: str = "",
    structure: Atoms | None = None,
    groups: Groups | None = None,
) -> list[Path]:
    """Draw the force RMSE of a model on each cluster, and their share of the frames (Figure 2).

    Parameters
    ----------
    path_stem : str or Path
        Path of the files, without suffix.
    title : str
    structure : Atoms, optional
        A configuration of the worst cluster, drawn upright in a box.
    groups : Groups, optional
        If the errors are those of groups of clusters.

    Returns
    -------
    list of Path
        The PNG and the PDF.
    """
    with rc_context(STYLE):
        figure, (above, below) = panels(WIDTH, 3.6, n_rows=2, sharex=True, height_ratios=(4, 1))
        draw_outliers(above, errors, units=units, structure=structure, groups=groups).set_title(title)
        draw_populations(below, errors, groups=groups)
        return save(figure, path_stem)


def draw_outliers(
    axes: Axes,
    errors: ClusterErrors,
    *,
    units: OutputUnits = FIELD_UNITS,
    structure: Atoms | None = None,
    groups: Groups | None = None,
) -> Axes:
    """Draw the force RMSE on each cluster as bars, in ascending order; see `plot_outliers`."""
    order = errors.ascending
    ranks, rmse = np.arange(1, len(order) + 1), errors.rmse[order] * units.scale
    overall = errors.overall_rmse * units.scale
    colours = [COLOURS["default"]] * (len(order) - 1) + [WORST]
    axes.bar(ranks, rmse, width=0.82, color=colours, zorder=2)
    axes.axhline(overall, color=INK, linewidth=1.2, zorder=3)
    low = max(float(rmse[int(0.45 * (len(rmse) - 1))]), overall)
    top = 1.06 * float(rmse[-1]) if structure is None else max(1.06 * float(rmse[-1]), low / 0.37)
    axes.set_ylim(0, top or 1.0)
    axes.annotate(
        f"all frames: {three_digits(overall)}", (0.01, overall), xycoords=axes.get_yaxis_transform(),
        xytext=(3, 3), textcoords="offset points", color=INK, path_effects=HALO, zorder=31,
    )  # fmt: skip
    if structure is not None:
        name = f"cluster {errors.worst}" if groups is None else groups.name(errors.worst)
        _inset(axes, structure, (float(ranks[-1]), float(rmse[-1])), f"worst: {name}")
    axes.set_ylabel(force_label(units))
    return axes


def draw_populations(axes: Axes, errors: ClusterErrors, *, groups: Groups | None = None) -> Axes:
    """Draw the share of all frames that each cluster holds as bars, in ascending order of the errors."""
    share = 100 * errors.populations / errors.populations.sum()
    order = errors.ascending
    axes.bar(np.arange(1, len(order) + 1), share[order], width=0.82, color=POPULATION)
    axes.set_ylabel("share of\nframes [%]")
    name_bars(axes, order, groups, "in ascending order of the error")
    return axes


def plot_error_curves(evaluation: Evaluation, path_stem: str | Path, *, units: OutputUnits = FIELD_UNITS) -> list[Path]:
    """Draw the force RMSE for growing training sets, each curve in ascending order (Figure 3).

    Default training is on the left, improved training on the right. A band on the left shows the range of the curves
    of all default draws of the final size.
    """
    with rc_context(STYLE):
        figure, (left, right) = panels(WIDTH, 2.9, n_columns=2, sharey=True)
        sizes = sorted({curve.n_train for scheme in SCHEMES for curve in _some(evaluation.of(scheme))})
        shades = dict(zip(sizes, colormaps["viridis"](np.linspace(0.86, 0.1, len(sizes))), strict=True))
        for axes, scheme in zip((left, right), SCHEMES, strict=True):
            draw_error_curves(axes, evaluation, scheme, shades=shades, units=units)
        lines = {line.get_label(): line for axes in (left, right) for line in axes.lines}
        handles = [*(lines[f"{size:,}"] for size in sizes), *left.collections]
        figure.legend(handles=handles, title="training\nframes", loc="outside right upper")
        left.set_ylim(0, 1.06 * max(axes.dataLim.y1 for axes in (left, right)) or 1.0)
        left.set_ylabel(force_label(units))
        return save(figure, path_stem)


def draw_error_curves(
    axes: Axes, evaluation: Evaluation, scheme: str, *, shades: dict[int, Any], units: OutputUnits = FIELD_UNITS
) -> Axes:
    """Draw a curve for each size of one scheme's training set: the errors on all groups, sorted, by their rank.

    Parameters
    ----------
    shades : dict
        The colour of each size.
    """
    for curve in _some(evaluation.of(scheme)):
        rmse = _sorted(curve) * units.scale
        ranks = np.arange(1, len(rmse) + 1)
        axes.plot(ranks, rmse, color=shades[curve.n_train], linewidth=1.8, label=f"{curve.n_train:,}")
    if scheme == "default" and evaluation.default_draws:
        drawn = np.array([_sorted(curve) for curve in (evaluation.final[0], *evaluation.default_draws)]) * units.scale
        final = evaluation.final[0].n_train
        axes.fill_between(
            np.arange(1, drawn.shape[1] + 1), drawn.min(axis=0), drawn.max(axis=0), color=shades[final], alpha=0.25,
            linewidth=0, label=f"{len(drawn)} draws\nof {final:,}",
        )  # fmt: skip
    axes.set_title(f"{scheme} training", color=COLOURS[scheme], fontweight="bold")
    n_groups = int(np.sum(evaluation.n_heldout > 0))
    axes.set_xlabel("rank of the group (1: smallest error of this curve)")
    axes.set_xlim(0.3, n_groups + 0.7)
    step = 10 if n_groups > 12 else 1
    axes.xaxis.set_major_locator(FixedLocator([1, *range(max(step, 2), n_groups + 1, step)]))
    return axes


def plot_comparison(
    evaluation: Evaluation, claims: Claims, path_stem: str | Path, *, units: OutputUnits = FIELD_UNITS
) -> list[Path]:
    """Draw the force RMSE of the two final models on each group (Figure 5); see `draw_comparison`.

    Parameters
    ----------
    evaluation : Evaluation
        On groups of clusters; see `Evaluation.grouped`.
    """
    with rc_context(STYLE):
        figure, (axes,) = panels(WIDTH, 3.6)
        draw_comparison(axes, evaluation, claims, units=units)
        entries = sorted(
            zip(*axes.get_legend_handles_labels(), strict=True), key=lambda one: not one[1].startswith(SCHEMES)
        )
        figure.legend(*zip(*entries, strict=True), loc="outside upper center", ncols=3)
        return save(figure, path_stem)


def draw_comparison(axes: Axes, evaluation: Evaluation, claims: Claims, *, units: OutputUnits = FIELD_UNITS) -> Axes:
    """Draw the force RMSE of both models on each group as bars, in ascending order of the default one's.

    The bars of the improved model are in front of those of the default one, both with 95 % confidence intervals over
    held-out frames. Points are the default draws.
    """
    order = np.argsort(claims.group_rmse["default"], kind="stable")
    ranks, scale = np.arange(1, len(order) + 1), units.scale
    for curve, width, shift in zip(evaluation.final, (0.86, 0.5), (-0.13, 0.13), strict=True):
        colour = COLOURS[curve.scheme]
        heights = claims.group_rmse[curve.scheme][order] * scale
        label = f"{curve.scheme}, {curve.n_train:,} frames (overall {three_digits(curve.force_rmse * scale)})"
        axes.bar(ranks, heights, width=width, color=colour, label=label, zorder=2)
        axes.axhline(curve.force_rmse * scale, color=DARK[curve.scheme], linewidth=1.2, linestyle=DASHES, zorder=3)
        low, high = claims.group_interval[curve.scheme][:, order] * scale
        axes.vlines(ranks + shift, low, high, color=DARK[curve.scheme], linewidth=0.9, zorder=4)
    axes.plot([], [], linestyle=DASHES, color=INK, label="overall")
    axes.plot([], [], linestyle="", marker="|", markersize=8, color=INK, label="95 % interval")
    drawn = claims.draws_group_rmse[:, order] * scale
    if len(drawn) > 1:
        axes.plot(
            np.tile(ranks - 0.3, len(drawn)), drawn.ravel(), "o", markersize=2.6, color="white",
            markeredgecolor=DARK["default"], markeredgewidth=0.6, zorder=5, label=f"{len(drawn)} default draws",
        )  # fmt: skip
    highest = max(drawn.max(), *(ends.max() * scale for ends in claims.group_interval.values()))
    axes.set_ylim(0, 1.04 * float(highest) or 1.0)
    name_bars(axes, order, claims.groups, "in ascending order of the default model's error")
    axes.set_ylabel(force_label(units))
    return axes


def plot_learning_curve(
    evaluation: Evaluation, claims: Claims, path_stem: str | Path, *, units: OutputUnits = FIELD_UNITS
) -> list[Path]:
    """Draw the force RMSE as a function of the size of the training set; see `draw_learning_curve`.

    Parameters
    ----------
    evaluation : Evaluation
        On groups of clusters; see `Evaluation.grouped`.
    """
    with rc_context(STYLE):
        figure, (axes,) = panels(0.65 * WIDTH, 3.2)
        draw_learning_curve(axes, evaluation, claims, units=units)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
        return save(figure, path_stem)


def draw_learning_curve(
    axes: Axes, evaluation: Evaluation, claims: Claims, *, units: OutputUnits = FIELD_UNITS
) -> Axes:
    """Draw the force RMSE, overall and of the worst group, as a function of the size of the training set.

    Both axes are logarithmic. Vertical lines at the final size are 95 % confidence intervals over held-out frames;
    a cross is another default draw.
    """
    axes.set(xscale="log", yscale="log")
    kinds = {"worst_group": ("worst group", "s", "--"), "overall": ("all frames", "o", "-")}
    final = evaluation.final[0].n_train
    for scheme, shift in zip(SCHEMES, (0.99, 1.01), strict=True):
        curves = evaluation.of(scheme)
        sizes = [curve.n_train for curve in curves]
        for measure, (kind, marker, line) in kinds.items():
            rmse = [curve.worst if measure == "worst_group" else curve.force_rmse for curve in curves]
            axes.plot(
                sizes, np.array(rmse) * units.scale, line, marker=marker, markersize=5, linewidth=1.6,
                color=COLOURS[scheme], markeredgecolor="white", markeredgewidth=0.6, label=f"{scheme}, {kind}",
            )  # fmt: skip
            estimate = claims.of[measure].default if scheme == "default" else claims.of[measure].improved
            low, high = estimate.low * units.scale, estimate.high * units.scale
            axes.vlines(final * shift, low, high, color=COLOURS[scheme], linewidth=1.3)
    others = np.concatenate([claims.of[measure].draws[1:] for measure in kinds]) * units.scale
    if len(others):
        axes.plot(
            np.full(len(others), final), others, "x", markersize=5, color=COLOURS["default"],
            label="other default draws", zorder=1,
        )  # fmt: skip
    axes.xaxis.set_major_locator(FixedLocator([curve.n_train for curve in _some(evaluation.of("default"))]))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    low, high = axes.get_ylim()
    if high < 1.02 * low:  # errors that are equal except for rounding
        axes.set_ylim(low := low / 1.1, high := high * 1.1)
    subs = (1, 2, 5) if high > 30 * low else (1, 1.5, 2, 3, 4, 6, 8)
    axes.yaxis.set_major_locator(LogLocator(subs=subs) if high > 2.5 * low else MaxNLocator(5))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set(xlabel="training frames", ylabel=force_label(units))
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
    return axes


def force_label(units: OutputUnits) -> str:
    """Return the label of an axis of force errors."""
    return f"force RMSE [{units.force}]"


def name_bars(axes: Axes, order: Sequence[int] | np.ndarray, groups: Groups | None, how: str) -> None:
    """Label bars at 1, 2, ... with the numbers of the clusters, as tables and text name them.

    Parameters
    ----------
    order : (n_bars,) int array
        The cluster, or the group, of each bar.
    how : str
        In which order they are, for the label of the axis.
    """
    names = [f"{one}" if groups is None else groups.numbers(int(one)) for one in order]
    step = -(-len(names) // _MOST_NAMES)
    shown = [_cut(name) for name in names[::step]]
    size = STYLE["xtick.labelsize"] if len(shown) <= 50 else 6
    axes.set_xticks(range(1, len(names) + 1, step), shown, rotation=90, fontsize=size)
    axes.tick_params(axis="x", length=0, pad=2)
    axes.set_xlim(0.3, len(names) + 0.7)
    axes.set_xlabel(f"cluster{'' if groups is None else ', or clusters taken together'}, {how}")


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name.split(', ')[0]}, …"


def _sorted(curve: Curve) -> np.ndarray:
    return np.sort(curve.cluster_force_rmse[np.isfinite(curve.cluster_force_rmse)])


def _some(curves: Sequence[Curve]) -> list[Curve]:
    """Return all curves if they are few, else the first, the middle and the last one."""
    if len(curves) <= _MOST_CURVES:
        return list(curves)
    return [curves[0], curves[(len(curves) - 1) // 2], curves[-1]]


def _inset(axes: Axes, structure: Atoms, tip: tuple[float, float], label: str) -> None:
    """Draw a molecule in a box in the upper left, connected to its bar."""
    box = axes.inset_axes((0.05, 0.5, 0.45, 0.48), zorder=30)
    draw_structure(box, upright(structure), numbered=False)
    for spine in box.spines.values():
        spine.set(edgecolor=WORST, linewidth=1.4, visible=True)
    box.annotate(
        label, (1, 0), xycoords="axes fraction", xytext=(4, 1), textcoords="offset points", va="bottom", color=WORST,
    )  # fmt: skip
    axes.add_artist(
        ConnectionPatch((1, 0.75), tip, box.transAxes, axes.transData, color=WORST, linewidth=0.9, zorder=29)
    )
