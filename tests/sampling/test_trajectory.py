"""Walks: the same dynamics by ASE and by a real `i-pi`, thermal, and with the calculator's labels."""

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.data import atomic_masses
from test_sample import Springs

from ase_flatten.md.analysis.time_series import block_error
from ase_flatten.md.integrators.langevin import thermal_momenta
from ase_flatten.md.protocol import Protocol
from ase_flatten.sampling.partial_run import State
from ase_flatten.sampling.trajectory import SAMPLING_ENGINES

NUMBERS = molecule("H2O").numbers


def start(rng):
    momenta = thermal_momenta(NUMBERS, 300.0, [rng])[0]
    return State(0, molecule("H2O").positions, momenta, dict(rng.bit_generator.state))


def run_dynamics(engine, state, n_steps, *, interval=1, timestep_fs=0.5, friction_per_fs=0.05):
    protocol = Protocol("test", 300.0, timestep_fs, friction_per_fs, n_steps, 1, interval)
    return list(SAMPLING_ENGINES[engine](Springs(), NUMBERS, state, protocol))


@pytest.mark.usefixtures("ipi")
def test_without_friction_i_pi_and_ase_walk_the_same_way(rng):
    state = start(rng)
    (by_ase, _), (by_ipi, _) = (
        run_dynamics(engine, state, 40, interval=20, friction_per_fs=1e-15)[-1] for engine in ("ase", "ipi")
    )
    assert by_ase.step == by_ipi.step == 40
    assert abs(by_ipi.positions - molecule("H2O").positions).max() > 0.05
    np.testing.assert_allclose(by_ipi.positions, by_ase.positions, atol=1e-6)
    np.testing.assert_allclose(by_ipi.momenta, by_ase.momenta, atol=1e-5)


def test_steps_are_labelled_by_the_calculator_and_follow_from_the_state_alone(rng, sampling_engine):
    first = start(rng)
    steps = run_dynamics(sampling_engine, first, 12, interval=4)
    assert [state.step for state, _ in steps][-1] == 12
    again = run_dynamics(sampling_engine, first, 12, interval=4)[-1][0]
    assert np.array_equal(again.positions, steps[-1][0].positions)
    assert again.generator == steps[-1][0].generator != first.generator
    for state, atoms in steps if sampling_engine == "ipi" else steps[-1:]:
        twin = molecule("H2O")
        twin.positions, twin.calc = state.positions, Springs()
        np.testing.assert_allclose(atoms.get_forces(apply_constraint=False), twin.get_forces(), rtol=0, atol=1e-10)
        assert atoms.get_potential_energy() == pytest.approx(twin.get_potential_energy(), abs=1e-10)


def test_pieces_that_follow_one_another_have_the_thermostats_temperature(rng, sampling_engine):
    state, kinetic = start(rng), []
    for _ in range(4):
        steps = run_dynamics(sampling_engine, state, 500, interval=5, timestep_fs=1.0)
        state = steps[-1][0]
        momenta = np.array([state.momenta for state, _ in steps if state.step % 5 == 0])
        kinetic.append(np.sum(momenta**2 / atomic_masses[NUMBERS][:, None], axis=(1, 2)))
    temperatures = np.concatenate(kinetic)[:, None] / (6 * units.kB)
    assert abs(temperatures.mean() - 300) < 4 * block_error(temperatures)[0] < 160
