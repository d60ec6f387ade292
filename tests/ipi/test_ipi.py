"""The engine ipi, the socket driver and the driver for i-PI's own client, with a real `i-pi`."""

import math
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase import Atoms, units
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.calculators.morse import MorsePotential
from ase.data import atomic_masses
from conftest import ipi_of

from ase_flatten.data.known_molecule import KnownMolecule
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.ipi.model import load_answer
from ase_flatten.ipi.socket_protocol import connect, serve, unix_address
from ase_flatten.md import Protocol, run_md
from ase_flatten.md.analysis.time_series import block_error
from ase_flatten.md.criteria import Criteria
from ase_flatten.md.dynamics import Plan
from ase_flatten.md.engines import make_engine
from ase_flatten.md.engines.ipi_process import ipi_command
from ase_flatten.models import Prediction
from ase_flatten.utils.exceptions import BackendError, InputError

needs_ipi = pytest.mark.usefixtures("ipi")

STIFFNESS, LENGTH = 5.0, 1.0

FOLDERS = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
RUN_FOR_EVER = f"import sys; sys.path[:0] = {FOLDERS}; import test_ipi; test_ipi.run_for_ever()"


class Spring(Calculator):
    """A harmonic bond between each atom and the next; trouble beyond a length of the first one."""

    implemented_properties = ("energy", "forces")

    def __init__(self, trouble=None, beyond=np.inf):
        super().__init__()
        self.trouble, self.beyond = trouble, beyond

    def predict(self, positions):
        bonds = np.diff(positions, axis=1)
        lengths = np.linalg.norm(bonds, axis=2)
        pull = STIFFNESS * ((lengths - LENGTH) / lengths)[..., None] * bonds
        forces = np.zeros_like(positions)
        forces[:, :-1] += pull
        forces[:, 1:] -= pull
        if lengths[:, 0].max() > self.beyond:
            if self.trouble == "raise":
                raise CalculationFailed("no convergence")
            forces *= {"nan": np.nan, "explode": -1e6}[self.trouble]
        return Prediction(0.5 * STIFFNESS * np.sum((lengths - LENGTH) ** 2, axis=1), forces)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        prediction = self.predict(self.atoms.positions[None])
        self.results = {"energy": prediction.energies[0], "forces": prediction.forces[0]}


def chain(symbols):
    atoms = Atoms(symbols)
    atoms.positions[:, 0] = LENGTH * np.arange(len(atoms))
    return atoms


def protocol(**changes):
    settings = {
        "temperature_K": 300, "timestep_fs": 0.5, "friction_per_fs": 0.02, "n_steps": 400, "n_replicas": 2,
        "interval": 10,
    }  # fmt: skip
    return Protocol("test", **{**settings, **changes})


@pytest.fixture
def made():
    """Make engines, and end them."""
    engines = []

    def make(symbols="OHC", calculator=None, *, name="ipi", seed=1, **changes):
        atoms, settings = chain(symbols), protocol(**changes)
        engine = make_engine(name, calculator or Spring(), atoms.numbers, settings, seed=seed)
        engines.append(engine)
        return engine, np.array([atoms.positions] * settings.n_replicas), np.ones(settings.n_replicas, dtype=bool)

    yield make
    for engine in engines:
        engine.close()


def children():
    """The processes that this one has started, but for a resource tracker's."""
    return [child for child in psutil.Process().children() if "i-pi" in " ".join(child.cmdline())]


def folders():
    """The folders in which i-PI runs."""
    return {path for base in ("/dev/shm", tempfile.gettempdir()) for path in Path(base).glob("flatten-*")}


# -- engine


@needs_ipi
@pytest.mark.parametrize("thermostat", ["langevin", "svr", "none"])
def test_frames_are_those_of_i_pi_with_all_digits(made, thermostat):
    engine, starts, alive = made(thermostat=thermostat, equilibration_steps=25)
    first = engine.begin(starts)
    np.testing.assert_allclose(first.positions, starts, atol=1e-14)
    assert first.step == -25 and len(set(first.momenta.ravel())) == first.momenta.size
    masses = atomic_masses[chain("OHC").numbers]
    frames = [engine.advance(n_steps, alive) for n_steps in (5, 10, 10, 10, 10)]
    assert [frame.step for frame in frames] == [-20, -10, 0, 10, 20]
    for frame in [first, *frames]:
        np.testing.assert_allclose(frame.momenta.sum(axis=1), 0, atol=1e-10)
        for replica, configuration in enumerate(frame.positions):
            atoms = Atoms("OHC", configuration, calculator=Spring())
            np.testing.assert_allclose(frame.forces[replica], atoms.get_forces(), rtol=0, atol=1e-10)
            assert frame.potential[replica] == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    kinetic = 0.5 * np.einsum("rax,rax,a->r", frame.momenta, frame.momenta, 1 / masses)
    np.testing.assert_allclose(engine._process.frame()[0].kinetic, kinetic, rtol=1e-12)
    if thermostat == "none":
        np.testing.assert_allclose(frame.conserved, frame.potential + kinetic, rtol=1e-12)
    assert np.ptp([frame.conserved for frame in frames[2:]], axis=0).max() < 0.002


