"""Compare the models of one temperature: what their saved runs tell, apart from running them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.calculators import load_calculator
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.geometry.bonds import bonded_pairs
from ase_flatten.geometry.distance_histograms import N_BINS, count_distances, distribution_error
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.md.analysis.accuracy import errors_along
from ase_flatten.md.analysis.figure import plot_distances, plot_survival
from ase_flatten.md.analysis.power import SIGNIFICANCE, detectable_lifetime, time_to_tell_apart
from ase_flatten.md.analysis.stability import STABLE, UNKNOWN_MEAN, UNSTABLE, reference_energy, summarize, verdict_of
from ase_flatten.md.analysis.survival import Lifetimes, lifelines, log_rank, survival
from ase_flatten.md.analysis.temperatures import configurational_temperature, effective_samples, mean_and_error
from ase_flatten.md.analysis.time_series import known_or_none, timeseries
from ase_flatten.md.criteria import kelvin_per_eV
from ase_flatten.md.expected_energy import expected_energy
from ase_flatten.md.saved_run import SavedRun, forces_of, positions_of, saved_runs
from ase_flatten.utils.atomic_files import write_json
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray

N_CHECKED = 40
"""Frames of a model that the reference method is asked about."""

KINDS = ("pairs", "bonds")
"""Of distances."""


@dataclass(frozen=True, eq=False)
class Distances:
    """Hold histograms by `count_distances` of all pair distances and of the bond lengths.

    Parameters
    ----------
    pairs, bonds : (n_replicas, n_bins) int arrays
    """

    pairs: IntArray
    bonds: IntArray


def judge(folder: str | Path, known: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Judge every model below the folder of a temperature by what its energy should be, now that all have run.

    The reference method's own run says that where there is one, else the data do, as `expected_energy` extrapolates
    them. Each ``summary.json`` is written anew where that changes it.

    Parameters
    ----------
    known : mapping
        `Run.reference`.

    Returns
    -------
    dict
        The summaries, by the name of the model; expected_total besides, the total energy that is expected with
        equipartition of the kinetic one, kcal/mol.
    """
    runs = {run.name: run for run in saved_runs(folder)}
    expected = expected_energy(known, next(iter(runs.values())).summary["temperature_K"])
    if "reference" in runs:
        arrays, whole = runs["reference"].arrays, runs["reference"].survivors
        expected = reference_energy(arrays["potential"], arrays["kinetic"], whole) or expected
    judged = {}
    for name, run in runs.items():
        settings = run.summary["settings"]
        judged[name] = {
            **run.summary,
            **summarize(
                run.arrays["time_ps"],
                run.arrays["potential"],
                run.arrays["kinetic"],
                failures=run.summary["failures"],
                zero_energy_eV=settings["zero_energy_eV"],
                expected=None if name == "reference" else expected,
                thermostat=settings.get("thermostat", "langevin"),
            ),
        }
        if name == "reference":  # it is what the others should be
            judged[name]["why"] = [why for why in judged[name]["why"] if why != UNKNOWN_MEAN]
        if expected is not None:
            kinetic = run.summary["temperature_K"] / kelvin_per_eV(len(known["numbers"]))
            judged[name]["expected_total"] = (expected.mean + kinetic - settings["zero_energy_eV"]) / KCAL_PER_MOL
        if judged[name] != run.summary:
            write_json(run.folder / "summary.json", judged[name])
    return judged


def decided(folder: str | Path, summaries: Mapping[str, Mapping[str, Any]], *, looks: int, longest_ps: float) -> bool:
    """Return whether a longer run would change what is known of the models and of their difference.

    Nothing is left to find where every model is decided, and two models are both stable or differ in survival
    beyond noise. A model is decided when it is unstable, or stable with so long a lifetime that most replicas
    last for the longest time, with 95 % confidence.

    Parameters
    ----------
    summaries : mapping
        As `judge` returns them.
    looks : int
        How often the runs are looked at, in all: the test shares its probability of a false alarm between them.
    longest_ps : float
        The time of each replica that is planned at most.
    """
    found = {name: verdict_of(summary) for name, summary in summaries.items() if name != "reference"}
    enough = longest_ps / np.log(2)
    for name, verdict in found.items():
        if verdict != UNSTABLE and not (verdict == STABLE and summaries[name]["lifetime"]["low_ps"] >= enough):
            return False
    test = _difference(saved_runs(folder), looks)
    return test is None or set(found.values()) == {STABLE} or test["p_value"] < test["level"]


