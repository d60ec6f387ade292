"""Comparison of the models at one temperature, from their saved runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ase_flatten.calculators import load_calculator
from ase_flatten.data.known_molecule import KnownMolecule
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.geometry.bonds import bonded_pairs
from ase_flatten.geometry.distance_histograms import N_BINS, count_distances, distribution_error
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.md.analysis.accuracy import errors_along
from ase_flatten.md.analysis.figure import plot_distances, plot_survival
from ase_flatten.md.analysis.power import SIGNIFICANCE, detectable_lifetime, time_to_tell_apart
from ase_flatten.md.analysis.stability import UNKNOWN_MEAN, reference_energy, summarize
from ase_flatten.md.analysis.survival import Lifetimes, lifelines, log_rank, survival
from ase_flatten.md.analysis.temperatures import configurational_temperature, effective_samples, mean_and_error
from ase_flatten.md.analysis.time_series import known_or_none, timeseries
from ase_flatten.md.criteria import kelvin_per_eV
from ase_flatten.md.expected_energy import expected_energy
from ase_flatten.md.result_files import read_comparison, read_reference_errors, read_summary
from ase_flatten.md.results import (
    FORMAT,
    STABLE,
    UNSTABLE,
    Comparison,
    Conservation,
    DistanceError,
    DistanceErrors,
    ModelComparison,
    ReferenceErrors,
    Summary,
    SurvivalTest,
)
from ase_flatten.md.saved_run import SavedRun, forces_of, positions_of, saved_runs
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.records import write_record
from ase_flatten.utils.typing import FloatArray, IntArray

N_CHECKED = 40
"""Frames of a model that are recomputed with the reference method."""


@dataclass(frozen=True, eq=False)
class Distances:
    """Histograms by `count_distances` of all pair distances and of the bond lengths.

    Parameters
    ----------
    pairs, bonds : (n_replicas, n_bins) int arrays
    """

    pairs: IntArray
    bonds: IntArray

    @property
    def totals(self) -> dict[str, IntArray]:
        """The counts of all replicas, (n_bins,), by the kind of distance."""
        return {"pairs": self.pairs.sum(axis=0), "bonds": self.bonds.sum(axis=0)}


def judge(folder: str | Path, known: KnownMolecule) -> dict[str, Summary]:
    """Judge every model below the folder of a temperature by its expected energy.

    That is the energy of the reference method's own run if there is one, and otherwise that of the data, as
    extrapolated by `expected_energy`. Each ``summary.json`` that changes is written anew.

    Parameters
    ----------
    known : KnownMolecule

    Returns
    -------
    dict
        The summaries, by the name of the model, with `expected_total`: the expected total energy with equipartition of
        the kinetic energy, kcal/mol.
    """
    runs = {run.name: run for run in saved_runs(folder)}
    expected = expected_energy(known, next(iter(runs.values())).summary.temperature_K)
    if "reference" in runs:
        energies, whole = runs["reference"].energies, runs["reference"].survivors
        expected = reference_energy(energies.potential, energies.kinetic, whole) or expected
    judged = {}
    for name, run in runs.items():
        zero = run.settings.zero_energy_eV
        assessed = summarize(
            run.energies.time_ps,
            run.energies.potential,
            run.energies.kinetic,
            failures=run.summary.failures,
            zero_energy_eV=zero,
            expected=None if name == "reference" else expected,
            thermostat=run.settings.thermostat,
        )
        if name == "reference":  # it is what the others should be
            assessed = replace(assessed, why=tuple(why for why in assessed.why if why != UNKNOWN_MEAN))
        total = run.summary.expected_total
        if expected is not None:
            kinetic = run.summary.temperature_K / kelvin_per_eV(len(known.numbers))
            total = (expected.mean + kinetic - zero) / KCAL_PER_MOL
        judged[name] = replace(run.summary, **vars(assessed), expected_total=total)
        if judged[name] != run.summary:
            write_record(run.folder / "summary.json", judged[name])
    return judged


def decided(folder: str | Path, summaries: Mapping[str, Summary], *, looks: int, longest_ps: float) -> bool:
    """Return whether the verdicts are final: a longer run would change neither them nor the comparison.

    That is so when every model is decided, and two models are both stable or differ significantly in
    survival. A model is decided when it is unstable, or stable with so long a lifetime that, with 95 %
    confidence, most replicas last for the longest time.

    Parameters
    ----------
    summaries : mapping
        As `judge` returns them.
    looks : int
        Total number of looks at the runs, among which the test divides its probability of a false alarm.
    longest_ps : float
        The longest planned time of each replica.
    """
    found = {name: summary.verdict for name, summary in summaries.items() if name != "reference"}
    enough = longest_ps / np.log(2)
    for name, verdict in found.items():
        lifetime = summaries[name].lifetime
        lasts = lifetime is not None and lifetime.low_ps >= enough
        if verdict != UNSTABLE and not (verdict == STABLE and lasts):
            return False
    test = _difference(saved_runs(folder), looks)
    return test is None or set(found.values()) == {STABLE} or test.p_value < test.level


def analyse(
    folder: str | Path,
    known: KnownMolecule,
    *,
    reference: str | None = None,
    looks: int = 1,
    progress: Progress = SILENT,
) -> Comparison:
    """Analyse the runs that `run_md` has written below the folder of a temperature, such as ``RUN/md/400K``.

    Writes ``survival`` and ``distances`` as png and pdf, ``comparison.json``, the ``summary.json`` of each
    model by `judge`, and ``reference_errors.json`` into the folder of each model that is compared with the reference
    method.

    Parameters
    ----------
    known : KnownMolecule
        Without the histograms of the data there are no distances to compare with.
    reference : str, optional
        The method that made the data, as `load_calculator` takes it: it gives the true errors of each
        model on frames that it visited before it failed.
    looks : int
        Total number of looks at the runs; see `decided`.

    Returns
    -------
    Comparison
        The content of ``comparison.json``.

    Raises
    ------
    InputError
        No model has been run there, a file there is damaged, or lifelines or pymbar are missing.
    """
    folder = Path(folder)
    judge(folder, known)
    runs = saved_runs(folder)
    lifetimes = {run.name: lifetimes_of(run) for run in runs}
    curves = {name: survival(*lifetime) for name, lifetime in lifetimes.items()}
    distances = {run.name: _distances(run, known) for run in runs}
    targets = _targets(known, distances)
    models = {}
    for run in runs:
        curve, own = curves[run.name], distances[run.name]
        models[run.name] = ModelComparison(
            duration_ps=run.duration_ps,
            survival=float(curve.fraction[-1]),
            survival_low=float(curve.low[-1]),
            survival_high=float(curve.high[-1]),
            **_thermal(run),
            distances={
                kind: DistanceErrors(
                    pairs=distance_error(own.pairs, target.totals["pairs"]),
                    bonds=distance_error(own.bonds, target.totals["bonds"]),
                )
                for kind, target in targets.items()
                if kind != run.name
            },
            reference_errors=_reference_errors(run, reference, known.numbers, progress),
            nve=_conservation(run),
        )
    comparison = Comparison(
        format=FORMAT,
        temperature_K=runs[0].summary.temperature_K,
        models=models,
        log_rank=_difference(runs, looks),
    )
    plot_survival(folder, curves, comparison)
    if "data" in targets:
        drawn = {name: histograms.totals for name, histograms in distances.items()}
        plot_distances(folder, drawn, targets["data"].totals, comparison)
    write_record(folder / "comparison.json", comparison)
    return comparison


def require_packages() -> None:
    """Raise InputError if a package of the analysis is missing: before the dynamics, not after."""
    lifelines()
    timeseries()


def comparisons(folder: str | Path) -> dict[float, Comparison]:
    """Read the comparisons below ``RUN/md``, by temperature in K; raise InputError if one is damaged."""
    found = [read_comparison(path) for path in sorted(Path(folder).glob("*K/comparison.json"))]
    return {comparison.temperature_K: comparison for comparison in found}


def distance_error(counts: IntArray, reference: IntArray) -> DistanceError:
    """Return the error of h(r) of all replicas together, and its uncertainty.

    Parameters
    ----------
    counts : (n_replicas, n_bins) int array
    reference : (n_bins,) int array

    Returns
    -------
    DistanceError
        The error by `distribution_error`; its standard error by the jackknife over the replicas that have frames, None
        for fewer than two.
    """
    filled = counts[counts.any(axis=1)]
    of_replicas = [distribution_error(one, reference) for one in counts]
    spread = None
    if len(filled) > 1:
        without = [distribution_error(filled.sum(axis=0) - one, reference) for one in filled]
        spread = float(np.sqrt((len(filled) - 1) * np.var(without)))
    return DistanceError(
        error=known_or_none(distribution_error(counts.sum(axis=0), reference)),
        standard_error=spread,
        of_replicas=tuple(known_or_none(error) for error in of_replicas),
    )


def lifetimes_of(run: SavedRun) -> Lifetimes:
    """Return how long each replica ran and whether it failed; one that failed in equilibration ran for no time."""
    durations = np.full(run.summary.n_replicas, run.duration_ps)
    failed = np.zeros(len(durations), dtype=bool)
    for failure in run.summary.failures:
        durations[failure.replica] = np.clip(failure.time_ps, 0, run.duration_ps)
        failed[failure.replica] = True
    return durations, failed


def _difference(runs: Sequence[SavedRun], looks: int) -> SurvivalTest | None:
    """Test whether the two models besides the reference differ in survival, and how long a run would be needed."""
    pair = [run for run in runs if run.name != "reference"]
    if len(pair) != 2:
        return None
    lifetimes = [lifetimes_of(run) for run in pair]
    lived = [float(durations.sum()) for durations, _ in lifetimes]
    rates = [int(failed.sum()) / time if time > 0 else None for (_, failed), time in zip(lifetimes, lived, strict=True)]
    level = SIGNIFICANCE / looks
    known = [rate for rate in rates if rate is not None]
    return SurvivalTest(
        models=(pair[0].name, pair[1].name),
        p_value=log_rank(*lifetimes[0], *lifetimes[1]),
        level=level,
        rates=tuple(rates),
        lived_ps=tuple(lived),
        needed_ps=time_to_tell_apart(known[0], known[1], level=level) if len(known) == 2 else None,
        detectable_lifetime_ps=detectable_lifetime(min(lived), level=level),
    )


def _thermal(run: SavedRun) -> dict[str, float | None]:
    """Return the effective samples and the temperatures of the replicas that did not fail."""
    energies, survivors = run.energies, run.survivors
    series = [_configurational(run, int(replica)) for replica in survivors]
    kinetic = mean_and_error(energies.kinetic_temperature_K[:, survivors])
    configurational = mean_and_error(np.array(series).T)
    return {
        "n_effective": effective_samples((energies.potential + energies.kinetic)[:, survivors]),
        "kinetic_temperature_K": kinetic[0],
        "kinetic_temperature_error_K": kinetic[1],
        "configurational_temperature_K": configurational[0],
        "configurational_temperature_error_K": configurational[1],
    }


def _configurational(run: SavedRun, replica: int) -> FloatArray:
    frames = run.frames(replica)
    return configurational_temperature(positions_of(frames), forces_of(frames))


def _distances(run: SavedRun, known: KnownMolecule) -> Distances:
    bonded = bonded_pairs(known.numbers, known.mean_pair_distances)
    pairs, bonds = np.zeros((2, run.summary.n_replicas, N_BINS), dtype=np.int64)
    for replica in range(len(pairs)):
        frames = run.frames(replica)
        if frames:
            distances = pair_distances(positions_of(frames))
            pairs[replica], bonds[replica] = count_distances(distances), count_distances(distances[:, bonded])
    return Distances(pairs, bonds)


def _targets(known: KnownMolecule, distances: Mapping[str, Distances]) -> dict[str, Distances]:
    """Return the histograms to compare with; those of the data are one for all."""
    targets = {}
    if known.pair_distance_counts is not None and known.bond_length_counts is not None:
        targets["data"] = Distances(known.pair_distance_counts[None], known.bond_length_counts[None])
    if "reference" in distances:
        targets["reference"] = distances["reference"]
    return targets


def _reference_errors(
    run: SavedRun, reference: str | None, numbers: IntArray, progress: Progress
) -> ReferenceErrors | None:
    """Compute errors against the reference method, or read those of this very run."""
    path = run.folder / "reference_errors.json"
    known = read_reference_errors(path) if path.exists() else None
    if reference is None or run.name == "reference" or (known is not None and known.reference == reference):
        return known
    n_replicas = run.summary.n_replicas
    frames = [frame for replica in range(n_replicas) for frame in run.frames(replica, max(2, N_CHECKED // n_replicas))]
    calculator = load_calculator(reference, numbers=numbers)
    found = errors_along(calculator, frames, reference=reference, progress=progress, name=run.name)
    write_record(path, found)
    return found


def _conservation(run: SavedRun) -> Conservation | None:
    """Return how the energy is conserved without a thermostat, where the model was run without one."""
    beside = run.folder.parent / "nve" / run.name / "summary.json"
    if run.summary.nve is None and beside.is_file():
        return read_summary(beside).nve
    return run.summary.nve