@needs_ipi
def test_the_sampling_is_canonical_and_that_of_the_other_engines(made):
    """Temperatures of a harmonic dimer, kinetic and of its bond (see test_md), and mean energies by engine."""
    means, errors = {}, {}
    settings = {"timestep_fs": 1.0, "friction_per_fs": 0.05, "interval": 5, "n_replicas": 4, "equilibration_steps": 200}
    for name, n_frames in (("ipi", 350), ("batched", 1000), ("ase", 350)):
        engine, starts, alive = made("H2", name=name, **settings)
        frame = engine.begin(starts)
        while frame.step < 0:
            frame = engine.advance(5, alive)
        potential, kinetic, length = np.empty((3, n_frames, 4))
        for row in range(n_frames):
            frame = engine.advance(5, alive)
            potential[row] = frame.potential
            kinetic[row] = np.sum(frame.momenta**2, axis=(1, 2)) / atomic_masses[1] / (3 * units.kB)
            length[row] = np.linalg.norm(frame.positions[:, 1] - frame.positions[:, 0], axis=1)
        stretch = STIFFNESS * (length - LENGTH) ** 2 / units.kB
        weight = 1 + 2 * (length - LENGTH) / length
        bond = stretch.mean() / weight.mean()
        assert abs(kinetic.mean() - 300) < 4 * block_error(kinetic)[0] < 160
        assert abs(bond - 300) < 4 * block_error((stretch - bond * weight) / weight.mean())[0] < 160
        means[name], errors[name] = potential.mean(), block_error(potential)[0]
    for name in ("batched", "ase"):
        assert abs(means["ipi"] - means[name]) < 4 * np.hypot(errors["ipi"], errors[name])


@needs_ipi
@pytest.mark.parametrize("thermostat", ["langevin", "svr"])
def test_a_run_goes_on_from_its_state(made, tmp_path, thermostat):
    engine, starts, alive = made(thermostat=thermostat, equilibration_steps=20)
    engine.begin(starts)
    engine.advance(20, alive)
    engine.advance(30, alive)
    np.savez(tmp_path / "state.npz", **engine.state())
    unbroken = engine.advance(20, alive)
    other, *_ = made(thermostat=thermostat, equilibration_steps=20, seed=2)
    with np.load(tmp_path / "state.npz") as state:
        other.resume(state)
    resumed = other.advance(20, alive)
    assert unbroken.step == resumed.step == 50
    for name in ("positions", "momenta", "potential", "conserved"):
        np.testing.assert_allclose(getattr(resumed, name), getattr(unbroken, name), atol=1e-9)


@needs_ipi
def test_a_seed_gives_the_same_run_again_and_another_seed_another(made):
    def positions(seed):
        engine, starts, alive = made(seed=seed)
        engine.begin(starts)
        return engine.advance(10, alive).positions

    first = positions(1)
    assert np.array_equal(first, positions(1))
    assert not np.allclose(first, positions(2))


@needs_ipi
@pytest.mark.parametrize(
    ("trouble", "words", "changes"),
    [
        ("raise", "the model failed: no convergence", {}),
        ("nan", "not finite", {}),
        ("explode", "", {"equilibration_steps": 200, "thermostat": "none", "interval": 20}),
    ],
)
def test_a_model_that_fails_costs_its_replica_only(tmp_path, trouble, words, changes):
    atoms = chain("OHC")
    stretched = atoms.copy()
    stretched.positions[0, 0] -= 0.3
    known = KnownMolecule(atoms.numbers, 0.0, 5.0, pair_distances(atoms.positions[None])[0])
    before = folders()
    plan = Plan(
        "default", [atoms, stretched, atoms], protocol(n_replicas=3, n_steps=60, **changes),
        Criteria.of_molecule(known, 300.0), "ipi",
    )  # fmt: skip
    summary = run_md(Spring(trouble, 1.29), plan, tmp_path / "default")
    assert (summary.n_failed, summary.failures[0].replica) == (1, 1)
    assert words in summary.failures[0].reason
    with np.load(tmp_path / "default" / "energies.npz") as energies:
        assert np.isfinite(energies["conserved"][:, [0, 2]]).all()
    assert not children()
    assert folders() <= before


