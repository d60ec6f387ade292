"""The verdict on a run and the statistics behind it, on series and lifetimes whose truth is known."""

import math

import numpy as np
import pytest
from scipy.signal import lfilter

from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.md.analysis import time_series
from ase_flatten.md.analysis.power import detectable_lifetime, lifetime, power, time_to_tell_apart
from ase_flatten.md.analysis.stability import REFERENCE_RUN, plus_minus, summarize
from ase_flatten.md.analysis.survival import log_rank, sign_flip_test, stratified_log_rank
from ase_flatten.md.analysis.verdict import verdict
from ase_flatten.md.expected_energy import ExpectedEnergy
from ase_flatten.md.results import Failure, Summary

POTENTIAL_STD, KINETIC_STD, MEMORY_PS = 3.6, 3.7, 0.1
"""Of salicylic acid at 400 K with a friction of 0.01/fs: kcal/mol and the correlation time of its energies."""

DATA = ExpectedEnergy(0.0, POTENTIAL_STD * KCAL_PER_MOL, 0.3 * KCAL_PER_MOL, "the data")


def ornstein_uhlenbeck(n, n_replicas, step_ps, rng):
    """Draw canonical series of unit variance, (n, n_replicas)."""
    memory = math.exp(-step_ps / MEMORY_PS)
    noise = rng.standard_normal((n, n_replicas))
    noise[1:] *= math.sqrt(1 - memory**2)
    return lfilter([1], [1, -memory], noise, axis=0)


def canonical(duration_ps, rng, *, n_replicas=16, step_ps=0.01):
    """Draw time, potential and kinetic energies of a run in equilibrium, ps and eV."""
    n = round(duration_ps / step_ps) + 1
    potential, kinetic = (ornstein_uhlenbeck(n, n_replicas, step_ps, rng) for _ in range(2))
    time_ps = np.arange(n) * step_ps
    return time_ps, potential * POTENTIAL_STD * KCAL_PER_MOL, (50 + kinetic * KINETIC_STD) * KCAL_PER_MOL


def judged(time_ps, potential, kinetic, expected=DATA, failures=()):
    return summarize(time_ps, potential, kinetic, failures=failures, zero_energy_eV=0.0, expected=expected)


# -- false alarms and what is found


@pytest.mark.parametrize(("duration_ps", "step_ps", "n_runs"), [(2, 0.01, 100), (50, 0.05, 25)])
@pytest.mark.parametrize("expected", [DATA, ExpectedEnergy(0.0, DATA.std, DATA.error, REFERENCE_RUN), None])
def test_a_model_that_is_right_is_hardly_ever_unstable(duration_ps, step_ps, n_runs, expected):
    found = [
        judged(*canonical(duration_ps, np.random.default_rng(seed), step_ps=step_ps), expected).verdict
        for seed in range(n_runs)
    ]
    assert found.count("unstable") <= 0.05 * n_runs
    assert found.count("stable") >= 0.8 * n_runs


@pytest.mark.parametrize(("duration_ps", "step_ps", "n_runs"), [(2, 0.01, 30), (50, 0.05, 10)])
def test_replicas_that_sink_make_a_model_unstable(duration_ps, step_ps, n_runs):
    found, unknown = [], []
    for seed in range(n_runs):
        time_ps, potential, kinetic = canonical(duration_ps, np.random.default_rng(seed), step_ps=step_ps)
        potential[time_ps > 1, :3] -= 5 * DATA.std
        found.append(judged(time_ps, potential, kinetic))
        unknown.append(judged(time_ps, potential, kinetic, None).verdict)
    assert sum(summary.verdict == "unstable" for summary in found) >= 0.95 * n_runs
    assert [summary.departed for summary in found].count((0, 1, 2)) >= 0.95 * n_runs
    assert "3 of 16 replicas end with a mean potential energy" in found[0].why[0]
    assert "stable" not in unknown


def test_a_model_that_sank_as_a_whole_is_unstable_however_still_it_lies():
    time_ps, potential, kinetic = canonical(2, np.random.default_rng(0))
    reference = ExpectedEnergy(0.0, DATA.std, DATA.error, REFERENCE_RUN)
    summary = judged(time_ps, potential - 2 * DATA.std, kinetic, reference)
    assert summary.departed == () and summary.verdict == "unstable" and summary.stable is False
    [why] = summary.why
    assert "kcal/mol below that of the run of the reference method: it has moved to conformations" in why


def test_the_mean_energy_is_judged_by_the_reference_more_sharply_than_by_the_data():
    time_ps, potential, kinetic = canonical(20, np.random.default_rng(0))
    by = {
        source: judged(time_ps, potential + 0.75 * DATA.std, kinetic, ExpectedEnergy(0.0, DATA.std, 1e-4, source))
        for source in ("the data", REFERENCE_RUN)
    }
    assert by["the data"].verdict == "stable" and by[REFERENCE_RUN].verdict == "unstable"