def analyse(
    folder: str | Path,
    known: Mapping[str, np.ndarray],
    *,
    reference: str | None = None,
    looks: int = 1,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Analyse what `run_md` has left below the folder of a temperature, such as ``RUN/md/400K``.

    Writes ``survival`` and ``distances`` as png and pdf, ``comparison.json``, the ``summary.json`` of each
    model by `judge`, and ``reference_errors.json`` into the folder of each model that the reference method is asked
    about.

    Parameters
    ----------
    known : mapping
        `Run.reference`, of which numbers and mean_pair_distances are needed; without the
        histograms of the data there are no distances to compare with.
    reference : str, optional
        The method that made the data, as `load_calculator` takes it: it gives the true errors of each
        model on frames that it visited before it failed.
    looks : int
        How often the runs are looked at, as `decided` takes it.

    Returns
    -------
    dict
        The content of ``comparison.json``: temperature_K; models, by name: n_effective, independent samples of
        the total energy; kinetic_temperature_K and configurational_temperature_K with their
        errors (``_error_K``), over replicas that did not fail; survival, survival_low and survival_high at the end
        of the run, duration_ps; distances, by what they are compared with (data, reference) and kind (pairs, bonds):
        error, its standard error and of_replicas; reference_errors, by `errors_along`; nve, by `conservation`, of
        this run or of the one in ``nve/`` beside it. Then log_rank, of the two
        models where there are two beside the reference: models, p_value, and the level below which it is significant,
        0.05 shared between the looks (Bonferroni); rates, 1/ps, and lived_ps, of all replicas of each; needed_ps,
        what each would have to live for the rates to be told apart with a power of 80 %, None for
        equal ones; detectable_lifetime_ps, the longest lifetime that the run would have told from one without end.

    Raises
    ------
    InputError
        No model has been run there, or lifelines or pymbar are missing.
    """
    folder = Path(folder)
    judge(folder, known)
    runs = saved_runs(folder)
    lifetimes = {run.name: lifetimes_of(run) for run in runs}
    curves = {name: survival(*lifetime) for name, lifetime in lifetimes.items()}
    distances = {run.name: _distances(run, known) for run in runs}
    targets = _targets(known, distances)
    models: dict[str, Any] = {}
    for run in runs:
        curve = curves[run.name]
        models[run.name] = {
            "duration_ps": run.duration_ps,
            "survival": curve.fraction[-1],
            "survival_low": curve.low[-1],
            "survival_high": curve.high[-1],
            **_thermal(run),
            "distances": {
                target: {
                    kind: distance_error(getattr(distances[run.name], kind), counts[kind].sum(axis=0)) for kind in KINDS
                }
                for target, counts in targets.items()
                if target != run.name
            },
            "reference_errors": _reference_errors(run, reference, known["numbers"], progress),
            "nve": _conservation(run),
        }
    comparison = {
        "temperature_K": runs[0].summary["temperature_K"],
        "models": models,
        "log_rank": _difference(runs, looks),
    }
    plot_survival(folder, curves, comparison)
    if "data" in targets:
        data = {kind: counts.sum(axis=0) for kind, counts in targets["data"].items()}
        drawn = {name: {kind: getattr(of, kind).sum(axis=0) for kind in KINDS} for name, of in distances.items()}
        plot_distances(folder, drawn, data, comparison)
    write_json(folder / "comparison.json", comparison)
    return comparison


def require_packages() -> None:
    """Raise InputError where a package of the analysis is missing: better before the dynamics than after."""
    lifelines()
    timeseries()


def comparisons(folder: str | Path) -> dict[float, dict[str, Any]]:
    """Read the comparisons below ``RUN/md``, by temperature in K."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).glob("*K/comparison.json")]
    return {comparison["temperature_K"]: comparison for comparison in found}


def distance_error(counts: IntArray, reference: IntArray) -> dict[str, Any]:
    """Return the error of h(r) of all replicas together, and how far it is to be trusted.

    Parameters
    ----------
    counts : (n_replicas, n_bins) int array
    reference : (n_bins,) int array

    Returns
    -------
    dict
        error, by `distribution_error`; standard_error, by the jackknife over the replicas that have
        frames, None for fewer than two; of_replicas, the error of each one, None without frames.
    """
    filled = counts[counts.any(axis=1)]
    of_replicas = [distribution_error(one, reference) for one in counts]
    spread = None
    if len(filled) > 1:
        without = [distribution_error(filled.sum(axis=0) - one, reference) for one in filled]
        spread = float(np.sqrt((len(filled) - 1) * np.var(without)))
    return {
        "error": known_or_none(distribution_error(counts.sum(axis=0), reference)),
        "standard_error": spread,
        "of_replicas": [known_or_none(error) for error in of_replicas],
    }


def lifetimes_of(run: SavedRun) -> Lifetimes:
    """Return how long each replica ran and whether it failed; one lost in equilibration ran for no time."""
    durations = np.full(run.summary["n_replicas"], run.duration_ps)
    failed = np.zeros(len(durations), dtype=bool)
    for failure in run.summary["failures"]:
        durations[failure["replica"]] = np.clip(failure["time_ps"], 0, run.duration_ps)
        failed[failure["replica"]] = True
    return durations, failed


def _difference(runs: Sequence[SavedRun], looks: int) -> dict[str, Any] | None:
    """Test whether the two models beside the reference differ in survival, and what it takes to tell."""
    pair = [run for run in runs if run.name != "reference"]
    if len(pair) != 2:
        return None
    lifetimes = [lifetimes_of(run) for run in pair]
    lived = [float(durations.sum()) for durations, _ in lifetimes]
    rates = [int(failed.sum()) / time if time > 0 else None for (_, failed), time in zip(lifetimes, lived, strict=True)]
    level = SIGNIFICANCE / looks
    known = [rate for rate in rates if rate is not None]
    return {
        "models": [run.name for run in pair],
        "p_value": log_rank(*lifetimes[0], *lifetimes[1]),
        "level": level,
        "rates": rates,
        "lived_ps": lived,
        "needed_ps": time_to_tell_apart(*known, level=level) if len(known) == 2 else None,
        "detectable_lifetime_ps": detectable_lifetime(min(lived), level=level),
    }


def _thermal(run: SavedRun) -> dict[str, Any]:
    """Return the effective samples and the temperatures of the replicas that did not fail."""
    survivors = run.survivors
    series = [_configurational(run, int(replica)) for replica in survivors]
    kinetic = mean_and_error(run.arrays["kinetic_temperature_K"][:, survivors])
    configurational = mean_and_error(np.array(series).T)
    return {
        "n_effective": effective_samples((run.arrays["potential"] + run.arrays["kinetic"])[:, survivors]),
        "kinetic_temperature_K": kinetic[0],
        "kinetic_temperature_error_K": kinetic[1],
        "configurational_temperature_K": configurational[0],
        "configurational_temperature_error_K": configurational[1],
    }


def _configurational(run: SavedRun, replica: int) -> FloatArray:
    frames = run.frames(replica)
    return configurational_temperature(positions_of(frames), forces_of(frames))


def _distances(run: SavedRun, known: Mapping[str, np.ndarray]) -> Distances:
    bonded = bonded_pairs(known["numbers"], known["mean_pair_distances"])
    pairs, bonds = np.zeros((2, run.summary["n_replicas"], N_BINS), dtype=np.int64)
    for replica in range(len(pairs)):
        frames = run.frames(replica)
        if frames:
            distances = pair_distances(positions_of(frames))
            pairs[replica], bonds[replica] = count_distances(distances), count_distances(distances[:, bonded])
    return Distances(pairs, bonds)


def _targets(known: Mapping[str, np.ndarray], distances: Mapping[str, Distances]) -> dict[str, dict[str, IntArray]]:
    """Return the histograms to compare with, (n, n_bins) of each kind."""
    targets = {}
    if "pair_distance_counts" in known:
        targets["data"] = {"pairs": known["pair_distance_counts"][None], "bonds": known["bond_length_counts"][None]}
    if "reference" in distances:
        targets["reference"] = {kind: getattr(distances["reference"], kind) for kind in KINDS}
    return targets


def _reference_errors(
    run: SavedRun, reference: str | None, numbers: IntArray, progress: Progress
) -> dict[str, Any] | None:
    """Ask the reference method, unless it has been asked: the answer goes when the model is run again."""
    path = run.folder / "reference_errors.json"
    content: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if reference is None or run.name == "reference" or (content is not None and content["reference"] == reference):
        return content
    n_replicas = run.summary["n_replicas"]
    frames = [frame for replica in range(n_replicas) for frame in run.frames(replica, max(2, N_CHECKED // n_replicas))]
    calculator = load_calculator(reference, numbers=numbers)
    errors = errors_along(calculator, frames, progress=progress, name=run.name)
    content = {"reference": reference, **errors}
    write_json(path, content)
    return content


def _conservation(run: SavedRun) -> dict[str, Any] | None:
    """Tell how the energy is kept without a thermostat, where the model was run without one."""
    found: dict[str, Any] | None = run.summary.get("nve")
    beside = SavedRun(run.folder.parent / "nve" / run.name)
    if found is None and (beside.folder / "summary.json").is_file():
        found = beside.summary.get("nve")
    return found
