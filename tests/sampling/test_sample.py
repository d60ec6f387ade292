"""Sampling: what is refused, what is written, and that an interrupted run goes on to the same result."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import psutil
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.io import write
from conftest import ipi_of, remove_private
from threadpoolctl import threadpool_info, threadpool_limits

from ase_flatten.calculators import load_calculator
from ase_flatten.data.io import read_dataset
from ase_flatten.md.integrators.langevin import LONGEST_TIMESTEP_FS
from ase_flatten.sampling import sample as sampling
from ase_flatten.sampling.sample import SampleSettings, read_structure, sample
from ase_flatten.utils.exceptions import BackendError, InputError

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
SETTINGS = {"temperature_K": 400, "frames": 30, "stride": 4, "equilibration_ps": 0.02, "seed": 5}


class Springs(Calculator):
    """Springs between all pairs of water's atoms; `trouble` strikes after some calls."""

    implemented_properties = ("energy", "forces")

    def __init__(self, trouble="", after=0):
        super().__init__()
        self.trouble, self.after, self.calls = trouble, after, 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        difference = self.atoms.positions[:, None] - self.atoms.positions
        length = np.linalg.norm(difference, axis=-1) + np.eye(len(self.atoms))
        stretch = length - molecule("H2O").get_all_distances() - np.eye(len(self.atoms))
        stiffness = 20.0
        if self.calls > self.after:
            if self.trouble == "raise":
                raise CalculationFailed("no convergence")
            if self.trouble == "part":
                stretch = np.eye(len(self.atoms)) - 1.0
            stiffness *= np.nan if self.trouble == "nan" else 1.0
        forces = -stiffness * np.einsum("ij,ijx->ix", stretch / length, difference)
        energy = 0.25 * stiffness * np.sum(stretch**2)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}


class Watched(Springs):
    """Remembers on how many threads libraries ran."""

    threads: ClassVar = []

    def calculate(self, *given):
        super().calculate(*given)
        self.threads.append({library["num_threads"] for library in threadpool_info()})


SPRINGS = "ase:test_sample:Springs"
TROUBLE = {}


def troubled():
    return Springs(**TROUBLE)


def without_forces():
    return Calculator()


def all_entries(path):
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name].tobytes() for name in archive.files}


# -- reference calculators


@pytest.mark.parametrize("method", ["GFN2-xTB", "GFN1-xTB"])
def test_tblite_is_found_by_its_method(method):
    atoms = molecule("H2O")
    atoms.calc = load_calculator(f"tblite:{method}")
    assert atoms.calc.parameters.method == method
    assert atoms.get_potential_energy() < -100


def test_a_calculator_is_made_by_a_factory():
    assert type(load_calculator("ase:ase.calculators.emt:EMT")).__name__ == "EMT"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("GFN2-xTB", "schnetpack:FILE:UNIT, tblite:METHOD or ase:MODULE:FACTORY, found 'GFN2-xTB'"),
        ("mopac:PM7", "tblite:METHOD or ase:MODULE:FACTORY, found 'mopac:PM7'"),
        ("tblite:", "must be one of GFN2-xTB, GFN1-xTB, got ''"),
        ("tblite:gfn2", "must be one of GFN2-xTB, GFN1-xTB, got 'gfn2'; did you mean GFN2-xTB"),
        ("ase:ase.calculators.emt", "name a module and a factory"),
        ("ase:no.such.module:make", "could not call it .ModuleNotFoundError: No module named 'no'"),
        ("ase:ase.calculators.emt:Emt", "could not call it"),
        ("ase:math:cos", "could not call it"),
        ("ase:test_sample:without_forces", "found Calculator without energy and forces"),
    ],
)
def test_specs_that_name_no_calculator_are_refused(spec, words):
    with pytest.raises(InputError, match=words):
        load_calculator(spec)


def test_a_missing_tblite_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    with pytest.raises(InputError, match=r"pip install '\.\[md\]'"):
        load_calculator("tblite:GFN2-xTB")


# -- structures and settings