# -- drift and equilibration


def test_a_steep_drift_within_its_noise_is_not_stable():
    rng = np.random.default_rng(3)
    time_ps, potential, kinetic = canonical(0.2, rng, n_replicas=3)
    potential += np.linspace(0, 3 * DATA.std, len(time_ps))[:, None]
    summary = judged(time_ps, potential, kinetic, None)
    assert summary.verdict == "cannot tell" and summary.stable is None
    assert "a longer run is needed to tell" in summary.why[0]


def test_a_drift_beyond_noise_and_tolerance_is_unstable_and_a_small_one_is_not():
    time_ps, potential, kinetic = canonical(50, np.random.default_rng(0), step_ps=0.05)
    for per_ps, expected in ((0.01, "stable"), (0.2, "unstable")):
        summary = judged(time_ps, potential + per_ps * KCAL_PER_MOL * time_ps[:, None], kinetic, None)
        assert summary.verdict == expected, summary.why
        assert summary.drift_tolerance == pytest.approx(math.hypot(KINETIC_STD, KINETIC_STD), rel=0.05)


def test_a_drift_that_a_stable_model_may_have_is_told_where_it_is_beyond_noise():
    """A drift beyond noise that changes the energy by less than is tolerated: stable, but not without a word."""
    time_ps, potential, kinetic = canonical(20, np.random.default_rng(0))
    for per_ps, told in ((0.0, False), (-0.12, True)):
        assessed = judged(time_ps, potential + per_ps * KCAL_PER_MOL * (time_ps - 10)[:, None], kinetic)
        assert assessed.verdict == "stable"
        assert (abs(assessed.drift) > 2 * assessed.drift_error) == told
        summary = Summary(
            **vars(assessed), model="improved", temperature_K=400.0, timestep_fs=0.5, n_steps=4000, n_replicas=16
        )
        said = verdict([summary])
        drifts = f"its total energy drifts by {plus_minus(summary.drift, summary.drift_error)} kcal/mol/ps, beyond two"
        assert "improved is stable" in said and (drifts in said) == ("kcal/mol that are tolerated" in said) == told


def test_no_drift_beyond_its_tolerance_is_stable():
    """However the drift and its error are, a stable run changes its energy by less than is tolerated."""
    rng = np.random.default_rng(0)
    found = set()
    for _ in range(60):
        duration, slope = rng.choice([0.2, 2.0]), rng.normal(scale=12)
        time_ps, potential, kinetic = canonical(duration, rng, n_replicas=int(rng.choice([3, 16])))
        summary = judged(time_ps, potential + slope * KCAL_PER_MOL * time_ps[:, None], kinetic, None)
        found.add(summary.verdict)
        if summary.verdict == "stable":
            assert (abs(summary.drift) + 1.6 * summary.drift_error) * duration < summary.drift_tolerance
    assert found == {"stable", "unstable", "cannot tell"}


def test_a_transient_is_found_and_left_out():
    found = []
    for seed in range(10):
        time_ps, potential, kinetic = canonical(10, np.random.default_rng(seed))
        summary = judged(time_ps, potential + 5 * DATA.std * np.exp(-time_ps / 0.3)[:, None], kinetic)
        found.append(summary.equilibration_ps)
        assert abs(summary.mean_potential_energy) < 4 * summary.potential_error
        assert summary.verdict == "stable", summary.why
    assert 0.3 < np.median(found) < 2
    assert sum(time_series.equilibration(sum(canonical(10, np.random.default_rng(k))[1:])) > 0 for k in range(20)) <= 2


def test_a_fall_that_nothing_explains_cannot_be_told_of():
    time_ps, potential, kinetic = canonical(10, np.random.default_rng(0))
    summary = judged(time_ps, potential + np.where(time_ps < 2, 4 * DATA.std, 0)[:, None], kinetic, None)
    assert summary.verdict == "cannot tell" and summary.equilibration_ps == pytest.approx(2, abs=0.3)
    assert "fell by 14 kcal/mol in the first" in summary.why[0]


def test_a_transient_that_does_not_end_is_told_of():
    time_ps, potential, kinetic = canonical(10, np.random.default_rng(0))
    summary = judged(time_ps, potential + np.where(time_ps < 4.9, 5 * DATA.std, 0)[:, None], kinetic)
    assert summary.equilibration_ps is None and summary.verdict == "cannot tell"
    assert "has not settled by the middle of the run" in summary.why[0]


