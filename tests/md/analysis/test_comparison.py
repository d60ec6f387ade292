"""The analysis of saved runs, on series, distances and lifetimes whose answers are known."""

import logging
import math
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed
from ase.calculators.harmonic import SpringCalculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory
from scipy.signal import lfilter
from scipy.stats import norm

from ase_flatten.data.known_molecule import KnownMolecule
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.geometry.bonds import bonded_pairs
from ase_flatten.geometry.distance_histograms import (
    BIN_WIDTH,
    N_BINS,
    bin_centres,
    count_distances,
    density,
    distribution_error,
)
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.md import Protocol, run_md, verdict
from ase_flatten.md.analysis import time_series
from ase_flatten.md.analysis.accuracy import errors_along
from ase_flatten.md.analysis.comparison import analyse, comparisons, decided, distance_error, judge, require_packages
from ase_flatten.md.analysis.stability import REFERENCE_RUN, summarize
from ase_flatten.md.analysis.survival import log_rank, survival
from ase_flatten.md.analysis.temperatures import configurational_temperature, effective_samples, mean_and_error
from ase_flatten.md.criteria import Criteria, kelvin_per_eV
from ase_flatten.md.dynamics import Plan
from ase_flatten.md.expected_energy import ExpectedEnergy
from ase_flatten.md.result_files import read_summary
from ase_flatten.md.results import FORMAT, Conservation, DistanceError, Failure, Settings, Summary
from ase_flatten.md.saved_run import saved_runs
from ase_flatten.utils.atomic_files import write_npz
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.records import write_record

STIFFNESS, LENGTH = 20.0, 1.0


def harmonic_chain(n_frames, temperature_K, rng, *, n_atoms=3, stiffness=STIFFNESS):
    """Draw from the canonical distribution of atoms in a chain of springs: positions, energies, forces.

    The bond vectors are independent; a length has the density r² exp(-k (r - r0)²/2kT).
    """
    lengths = np.linspace(0.01, 2.5, 20_000)
    weights = lengths**2 * np.exp(-0.5 * stiffness * (lengths - LENGTH) ** 2 / (units.kB * temperature_K))
    drawn = rng.choice(lengths, size=(n_frames, n_atoms - 1), p=weights / weights.sum())
    directions = rng.normal(size=(n_frames, n_atoms - 1, 3))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    positions = np.zeros((n_frames, n_atoms, 3))
    positions[:, 1:] = np.cumsum(drawn[:, :, None] * directions, axis=1)
    pull = stiffness * (drawn - LENGTH)[:, :, None] * directions
    forces = np.zeros_like(positions)
    forces[:, :-1] += pull
    forces[:, 1:] -= pull
    return positions, 0.5 * stiffness * np.sum((drawn - LENGTH) ** 2, axis=1), forces


# -- temperatures and samples


@pytest.mark.parametrize("temperature", [300, 600])
@pytest.mark.parametrize("n_atoms", [2, 5])
def test_the_configurational_temperature_of_harmonic_molecules_is_right(temperature, n_atoms, rng):
    positions, _, forces = harmonic_chain(40_000, temperature, rng, n_atoms=n_atoms)
    mean, error = mean_and_error(configurational_temperature(positions + 3.0, forces)[:, None])
    assert error < 0.05 * temperature
    assert abs(mean - temperature) < 4 * error


def test_the_temperature_of_nothing_is_unknown():
    assert mean_and_error(np.empty((0, 0))) == (None, None)
    assert effective_samples(np.ones((10, 2))) is None
    assert effective_samples(np.empty((10, 0))) is None


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_effective_samples_of_a_correlated_series(memory, rng):
    noise = rng.standard_normal((9000, 4))
    series = lfilter([1], [1, -memory], noise, axis=0)[1000:]
    assert effective_samples(series) == pytest.approx(series.size * (1 - memory) / (1 + memory), rel=0.25)
    # Blocks and pymbar tell the same.
    blocks = series.var() / time_series.block_error(series)[0] ** 2
    assert effective_samples(series) == pytest.approx(blocks, rel=0.4)