@needs_ipi
def test_an_i_pi_that_dies_is_told_with_its_last_words(made):
    engine, starts, alive = made()
    engine.begin(starts)
    children()[-1].kill()
    with pytest.raises(BackendError, match=r"found that it ended with status -9 \(the end of its log: .*@"):
        for _ in range(3):
            engine.advance(10, alive)


@needs_ipi
def test_a_mistake_of_the_calculator_ends_the_run(made):
    engine, starts, _ = made(calculator=Spring("a typing error", 0.0))
    with pytest.raises(KeyError, match="a typing error"):
        engine.begin(starts)
    assert not children()


@needs_ipi
def test_i_pi_ends_when_its_harness_is_killed_before_it_is_attached():
    harness = subprocess.Popen([sys.executable, "-c", RUN_FOR_EVER], stdout=subprocess.DEVNULL)
    try:
        inner, folder = ipi_of(harness.pid)
    finally:
        harness.terminate()
        harness.wait()
    _, alive = psutil.wait_procs([inner], timeout=20)
    assert not alive and not folder.exists()


@needs_ipi
def test_i_pi_ends_when_its_harness_is_killed(tmp_path):
    harness = subprocess.Popen([sys.executable, "-c", RUN_FOR_EVER], stdout=subprocess.PIPE, text=True)
    try:
        folder = Path(harness.stdout.readline().strip())
        inner = psutil.Process(harness.pid).children()
        assert folder.is_dir() and len(inner) == 1
        harness.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(inner, timeout=20)
        assert not alive and not folder.exists()
    finally:
        harness.kill()
        harness.communicate()


def run_for_ever():
    """Begin a run, say where, and wait for the end."""
    atoms = chain("H2")
    engine = make_engine("ipi", Spring(), atoms.numbers, protocol(), seed=0)
    engine.begin(np.array([atoms.positions] * 2))
    sys.stdout.write(f"{engine._process._folder}\n")
    sys.stdout.flush()
    time.sleep(60)


def test_what_i_pi_has_not_is_refused(made, monkeypatch):
    with pytest.raises(InputError, match="got nhc; choose one of these, or --engine batched"):
        made(thermostat="nhc")
    monkeypatch.setattr("ase_flatten.md.engines.ipi_process.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install '\.\[md\]'"):
        made()


# -- protocol


def words(text):
    return text.ljust(12).encode()


def ints(*numbers):
    return np.array(numbers, np.int32).tobytes()


def positions_of(*frames, batched):
    cells = bytes(2 * 72 * len(frames))
    count = ints(frames[0].shape[0])
    return words("POSDATA") + (count + cells if batched else cells + count) + b"".join(f.tobytes() for f in frames)


def conversation(content, *, n_atoms=2, answer=None):
    """What the driver says to a server that says `content` and leaves, and what it gives."""
    here, there = socket.socketpair()
    with here, there:
        here.sendall(content)
        here.shutdown(socket.SHUT_WR)
        result = serve(there, answer or (lambda x: (x.sum(axis=(1, 2)), 2 * x)), n_atoms)
        there.close()
        return result, b"".join(iter(lambda: here.recv(65536), b""))


def test_the_protocol_is_spoken():
    frame = np.arange(6.0).reshape(2, 3)
    init = words("INIT") + ints(0, 1) + b" "
    result, said = conversation(
        words("STATUS") + init + words("STATUS") + positions_of(frame, batched=False) + words("STATUS")
        + words("GETFORCE") + words("STATUS") + words("EXIT")
    )  # fmt: skip
    assert result is True
    head = words("NEEDINIT") + words("READY") + words("HAVEDATA") + words("FORCEREADY")
    assert said.startswith(head) and said.endswith(ints(0) + words("READY"))
    body = said[len(head) :]
    assert len(body) == 8 + 4 + 48 + 72 + 4 + 12
    assert np.frombuffer(body[:8])[0] == pytest.approx(15 * units.Bohr / units.Hartree)
    assert np.frombuffer(body[8:12], np.int32)[0] == 2
    np.testing.assert_allclose(np.frombuffer(body[12:60]), 2 * frame.ravel() * units.Bohr**2 / units.Hartree)
    assert not any(body[60:136])