def test_replicas_that_are_lost_are_counted_with_their_lifetime():
    time_ps, potential, kinetic = canonical(2, np.random.default_rng(0))
    potential[100:, 0] = np.nan
    failures = [Failure(replica=0, step=1, time_ps=1.0, reason="the bond is long")]
    summary = judged(time_ps, potential, kinetic, failures=failures)
    assert summary.verdict == "unstable" and summary.lived_ps == 31
    assert summary.why == ("1 of 16 replicas failed in a total of 31 ps: the lifetime is 31 (5.6 to 1.2e+03) ps",)


# -- rates and power


def test_lifetimes_have_exact_intervals():
    none = lifetime(0, 32.0)
    assert (none.mean_ps, none.high_ps) == (None, None) and none.low_ps == pytest.approx(10.68, abs=0.01)
    some = lifetime(3, 30.0)
    # Garwood's limits of 3 failures, from tables: 0.6187 and 8.767.
    assert (some.mean_ps, some.low_ps, some.high_ps) == pytest.approx((10, 30 / 8.767, 30 / 0.6187), rel=1e-3)


def test_the_interval_of_the_lifetime_covers_the_truth(rng):
    covered = []
    for _ in range(2000):
        lived = np.minimum(rng.exponential(3.0, 16), 2.0)
        found = lifetime(int((lived < 2).sum()), lived.sum())
        covered.append(found.low_ps <= 3.0 <= (found.high_ps or math.inf))
    assert 0.92 <= np.mean(covered) <= 0.98


def test_the_interval_of_the_drift_covers_the_truth(rng):
    time_ps = np.arange(400) * 0.01
    z = []
    for _ in range(300):
        slope, error = time_series.drift(time_ps, ornstein_uhlenbeck(400, 16, 0.01, rng) + 0.3 * time_ps[:, None])
        z.append((slope - 0.3) / error)
    # Two standard errors are 95 % but for the 15 degrees of freedom.
    assert 0.92 <= np.mean(np.abs(z) < 2) <= 0.98


def test_the_power_is_that_of_simulated_runs(rng):
    found = []
    for _ in range(300):
        times = [rng.exponential(mean, 16) for mean in (4.0, 20.0)]
        pair = [(np.minimum(time, 4), time < 4) for time in times]
        found.append(stratified_log_rank([(pair[0], pair[1])]) < 0.05)
    # Replicas that fail no longer count: both models live for about as long as the mean of the two.
    lived = [16 * mean * (1 - math.exp(-4 / mean)) for mean in (4.0, 20.0)]
    assert power(1 / 4, 1 / 20, np.mean(lived)) == pytest.approx(np.mean(found), abs=0.1)


def test_the_time_to_tell_two_rates_apart():
    assert power(0.1, 0.03, time_to_tell_apart(0.1, 0.03)) == pytest.approx(0.8, abs=0.005)
    assert time_to_tell_apart(0.1, 0.1) is None and time_to_tell_apart(0.0, 0.0) is None
    assert time_to_tell_apart(0.1, 0.03, level=0.01) > time_to_tell_apart(0.1, 0.03)
    assert power(1 / detectable_lifetime(32.0), 0.0, 32.0) == pytest.approx(0.8, abs=0.005)
    assert power(0.1, 0.1, 200.0) <= 0.05


# -- several seeds


def lifetimes(mean, rng, n_replicas=16, end=2.0):
    times = rng.exponential(mean, n_replicas)
    return np.minimum(times, end), times < end


def test_one_stratum_is_the_log_rank_test_and_several_are_one_claim(rng):
    pair = lifetimes(1.0, rng), lifetimes(3.0, rng)
    assert stratified_log_rank([pair]) == pytest.approx(log_rank(*pair[0], *pair[1]))
    seeds = [(lifetimes(2.0, rng), lifetimes(6.0, rng)) for _ in range(3)]
    assert stratified_log_rank(seeds) < min(log_rank(*one, *other) for one, other in seeds)
    alive = np.full(4, 2.0), np.zeros(4, dtype=bool)
    assert stratified_log_rank([(alive, alive)]) == 1


def test_false_differences_are_as_rare_as_they_should_be(rng):
    def false():
        # Seeds differ in lifetime, the two models of one do not.
        means = rng.choice([0.5, 2.0, 8.0], size=3)
        return stratified_log_rank([(lifetimes(mean, rng), lifetimes(mean, rng)) for mean in means])

    assert np.mean([false() < 0.05 for _ in range(400)]) <= 0.075


def test_few_seeds_cannot_make_a_small_p():
    assert sign_flip_test([1.0, 2.0, 3.0]) == 0.25
    assert sign_flip_test([1.0, 2.0, 3.0, 0.5, 2.0, 3.0]) == pytest.approx(2 / 2**6)
    assert sign_flip_test([1.0, -2.0, 0.5]) == 1
    assert sign_flip_test([]) == sign_flip_test([2.0]) == 1
