"""Compare default and improved models of equal size in molecular dynamics, over several seeds (Figure 8 of the paper).

    python examples/stability.py DATASET.npz -n 5 -i 50 -s 30 --seeds 3 --T 300 400 500 --ps 10 --replicas 16

Trains both models for each seed and runs them; interrupted runs are resumed, and finished ones are not repeated.
Prints three tables, and writes them for the documentation: the verdict on each run, with its replicas and energies;
the analysis of the runs, over all seeds; and whether improved models last longer than default ones, tested on the
replicas of these models (log-rank test stratified by seed) and on the models themselves (one number per seed; only this
test supports a claim about other seeds).
``--reference tblite:GFN2-xTB`` runs the reference method as well and gives the true errors of the first seed's models
on frames that they visited; ``--check tblite:GFN2-xTB`` computes those of every seed, without running the method.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from seeds import as_rst

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.io import read_dataset
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.md import load_protocol
from ase_flatten.md.analysis.comparison import analyse, comparisons, lifetimes_of
from ase_flatten.md.analysis.survival import lived, sign_flip_test, stratified_log_rank
from ase_flatten.md.analysis.temperatures import configurational_temperature, mean_and_error
from ase_flatten.md.analysis.time_series import block_error
from ase_flatten.md.analysis.verdict import measured
from ase_flatten.md.results import STABLE, Comparison, Summary
from ase_flatten.md.saved_run import SavedRun, saved_runs
from ase_flatten.md.validate import Subject, Validation, validate
from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils import console
from ase_flatten.utils.atomic_files import write_text
from ase_flatten.utils.typing import FloatArray
from ase_flatten.workflow.run_folder import RunSettings
from ase_flatten.workflow.train_run import train

HEADS = [
    "T, K",
    "seed",
    "model",
    "verdict",
    "lasted",
    "total time, ps",
    "left out, ps",
    "mean potential energy, kcal/mol",
    "expected",
    "first failure",
]
CLAIM_HEADS = [
    "T, K",
    "seeds",
    "time survived per replica, default, ps",
    "improved, ps",
    "p over replicas",
    "p over seeds",
]
FINDINGS = {
    "verdict": "stable",
    "lasted": "lasted",
    "time": "total time, ps",
    "energy": "mean potential energy, kcal/mol",
    "expected": "expected",
    "configurational": "configurational T, K",
    "pairs": "h(r) error, all pairs",
    "beyond": "beyond the data, Å: failed; lasting",
    "force": "true force RMSE, kcal/(mol Å)",
    "true": "true energy RMSE, kcal/mol",
}


def lasted(summary: Summary) -> tuple[int, float]:
    """Return the number of replicas that lasted, and the total time of all replicas in ps."""
    whole = summary.n_steps * summary.timestep_fs / 1000
    times = [max(failure.time_ps, 0.0) for failure in summary.failures]
    n_lasting = summary.n_replicas - len(times)
    return n_lasting, sum(times) + n_lasting * whole


def row(summary: Summary, seed: int | str) -> list[str]:
    """Format one run: its verdict, its replicas, their total time, and their energies."""
    n_lasting, time_ps = lasted(summary)
    expected = summary.expected
    first = min(summary.failures, key=lambda failure: failure.step, default=None)
    return [
        f"{summary.temperature_K:g}",
        str(seed),
        summary.model,
        summary.verdict,
        f"{n_lasting} of {summary.n_replicas}",
        f"{time_ps:.1f}",
        measured(summary.equilibration_ps, None, 2),
        measured(summary.mean_potential_energy, summary.potential_error, 2),
        measured(expected.mean, expected.error, 2) if expected else "–",
        f"{max(first.time_ps, 0.0):.2f} ps: {first.reason}" if first else "",
    ]


def beyond(run: SavedRun, limits: tuple[FloatArray, FloatArray]) -> tuple[float | None, float | None]:
    """Return how far replicas were outside the data when they ended, Å: those that failed, and those that lasted.

    This is the pair distance farthest outside its range in the data, in the last physical frame of those that are
    evenly spread; the median over the replicas.
    """
    out: dict[bool, list[float]] = {True: [], False: []}
    for replica in range(run.summary.n_replicas):
        frames = run.frames(replica, 2)
        if frames:
            distances = pair_distances(frames[-1].positions[None])[0]
            far = np.maximum(limits[0] - distances, distances - limits[1]).max()
            out[replica in run.survivors].append(max(0.0, float(far)))
    failed, lasting = (statistics.median(out[kind]) if out[kind] else None for kind in (False, True))
    return failed, lasting


def of_data(dataset: Dataset, temperature: float) -> list[str]:
    """Format a row for the data themselves, at their own temperature."""
    potential = (dataset.energies - dataset.energies.min()) / KCAL_PER_MOL
    error = block_error(potential[:, None])[0]
    configurational, its_error = mean_and_error(configurational_temperature(dataset.positions, dataset.forces)[:, None])
    energy = f"{potential.mean():.1f} (± {error:.1f})"
    return [
        f"{temperature:g}",
        "data",
        "",
        "",
        "",
        energy,
        "",
        f"{configurational:.0f} (± {its_error:.0f})",
        *[""] * 4,
    ]


def findings(run: SavedRun, comparison: Comparison, limits: tuple[FloatArray, FloatArray]) -> dict[str, Any]:
    """Collect the findings of one run about its model; None if the run cannot tell."""
    summary = run.summary
    of = comparison.models[summary.model]
    true, distances = of.reference_errors, of.distances.get("data")
    expected = summary.expected
    return {
        "verdict": summary.verdict,
        "n_replicas": summary.n_replicas,
        "lasted": lasted(summary)[0],
        "time": lasted(summary)[1],
        "energy": summary.mean_potential_energy,
        "expected": expected.mean if expected else None,
        "lifetimes": lifetimes_of(run),
        "configurational": of.configurational_temperature_K,
        "pairs": distances.pairs.error if distances else None,
        "beyond": beyond(run, limits),
        "force": true.force_rmse if true else None,
        "true": true.energy_rmse if true else None,
    }


def over_seeds(found: list[dict[str, Any]]) -> list[str]:
    """Format the findings on one model at one temperature: sums of counts and times, the rest with its spread."""

    def mean(name: str, decimals: int) -> str:
        return spread([one[name] for one in found if one[name] is not None], decimals)

    out = [spread([one["beyond"][k] for one in found if one["beyond"][k] is not None], 1) for k in (0, 1)]
    return [
        f"{sum(one['verdict'] == STABLE for one in found)} of {len(found)}",
        f"{sum(one['lasted'] for one in found)} of {sum(one['n_replicas'] for one in found)}",
        f"{sum(one['time'] for one in found):.0f}",
        mean("energy", 1),
        mean("expected", 1),
        mean("configurational", 0),
        mean("pairs", 3),
        "; ".join(out),
        mean("force", 2),
        mean("true", 1),
    ]


def claim(temperature: float, default: list[dict[str, Any]], improved: list[dict[str, Any]]) -> list[str]:
    """Format whether improved models last longer than default ones at a temperature, over all seeds."""
    pairs = [(one["lifetimes"], other["lifetimes"]) for one, other in zip(default, improved, strict=True)]
    times = [(lived(one), lived(other)) for one, other in pairs]
    return [
        f"{temperature:g}",
        str(len(pairs)),
        spread([one for one, _ in times], 2),
        spread([other for _, other in times], 2),
        f"{stratified_log_rank(pairs):.2g}",
        f"{sign_flip_test([other - one for one, other in times]):.2g} (at least {2 / 2 ** len(pairs):.2g})",
    ]


def spread(values: Sequence[float], decimals: int) -> str:
    """Format mean ± standard deviation of the values; an empty string if there are none."""
    if len(values) < 2:
        return "".join(f"{value:.{decimals}f}" for value in values)
    return f"{statistics.mean(values):.{decimals}f} ± {statistics.stdev(values):.{decimals}f}"


def main(given: argparse.Namespace) -> None:
    """Train, run, print and write."""
    console.set_up_logging(quiet=True, verbose=False)
    dataset, progress = read_dataset(given.dataset), console.progress(False)
    schedule = Schedule(n_steps=given.n, n_initial=given.i, step_size=given.s)
    trainer = {name: value for name in ("sigma", "symmetries", "epochs") if (value := getattr(given, name)) is not None}
    protocol = replace(load_protocol(given.protocol).lasting(given.ps), n_replicas=given.replicas)
    table = []
    distances = pair_distances(dataset.positions)
    limits = distances.min(axis=0), distances.max(axis=0)
    found: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        settings = RunSettings(family=given.model, schedule=schedule, seed=seed, trainer=trainer, default_draws=1)
        run = train(
            dataset, given.out / f"{given.dataset.stem}-seed{seed}", settings, resume=True, progress=progress,
            source=given.dataset.name,
        )  # fmt: skip
        validation = Validation(
            given.T, protocol, seed=seed, reference=given.reference if seed == given.first_seed else None,
            reference_ps=given.reference_ps,
        )  # fmt: skip
        summaries = validate(Subject.of_run(run), validation, progress=progress)
        table += [row(summary, seed) for summary in summaries]
        for temperature in given.T:
            folder = run.folder / "md" / f"{temperature:g}K"
            if given.check:
                analyse(folder, run.reference.molecule, reference=given.check, progress=progress)
            comparison = comparisons(folder.parent)[temperature]
            for saved in saved_runs(folder):
                found.setdefault((temperature, saved.name), []).append(findings(saved, comparison, limits))
    table.sort(key=lambda cells: (float(cells[0]), cells[2], int(cells[1])))
    title = (
        f"{dataset.formula}, {schedule.n_train(schedule.n_steps)} frames: {given.replicas} replicas of "
        f"{'at most ' if protocol.looks > 1 else ''}{given.ps:g} ps "
        f"at {protocol.timestep_fs:g} fs"
    )
    console.table(title, HEADS, table)
    write_text(given.out / "stability.rst", as_rst(title, HEADS, table))
    console.say(f"table: {given.out / 'stability.rst'}")
    title += f", {given.seeds} seed{'s' if given.seeds > 1 else ''}"
    heads = ["T, K", "model", *FINDINGS.values()]
    table = [[f"{temperature:g}", name, *over_seeds(of)] for (temperature, name), of in sorted(found.items())]
    if given.data_temperature:
        table.append(of_data(dataset, given.data_temperature))
    console.table(title, heads, table)
    write_text(given.out / "findings.rst", as_rst(title, heads, table))
    console.say(f"table: {given.out / 'findings.rst'}")
    claims = [
        claim(temperature, found[temperature, "default"], found[temperature, "improved"])
        for temperature in given.T
        if {(temperature, "default"), (temperature, "improved")} <= set(found)
    ]
    console.table(f"{title}: do improved models last longer?", CLAIM_HEADS, claims)
    write_text(given.out / "claims.rst", as_rst(f"{title}: do improved models last longer?", CLAIM_HEADS, claims))
    console.say(f"table: {given.out / 'claims.rst'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-n", type=int, default=5, help="steps [5]")
    parser.add_argument("-i", type=int, default=50, help="initial frames [50]")
    parser.add_argument("-s", type=int, default=30, help="frames added in each step [30]")
    parser.add_argument("--model", default="sgdml", help="model family [sgdml]")
    parser.add_argument("--sigma", type=float, help="length scale of sGDML [chosen on validation frames]")
    parser.add_argument("--symmetries", help="of sGDML: graph, matching, none or a file [graph]")
    parser.add_argument("--epochs", type=int, help="maximum number of epochs of a SchNet [that of its settings]")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds [3]")
    parser.add_argument("--first-seed", type=int, default=0, help="first seed [0]")
    parser.add_argument(
        "--T", type=float, nargs="+", default=[300.0, 400.0, 500.0], help="temperatures, K [300 400 500]"
    )
    parser.add_argument(
        "--protocol",
        default="quick",
        help="TOML file or name of a protocol; auto runs until the verdict is decided [quick]",
    )
    parser.add_argument("--ps", type=float, default=10.0, help="time of each replica, ps [10]")
    parser.add_argument("--replicas", type=int, default=16, help="replicas of each model [16]")
    parser.add_argument("--reference", help="also run this method, with the first seed: tblite:GFN2-xTB")
    parser.add_argument("--reference-ps", type=float, help="longest time of its replicas, ps [that of the models]")
    parser.add_argument("--check", help="compute true errors along the runs with this method: tblite:GFN2-xTB")
    parser.add_argument(
        "--data-temperature", type=float, help="temperature of the data, K: adds a row for the data themselves"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/stability"), help="folder of the runs [runs/stability]")
    console.run_command(main, parser.parse_args())