def test_batches_are_one_call_of_the_model():
    frames, calls = [np.full((2, 3), float(i)) for i in range(3)], []

    def answer(positions):
        calls.append(positions.shape)
        return positions.sum(axis=(1, 2)), positions

    init = words("INIT") + ints(0, 14) + b" batch_size: 3"
    _, said = conversation(init + positions_of(*frames, batched=True) + words("GETFORCE"), answer=answer)
    assert calls == [(3, 2, 3)]
    assert len(said) == 12 + 3 * 8 + 4 + 3 * 48 + 3 * 72 + 3 * 4
    np.testing.assert_allclose(np.frombuffer(said[12:36]), np.arange(3) * 6 * units.Bohr / units.Hartree)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GET / HTTP/1.1\r\n", "expected a message of i-PI's protocol, found b'GET / HTTP/1'"),
        (words("GETFORCE"), "found b'GETFORCE'"),
        (words("INIT") + ints(0, 2**31 - 1), "at most 65536 bytes, found 2147483647"),
        (words("INIT") + ints(0, -1), "found -1"),
        (words("INIT") + ints(0, 22) + b"a:1, batch_size:999999", "batch size from 1 to 4096, found '999999'"),
        (words("INIT") + ints(0, 6011) + b"batch_size:" + b"9" * 6000, r"from 1 to 4096, found '9{29}\.\.\.; lower it"),
        (words("POSDATA") + bytes(144) + ints(2**31 - 1), "expected 2 atoms, as the model has, found 2147483647"),
        (words("POSDATA") + bytes(100), "expected the rest of a message"),
    ],
)
def test_messages_of_another_kind_are_refused(content, message):
    with pytest.raises(InputError, match=message):
        conversation(content)


def test_a_server_that_leaves_is_noticed():
    assert conversation(b"") == (False, b"")
    assert conversation(b"STAT") == (False, b"")


def test_a_server_that_never_comes_is_waited_for_as_long_as_stated(tmp_path):
    start = time.monotonic()
    with pytest.raises(InputError, match=r"found no server for 0.2 s \(No such file"):
        connect(unix_address("nobody", f"{tmp_path}/"), wait_s=0.2)
    assert time.monotonic() - start < 2
    for seconds in (math.nan, math.inf, -1):
        with pytest.raises(InputError, match="the time to wait for i-PI must be 0 s or longer"):
            connect(("127.0.0.1", 1), wait_s=seconds)
    with pytest.raises(InputError, match="no such address"):
        connect(("127.0.0.1", 99999), wait_s=0.1)
    with pytest.raises(InputError, match="choose a shorter one"):
        unix_address("x" * 200)


# -- drivers


def driver(*arguments):
    return [sys.executable, "-m", "ase_flatten.ipi", "ase:ase.calculators.morse:MorsePotential", *arguments]


def write_input(folder):
    """Copy what a user copies."""
    content = (files("ase_flatten.md") / "protocols" / "ipi.xml").read_text()
    content = content.replace("> 4000 <", "> 20 <").replace("<simulation", f"<simulation sockets_prefix='{folder}/'")
    (folder / "ipi.xml").write_text(content)
    Atoms("H2", [[0, 0, 0], [1.1, 0, 0]]).write(folder / "start.xyz", format="xyz")