def test_a_structure_is_a_file_or_a_name(tmp_path):
    write(tmp_path / "water.xyz", molecule("H2O"))
    for structure in ("H2O", tmp_path / "water.xyz"):
        atoms = read_structure(structure)
        assert atoms.get_chemical_formula() == "H2O"
        np.testing.assert_allclose(atoms.get_center_of_mass(), 0, atol=1e-12)


def test_structures_that_do_not_fit_are_refused(tmp_path):
    write(tmp_path / "cell.xyz", Atoms("H2O", molecule("H2O").positions, cell=[5, 5, 5], pbc=True))
    (tmp_path / "broken.xyz").write_text("what\n")
    for structure, words in (
        (tmp_path / "cell.xyz", "without a cell"),
        (tmp_path / "broken.xyz", "could not read"),
        ("benzole", "found no benzole"),
        ("H", "at least 2 atoms, found 1"),
    ):
        with pytest.raises(InputError, match=words):
            read_structure(structure)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timestep_fs": 2.0}, "at most 1 fs"),
        ({"timestep_fs": 0.0}, "above 0 fs"),
        ({"timestep_fs": 10 * LONGEST_TIMESTEP_FS}, "with hydrogen"),
        ({"temperature_K": -300}, "temperature must be above 0"),
        ({"temperature_K": 1e5}, "at most 10000 K"),
        ({"friction_per_fs": 0}, "friction must be above 0"),
        ({"frames": 0}, "frames must be at least 1"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"equilibration_ps": -1}, "0 ps or longer"),
        ({"equilibration_ps": math.inf}, "0 ps or longer"),
        ({"seed": -1}, "seed must be 0 or a positive"),
        ({"dtype": "float16"}, "float32 or float64"),
        ({"calculator": "nothing"}, "tblite:METHOD or ase:MODULE:FACTORY, found 'nothing'"),
        ({"engine": "lammps"}, "engine must be one of ase, ipi, got 'lammps'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        sample("H2O", tmp_path / "water.npz", SampleSettings(**{"calculator": SPRINGS, **SETTINGS, **changes}))
    assert not list(tmp_path.iterdir())


def test_an_engine_whose_package_is_missing_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("ase_flatten.md.engines.ipi_process.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"engine ipi needs the package ipi.*pip install '\.\[md\]'"):
        sample("H2O", tmp_path / "water.npz", SampleSettings(calculator=SPRINGS, engine="ipi", **SETTINGS))
    assert not list(tmp_path.iterdir())


def test_an_output_that_exists_or_is_no_npz_is_refused(tmp_path):
    (tmp_path / "water.npz").write_text("precious")
    with pytest.raises(InputError, match=r"expected no file .*water.npz, found one"):
        sample("H2O", tmp_path / "water.npz", SampleSettings(calculator=SPRINGS, **SETTINGS))
    assert (tmp_path / "water.npz").read_text() == "precious"
    with pytest.raises(InputError, match=r"end it in \.npz"):
        sample("H2O", tmp_path / "water.xyz", SampleSettings(calculator=SPRINGS, **SETTINGS))


# -- what is written


def test_a_sample_is_a_data_set_with_its_settings(tmp_path):
    reported = []

    class Counting:
        def task(self, what, total):
            reported.append(total)
            return self

        def __enter__(self):
            return lambda done: reported.append(-done)

        def __exit__(self, *error):
            return None

    dataset = sample("H2O", tmp_path / "water.npz", SampleSettings(**SETTINGS), progress=Counting())
    assert sum(reported) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["water.npz"]
    assert (dataset.n_frames, dataset.formula, dataset.theory) == (30, "H2O", "GFN2-xTB")
    assert dataset.digest == read_dataset(tmp_path / "water.npz").digest
    with np.load(tmp_path / "water.npz", allow_pickle=False) as archive:
        for name, value in SETTINGS.items():
            if name != "frames":
                assert archive[name] == value
        assert archive["timestep_fs"] == 0.5
        assert archive["calculator"] == "tblite:GFN2-xTB"
        assert {"ase", "tblite"} <= set(json.loads(str(archive["versions"])))
        assert (archive["e_unit"], archive["r_unit"]) == ("kcal/mol", "Ang")
    # Labels are those of the method at the stored positions, up to its own convergence.
    atoms = dataset.atoms(17)
    atoms.calc = load_calculator("tblite:GFN2-xTB")
    np.testing.assert_allclose(dataset.forces[17], atoms.get_forces(), atol=3e-3)
    assert dataset.energies[17] == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
    masses = atoms.get_masses()
    assert abs(np.einsum("a,fax->fx", masses, dataset.positions)).max() < 1e-6


def test_float32_stores_the_same_frames_rounded(tmp_path):
    settings = {**SETTINGS, "calculator": SPRINGS}
    full = sample("H2O", tmp_path / "full.npz", SampleSettings(**settings))
    half = sample("H2O", tmp_path / "half.npz", SampleSettings(**settings, dtype="float32"))
    assert 0 < abs(full.positions - half.positions).max() < 3e-7
    with np.load(tmp_path / "half.npz") as archive:
        assert archive["R"].dtype == archive["F"].dtype == np.float32


def test_libraries_run_on_one_thread(tmp_path, monkeypatch):
    threads = []

    def watched(named, **options):
        threads.append({library["num_threads"] for library in threadpool_info()})
        return load_calculator(named, **options)

    monkeypatch.setattr(sampling, "load_calculator", watched)
    with threadpool_limits(limits=2):
        sample("H2O", tmp_path / "water.npz", SampleSettings(calculator=SPRINGS, **SETTINGS))
    assert all(found == {1} for found in threads[1:])


def test_the_seed_decides(tmp_path):
    settings = {**SETTINGS, "calculator": SPRINGS}
    first, same, other = (
        sample("H2O", tmp_path / f"{name}.npz", SampleSettings(**{**settings, "seed": seed})).digest
        for name, seed in (("first", 1), ("same", 1), ("other", 2))
    )
    assert first == same != other


@pytest.mark.usefixtures("ipi")
def test_i_pi_writes_the_same_data_set_with_the_calculators_labels(tmp_path):
    settings = {**SETTINGS, "calculator": "ase:test_sample:Watched", "engine": "ipi"}
    with threadpool_limits(limits=2):
        dataset = sample("H2O", tmp_path / "water.npz", SampleSettings(**settings))
        other = sample("H2O", tmp_path / "other.npz", SampleSettings(**{**settings, "seed": 6}))
    assert {number for threads in Watched.threads for number in threads} == {1}
    assert (dataset.n_frames, dataset.formula) == (30, "H2O")
    assert dataset.digest == read_dataset(tmp_path / "water.npz").digest != other.digest
    sample("H2O", tmp_path / "ase.npz", SampleSettings(**{**settings, "engine": "ase"}))
    entries, of_ase = all_entries(tmp_path / "water.npz"), all_entries(tmp_path / "ase.npz")
    assert list(entries) == list(of_ase)
    assert entries["R"] != of_ase["R"]
    for frame in range(30):
        atoms = dataset.atoms(frame)
        atoms.calc = Springs()
        np.testing.assert_allclose(dataset.forces[frame], atoms.get_forces(), rtol=0, atol=1e-10)
        assert dataset.energies[frame] == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    assert abs(np.einsum("a,fax->fx", atoms.get_masses(), dataset.positions)).max() < 1e-6


# -- interruption


SCRIPT = """
import sys
from ase_flatten.sampling import sample as sampling
sampling.CHUNK_STEPS = 50
settings = {"temperature_K": 400, "stride": 3, "equilibration_ps": 0.05, "seed": 5}
sampling.sample("H2O", sys.argv[1], sampling.SampleSettings(engine=sys.argv[2], frames=int(sys.argv[3]), **settings))
"""


def test_a_run_that_is_killed_goes_on_to_the_same_result(tmp_path, sampling_engine):
    n_frames, n_chunks = {"ase": (450, 4), "ipi": (60, 3)}[sampling_engine]

    def start_sampling(output):
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        command = [sys.executable, "-c", SCRIPT, str(output), sampling_engine, str(n_frames)]
        return subprocess.Popen(command, env=environment)

    output = tmp_path / "water.npz"
    partial = tmp_path / "water.npz.partial"
    process = start_sampling(output)
    deadline = time.monotonic() + 60
    while len(list(partial.glob("chunk-*.npz"))) < n_chunks and time.monotonic() < deadline:
        time.sleep(0.005)
    running = [ipi_of(process.pid)] if sampling_engine == "ipi" else []
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    for inner, folder in running:
        assert not psutil.wait_procs([inner], timeout=20)[1]
        remove_private(folder)
    chunks = sorted(path.name for path in partial.glob("chunk-*.npz"))
    assert n_chunks <= len(chunks) < 1 + (100 + 3 * n_frames) / 50
    assert not output.exists()
    # It goes on from the last chunk, and does not begin anew.
    times = {name: (partial / name).stat().st_mtime_ns for name in chunks}
    (partial / ".writing-chunk.npz").write_bytes(b"half a file")
    resumed = start_sampling(output)
    while not output.exists() and resumed.poll() is None:
        found = {name: (partial / name).stat().st_mtime_ns for name in chunks if (partial / name).exists()}
        assert found.items() <= times.items()
        time.sleep(0.02)
    assert resumed.wait() == 0
    assert not partial.exists()
    unbroken = tmp_path / "unbroken" / "water.npz"
    unbroken.parent.mkdir()
    assert start_sampling(unbroken).wait() == 0
    assert all_entries(output) == all_entries(unbroken)


def test_a_run_that_is_interrupted_goes_on_to_the_same_result(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "CHUNK_STEPS", 20)
    settings = {**SETTINGS, "frames": 60}
    (tmp_path / "whole").mkdir()
    unbroken = sample("H2O", tmp_path / "whole" / "water.npz", SampleSettings(**settings))

    made = []

    def interrupted(named, **options):
        made.append(named)
        calculator = load_calculator(named, **options)
        if len(made) == 8:
            calculator.calculate = interrupt
        return calculator

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "load_calculator", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sample("H2O", tmp_path / "water.npz", SampleSettings(**settings))
    assert len(list((tmp_path / "water.npz.partial").glob("chunk-*.npz"))) == 6
    assert sample("H2O", tmp_path / "water.npz", SampleSettings(**settings)).digest == unbroken.digest
    assert all_entries(tmp_path / "water.npz") == all_entries(tmp_path / "whole" / "water.npz")


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    """An unfinished run with springs, and its settings."""
    settings = {**SETTINGS, "calculator": SPRINGS}
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "CHUNK_STEPS", 50)
        patch.setattr(sampling, "draw_momenta", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            sample("H2O", tmp_path / "water.npz", SampleSettings(**settings))
    return tmp_path / "water.npz", settings


def test_other_settings_over_an_unfinished_run_are_refused(unfinished):
    output, settings = unfinished
    with pytest.raises(InputError, match="which has temperature_K 400, not 300; use the same settings, or delete"):
        sample("H2O", output, SampleSettings(**{**settings, "temperature_K": 300}))
    with pytest.raises(InputError, match="structure"):
        sample("CO2", output, SampleSettings(**settings))
    assert sample("H2O", output, SampleSettings(**settings)).n_frames == 30


def test_an_unfinished_run_can_be_thrown_away(unfinished):
    output, settings = unfinished
    assert sample("H2O", output, SampleSettings(**{**settings, "seed": 9}), resume=False).n_frames == 30
    assert not output.with_name("water.npz.partial").exists()


def test_a_run_killed_after_writing_its_data_set_is_finished_by_the_next_call(unfinished):
    output, settings = unfinished
    output.write_text("an old copy")
    assert sample("H2O", output, SampleSettings(**settings)).digest == read_dataset(output).digest


# -- a molecule that does not survive


@pytest.mark.parametrize(
    ("trouble", "words"),
    [("part", "it came apart"), ("nan", "not finite"), ("raise", "calculation failed: no convergence")],
)
def test_a_molecule_that_falls_apart_stops_the_run_and_keeps_what_there_is(tmp_path, monkeypatch, trouble, words):
    module = sys.modules["test_sample"]
    monkeypatch.setattr(module, "TROUBLE", {"trouble": trouble, "after": 100})
    settings = {**SETTINGS, "calculator": "ase:test_sample:troubled"}
    with pytest.raises(BackendError, match=words) as raised:
        sample("H2O", tmp_path / "water.npz", SampleSettings(**settings))
    assert "stays whole at 400 K, but after 0.0" in str(raised.value)
    assert not (tmp_path / "water.npz").exists()
    kept = read_dataset(tmp_path / "water.npz.partial" / "frames.npz")
    assert 5 < kept.n_frames < 30
    assert f"the {kept.n_frames} frames before that are in" in str(raised.value)
    with pytest.raises(BackendError) as again:
        sample("H2O", tmp_path / "water.npz", SampleSettings(**settings))
    assert str(again.value) == str(raised.value)


@pytest.mark.usefixtures("ipi")
@pytest.mark.parametrize(
    ("trouble", "words"),
    [("part", "it came apart"), ("nan", "not finite"), ("raise", "the model failed: no convergence")],
)
def test_i_pi_is_stopped_where_a_molecule_falls_apart(tmp_path, monkeypatch, trouble, words):
    monkeypatch.setattr(sys.modules["test_sample"], "TROUBLE", {"trouble": trouble, "after": 100})
    with pytest.raises(BackendError, match=rf"stays whole at 400 K, but after 0\.0.*{words}"):
        sample(
            "H2O",
            tmp_path / "water.npz",
            SampleSettings(calculator="ase:test_sample:troubled", engine="ipi", **SETTINGS),
        )
    assert 5 < read_dataset(tmp_path / "water.npz.partial" / "frames.npz").n_frames < 30


def test_a_molecule_that_falls_apart_at_once_leaves_no_frame(tmp_path, monkeypatch):
    module = sys.modules["test_sample"]
    monkeypatch.setattr(module, "TROUBLE", {"trouble": "raise", "after": 10})
    with pytest.raises(BackendError, match="no frame was sampled before that"):
        sample("H2O", tmp_path / "water.npz", SampleSettings(calculator="ase:test_sample:troubled", **SETTINGS))
    monkeypatch.setattr(module, "TROUBLE", {"trouble": "raise", "after": 0})
    with pytest.raises(BackendError, match="can relax, its calculation failed"):
        sample("H2O", tmp_path / "other.npz", SampleSettings(calculator="ase:test_sample:troubled", **SETTINGS))


def test_a_structure_that_does_not_relax_is_said_to(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sampling, "_RELAXATION_STEPS", 0)
    stretched = molecule("H2O")
    stretched.positions *= 1.05
    write(tmp_path / "water.xyz", stretched)
    sample(tmp_path / "water.xyz", tmp_path / "water.npz", SampleSettings(calculator=SPRINGS, **SETTINGS))
    assert "not relaxed to 0.01 eV/Å" in caplog.text


# -- the data set of the examples


def test_the_example_was_sampled_as_its_readme_says():
    path = EXAMPLES / "salicylic_gfn2_500K.npz"
    readme = (EXAMPLES / "README.rst").read_text()
    dataset = read_dataset(path)
    assert path.stat().st_size <= 4_000_000
    assert f"{path.stat().st_size:,} bytes" in readme
    assert (dataset.n_frames, dataset.formula, dataset.theory) == (10_000, "C7H6O3", "GFN2-xTB")
    start = read_structure(EXAMPLES / "salicylic_acid.xyz")
    assert np.array_equal(start.numbers, dataset.numbers)
    with np.load(path, allow_pickle=False) as archive:
        assert f"--seed {archive['seed']} " in readme
        assert f"--stride {archive['stride']} " in readme
        assert (archive["temperature_K"], archive["timestep_fs"]) == (500, 0.5)
    donor, proton, acceptor = (dataset.positions[:, atom] for atom in (9, 15, 0))
    lengths = [np.linalg.norm(oxygen - proton, axis=1) for oxygen in (donor, acceptor)]
    shared = np.flatnonzero(abs(lengths[0] - lengths[1]) <= 0.3)
    assert f"In {len(shared)} frames ({', '.join(map(str, shared))})" in readme
    for frame in (0, *shared[:2]):
        atoms = dataset.atoms(int(frame))
        atoms.calc = load_calculator("tblite:GFN2-xTB")
        np.testing.assert_allclose(dataset.forces[frame], atoms.get_forces(), atol=3e-3)
