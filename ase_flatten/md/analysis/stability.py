"""The verdict on a run: stable, unstable, or cannot tell.

A run is stable when no replica failed, its total energy does not drift, and its mean potential energy is the
expected one. Each of these has a tolerance in units of the canonical standard deviation of the energy, which
is the scale on which an energy matters at that temperature. A quantity is fine when its confidence interval lies
within the tolerance (a test of equivalence, Schuirmann, https://doi.org/10.1007/BF01068419), wrong when it is beyond
the tolerance and beyond noise, and otherwise the run is too short to tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import norm

from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.md.analysis.power import lifetime
from ase_flatten.md.analysis.time_series import (
    LATEST_EQUILIBRATION,
    drift,
    equilibration,
    known_or_none,
    mean_error,
    total_energy,
)
from ase_flatten.md.expected_energy import ExpectedEnergy
from ase_flatten.md.results import CANNOT_TELL, STABLE, UNSTABLE, Assessment, ExpectedPotential, Failure, Verdict
from ase_flatten.utils.typing import FloatArray

SIGNIFICANT = 3.0
"""A deviation is significant beyond this many standard errors."""

WITHIN = float(norm.ppf(0.95))
"""A deviation is within a tolerance if it still is with this many standard errors added to it."""

TOLERATED_DRIFT = 1.0
"""The largest drift over a run, in canonical standard deviations of the total energy."""

TOLERATED_SHIFT = {True: 0.5, False: 1.0}
"""The largest deviation of the mean potential energy, in its canonical standard deviations: from a run of the reference
method, or from an extrapolation of the data to the temperature."""

DEPARTED = 3.0
"""A replica whose mean energy over the second half of its run deviates by more canonical standard deviations has left
the expected conformations."""

_LATE = 0.9
"""A transient that ends later than in this part of the first half of a run is not taken to have ended."""

UNKNOWN_MEAN = "its expected mean energy is unknown"

REFERENCE_RUN = "the run of the reference method"
"""The source of an `ExpectedEnergy` that comes from molecular dynamics with the reference method."""


@dataclass(frozen=True)
class Finding:
    """The result of one criterion for a run."""

    verdict: Verdict
    sentence: str


def summarize(
    time_ps: FloatArray,
    potential: FloatArray,
    kinetic: FloatArray,
    *,
    failures: Sequence[Failure],
    zero_energy_eV: float,
    expected: ExpectedEnergy | None = None,
    thermostat: str = "langevin",
) -> Assessment:
    """Judge a run by its energies and its failures.

    Parameters
    ----------
    time_ps : (n,) array
    potential, kinetic : (n, n_replicas) arrays, eV
    failures : sequence of Failure
    zero_energy_eV : float
        The zero of the energies that are returned.
    expected : ExpectedEnergy, optional
        The expected potential energy of the run.
    thermostat : str
        Without one ("none"), there is no distribution that the energies are expected to follow.

    Raises
    ------
    InputError
        The package pymbar is missing.
    """
    ends = {failure.replica: min(max(failure.time_ps, 0.0), float(time_ps[-1])) for failure in failures}
    lived_ps = sum(ends.values()) + (potential.shape[1] - len(ends)) * float(time_ps[-1])
    whole = np.isfinite(potential + kinetic).all(axis=0)
    numbers = np.flatnonzero(whole)
    total = total_energy(potential, kinetic, zero_energy_eV)[:, whole]
    above = (potential[:, whole] - zero_energy_eV) / KCAL_PER_MOL
    n_transient = equilibration(total) if thermostat != "none" else 0
    settled = n_transient < _LATE * LATEST_EQUILIBRATION * len(total)
    kept = slice(n_transient if settled else len(total) // 2, None)
    slope, slope_error = drift(time_ps[kept], total[kept])
    known = _in_kcal(expected, zero_energy_eV)
    thermal = float(kinetic[:, whole].std()) / KCAL_PER_MOL if whole.any() else float("nan")
    # If the fluctuation of the potential energy is unknown: a harmonic one fluctuates as the kinetic energy does.
    potential_std = thermal if known is None else known.std
    spread = float(np.hypot(thermal, potential_std))
    assessed = Assessment(
        n_failed=len(failures),
        first_failure_ps=min((max(failure.time_ps, 0.0) for failure in failures), default=None),
        reasons=tuple(f"replica {one.replica} after {one.time_ps:.3f} ps: {one.reason}" for one in failures),
        failures=tuple(failures),
        lived_ps=lived_ps,
        lifetime=lifetime(len(failures), lived_ps),
        equilibration_ps=float(time_ps[n_transient]) if settled and total.size else None,
        mean_total_energy=_mean(total[kept]),
        standard_error=known_or_none(mean_error(total[kept])),
        mean_potential_energy=_mean(above[kept]),
        potential_error=known_or_none(mean_error(above[kept])),
        drift=known_or_none(slope),
        drift_error=known_or_none(slope_error),
        drift_tolerance=known_or_none(TOLERATED_DRIFT * spread),
        departed=()
        if thermostat == "none"
        else _departed(numbers, above, None if known is None else known.mean, potential_std),
        expected=known,
        stable=None,
    )
    findings = [
        _survival(len(failures), potential.shape[1], lived_ps),
        *_settling(assessed, total, n_transient),
        _drift(assessed, float(time_ps[-1] - time_ps[0])),
    ]
    if thermostat != "none":
        findings += [*_departures(assessed, potential.shape[1]), _mean_energy(assessed)]
    verdict = _worst(findings)
    return replace(
        assessed,
        verdict=verdict,
        stable={STABLE: True, UNSTABLE: False}.get(verdict),
        why=tuple(finding.sentence for finding in findings if finding.verdict == verdict),
    )


def reference_energy(potential: FloatArray, kinetic: FloatArray, whole: np.ndarray) -> ExpectedEnergy | None:
    """Return the potential energy of a run of the reference method; None if the run is too short.

    Parameters
    ----------
    potential, kinetic : (n, n_replicas) arrays, eV
    whole : int array
        The replicas that did not fail.
    """
    potential, kinetic = potential[:, whole], kinetic[:, whole]
    kept = potential[min(equilibration(potential + kinetic), len(potential) // 2) :]
    error = mean_error(kept)
    if not (np.isfinite(error) and error > 0):
        return None
    return ExpectedEnergy(float(kept.mean()), float(kept.std()), error, REFERENCE_RUN)


def _survival(n_failed: int, n_replicas: int, lived_ps: float) -> Finding:
    found = lifetime(n_failed, lived_ps)
    if n_failed == 0:
        bound = f"the lifetime is above {found.low_ps:.2g} ps with 95 % confidence"
        return Finding(STABLE, f"0 of {n_replicas} replicas failed in a total of {lived_ps:.4g} ps: {bound}")
    if lived_ps == 0:
        return Finding(UNSTABLE, f"{n_failed} of {n_replicas} replicas failed during equilibration")
    return Finding(
        UNSTABLE,
        f"{n_failed} of {n_replicas} replicas failed in a total of {lived_ps:.3g} ps: the lifetime is "
        f"{found.mean_ps:.2g} ({found.low_ps:.2g} to {found.high_ps:.2g}) ps",
    )


def _settling(assessed: Assessment, total: FloatArray, n_transient: int) -> list[Finding]:
    """Judge a transient: whether it ends, and whether the energy at which it ends can be checked."""
    if not total.size or n_transient == 0:
        return []
    if assessed.equilibration_ps is None:
        return [Finding(CANNOT_TELL, "the total energy has not settled by the middle of the run: run longer")]
    change = total[n_transient:].mean() - total[:n_transient].mean()
    if assessed.expected is None and assessed.drift_tolerance is not None and abs(change) > assessed.drift_tolerance:
        moved = "fell" if change < 0 else "rose"
        return [
            Finding(
                CANNOT_TELL,
                f"the total energy {moved} by {abs(change):.2g} kcal/mol in the first "
                f"{assessed.equilibration_ps:.2g} ps, and its expected value is unknown: add --reference",
            )
        ]
    return []


def _drift(assessed: Assessment, duration_ps: float) -> Finding:
    slope, error, tolerance = assessed.drift, assessed.drift_error, assessed.drift_tolerance
    if slope is None or error is None or tolerance is None:
        return Finding(
            CANNOT_TELL, "the drift of the total energy is unknown: too few records of replicas that did not fail"
        )
    change, noise = slope * duration_ps, error * duration_ps
    found = f"the total energy drifts by {plus_minus(change, noise)} kcal/mol over {duration_ps:.3g} ps"
    allowed = f"its canonical standard deviation of {tolerance:.2g} kcal/mol"
    if abs(change) + WITHIN * noise <= tolerance:
        return Finding(STABLE, f"{found}, within {allowed}")
    if abs(change) > max(tolerance, SIGNIFICANT * noise):
        return Finding(UNSTABLE, f"{found}, more than {allowed}")
    return Finding(CANNOT_TELL, f"{found}: a longer run is needed to tell whether that is less than {allowed}")


def _departed(numbers: np.ndarray, above: FloatArray, centre: float | None, std: float) -> tuple[int, ...]:
    """Find the replicas whose potential energy in their second half is far from `centre`, or from their median."""
    if not above.size:
        return ()
    means = above[len(above) // 2 :].mean(axis=0)
    away = np.abs(means - (np.median(means) if centre is None else centre))
    return tuple(int(replica) for replica in numbers[away > DEPARTED * std])


def _departures(assessed: Assessment, n_replicas: int) -> list[Finding]:
    n_departed, expected = len(assessed.departed), assessed.expected
    if n_departed == 0:
        return []
    found = (
        f"{n_departed} of {n_replicas} replicas {'ends' if n_departed == 1 else 'end'} with a mean potential energy "
        f"more than {DEPARTED:g} canonical standard deviations from that of "
    )
    if expected is not None:
        return [Finding(UNSTABLE, f"{found}{expected.source}")]
    return [Finding(CANNOT_TELL, f"{found}the others, and which of them are right is unknown: add --reference")]


def _mean_energy(assessed: Assessment) -> Finding:
    mean, error, known = assessed.mean_potential_energy, assessed.potential_error, assessed.expected
    if known is None:
        return Finding(STABLE, UNKNOWN_MEAN)
    if mean is None or error is None:
        return Finding(CANNOT_TELL, "the mean energy is unknown: every replica failed")
    shift, noise = mean - known.mean, float(np.hypot(error, known.error))
    where = f"{'below' if shift < 0 else 'above'} that of {known.source}"
    found = f"its mean potential energy is {plus_minus(abs(shift), noise)[1:]} kcal/mol {where}"
    tolerance = TOLERATED_SHIFT[known.source == REFERENCE_RUN] * known.std
    if abs(shift) + WITHIN * noise <= tolerance:
        return Finding(STABLE, f"{found}, within the tolerance of {tolerance:.2g} kcal/mol")
    if abs(shift) > tolerance + SIGNIFICANT * noise:
        left = "it has moved to conformations that do not occur there" if shift < 0 else "its energies are too high"
        return Finding(UNSTABLE, f"{found}: {left}")
    return Finding(
        CANNOT_TELL, f"{found}: a longer run is needed to tell whether that is less than {tolerance:.2g} kcal/mol"
    )


def _in_kcal(expected: ExpectedEnergy | None, zero_energy_eV: float) -> ExpectedPotential | None:
    if expected is None:
        return None
    return ExpectedPotential(
        mean=(expected.mean - zero_energy_eV) / KCAL_PER_MOL,
        std=expected.std / KCAL_PER_MOL,
        error=expected.error / KCAL_PER_MOL,
        source=expected.source,
    )


def _mean(series: FloatArray) -> float | None:
    return float(series.mean()) if series.size else None


def _worst(findings: Sequence[Finding]) -> Verdict:
    found = {finding.verdict for finding in findings}
    worst_first: tuple[Verdict, ...] = (UNSTABLE, CANNOT_TELL, STABLE)
    return next(verdict for verdict in worst_first if verdict in found)


def plus_minus(value: float, error: float) -> str:
    """Write a value with its sign, and as many decimals as two digits of its error have."""
    decimals = max(0, 1 - int(np.floor(np.log10(error)))) if error > 0 else 3
    return f"{value:+.{decimals}f} ± {error:.{decimals}f}"