def last_frame(path):
    return np.frombuffer(path.read_bytes()[80:128]).reshape(2, 3), np.frombuffer(
        path.read_bytes()[path.stat().st_size // 3 * 2 + 80 :][:48]
    ).reshape(2, 3)


@needs_ipi
@pytest.mark.parametrize("kind", ["ours", "theirs", "two of ours"])
def test_the_template_runs_as_it_stands_with_either_driver(tmp_path, kind):
    write_input(tmp_path)
    server = subprocess.Popen(
        [*ipi_command(), "ipi.xml"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        ours = driver("--unix", "flatten", "--sockets-prefix", f"{tmp_path}/", "--structure", f"{tmp_path}/start.xyz")
        pes = subprocess.check_output([sys.executable, "-m", "ase_flatten.ipi", "--pes"], text=True).strip()
        theirs = [
            sys.executable, str(Path(ipi_command()[1]).with_name("i-pi-driver-py")), "-u", "-a", "flatten",
            "-S", f"{tmp_path}/", "-m", "custom", "-P", pes, "-o",
            f"model=ase:ase.calculators.morse:MorsePotential,structure={tmp_path}/start.xyz",
        ]  # fmt: skip
        while not (tmp_path / "flatten").is_socket():
            assert server.poll() is None
            time.sleep(0.02)
        commands = {"ours": [ours], "theirs": [theirs], "two of ours": [ours, ours]}[kind]
        clients = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for command in commands
        ]
        said = [client.communicate(timeout=60)[0] for client in clients]
        log, _ = server.communicate(timeout=20)
    finally:
        server.kill()
        server.communicate()
    assert [client.returncode for client in clients] == [0] * len(clients), said
    assert "Exiting cleanly" in log
    if kind == "ours":
        assert "assumes that the atoms of i-PI are H H" in said[0] and "i-PI has ended" in said[0]
    for positions, forces in zip(
        last_frame(tmp_path / "replica-00_md.positions_0.bin"), last_frame(tmp_path / "replica-00_md.forces_0.bin")
    ):
        atoms = Atoms("H2", positions * units.Bohr, calculator=MorsePotential())
        np.testing.assert_allclose(forces * units.Hartree / units.Bohr, atoms.get_forces(), rtol=0, atol=1e-10)


def test_mistakes_are_told_in_one_sentence(tmp_path):
    Atoms("H2", [[0, 0, 0], [1.1, 0, 0]]).write(tmp_path / "start.xyz")

    def said(*arguments):
        done = subprocess.run([*driver(*arguments)], capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    code, text = said("--unix", "nobody", "--wait", "0.1")
    assert code == 2 and "name them with --structure" in text
    structure = ("--structure", str(tmp_path / "start.xyz"))
    code, text = said("--unix", "nobody", "--wait", "0.1", "-q", *structure)
    assert code == 2 and text.count("\n") == 1 and "start i-pi" in text
    with socket.create_server(("127.0.0.1", 0)) as server:
        visits = [b"HELLO, WORLD", b""]

        def receive():
            for visit in visits:
                visitor, _ = server.accept()
                with visitor:
                    visitor.sendall(visit)

        thread = threading.Thread(target=receive)
        thread.start()
        port = str(server.getsockname()[1])
        code, text = said("--port", port, *structure)
        assert code == 2 and "found b'HELLO, WORLD'" in text
        code, text = said("--port", port, "-q", *structure)
        assert code == 1 and "found it disconnected" in text
        thread.join()
        visits = [words("EXIT"), b"", words("NONSENSE")]
        thread = threading.Thread(target=receive)
        thread.start()
        code, text = said("--port", port, "--reconnect", *structure)
        assert code == 2 and "i-PI has ended" in text and "disconnected without EXIT" in text and "NONSENSE" in text
        thread.join()
        code, text = said("--port", port, "--wait", "0.2", *structure)
        assert code == 2 and "found its server silent for 0.2 s" in text


def test_models_answer_and_say_what_they_cannot(finished_run, tmp_path):
    answer, numbers = load_answer(str(finished_run.folder))
    assert numbers.tolist() == [8, 1, 1]
    positions = finished_run.reference.positions[:2]
    energies, forces = answer(positions)
    assert energies.shape == (2,) and forces.shape == (2, 3, 3)
    with pytest.raises(BackendError, match="expected finite energies and forces"):
        answer(np.full((1, 3, 3), np.nan))
    Atoms("HOH", np.eye(3)).write(tmp_path / "wrong.xyz")
    with pytest.raises(InputError, match="reorder the atoms"):
        load_answer(str(finished_run.folder), tmp_path / "wrong.xyz")
    with pytest.raises(InputError, match="could not read"):
        load_answer("tblite:GFN2-xTB", tmp_path / "none.xyz")


@needs_ipi
def test_the_driver_for_i_pis_client_counts_the_atoms(finished_run):
    from ipi.pes import load_pes, scan_pes_file

    from ase_flatten.ipi import pes

    assert scan_pes_file(pes.__file__) == ("FlattenDriver", "ase_flatten")
    made = load_pes("custom", pes.__file__)(str(finished_run.folder))
    positions = finished_run.reference.positions[:2] / units.Bohr
    one, (_, two) = made(np.eye(3), positions[0]), made([np.eye(3)] * 2, list(positions))
    np.testing.assert_allclose(one[1], made([np.eye(3)] * 2, list(positions))[0][1], atol=1e-12)
    assert two[0] != one[0] and not one[2].any() and one[3] == ""
    with pytest.raises(InputError, match="expected 3 atoms, as the model has, found 6"):
        made(np.eye(3), np.vstack([positions[0]] * 2))