# -- conservation


def test_a_planted_drift_without_a_thermostat_is_measured(rng):
    time = np.arange(2001) * 0.005
    kinetic = 0.5 + 0.1 * rng.standard_normal((2001, 3))
    potential = -kinetic - 7 + 0.001 * rng.standard_normal((2001, 3))
    kept = time_series.conservation(time, potential, kinetic, 9)
    assert abs(kept.drift) < 4 * kept.drift_error < 0.1
    assert kept.conserved and kept.ratio < 0.01
    lost = time_series.conservation(time, potential + 0.02 * time[:, None], kinetic, 9)
    assert lost.drift == pytest.approx(1000 * 0.02 / 9, rel=0.01)
    assert lost.ratio == pytest.approx(0.02 * 10 / 0.1, rel=0.05)
    assert lost.conserved is False


def test_the_energy_of_a_run_that_is_lost_is_unknown():
    nothing = time_series.conservation(np.arange(10.0), np.full((10, 2), np.nan), np.full((10, 2), np.nan), 3)
    assert nothing == Conservation(None, None, None, None)


# -- survival


def test_the_survival_curve_of_four_replicas():
    curve = survival(np.array([1.0, 2.0, 4.0, 4.0]), np.array([True, True, False, False]))
    assert curve.time_ps.tolist() == [0, 1, 2, 4]
    np.testing.assert_allclose(curve.fraction, [1, 0.75, 0.5, 0.5])
    # Clopper and Pearson's limits for 4, 3 and 2 of 4, from tables.
    np.testing.assert_allclose(curve.low, [0.3976, 0.1941, 0.0676, 0.0676], atol=1e-4)
    np.testing.assert_allclose(curve.high, [1, 0.9937, 0.9324, 0.9324], atol=1e-4)


def test_survival_where_none_or_all_failed_still_has_an_interval():
    none = survival(np.full(8, 4.0), np.zeros(8, dtype=bool))
    assert none.fraction[-1] == none.high[-1] == 1
    assert none.low[-1] == pytest.approx(0.025 ** (1 / 8))
    every = survival(np.array([0.0, 0.0, 1.0]), np.ones(3, dtype=bool))
    assert every.fraction.tolist() == pytest.approx([1 / 3, 0])
    assert every.low[-1] == 0 and every.high[-1] == pytest.approx(1 - 0.025 ** (1 / 3))


def test_the_interval_covers_the_truth(rng):
    lifetimes = np.minimum(rng.exponential(1.0, size=(200, 8)), 1.0)
    curves = [survival(row, row < 1) for row in lifetimes]
    assert np.mean([curve.low[-1] <= math.exp(-1) <= curve.high[-1] for curve in curves]) >= 0.93


def test_a_planted_difference_of_survival_is_found_and_chance_is_not(rng):
    def p_value(mean, other_mean, n_replicas):
        times = rng.exponential(mean, n_replicas), rng.exponential(other_mean, n_replicas)
        return log_rank(*(part for time in times for part in (np.minimum(time, 2.0), time < 2)))

    assert max(p_value(0.2, 20.0, 16) for _ in range(10)) < 0.01
    assert np.mean([p_value(2.0, 2.0, 4) < 0.05 for _ in range(150)]) <= 0.12
    alive = np.full(4, 2.0), np.zeros(4, dtype=bool)
    assert log_rank(*alive, *alive) == 1
    assert log_rank(np.array([0.1, 0.2, 0.3, 0.4]), np.ones(4, dtype=bool), *alive) < 0.05


