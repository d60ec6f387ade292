"""Draw the errors of several model families on each cluster side by side (Figure 4 of the paper).

    python examples/figure4.py md17_ethanol.npz md17_uracil.npz md17_salicylic.npz --frames 300

One row per data set and one column per family: default models of one size, each trained on the family's own sample,
and their force RMSE on clusters, in ascending order, over frames that the model has not seen. Writes figure4.png and
.pdf, and a table with the number of the ten worst clusters that all families share.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from seeds import as_rst

from ase_flatten import cluster, cluster_errors, read_dataset
from ase_flatten.clustering.clusters import Clustering
from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.models import family
from ase_flatten.selection.cluster_errors import ClusterErrors
from ase_flatten.utils import console
from ase_flatten.utils.atomic_files import write_text, writing

COLOURS = {"sgdml": "#d95f02", "schnet": "#7570b3", "gap": "#1b9e77"}
NAMES = {"sgdml": "sGDML", "schnet": "SchNet", "gap": "GAP"}
WORST = 10


def errors_of(name: str, dataset: Dataset, clustering: Clustering, given: argparse.Namespace) -> ClusterErrors:
    """Train a model of a family, and compute its errors on frames that it has not seen."""
    rng = np.random.default_rng(given.seed)
    made_by = family(name)
    trainer = made_by.trainer(**({"preset": given.preset} if name == "gap" else {}))
    order = rng.permutation(dataset.n_frames)
    valid, pool = np.sort(order[:1000]), np.sort(order[1000:])
    frames = trainer.default_frames(dataset, pool, given.frames, rng=rng)
    model = trainer.fit(dataset, frames, valid, rng=rng)
    unseen = np.setdiff1d(pool, frames)
    some = np.sort(rng.choice(unseen, min(given.predicted, len(unseen)), replace=False))
    return cluster_errors(model, dataset, clustering, frames=some, progress=console.progress(False))


def draw(rows: dict[str, dict[str, ClusterErrors]], path: Path) -> None:
    """Draw the bars; all panels of a row have the same scale."""
    families = list(next(iter(rows.values())))
    figure = Figure(figsize=(3.4 * len(families), 2.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), len(families), squeeze=False, sharey="row", sharex=True)
    for axes_of_row, (formula, of_family) in zip(panels, rows.items(), strict=True):
        for axes, (name, errors) in zip(axes_of_row, of_family.items(), strict=True):
            rmse = errors.rmse[errors.ascending] / KCAL_PER_MOL
            overall = errors.overall_rmse / KCAL_PER_MOL
            axes.bar(np.arange(1, len(rmse) + 1), rmse, width=0.85, color=COLOURS.get(name, "#666666"))
            axes.axhline(overall, color="#222222", linewidth=1)
            words = f"all frames: {overall:.2f}, worst: {rmse[-1]:.2f}"
            axes.annotate(words, (0.04, 0.93), xycoords="axes fraction", va="top", fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
        axes_of_row[0].set_ylabel(f"{formula}\nforce RMSE (kcal/(mol Å))", fontsize=9)
    for axes, name in zip(panels[0], families, strict=True):
        axes.set_title(NAMES.get(name, name), fontsize=11)
    for axes in panels[-1]:
        axes.set_xlabel("clusters, sorted by error", fontsize=9)
    for suffix in ("png", "pdf"):
        with writing(path.with_suffix(f".{suffix}")) as beside:
            figure.savefig(beside, dpi=200)


def main(given: argparse.Namespace) -> None:
    """Train, draw, print and write."""
    console.set_up_logging(quiet=True, verbose=False)
    rows, table = {}, []
    for path in given.datasets:
        dataset = read_dataset(path)
        clustering = cluster(dataset, rng=np.random.default_rng(given.seed), progress=console.progress(False))
        rows[dataset.formula] = {name: errors_of(name, dataset, clustering, given) for name in given.families}
        worst = [set(errors.ascending[-WORST:].tolist()) for errors in rows[dataset.formula].values()]
        for name, errors in rows[dataset.formula].items():
            values = (errors.overall_rmse, errors.rmse[errors.worst])
            table.append(
                [
                    f"{path.stem}, {name}",
                    *(f"{value / KCAL_PER_MOL:.3f}" for value in values),
                    f"{values[1] / values[0]:.2f}",
                    f"{len(set.intersection(*worst))} of {WORST}",
                ]
            )
        draw(rows, given.out / "figure4")
    heads = ["data, family", "all frames", "worst cluster", "ratio", "worst clusters that all families share"]
    title = f"Force RMSE of default models of {given.frames} frames, kcal/(mol Å), one seed"
    console.table(title, heads, table)
    write_text(given.out / "figure4.rst", as_rst(title, heads, table))
    console.say(f"figure and table: {given.out / 'figure4.png'}, figure4.rst")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument(
        "--families", nargs="+", default=["sgdml", "schnet", "gap"], help="model families [sgdml schnet gap]"
    )
    parser.add_argument("--frames", type=int, default=300, help="training frames [300]")
    parser.add_argument("--predicted", type=int, default=4000, help="maximum number of predicted frames [4000]")
    parser.add_argument("--preset", default="small", help="preset of GAP [small]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/figure4"), help="folder of the results [runs/figure4]")
    console.run_command(main, parser.parse_args())
