"""Thermostat, protocols, runs, analysis and figure of the molecular dynamics."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from scipy.signal import lfilter

from ase_flatten import md
from ase_flatten.data.known_molecule import KnownMolecule
from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.md import Protocol, load_protocol, plot_total_energy, recorder, run_md, saved_run, verdict
from ase_flatten.md.analysis import time_series
from ase_flatten.md.criteria import Criteria
from ase_flatten.md.dynamics import Plan, discard_rest
from ase_flatten.md.engines import make_engine
from ase_flatten.md.integrators.langevin import check_thermostat, check_timestep, draw_momenta, langevin
from ase_flatten.md.protocol import protocol_names
from ase_flatten.md.result_files import read_summary
from ase_flatten.md.results import Summary
from ase_flatten.models import Prediction
from ase_flatten.utils.exceptions import InputError

STIFFNESS = 5.0
LENGTH = 1.0


FAR = 100.0
"""Where the replica is that trouble strikes, Å."""


class Spring(Calculator):
    """A harmonic bond between each atom and the next; `trouble` strikes molecules far away after some calls."""

    implemented_properties = ("energy", "forces")

    def __init__(self, trouble=None, after=math.inf, *, stiffness=STIFFNESS):
        super().__init__()
        self.trouble, self.after, self.calls, self.stiffness = trouble, after, 0, stiffness

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        bonds = np.diff(self.atoms.positions, axis=0)
        lengths = np.linalg.norm(bonds, axis=1)
        pull = self.stiffness * ((lengths - LENGTH) / lengths)[:, None] * bonds
        forces = np.zeros_like(self.atoms.positions)
        forces[:-1] += pull
        forces[1:] -= pull
        if self.calls > self.after and self.atoms.positions[:, 0].mean() > FAR / 2:
            if self.trouble == "raise":
                raise CalculationFailed("no convergence")
            forces *= {"nan": np.nan, "explode": -1e4, "part": -3.0}[self.trouble]
        energy = 0.5 * self.stiffness * np.sum((lengths - LENGTH) ** 2)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}


def chain(symbols="H2"):
    atoms = Atoms(symbols)
    atoms.positions[:, 0] = LENGTH * np.arange(len(atoms))
    return atoms


def temperatures(dynamics, atoms, n_steps):
    """Kinetic and configurational temperature of a dimer, each as (mean, standard error).

    The bond: the mean of d/dr[(r - r0) r² exp(-U/kT)] vanishes, so <k (r - r0)²> = kT <1 + 2 (r - r0)/r>.
    """
    kinetic, stretch, weight = np.empty((3, n_steps))
    for step in range(n_steps):
        dynamics.step()
        length = np.linalg.norm(atoms.positions[1] - atoms.positions[0])
        kinetic[step] = 2 * atoms.get_kinetic_energy() / (3 * units.kB)
        stretch[step] = STIFFNESS * (length - LENGTH) ** 2 / units.kB
        weight[step] = 1 + 2 * (length - LENGTH) / length
    bond = stretch.mean() / weight.mean()
    linear = (stretch - bond * weight) / weight.mean()
    return [
        (kinetic.mean(), time_series.block_error(kinetic[:, None])[0]),
        (bond, time_series.block_error(linear[:, None])[0]),
    ]


def started(name, atoms, protocol, *, calculator=None, seed=2):
    """An engine whose replicas are all at `atoms`, past their equilibration, and that they are alive."""
    engine = make_engine(name, calculator or Spring(), atoms.numbers, protocol, seed=seed)
    alive = np.ones(protocol.n_replicas, dtype=bool)
    engine.begin(np.tile(atoms.positions, (protocol.n_replicas, 1, 1)))
    engine.advance(protocol.equilibration_steps, alive)
    return engine, alive


def kinetic_temperatures(atoms, frames):
    """Kinetic temperatures, (n_frames, n_replicas) in K, the centre of mass at rest."""
    kinetic = [criteria_of(atoms).kinetic(frame.momenta) for frame in frames]
    return np.array(kinetic) * 2 / ((3 * len(atoms) - 3) * units.kB)


# -- thermostat


def test_langevin_has_the_right_kinetic_and_configurational_temperature():
    atoms = chain()
    atoms.calc = Spring()
    rng = np.random.default_rng(1)
    draw_momenta(atoms, 300, rng)
    dynamics = langevin(atoms, temperature_K=300, timestep_fs=0.5, friction_per_fs=0.05, rng=rng)
    start = atoms.get_center_of_mass()
    for mean, error in temperatures(dynamics, atoms, 20_000):
        assert error < 25
        assert abs(mean - 300) < 4 * error
    np.testing.assert_allclose(atoms.get_center_of_mass(), start, atol=1e-9)


@pytest.mark.parametrize("thermostat", ["langevin", "svr"])
def test_replicas_in_a_batch_have_the_right_kinetic_and_configurational_temperature(thermostat):
    atoms = chain()
    n_replicas, n_steps = 64, 2000
    protocol = Protocol("test", 300.0, 0.5, 0.05, n_steps, n_replicas, 1, 200, thermostat=thermostat)
    runner, alive = started("batched", atoms, protocol, calculator=Dimers(), seed=1)
    criteria = criteria_of(atoms)
    kinetic, lengths = np.empty((2, n_steps // 4, n_replicas))
    for record in range(n_steps // 4):
        frame = runner.advance(4, alive)
        kinetic[record] = criteria.kinetic(frame.momenta) * 2 / (3 * units.kB)
        lengths[record] = np.linalg.norm(frame.positions[:, 1] - frame.positions[:, 0], axis=1)
    stretch, weight = STIFFNESS * (lengths - LENGTH) ** 2 / units.kB, 1 + 2 * (lengths - LENGTH) / lengths
    bond = stretch.mean() / weight.mean()
    for mean, series in ((kinetic.mean(), kinetic), (bond, (stretch - bond * weight) / weight.mean())):
        error = max(time_series.block_error(series)[0], series.mean(axis=0).std() / np.sqrt(n_replicas))
        assert error < 25
        assert abs(mean - 300) < 4 * error
    np.testing.assert_allclose(
        frame.positions.mean(axis=1), np.tile(atoms.positions.mean(axis=0), (n_replicas, 1)), atol=1e-9
    )


def test_ases_velocity_rescaling_counts_the_modes_that_move():
    atoms = chain("OHCHO")
    protocol = Protocol("test", 300.0, 0.5, 0.05, 1500, 4, 1, 100, thermostat="svr")
    runner, alive = started("ase", atoms, protocol)
    kinetic = kinetic_temperatures(atoms, [runner.advance(5, alive) for _ in range(300)])
    error = time_series.block_error(kinetic)[0]
    assert error < 25 and abs(kinetic.mean() - 300) < 4 * error


def test_a_chain_of_thermostats_keeps_the_temperature_of_many_modes_and_its_conserved_energy():
    atoms = chain("OHCHO")
    protocol = Protocol("test", 300.0, 0.25, 0.05, 2000, 8, 1, 300, thermostat="nhc")
    runner, alive = started("batched", atoms, protocol)
    frames = [runner.advance(10, alive) for _ in range(150)]
    kinetic = kinetic_temperatures(atoms, frames)
    error = max(time_series.block_error(kinetic)[0], kinetic.mean(axis=0).std() / np.sqrt(8))
    assert error < 30 and abs(kinetic.mean() - 300) < 4 * error
    conserved = np.array([frame.conserved for frame in frames])
    total = conserved[:, 0].std()
    assert total < 0.02 * np.std([frame.potential[0] for frame in frames])


@pytest.mark.parametrize("thermostat", ["langevin", "svr", "none"])
def test_the_conserved_energy_falls_with_the_square_of_the_time_step(thermostat):
    def spread(timestep):
        protocol = Protocol("test", 300.0, timestep, 0.01, 400, 8, 1, 0, thermostat=thermostat)
        runner, alive = started("batched", chain("OHC"), protocol)
        conserved = np.array([runner.advance(1, alive).conserved for _ in range(round(200 / timestep))])
        return np.median(conserved.std(axis=0))

    assert spread(1.0) / spread(0.5) == pytest.approx(4, rel=0.3)


class Dimers:
    """Many harmonic dimers at once."""

    def predict(self, positions):
        bond = positions[:, 1] - positions[:, 0]
        length = np.linalg.norm(bond, axis=1)
        pull = STIFFNESS * ((length - LENGTH) / length)[:, None] * bond
        return Prediction(0.5 * STIFFNESS * (length - LENGTH) ** 2, np.stack([pull, -pull], axis=1))


def test_the_check_of_temperature_finds_ases_default_thermostat_too_hot():
    atoms = chain()
    atoms.calc = Spring()
    rng = np.random.default_rng(1)
    draw_momenta(atoms, 300, rng)
    with pytest.warns(FutureWarning, match="fixcm"):
        dynamics = Langevin(atoms, 0.5 * units.fs, temperature_K=300, friction=0.05 / units.fs, fixcm=True, rng=rng)
    atoms.set_constraint()
    _, (bond, error) = temperatures(dynamics, atoms, 6_000)
    assert bond - 300 > 4 * error
    assert bond == pytest.approx(600, abs=4 * error)


def test_first_momenta_are_thermal_and_leave_the_centre_of_mass_at_rest():
    atoms = chain("OHHCH" * 4)
    rng = np.random.default_rng(0)
    kinetic = []
    for _ in range(400):
        draw_momenta(atoms, 500, rng)
        np.testing.assert_allclose(atoms.get_momenta().sum(axis=0), 0, atol=1e-10)
        kinetic.append(2 * atoms.get_kinetic_energy() / ((3 * len(atoms) - 3) * units.kB))
    assert abs(np.mean(kinetic) - 500) < 4 * np.std(kinetic) / math.sqrt(len(kinetic))


def test_halving_the_time_step_cuts_the_fluctuation_of_the_energy_fourfold():
    def fluctuation(timestep_fs):
        atoms = chain()
        atoms.calc = Spring()
        draw_momenta(atoms, 300, np.random.default_rng(3))
        atoms.set_constraint()
        dynamics = VelocityVerlet(atoms, timestep_fs * units.fs)
        energies = []
        for _ in range(round(300 / timestep_fs)):
            dynamics.run(1)
            energies.append(atoms.get_total_energy())
        return np.std(energies)

    assert fluctuation(1.0) / fluctuation(0.5) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize(
    ("timestep", "numbers", "words"),
    [
        (0.0, None, "above 0 fs"),
        (math.nan, None, "above 0 fs"),
        (1.5, [1, 8], "at most 1 fs, a tenth"),
        (5.0, [6, 8], "at most 4 fs"),
        (5.0, None, "at most 4 fs"),
    ],
)
def test_time_steps_that_no_vibration_allows_are_refused(timestep, numbers, words):
    with pytest.raises(InputError, match=words):
        check_timestep(timestep, None if numbers is None else np.array(numbers))


def test_usual_time_steps_are_accepted():
    check_timestep(1.0, np.array([1, 6]))
    check_timestep(2.0, np.array([8, 6]))


@pytest.mark.parametrize("settings", [(0, 0.01), (-5, 0.01), (math.nan, 0.01), (1e6, 0.01), (300, 0), (300, 2)])
def test_thermostats_that_make_no_sense_are_refused(settings):
    with pytest.raises(InputError, match="must be above 0 and at most"):
        check_thermostat(temperature_K=settings[0], friction_per_fs=settings[1])


# -- protocols


def test_the_protocols_of_the_package_are_found_by_name():
    assert {"quick", "paper_300K", "paper_400K"} <= set(protocol_names())
    paper = load_protocol("paper_400K")
    assert (paper.name, paper.temperature_K, paper.timestep_fs) == ("paper_400K", 400, 0.5)
    assert paper.n_steps >= 4_000_000
    assert load_protocol("quick").n_replicas > 1 and load_protocol("quick").look_steps == [4000]
    assert load_protocol("auto").look_steps == [4000, 8000, 16_000, 32_000, 64_000, 128_000]
    assert load_protocol("auto").lasting(0.03).look_steps == [10, 30, 60]


GOOD = {
    "temperature_K": 300,
    "timestep_fs": 0.5,
    "friction_per_fs": 0.01,
    "n_steps": 100,
    "n_replicas": 2,
    "interval": 10,
}


def write_toml(path, **changes):
    content = {**GOOD, **changes}
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in content.items() if value is not None))
    return path


def test_a_protocol_is_read_from_a_file(tmp_path):
    protocol = load_protocol(write_toml(tmp_path / "mine.toml"))
    assert protocol == Protocol("mine", 300, 0.5, 0.01, 100, 2, 10)
    assert protocol.n_records == 11


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temprature_K": 300}, "did you mean temperature_K"),
        ({"xyz": 300}, "known are name, temperature_K"),
        ({"interval": None}, "expected interval"),
        ({"timestep_fs": 10}, "at most 4 fs"),
        ({"temperature_K": "hot"}, "temperature_K of a protocol must be a number"),
        ({"temperature_K": -1}, "temperature must be above 0"),
        ({"n_steps": 10.5}, "n_steps of a protocol must be an integer"),
        ({"n_replicas": 0}, "n_replicas of a protocol must be at least 1"),
        ({"interval": 1000}, "interval of a protocol must be at most its n_steps"),
    ],
)
def test_a_protocol_with_a_mistake_is_refused(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        load_protocol(write_toml(tmp_path / "bad.toml", **changes))


def test_a_protocol_that_is_not_there_or_no_toml_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"one of .*quick"):
        load_protocol("quik")
    with pytest.raises(InputError, match="found no file"):
        load_protocol(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("a = = 1")
    with pytest.raises(InputError, match="could not read it"):
        load_protocol(tmp_path / "broken.toml")


# -- runs


class Batch:
    """The same for many configurations at once, which alone is used."""

    def __init__(self, spring):
        self.spring = spring

    def predict(self, positions):
        one = Spring(self.spring.trouble, self.spring.after, stiffness=self.spring.stiffness)
        one.calls = self.spring.calls
        found = []
        for configuration in positions:
            atoms = chain("OHC")
            atoms.positions = configuration
            one.calls = self.spring.calls
            one.calculate(atoms)
            found.append((one.results["energy"], one.results["forces"]))
        self.spring.calls += 1
        energies, forces = zip(*found, strict=True)
        return Prediction(np.array(energies), np.array(forces))


def criteria_of(atoms, *, lowest=-0.1, highest=0.9):
    """What an old run folder knows: mean distances and the range of the energies."""
    known = KnownMolecule(atoms.numbers, lowest, highest, pair_distances(atoms.positions[None])[0])
    return Criteria.of_molecule(known, 300.0)


def run(folder, calculator=None, *, model="default", seed=0, engine="batched", resume=True, until=None, **changes):
    protocol = Protocol("test", **{**GOOD, "n_steps": 400, "n_replicas": 3, "equilibration_steps": 20, **changes})
    atoms = chain("OHC")
    starts = [atoms.copy() for _ in range(protocol.n_replicas)]
    for start in starts[1:2]:
        start.positions += [FAR, 0, 0]
    plan = Plan(model, starts, protocol, criteria_of(atoms), engine, seed)
    return run_md(calculator or Spring(), plan, folder, resume=resume, until=until)


SUMMARY_KEYS = {
    "model", "temperature_K", "timestep_fs", "n_steps", "n_replicas", "n_failed", "first_failure_ps", "reasons",
    "mean_total_energy", "standard_error", "drift", "drift_error", "stable", "engine", "equilibration_ps",
    "verdict", "why",
}  # fmt: skip

ENGINES = pytest.mark.parametrize("engine", ["batched", "ase"])


@ENGINES
def test_a_run_is_written_down(tmp_path, engine):
    summary = run(tmp_path / "default", engine=engine)
    assert summary == read_summary(tmp_path / "default" / "summary.json")
    assert set(json.loads((tmp_path / "default" / "summary.json").read_text())) >= SUMMARY_KEYS
    assert (summary.n_failed, summary.first_failure_ps, summary.reasons) == (0, None, ())
    # 0.2 ps may be too short for the drift to be known.
    assert summary.stable is {"stable": True, "cannot tell": None}[summary.verdict]
    assert any("the total energy drifts by" in why for why in summary.why)
    with np.load(tmp_path / "default" / "energies.npz") as energies:
        assert energies["time_ps"].shape == (41,)
        assert energies["time_ps"][-1] == pytest.approx(0.2)
        assert energies["potential"].shape == energies["kinetic"].shape == (41, 3)
        assert energies["temperature_K"] == 300
        total = energies["potential"] + energies["kinetic"] + 0.1
        assert summary.mean_total_energy == pytest.approx(total.mean() / KCAL_PER_MOL)
        # Replicas have noise and velocities of their own.
        assert len(set(energies["kinetic"][0])) == 3
        trajectory = read(tmp_path / "default" / "replica-02.traj", index=":")
        assert len(trajectory) == 41
        assert [frame.get_potential_energy() for frame in trajectory] == energies["potential"][:, 2].tolist()
        assert trajectory[7].get_kinetic_energy() == pytest.approx(energies["kinetic"][7, 2])
        assert not trajectory[7].constraints
    assert [path.name for path in tmp_path.iterdir()] == ["default"]


@ENGINES
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("explode", "are not finite|the bond|the temperature is"),
        ("part", "the bond"),
        ("nan", "are not finite"),
        ("raise", "the model failed: no convergence"),
    ],
)
def test_a_model_that_explodes_costs_its_replica_only(tmp_path, trouble, words, engine):
    summary = run(tmp_path / "default", Spring(trouble, 450), engine=engine)
    assert summary.n_failed == 1
    assert not summary.stable
    failure = summary.failures[0]
    assert failure.replica == 1
    assert 100 <= failure.step <= 250
    assert summary.first_failure_ps == failure.time_ps == pytest.approx(failure.step * 0.5e-3)
    assert any(word in failure.reason for word in words.split("|"))
    assert "replica 1 after" in summary.reasons[0]
    with np.load(tmp_path / "default" / "energies.npz") as energies:
        known = np.isfinite(energies["potential"] + energies["kinetic"])
    assert known[:, [0, 2]].all()
    assert known[:, 1].sum() == math.ceil(failure.step / 10)
    assert math.isfinite(summary.mean_total_energy)
    frames = read(tmp_path / "default" / "replica-01.traj", index=":")
    assert known[:, 1].sum() <= len(frames) <= known[:, 1].sum() + 1
    assert np.isfinite(frames[-1].positions).all()


@pytest.mark.parametrize("pause", [0, 0.02, 60])
def test_long_trajectories_are_thinned_but_for_what_leads_to_a_failure(tmp_path, monkeypatch, pause):
    run(tmp_path / "all", Spring("explode", 450))
    monkeypatch.setattr(saved_run, "MOST_FRAMES", 5)
    for module in (saved_run, recorder):
        monkeypatch.setattr(module, "N_BEFORE_FAILURE", 2)
    monkeypatch.setattr("ase_flatten.md.dynamics.CHECKPOINT_SECONDS", pause)
    run(tmp_path / "default", Spring("explode", 450))
    thin = saved_run.SavedRun(tmp_path / "default")
    n_physical = thin.n_physical[1]
    assert n_physical % 9 > 2  # so that what is near the failure is not there by chance
    before = [*range(0, n_physical, 9), n_physical - 2, n_physical - 1, n_physical]
    for replica, records in ((0, list(range(0, 41, 9))), (1, before)):
        name = f"replica-{replica:02d}.traj"
        full, kept = (read(folder / name, index=":") for folder in (tmp_path / "all", tmp_path / "default"))
        assert len(kept) == len(records)
        assert all(np.array_equal(frame.positions, full[k].positions) for frame, k in zip(kept, records, strict=True))
    assert [len(thin.frames(replica)) for replica in (0, 1)] == [5, math.ceil(n_physical / 9)]
    assert np.array_equal(thin.frames(1)[-1].positions, full[9 * ((n_physical - 1) // 9)].positions)


def test_a_run_of_which_nothing_is_left_still_has_a_summary(tmp_path):
    summary = run(tmp_path / "default", Spring(stiffness=np.nan), n_replicas=2)
    assert summary.n_failed == 2
    assert summary.first_failure_ps == 0
    assert [summary.mean_total_energy, summary.standard_error, summary.drift] == [None] * 3
    plot_total_energy(tmp_path)


def test_a_frozen_molecule_is_unphysical(tmp_path):
    summary = run(tmp_path / "default", n_replicas=1, temperature_K=0.01)
    assert "the temperature is" in summary.reasons[0]


def test_a_finished_run_is_not_run_again_and_others_are(tmp_path):
    spring = Spring()
    first = run(tmp_path / "default", spring, n_steps=100)
    calls = spring.calls
    assert run(tmp_path / "default", spring, n_steps=100) == first
    assert spring.calls == calls
    other = run(tmp_path / "default", spring, n_steps=100, seed=1)
    assert spring.calls == 2 * calls
    assert other.mean_total_energy != first.mean_total_energy
    (tmp_path / "default" / "summary.json").write_text("{")
    assert run(tmp_path / "default", spring, n_steps=100) == first


def same_energies(one, other):
    pairs = [(getattr(run.energies, name) for run in (one, other)) for name in vars(one.energies)]
    return all(np.array_equal(*pair, equal_nan=True) for pair in pairs)


@ENGINES
def test_a_run_goes_on_after_a_look_as_if_there_had_been_none(tmp_path, engine, monkeypatch):
    monkeypatch.setattr(saved_run, "MOST_FRAMES", 15)
    spring = Spring()
    looks = [run(tmp_path / "a" / "default", spring, engine=engine, until=step) for step in (100, 200, 400)]
    assert [summary.n_steps for summary in looks] == [100, 200, 400]
    calls = spring.calls
    run(tmp_path / "b" / "default", engine=engine)
    assert run(tmp_path / "a" / "default", spring, engine=engine, until=200) == looks[-1] and spring.calls == calls
    one, other = (saved_run.SavedRun(tmp_path / twin / "default") for twin in "ab")
    assert one.summary == other.summary
    assert same_energies(one, other)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["default"]
    # What is stopped at a look is the run of that length, apart from how many frames its trajectories keep.
    run(tmp_path / "c" / "default", engine=engine, until=200)
    run(tmp_path / "d" / "default", engine=engine, n_steps=200)
    early, short = (saved_run.SavedRun(tmp_path / twin / "default") for twin in "cd")
    assert same_energies(early, short)
    assert early.summary.verdict == short.summary.verdict and early.duration_ps == 0.1
    frames = early.frames(1)
    energies = early.energies.potential[: 10 * len(frames) : 3, 1]
    assert len(frames) == 7 and [atoms.get_potential_energy() for atoms in frames] == energies.tolist()
    discard_rest(early.folder)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["default"]


class Stopped(Spring):
    """Ends the process at a number of calls, as far as a test can."""

    def calculate(self, *given):
        super().calculate(*given)
        if self.calls == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("engine", "thermostat"),
    [("batched", "langevin"), ("batched", "svr"), ("batched", "nhc"), ("batched", "none"), ("ase", "langevin")],
)
@pytest.mark.parametrize("after", [30, 400, 900])
def test_a_stopped_run_ends_as_an_unbroken_one(tmp_path, engine, thermostat, after, monkeypatch):
    monkeypatch.setattr("ase_flatten.md.dynamics.CHECKPOINT_SECONDS", 0)
    settings = {"engine": engine, "thermostat": thermostat}
    run(tmp_path / "a" / "default", **settings)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b" / "default", Stopped(after=after), **settings)
    assert not (tmp_path / "b" / "default").exists()
    spring = Spring()
    run(tmp_path / "b" / "default", spring, **settings)
    assert after < 100 or spring.calls < 1260  # it did not begin anew
    for name in ("energies.npz", "summary.json", "replica-01.traj"):
        one, other = (tmp_path / twin / "default" / name for twin in "ab")
        if name.endswith("npz"):
            with np.load(one) as arrays, np.load(other) as others:
                assert all(np.array_equal(arrays[key], others[key], equal_nan=True) for key in arrays)
        elif name.endswith("json"):
            assert one.read_bytes() == other.read_bytes()
        else:
            frames = [read(path, index=":") for path in (one, other)]
            assert [atoms.positions.tolist() for atoms in frames[0]] == [
                atoms.positions.tolist() for atoms in frames[1]
            ]
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["default"]


def test_an_unfinished_run_of_other_settings_or_unwanted_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("ase_flatten.md.dynamics.CHECKPOINT_SECONDS", 0)
    for changes, anew in (({}, False), ({"seed": 1}, True), ({"resume": False}, True)):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "default", Stopped(after=900))
        spring = Spring()
        run(tmp_path / "default", spring, **changes)
        assert (spring.calls > 1200) == anew
        shutil.rmtree(tmp_path / "default")


@ENGINES
def test_a_run_begins_with_given_momenta(engine):
    atoms, protocol = chain("OHC"), Protocol("test", **GOOD)
    momenta = np.arange(18.0).reshape(2, 3, 3)
    frame = make_engine(engine, Spring(), atoms.numbers, protocol, seed=0).begin(
        np.array([atoms.positions] * 2), momenta
    )
    assert np.array_equal(frame.momenta, momenta)


def test_replicas_do_not_depend_on_the_fate_of_others(tmp_path):
    run(tmp_path / "default")
    run(tmp_path / "other", Batch(Spring("explode", 150)))
    energies = []
    for name in ("default", "other"):
        with np.load(tmp_path / name / "energies.npz") as arrays:
            energies.append(arrays["potential"])
    assert np.isnan(energies[1][-1, 1])
    np.testing.assert_allclose(energies[0][:, [0, 2]], energies[1][:, [0, 2]], rtol=1e-9, atol=1e-12)


def test_starts_that_do_not_fit_are_refused():
    protocol = Protocol("test", **GOOD)
    atoms = chain()
    criteria = criteria_of(atoms)
    with pytest.raises(InputError, match="a start for each of 2 replicas, found 1"):
        Plan("default", [atoms], protocol, criteria)
    periodic = chain()
    periodic.pbc = True
    with pytest.raises(InputError, match="without a cell"):
        Plan("default", [atoms, periodic], protocol, criteria)
    with pytest.raises(InputError, match="with hydrogen"):
        Plan("default", [atoms] * 2, Protocol("test", **{**GOOD, "timestep_fs": 2}), criteria)


def test_public_names_of_the_package():
    assert {"run_md", "Protocol", "verdict"} <= set(dir(md))
    assert all(getattr(md, name) for name in dir(md))
    with pytest.raises(AttributeError):
        md.nothing  # noqa: B018


# -- analysis


def ar1(n, n_replicas, memory, seed):
    """AR(1) series of unit variance, (n, n_replicas), and the true standard error of its mean over all."""
    noise = np.random.default_rng(seed).standard_normal((n + 1000, n_replicas))
    series = lfilter([math.sqrt(1 - memory**2)], [1, -memory], noise, axis=0)[1000:]
    return series, math.sqrt((1 + memory) / (1 - memory) / (n * n_replicas))


@pytest.mark.parametrize("memory", [0.0, 0.9, 0.98])
def test_the_block_error_of_a_correlated_series_is_right(memory):
    found = []
    for seed in range(5):
        series, true = ar1(8000, 4, memory, seed)
        found.append(time_series.block_error(series)[0])
        assert found[-1] == pytest.approx(true, rel=0.3)
    assert np.mean(found) == pytest.approx(true, rel=0.15)


def test_block_errors_of_next_to_nothing():
    assert math.isnan(time_series.block_error(np.zeros((1, 1)))[0])
    assert time_series.block_error(np.ones((100, 2)))[0] == 0
    assert time_series.block_error(np.array([[0.0], [2.0]]))[0] == pytest.approx(1)
    assert all(math.isnan(value) for value in time_series.drift(np.arange(3.0), np.ones((3, 1))))


@pytest.mark.parametrize("n_replicas", [1, 4])
def test_a_drift_is_found_when_planted_and_not_when_absent(n_replicas):
    time = np.arange(4000) * 0.005
    misses = 0
    for seed in range(20):
        series, _ = ar1(4000, n_replicas, 0.9, seed)
        slope, error = time_series.drift(time, series)
        misses += abs(slope) > 3 * error
        planted = 0.1
        slope, error = time_series.drift(time, series + planted * time[:, None])
        assert abs(slope - planted) < 5 * error
        assert slope > 3 * error
    assert misses <= 1


def test_the_running_average_skips_replicas_that_are_lost():
    series = np.array([[1.0, 3.0], [2.0, np.nan], [6.0, np.nan]])
    np.testing.assert_allclose(time_series.running_average(series), [2, 2, 3])
    series, true = ar1(8000, 4, 0.9, 0)
    assert time_series.running_error(series)[-1] == pytest.approx(true, rel=0.3)
    assert time_series.running_error(series)[400] > 2 * true
    assert np.isnan(time_series.running_average(np.full((3, 1), np.nan))).all()


# -- words and figure


def summary(model="default", **changes):
    content = {
        "model": model, "temperature_K": 400.0, "timestep_fs": 0.5, "n_steps": 4000, "n_replicas": 4, "n_failed": 0,
        "first_failure_ps": None, "reasons": (), "mean_total_energy": 20.0, "standard_error": 0.3, "drift": 0.0,
        "drift_error": 0.1, "verdict": "stable", "why": ("0 of 4 replicas failed",),
    }  # fmt: skip
    stable = {"stable": True, "unstable": False}.get({**content, **changes}["verdict"])
    return Summary(**{**content, "stable": stable, **changes})


def test_the_verdict_says_which_model_is_stable():
    failed = {"n_failed": 2, "first_failure_ps": 1.25, "reasons": ("replica 1 after 1.250 ps: the bond C3-H9 is 2 Å",)}
    lost = ("2 of 4 replicas failed",)
    words = verdict([summary(verdict="unstable", why=lost, **failed), summary("improved")])
    assert words == (
        "At 400 K improved is stable; default is unstable. "
        "default: 2 of 4 replicas failed; the first failed after 1.25 ps (the bond C3-H9 is 2 Å). "
        "improved: 0 of 4 replicas failed."
    )
    both = verdict([summary(mean_total_energy=20.2), summary("improved"), summary("improved", temperature_K=300.0)])
    assert both.startswith("At 300 K improved is stable. improved: ")
    assert "At 400 K default and improved are both stable. default: " in both
    assert both.endswith(
        "The mean total energies of default and improved differ by 0.20 ± 0.42 kcal/mol, within two standard errors."
    )
    three = verdict([summary("reference"), summary(standard_error=None), summary("improved")])
    assert "reference, default and improved are all stable" in three and "mean total" not in three
    unsure = verdict(
        [summary(verdict="cannot tell", why=("the run is short",)), summary("improved", verdict="cannot tell")]
    )
    assert unsure.startswith("At 400 K the run cannot tell whether default and improved are stable. default: the run")
    sunk = summary("improved", verdict="unstable", why=("its mean is 28 ± 3 kcal/mol below",))
    assert "At 400 K default is stable; improved is unstable. improved: its mean is 28 ± 3 kcal/mol below." in verdict(
        [summary(), sunk]
    )


def test_the_figure_is_drawn(tmp_path):
    run(tmp_path / "improved", n_steps=200, model="improved")
    run(tmp_path / "default", Spring("explode", 300), n_steps=200)
    run(tmp_path / "mine", n_steps=200, model="mine", n_replicas=1)
    paths = plot_total_energy(tmp_path)
    assert [path.name for path in paths] == ["total_energy.png", "total_energy.pdf"]
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    assert all(path.stat().st_size > 5000 for path in paths)
    with pytest.raises(InputError, match="found none"):
        plot_total_energy(tmp_path / "default")


def test_the_toml_files_are_those_at_the_top_of_the_checkout():
    top = Path(__file__).parents[2] / "md"
    assert {path.stem for path in top.glob("*.toml")} == set(protocol_names())
