"""Figures of a run, similar to Figures 2, 3 and 5 of the paper, as PNG and PDF."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator

from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.claims import Claims
from ase_flatten.evaluation.held_out import SCHEMES, Curve, Evaluation
from ase_flatten.report.molecule_drawing import draw_structure, upright
from ase_flatten.selection.cluster_errors import ClusterErrors
from ase_flatten.utils.atomic_files import writing

COLOURS = {"default": "#d95f02", "improved": "#1f78b4"}
DARK = {"default": "#7a3300", "improved": "#08304f"}
POPULATION = "#7fb2d9"
INK = "#222222"
WORST = "#c1121f"

KCAL = OutputUnits("kcal/mol")
_DPI = 220
_MOST_CURVES = 5
_DASHES = (0, (5, 2))
_HALO = [withStroke(linewidth=3, foreground="white")]
_STYLE: Any = {
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.titlesize": 10,
    "legend.fontsize": 9,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "pdf.fonttype": 42,  # text remains editable
}


def plot_outliers(
    errors: ClusterErrors,
    path_stem: str | Path,
    *,
    units: OutputUnits = KCAL,
    title: str = "",
    structure: Atoms | None = None,
    worst: str = "",
    axis: str = "clusters, sorted by error",
) -> list[Path]:
    """Draw the force RMSE of a model on each cluster (Figure 2).

    Parameters
    ----------
    path_stem : str or Path
        Path of the files, without suffix.
    title : str
    structure : Atoms, optional
        A configuration of the worst cluster, drawn upright in a red box.
    worst : str
        Name of the worst cluster; its label by default.
    axis : str
        Label of the horizontal axis.

    Returns
    -------
    list of Path
        The PNG and the PDF.
    """
    with rc_context(_STYLE):
        figure, (axes,) = _figure(5.2, 3.5)
        order = errors.ascending
        ranks, rmse = np.arange(1, len(order) + 1), errors.rmse[order] * units.scale
        overall = errors.overall_rmse * units.scale
        colours = [COLOURS["default"]] * (len(order) - 1) + [WORST]
        axes.bar(ranks, rmse, width=0.82, color=colours, zorder=2)
        axes.axhline(overall, color=INK, linewidth=1.2, zorder=3)
        low = max(float(rmse[int(0.45 * (len(rmse) - 1))]), overall)
        top = 1.06 * float(rmse[-1]) if structure is None else max(1.06 * float(rmse[-1]), low / 0.37)
        axes.set_ylim(0, top or 1.0)
        front = _populations(axes, ranks, errors.populations[order])
        front.annotate(
            f"all frames: {_three_digits(overall)}", (0.01, overall), xycoords=axes.get_yaxis_transform(),
            xytext=(3, 3), textcoords="offset points", color=INK, path_effects=_HALO,
        )  # fmt: skip
        if structure is not None:
            name = worst or f"worst cluster (label {errors.worst})"
            _inset(axes, structure, (float(ranks[-1]), float(rmse[-1])), name)
        _cluster_axis(axes, len(order), axis)
        axes.set_ylabel(_force_label(units))
        axes.set_title(title)
        return _save(figure, path_stem)


def plot_error_curves(evaluation: Evaluation, path_stem: str | Path, *, units: OutputUnits = KCAL) -> list[Path]:
    """Draw the force RMSE for growing training sets, each curve in ascending order (Figure 3).

    Default training is on the left, improved training on the right. A band on the left shows the range of the curves
    of all default draws of the final size.
    """
    with rc_context(_STYLE):
        figure, panels = _figure(7.4, 3.2, n_columns=2)
        shown = {scheme: _some(evaluation.of(scheme)) for scheme in SCHEMES}
        sizes = sorted({curve.n_train for curves in shown.values() for curve in curves})
        shades = dict(zip(sizes, colormaps["viridis"](np.linspace(0.86, 0.1, len(sizes))), strict=True))
        for axes, scheme in zip(panels, SCHEMES, strict=True):
            for curve in shown[scheme]:
                rmse = _sorted(curve) * units.scale
                ranks = np.arange(1, len(rmse) + 1)
                axes.plot(ranks, rmse, color=shades[curve.n_train], linewidth=2, label=f"{curve.n_train:,}")
            axes.set_title(f"{scheme} training", color=COLOURS[scheme], fontweight="bold")
            _cluster_axis(axes, int(np.sum(evaluation.n_heldout > 0)), "groups of clusters, sorted by error")
        lines = {line.get_label(): line for axes in panels for line in axes.lines}
        handles: list[Any] = [lines[f"{size:,}"] for size in sizes]
        drawn = np.array([_sorted(curve) for curve in (evaluation.final[0], *evaluation.default_draws)]) * units.scale
        if len(drawn) > 1:
            label = f"{len(drawn)} draws\nof {sizes[-1]:,}"
            ranks = np.arange(1, drawn.shape[1] + 1)
            handles.append(
                panels[0].fill_between(
                    ranks, drawn.min(axis=0), drawn.max(axis=0), color=shades[sizes[-1]], alpha=0.25, linewidth=0,
                    label=label,
                )
            )  # fmt: skip
        figure.legend(handles=handles, title="training\nframes", frameon=False, loc="outside right upper")
        highest = max(drawn.max(), *(curve.worst * units.scale for curves in shown.values() for curve in curves))
        panels[0].set_ylim(0, 1.06 * highest or 1.0)
        panels[0].set_ylabel(_force_label(units))
        return _save(figure, path_stem)


def plot_comparison(
    evaluation: Evaluation, claims: Claims, path_stem: str | Path, *, units: OutputUnits = KCAL
) -> list[Path]:
    """Draw the force RMSE of the two final models on each group (Figure 5), in ascending order of the default one's.

    The bars of the improved model are in front of those of the default one, both with 95 % confidence intervals over
    held-out frames. A band shows the range of all default draws.

    Parameters
    ----------
    evaluation : Evaluation
        On groups of clusters; see `Evaluation.grouped`.
    """
    with rc_context(_STYLE):
        figure, (axes,) = _figure(6.4, 3.7)
        default = claims.group_rmse["default"]
        order = np.argsort(default, kind="stable")
        ranks = np.arange(1, len(order) + 1)
        scale = units.scale
        handles: list[Any] = []
        for curve, width, shift in zip(evaluation.final, (0.86, 0.5), (-0.13, 0.13), strict=True):
            colour = COLOURS[curve.scheme]
            heights = claims.group_rmse[curve.scheme][order] * scale
            label = f"{curve.scheme}, {curve.n_train:,} frames (overall {_three_digits(curve.force_rmse * scale)})"
            handles.append(axes.bar(ranks, heights, width=width, color=colour, label=label, zorder=2))
            axes.axhline(curve.force_rmse * scale, color=DARK[curve.scheme], linewidth=1.4, linestyle=_DASHES, zorder=3)
            low, high = claims.group_interval[curve.scheme][:, order] * scale
            axes.vlines(ranks + shift, low, high, color=DARK[curve.scheme], linewidth=0.9, zorder=4)
        (dashes,) = axes.plot([], [], linestyle=_DASHES, color=INK, label="overall")
        (bars,) = axes.plot([], [], linestyle="", marker="|", markersize=9, color=INK, label="95 % interval")
        handles += [dashes, bars]
        drawn = claims.draws_group_rmse[:, order] * scale
        if len(drawn) > 1:
            band = axes.fill_between(
                ranks, drawn.min(axis=0), drawn.max(axis=0), step="mid", color=COLOURS["default"], alpha=0.3,
                linewidth=0, zorder=2.5, label=f"{len(drawn)} default draws",
            )  # fmt: skip
            handles.append(band)
        highest = max(drawn.max(), *(ends.max() * scale for ends in claims.group_interval.values()))
        axes.set_ylim(0, 1.04 * float(highest) or 1.0)
        figure.legend(handles=handles, frameon=False, loc="outside upper center", ncols=2)
        _cluster_axis(axes, len(order), "groups of clusters, sorted by the default model's error")
        axes.set_ylabel(_force_label(units))
        return _save(figure, path_stem)


def plot_learning_curve(
    evaluation: Evaluation, claims: Claims, path_stem: str | Path, *, units: OutputUnits = KCAL
) -> list[Path]:
    """Draw the force RMSE, overall and of the worst group, as a function of the size of the training set.

    Both axes are logarithmic. Vertical lines at the final size are 95 % confidence intervals over held-out frames;
    a cross is another default draw.

    Parameters
    ----------
    evaluation : Evaluation
        On groups of clusters; see `Evaluation.grouped`.
    """
    with rc_context(_STYLE):
        figure, (axes,) = _figure(4.8, 3.7)
        axes.set(xscale="log", yscale="log")
        kinds = {"worst_group": ("worst group", "s", "--"), "overall": ("all frames", "o", "-")}
        final = evaluation.final[0].n_train
        for scheme, shift in zip(SCHEMES, (0.99, 1.01), strict=True):
            curves = evaluation.of(scheme)
            sizes = [curve.n_train for curve in curves]
            for measure, (kind, marker, line) in kinds.items():
                rmse = [curve.worst if measure == "worst_group" else curve.force_rmse for curve in curves]
                axes.plot(
                    sizes, np.array(rmse) * units.scale, line, marker=marker, markersize=5, linewidth=1.8,
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
        ticks = [curve.n_train for curve in _some(evaluation.of("default"))]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        low, high = axes.get_ylim()
        if high < 1.02 * low:  # errors that are equal except for rounding
            axes.set_ylim(low := low / 1.1, high := high * 1.1)
        subs = (1, 2, 5) if high > 30 * low else (1, 1.5, 2, 3, 4, 6, 8)
        axes.yaxis.set_major_locator(LogLocator(subs=subs) if high > 2.5 * low else MaxNLocator(5))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set(xlabel="training frames", ylabel=_force_label(units))
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.6)
        figure.legend(frameon=False, loc="outside upper center", ncols=2)
        return _save(figure, path_stem)


def _force_label(units: OutputUnits) -> str:
    return f"force RMSE [{units.force}]"


def _sorted(curve: Curve) -> np.ndarray:
    return np.sort(curve.cluster_force_rmse[np.isfinite(curve.cluster_force_rmse)])


def _some(curves: Sequence[Curve]) -> list[Curve]:
    """Return all curves if they are few, else the first, the middle and the last one."""
    if len(curves) <= _MOST_CURVES:
        return list(curves)
    return [curves[0], curves[(len(curves) - 1) // 2], curves[-1]]


def _figure(width: float, height: float, *, n_columns: int = 1) -> tuple[Figure, tuple[Axes, ...]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = tuple(figure.subplots(1, n_columns, sharey=True, squeeze=False)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _cluster_axis(axes: Axes, n_clusters: int, label: str = "clusters, sorted by error") -> None:
    axes.set_xlabel(label)
    axes.set_xlim(0.3, n_clusters + 0.7)
    step = 10 if n_clusters > 12 else 1
    axes.xaxis.set_major_locator(FixedLocator([1, *range(max(step, 2), n_clusters + 1, step)]))


def _populations(axes: Axes, ranks: np.ndarray, populations: np.ndarray) -> Axes:
    """Draw the share of frames in each cluster, in the lower part of the figure."""
    share = 100 * populations / populations.sum()
    twin = axes.twinx()
    twin.spines[["top", "left"]].set_visible(False)
    twin.spines["right"].set_color(POPULATION)
    twin.plot(ranks, share, color=POPULATION, linewidth=1.6, path_effects=_HALO)
    twin.set_ylim(0, 2.6 * share.max())
    ticks = MaxNLocator(3).tick_values(0, share.max())
    twin.yaxis.set_major_locator(FixedLocator(ticks[ticks <= 1.1 * share.max()]))
    twin.yaxis.set_major_formatter("{x:g}")
    twin.tick_params(colors="#3f7fb0")
    twin.set_ylabel("share of all frames [%]", color="#3f7fb0", loc="bottom")
    return twin


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _inset(axes: Axes, structure: Atoms, tip: tuple[float, float], label: str) -> None:
    """Draw a molecule in a red box in the upper left, connected to its bar."""
    box = axes.inset_axes((0.05, 0.52, 0.5, 0.46), zorder=30)
    draw_structure(box, upright(structure))
    for spine in box.spines.values():
        spine.set(edgecolor=WORST, linewidth=1.4)
    box.annotate(
        label, (0, 0), xycoords="axes fraction", xytext=(0, -3), textcoords="offset points", va="top", color=WORST,
        fontsize=9,
    )  # fmt: skip
    axes.add_artist(
        ConnectionPatch((1, 0.75), tip, box.transAxes, axes.transData, color=WORST, linewidth=0.9, zorder=29)
    )


def _save(figure: Figure, path_stem: str | Path) -> list[Path]:
    """Write PNG and PDF; the same numbers give the same files."""
    stem = Path(path_stem)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
    for path, metadata in zip(paths, ({}, {"CreationDate": None}), strict=True):
        with writing(path) as beside:
            figure.savefig(beside, dpi=_DPI, metadata=metadata)
    return paths