def test_missing_packages_say_which_extra_has_them(monkeypatch):
    for package, act in (
        ("lifelines", lambda: survival(np.ones(2), np.zeros(2, dtype=bool))),
        ("pymbar", lambda: effective_samples(np.arange(10.0)[:, None])),
    ):
        with monkeypatch.context() as patch:
            for name in [name for name in sys.modules if name.partition(".")[0] == package]:
                patch.delitem(sys.modules, name)
            patch.setitem(sys.modules, package, None)
            for needs in (act, require_packages):
                with pytest.raises(InputError, match=rf"package {package}.*pip install '\.\[md\]'"):
                    needs()


def test_pymbar_does_not_lecture(caplog, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pymbar"]:
        monkeypatch.delitem(sys.modules, name)
    with caplog.at_level(logging.WARNING):
        effective_samples(np.arange(10.0)[:, None])
    assert not caplog.records


# -- distances


def test_histograms_count_every_distance(rng):
    distances = rng.uniform(0, 30, size=(500, 3))
    counts = count_distances(distances)
    assert counts.shape == (N_BINS,) and counts.sum() == 1500
    assert counts[-1] == np.sum(distances >= 20 - BIN_WIDTH)
    assert counts[7] == np.sum((distances >= 0.14) & (distances < 0.16))
    assert density(counts).sum() * BIN_WIDTH == pytest.approx(1)
    assert bin_centres()[7] == pytest.approx(0.15)


def test_the_error_of_distributions_is_that_of_gaussians(rng):
    shift = np.array([[0.0], [0.1]])
    near, far = (count_distances(rng.normal(1.5 + by, 0.1, size=(400_000, 1))) for by in shift[:, 0])
    assert distribution_error(near, near) == 0
    assert distribution_error(near, 7 * near) == pytest.approx(0, abs=1e-12)
    assert distribution_error(near, far) == pytest.approx(2 * (2 * norm.cdf(0.5) - 1), rel=0.02)
    assert distribution_error(near, np.roll(near, 500)) == pytest.approx(2)
    assert math.isnan(distribution_error(near, np.zeros(N_BINS, dtype=int)))


def test_the_error_over_replicas_and_its_spread(rng):
    truth = count_distances(rng.normal(1.5, 0.1, size=(400_000, 1)))
    alike = np.array([truth, truth, 0 * truth])
    found = distance_error(alike, truth)
    assert found == DistanceError(0, 0, (0, 0, None))
    assert distance_error(alike[2:], truth) == DistanceError(None, None, (None,))
    # The jackknife's error is that of repeated draws.
    shifts = rng.normal(0.1, 0.02, size=(200, 4))
    draws = [distance_error(np.array([np.roll(truth, round(one / BIN_WIDTH)) for one in row]), truth) for row in shifts]
    spread = np.std([draw.error for draw in draws])
    assert np.sqrt(np.mean([draw.standard_error**2 for draw in draws])) == pytest.approx(spread, rel=0.25)


# -- errors along a trajectory


class Harmonic(SpringCalculator):
    """Tie atoms to places; give no answer for those beyond 2 Å."""

    def calculate(self, atoms, properties, system_changes):
        if np.abs(atoms.positions).max() > 2:
            raise CalculationFailed("no convergence")
        super().calculate(atoms, properties, system_changes)


def test_errors_against_the_reference_method():
    places = np.zeros((2, 3))
    frames = []
    for reach in (0.5, 1.0, 3.0):
        atoms = Atoms("H2", [[0, 0, 0], [reach, 0, 0]])
        energy, forces = 0.5 * 3.0 * reach**2, np.array([[0, 0, 0], [-3.0 * reach, 0, 0]])
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    found = errors_along(Harmonic(places, 2.0), frames)
    assert (found.n_frames, found.n_failed) == (2, 1)
    assert found.force_rmse * KCAL_PER_MOL == pytest.approx(math.sqrt((0.5**2 + 1**2) / 12))
    assert found.energy_rmse * KCAL_PER_MOL == pytest.approx(math.sqrt((0.125**2 + 0.5**2) / 2))
    assert errors_along(Harmonic(places, 2.0), frames[2:]).force_rmse is None


# -- all together


def write_run(folder, rng, *, n_replicas=4, lost=(), temperature=300.0, drawn_at=300.0, n_frames=201):
    """Write what `run_md` leaves of a harmonic chain; `lost` are the replicas that fail, and after how many frames."""
    time = np.arange(n_frames) * 0.01
    potential = np.full((n_frames, n_replicas), np.nan)
    kinetic = rng.gamma(3.0, units.kB * temperature, size=(n_frames, n_replicas))
    failures = []
    folder.mkdir(parents=True)
    for replica in range(n_replicas):
        positions, energies, forces = harmonic_chain(n_frames, drawn_at, rng)
        stop = dict(lost).get(replica, n_frames)
        potential[:stop, replica] = energies[:stop]
        kinetic[stop:, replica] = np.nan
        with Trajectory(folder / f"replica-{replica:02d}.traj", "w") as writer:
            for frame in range(stop):
                atoms = Atoms("OHH", positions[frame])
                atoms.calc = SinglePointCalculator(atoms, energy=energies[frame], forces=forces[frame])
                writer.write(atoms)
            if stop < n_frames:
                writer.write(Atoms("OHH", 10 * positions[stop]))
                at = time[stop] if stop else -0.1
                failures.append(Failure(replica, 20 * stop, float(at), "the bond is long"))
    arrays = {"time_ps": time, "potential": potential, "kinetic": kinetic, "temperature_K": temperature}
    write_npz(folder / "energies.npz", {**arrays, "kinetic_temperature_K": kinetic * kelvin_per_eV(3)})
    n_steps = 20 * (n_frames - 1)
    summary = Summary(
        **vars(summarize(time, potential, kinetic, failures=failures, zero_energy_eV=0.0)),
        format=FORMAT, model=folder.name, temperature_K=temperature, n_replicas=n_replicas, timestep_fs=0.5,
        n_steps=n_steps, settings=Settings(zero_energy_eV=0.0, n_steps=n_steps, interval=20),
    )  # fmt: skip
    write_record(folder / "summary.json", summary)
    return summary


def known(rng, temperature=300.0, n_frames=4000):
    distances = pair_distances(harmonic_chain(n_frames, temperature, rng)[0])
    means = np.array([LENGTH, 1.5, LENGTH])
    bonded = bonded_pairs(np.array([8, 1, 1]), means)
    assert bonded.tolist() == [True, False, False]
    return KnownMolecule(
        np.array([8, 1, 1]), 0.0, 1.0, means,
        pair_distance_counts=count_distances(distances), bond_length_counts=count_distances(distances[:, bonded]),
    )  # fmt: skip


def springs():
    """Give a calculator for the tests below, which knows where the atoms belong."""
    return SpringCalculator(np.zeros((3, 3)), 1.0)


def test_a_temperature_is_compared(tmp_path, rng):
    at = tmp_path / "md" / "300K"
    summaries = [
        write_run(at / "default", rng, lost={0: 0, 1: 40, 2: 60, 3: 150}.items()),
        write_run(at / "improved", rng),
        write_run(at / "reference", rng, n_replicas=1),
    ]
    comparison = analyse(at, known(rng), reference="ase:test_comparison:springs")
    assert comparisons(tmp_path / "md") == {300.0: comparison}
    for name in ("survival", "distances"):
        assert (at / f"{name}.png").stat().st_size > 10_000 and (at / f"{name}.pdf").stat().st_size > 5_000
    default, improved, reference = (comparison.models[name] for name in ("default", "improved", "reference"))
    assert (default.survival, improved.survival, improved.duration_ps) == (0, 1, 2.0)
    assert comparison.log_rank.models == ("default", "improved") and comparison.log_rank.p_value < 0.02
    # Nothing is told of temperatures where every replica failed.
    assert default.kinetic_temperature_K is default.configurational_temperature_K is default.n_effective is None
    assert improved.n_effective > 400
    for kind in ("kinetic", "configurational"):
        error = getattr(improved, f"{kind}_temperature_error_K")
        assert abs(getattr(improved, f"{kind}_temperature_K") - 300) < 4 * error < 400
    # The frames are drawn from the distribution of the data: what is left is the noise of sampling.
    assert improved.distances["data"].bonds.error < 0.15
    assert improved.distances["reference"].bonds.error < 0.4
    assert [error is None for error in default.distances["data"].pairs.of_replicas] == [True] + 3 * [False]
    assert list(reference.distances) == ["data"] and reference.reference_errors is None
    assert default.reference_errors.n_frames == 30 and improved.reference_errors.n_frames == 40
    words = verdict(summaries, comparisons(tmp_path / "md"))
    assert "default: 4 of 4 replicas failed in a total of 2.5 ps: the lifetime is 0.62 (0.24 to 2.3) ps" in words
    spans = "0.00 (0.00 to 0.60) and 1.00 (0.40 to 1.00)"
    assert f"The survival of default and improved to 2 ps, {spans}, differs significantly (log-rank p = 0.0" in words


def test_the_reference_method_is_asked_once_and_again_for_a_new_run(tmp_path, rng, monkeypatch):
    write_run(tmp_path / "default", rng)
    first = analyse(tmp_path, known(rng), reference="ase:test_comparison:springs")
    monkeypatch.setattr(
        "ase_flatten.md.analysis.comparison.load_calculator", lambda *_, **__: pytest.fail("asked again")
    )
    again = analyse(tmp_path, known(rng), reference="ase:test_comparison:springs")
    assert first.models["default"].reference_errors == again.models["default"].reference_errors
    assert analyse(tmp_path, known(rng)).models["default"].reference_errors.n_frames == 40
    assert first.log_rank is None
    (tmp_path / "default" / "reference_errors.json").unlink()
    assert analyse(tmp_path, known(rng)).models["default"].reference_errors is None


def test_models_are_judged_by_the_data_and_by_the_reference_once_it_has_run(tmp_path, rng, monkeypatch):
    energies = harmonic_chain(4000, 300.0, rng)[1]
    of_data = ExpectedEnergy(energies.mean() + 1.0, energies.std(), 0.001, "the data")
    monkeypatch.setattr("ase_flatten.md.analysis.comparison.expected_energy", lambda known, temperature_K: of_data)
    write_run(tmp_path / "improved", rng)
    judged = judge(tmp_path, known(rng))["improved"]
    assert judged.verdict == "unstable" and judged.departed == (0, 1, 2, 3)
    assert "below that of the data" in judged.why[-1]
    assert read_summary(tmp_path / "improved" / "summary.json") == judged
    write_run(tmp_path / "reference", rng)
    judged = judge(tmp_path, known(rng))
    assert judged["improved"].verdict == "stable", judged["improved"].why
    assert judged["improved"].expected.source == REFERENCE_RUN and judged["reference"].expected is None
    mean = judged["improved"].expected.mean
    assert judged["improved"].expected_total == pytest.approx(mean + 3 * units.kB * 300 / KCAL_PER_MOL)


def test_a_run_is_decided_when_no_longer_one_would_change_it(tmp_path, rng):
    at = tmp_path / "400K"
    summaries = {
        "default": write_run(at / "default", rng, lost=[(k, 20) for k in range(3)]),
        "improved": write_run(at / "improved", rng),
    }
    # 8 ps without a failure: a lifetime above 2.7 ps, enough for most replicas to last for 1.8 ps and not for 2 ps.
    assert not decided(at, summaries, looks=1, longest_ps=2.0)
    assert decided(at, {**summaries, "default": summaries["improved"]}, looks=1, longest_ps=1.8)
    # Three of four are too few to differ from none.
    assert not decided(at, summaries, looks=6, longest_ps=1.8)
    shutil.rmtree(at / "default")
    summaries["default"] = write_run(at / "default", rng, n_replicas=16, lost=[(k, 2) for k in range(16)])
    assert decided(at, summaries, looks=6, longest_ps=1.8)


def test_another_temperature_of_the_configurations_is_found(tmp_path, rng):
    summaries = [write_run(tmp_path / "improved", rng, drawn_at=900.0, n_frames=801)]
    comparison = analyse(tmp_path, known(rng))
    model = comparison.models["improved"]
    error = model.configurational_temperature_error_K
    assert abs(model.configurational_temperature_K - 900) < 4 * error
    assert model.distances["data"].bonds.error > 0.3
    words = verdict(summaries, {300.0: comparison})
    assert "The configurational temperature of improved is" in words and "kinetic temperature" not in words


def test_data_without_histograms_have_no_distances(tmp_path, rng):
    write_run(tmp_path / "default", rng, n_replicas=2)
    write_run(tmp_path / "improved", rng, n_replicas=2)
    comparison = analyse(tmp_path, replace(known(rng), pair_distance_counts=None, bond_length_counts=None))
    assert comparison.models["default"].distances == {}
    assert not (tmp_path / "distances.png").exists() and (tmp_path / "survival.png").exists()
    assert comparison.log_rank.p_value == 1


def test_frames_before_a_failure_are_spread_evenly(tmp_path, rng):
    write_run(tmp_path / "default", rng, lost=[(1, 40), (2, 0)])
    [run] = saved_runs(tmp_path)
    assert run.n_physical.tolist() == [201, 40, 0, 201]
    assert run.survivors.tolist() == [0, 3]
    assert (len(run.frames(0, 10)), len(run.frames(1, 100)), len(run.frames(2, 5))) == (10, 40, 0)
    assert run.frames(1, 5)[-1].get_potential_energy() == pytest.approx(run.energies.potential[39, 1])
    with pytest.raises(InputError, match=r"found none; run ase-flatten md first"):
        saved_runs(tmp_path / "default")


def test_a_run_without_a_thermostat_tells_of_its_energy(tmp_path):
    numbers, place = np.array([1, 1]), np.array([[0.0, 0, 0], [0.6, 0, 0]])
    molecule = KnownMolecule(numbers, 0.0, 1.0, np.array([0.6]))
    criteria = Criteria.of_molecule(molecule, 100.0)
    protocol = Protocol("nve", 100.0, 0.2, 0.01, 2000, 2, 20, thermostat="none")
    calculator = SpringCalculator(place, 5.0)
    start = [Atoms(numbers, 0.9 * place)] * 2
    summary = run_md(calculator, Plan("m", start, protocol, criteria, "ase"), tmp_path / "m")
    assert abs(summary.nve.drift) < 1 and summary.nve.conserved is True
    comparison = analyse(tmp_path, molecule)
    assert comparison.models["m"].nve == summary.nve
    words = verdict([summary], {100.0: comparison})
    assert "Without a thermostat, m conserves the energy" in words
    # The energy decides on the temperature: none is right or wrong.
    assert "temperature of m" not in words


def test_a_leak_of_energy_beside_a_thermostat_run_is_told(tmp_path, rng):
    summaries = [write_run(tmp_path / "improved", rng, n_replicas=2)]
    leak = Conservation(drift=5.2, drift_error=0.1, ratio=2.4, conserved=False)
    write_record(tmp_path / "nve" / "improved" / "summary.json", replace(summaries[0], nve=leak))
    words = verdict(summaries, {300.0: analyse(tmp_path, known(rng))})
    assert "Without a thermostat, improved does not conserve the energy: its drift is +5.2 meV/atom/ps" in words
    assert "over the whole run 2.4 times the standard deviation" in words
