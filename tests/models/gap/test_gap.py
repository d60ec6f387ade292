"""GAP keeps the shared contract; QUIP's files are not believed, and QUIP's ways of ending do not end us."""

import gc
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import pytest
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from conftest import RARE_WATER, needs
from typer.testing import CliRunner

from ase_flatten import FlattenedGAP, FlattenedSGDML, load_calculator
from ase_flatten.cli.app import app
from ase_flatten.geometry.pair_distances import exchanges_of_like_atoms
from ase_flatten.md.chunks import read_chunk
from ase_flatten.models.gap import FAMILY, GAPModel, GAPTrainer, fit, quip, workers
from ase_flatten.models.gap import model as gap_model
from ase_flatten.models.model_folder import load_model, save_model
from ase_flatten.selection.cluster_errors import frame_errors
from ase_flatten.testing import check_calculator, check_model
from ase_flatten.utils.exceptions import BackendError, InputError

needs("quippy", extra="gap")

TINY = {"n_max": 4, "l_max": 3, "cutoff": 4.0, "n_sparse": 50, "sparse_method": "RANDOM"}
FRAMES = np.arange(0, 416, 7)
VALID = np.arange(3, 416, 7)


def trained(water, frames=FRAMES, seed=0, **settings) -> GAPModel:
    return FAMILY.trainer(**{**TINY, **settings}).fit(water, frames, VALID, rng=np.random.default_rng(seed))


@pytest.fixture(scope="module")
def model(water) -> GAPModel:
    return trained(water)


@pytest.fixture(scope="module")
def saved_once(model, water, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("gap") / "model"
    save_model(folder, model, FAMILY, water, FRAMES)
    return folder


@pytest.fixture
def saved(saved_once, tmp_path) -> Path:
    return Path(shutil.copytree(saved_once, tmp_path / "model"))


def children() -> list[psutil.Process]:
    """This process's own, but for the tracker that Python's multiprocessing keeps for all of its life."""
    found = psutil.Process().children()
    return [child for child in found if not any("resource_tracker" in word for word in child.cmdline())]


class TestModel:
    def test_contract(self, model, water, tmp_path):
        check_model(model, water.positions[[1, 50, 200]], reload=FAMILY.load, folder=tmp_path)

    def test_it_is_good(self, model, water):
        errors = frame_errors(model, water, VALID)
        assert np.sqrt(errors.force_mse.mean()) < 0.05 * np.std(water.forces)
        assert np.abs(errors.energy).max() < 0.05

    def test_quip_says_the_same_of_the_native_file(self, saved, model, water):
        from quippy.potential import Potential

        atoms = Atoms(water.numbers, water.positions[5])
        atoms.calc = Potential(param_filename=str(saved / "model.xml"))
        prediction = model.predict(water.positions[5:6])
        assert atoms.get_potential_energy() == pytest.approx(prediction.energies[0], abs=1e-10)
        np.testing.assert_allclose(atoms.get_forces(), prediction.forces[0], atol=1e-10)

    def test_the_same_seed_gives_the_same_files(self, model, water):
        again, other = trained(water), trained(water, seed=1)
        names = {name for name in model.files.contents if name.startswith("model.xml")}
        assert len(names) == 3
        assert all(again.files.contents[name] == model.files.contents[name] for name in names)
        assert not np.array_equal(other.predict(water.positions[:1]).forces, model.predict(water.positions[:1]).forces)

    def test_many_configurations_are_predicted_in_processes_that_end(self, model, water, monkeypatch):
        here, before = model.predict(water.positions[:30]), children()
        monkeypatch.setattr(gap_model, "n_cores", lambda: 2)
        monkeypatch.setattr(gap_model, "_FEW_FRAMES", 29)
        monkeypatch.setattr(quip, "ATOMS_A_CALL", 12)
        elsewhere = pickle.loads(pickle.dumps(model)).predict(water.positions[:30])
        np.testing.assert_allclose(elsewhere.energies, here.energies, atol=1e-10)
        np.testing.assert_allclose(elsewhere.forces, here.forces, atol=1e-10)
        assert children() == before

    def test_a_quip_that_stops_is_told_of(self, model, water, saved, monkeypatch):
        def stop(folder, numbers):
            import os

            (folder / "output-1").write_text("SYSTEM ABORT: no memory\n\n")
            os._exit(1)

        before = children()
        monkeypatch.setattr(workers, "_potential", stop)
        with pytest.raises(BackendError, match="QUIP stopped: SYSTEM ABORT: no memory"):
            pickle.loads(pickle.dumps(model)).predict(water.positions[:3])
        monkeypatch.setattr(gap_model, "_READ_BY_QUIP", set())
        with pytest.raises(InputError, match="QUIP stopped"):  # a file that QUIP cannot read is the user's matter
            load_model(saved)
        assert children() == before

    def test_the_process_of_a_model_ends_with_it(self, model, water):
        before = children()
        again = pickle.loads(pickle.dumps(model))
        again.predict(water.positions[:3])
        (process,) = set(children()) - set(before)
        folder = Path(again._potential._folder)
        assert folder.is_dir()
        del again
        gc.collect()
        assert not process.is_running() and not folder.exists()

    def test_atoms_that_are_nowhere_have_no_energy(self, model, water):
        positions = water.positions[:2].copy()
        positions[0, 1, 2] = np.nan
        prediction = model.predict(positions)
        assert np.isnan(prediction.energies).tolist() == [True, False]
        assert np.isnan(prediction.forces[0]).all() and np.isfinite(prediction.forces[1]).all()

    def test_molecules_that_flew_apart_do_not_cost_the_others_digits(self, model, water):
        positions = water.positions[:4].copy()
        positions[2, 0] += 1e13
        together, alone = model.predict(positions), model.predict(positions[3:])
        np.testing.assert_allclose(together.forces[3], alone.forces[0], atol=1e-10)

    def test_exchanges_of_like_atoms(self, model):
        assert model.permutations.tolist() == [[0, 1, 2], [0, 2, 1]]
        assert len(exchanges_of_like_atoms(np.array([6, 6, 8, *[1] * 6]))) == 1


class TestTrainer:
    def test_the_settings_of_the_first_model_are_kept(self, saved, water):
        first = load_model(saved).model
        assert first.hyper_parameters == asdict(GAPTrainer(**TINY))
        second = FAMILY.trainer(preset="small").fit(
            water, FRAMES[:20], VALID, rng=np.random.default_rng(0), previous=first
        )
        assert second.hyper_parameters == first.hyper_parameters
        (settled,) = FAMILY.trainer().settle(water, [(FRAMES, first)], VALID, rng=np.random.default_rng(0))
        assert settled is first

    def test_the_default_frames_are_a_uniform_sample(self, water):
        pool = np.arange(100, 416)
        draws = [
            FAMILY.trainer().default_frames(water, pool, 40, rng=np.random.default_rng(seed)) for seed in range(50)
        ]
        assert all(len(np.unique(draw)) == 40 for draw in draws)
        counts = np.bincount(np.concatenate(draws), minlength=416)
        assert counts[:100].sum() == 0
        assert abs(counts[100:258].mean() - counts[258:].mean()) < 1.0

    def test_reference_energies(self, water):
        energies = {"H": -13.0, "O": -100.25}
        model = trained(water, FRAMES[:10], e0=energies)
        xml = model.files.contents["model.xml"].decode()
        assert float(re.search(r'<e0 Z="8" value="([^"]*)"', xml)[1]) == -100.25
        assert model.hyper_parameters["e0"] == energies
        with pytest.raises(InputError, match="found none of O"):
            trained(water, FRAMES[:10], e0={"H": -13.0})

    def test_the_energy_offset_is_that_of_the_validation_frames(self, water, tmp_path):
        from quippy.potential import Potential

        rich = np.r_[RARE_WATER, FRAMES[:24]]
        model = trained(water, rich)
        assert abs(frame_errors(model, water, VALID).energy.mean()) < 1e-9
        assert abs(frame_errors(model, water, rich).energy.mean()) > 1e-5
        model.save(tmp_path)
        atoms = Atoms(water.numbers, water.positions[5])
        atoms.calc = Potential(param_filename=str(tmp_path / "model.xml"))
        assert atoms.get_potential_energy() == pytest.approx(model.predict(water.positions[5:6]).energies[0], abs=1e-9)
        alone = FAMILY.trainer(**TINY).fit(water, rich, VALID[:0], rng=np.random.default_rng(0))
        difference = model.predict(water.positions).energies - alone.predict(water.positions).energies
        assert abs(difference).min() > 1e-5 and np.ptp(difference) < 1e-9

    def test_presets(self):
        small, paper = FAMILY.trainer(preset="small"), FAMILY.trainer()
        assert (paper.n_max, paper.l_max, paper.cutoff, paper.zeta) == (12, 6, 5.0, 2)
        assert small.n_max < paper.n_max and small.sparse_method != "CUR_POINTS"
        assert FAMILY.trainer(preset="small", n_max=5).n_max == 5
        assert FAMILY.settings(small)["n_sparse"] == small.n_sparse

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"n_mx": 3}, "did you mean n_max"),
            ({"preset": "tiny"}, "preset must be one of paper, small, got 'tiny'"),
            ({"n_max": 0}, "n_max must be a whole number of at least 1, got 0"),
            ({"n_sparse": 1.5}, "n_sparse must be a whole number"),
            ({"cutoff": "5} pwd={"}, "cutoff must be positive"),
            ({"force_sigma": float("nan")}, "force_sigma must be positive"),
            ({"sparse_method": "FILE"}, "sparse_method must be one of"),
            ({"e0": {"Xq": 1.0}}, "e0 must be average or energies by symbol"),
            ({"e0": "isolated"}, "e0 must be average or energies by symbol"),
        ],
    )
    def test_wrong_settings_are_refused(self, settings, message):
        with pytest.raises(InputError, match=message):
            FAMILY.trainer(**settings)

    def test_a_missing_package_is_told_before_the_run(self, monkeypatch):
        monkeypatch.setattr(fit.importlib.util, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"needs quippy.* pip install '\.\[gap\]'"):
            FAMILY.trainer()

    @pytest.mark.parametrize(
        ("script", "message"),
        [
            (None, "the program gap_fit, which was not found"),
            ("echo git version QUIP,v0.8.1 e0_method", r"QUIP 0\.9 or later, found QUIP,v0\.8"),
            ("echo hello", "to be gap_fit, it answers hello"),
            ("#!/nowhere", "to run, it does not"),
        ],
    )
    def test_a_wrong_gap_fit_is_told_before_the_run(self, script, message, tmp_path, monkeypatch):
        if script is not None:
            program(tmp_path / "gap_fit", script)
        spec = namedtuple("Spec", "submodule_search_locations")([str(tmp_path)])
        monkeypatch.setattr(fit.importlib.util, "find_spec", lambda name: spec)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(InputError, match=message):
            FAMILY.trainer()


def program(path: Path, script: str) -> Path:
    path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


class TestGapFit:
    settings = asdict(GAPTrainer(**TINY))

    def test_what_quip_refuses_is_one_sentence(self, water):
        with pytest.raises(BackendError, match=r"it ended with status 1: SYSTEM ABORT: .*; change the settings"):
            fit.run_gap_fit(fit.find_gap_fit(), water, FRAMES, {**self.settings, "sparse_method": "X"}, 1)

    def test_status_0_without_a_model_is_no_success(self, water, tmp_path):
        silent = program(tmp_path / "gap_fit", "exit 0")
        with pytest.raises(BackendError, match="status 0: it does not say why"):
            fit.run_gap_fit(silent, water, FRAMES, self.settings, 1)

    def test_too_little_memory_is_told_before(self, water, monkeypatch):
        monkeypatch.setattr(fit.psutil, "virtual_memory", lambda: namedtuple("Memory", "available")(2**20))
        with pytest.raises(InputError, match=r"GiB for 60 frames of H2O .* GiB are free; use fewer frames"):
            trained(water)

    def test_ctrl_c_ends_it(self, water, tmp_path, monkeypatch):
        def interrupted(output, kept):
            raise KeyboardInterrupt

        before = children()
        monkeypatch.setattr(fit, "_follow", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit.run_gap_fit(program(tmp_path / "gap_fit", "exec sleep 60"), water, FRAMES, self.settings, 1)
        assert children() == before

    def test_it_tells_how_far_it_is(self, water, monkeypatch):
        told: list[str] = []
        monkeypatch.setattr(fit, "_TELL_SECONDS", 0.0)
        monkeypatch.setattr(fit.log, "info", lambda text, *values: told.append(text % values))
        trained(water)
        assert any("sparse covariance matrix" in line for line in told)

    def test_it_is_quiet_and_keeps_its_output(self, water, capfd):
        model = trained(water)
        assert b"GP sparsify" in model.files.contents["gap_fit.log"]
        assert capfd.readouterr() == ("", "")


def rewriting(old: str, new: str):
    """A change of model.xml at the first place where a pattern matches."""

    def damage(folder: Path) -> None:
        path = folder / "model.xml"
        text = path.read_text()
        assert re.search(old, text)
        path.write_text(re.sub(old, new, text, count=1))

    return damage


def sparse_file(folder: Path) -> Path:
    return sorted(folder.glob("model.xml.sparseX.*"))[0]


BOMB = '<!DOCTYPE GAP [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>\n<GAP>&b;</GAP>'


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.xml").unlink(), "No such file"),
        (lambda f: (f / "model.xml").write_bytes((f / "model.xml").read_bytes()[:9000]), "could not read it"),
        (lambda f: (f / "model.xml").write_bytes(bytes(range(256))), "could not read it"),
        (lambda f: (f / "model.xml").write_text(BOMB), "document type"),
        (lambda f: (f / "model.xml").write_text("<a/>"), "it holds a, which"),
        (lambda f: sparse_file(f).unlink(), "No such file"),
        (lambda f: sparse_file(f).write_bytes(sparse_file(f).read_bytes()[:999]), "is too short"),
        (lambda f: sparse_file(f).write_bytes(sparse_file(f).read_bytes() + b"1\n"), "is damaged"),
        (rewriting("IP GAP label=GAP", "FilePot command=touch"), "another potential"),
        (rewriting("</GAP>", "<FilePot/></GAP>"), "it holds FilePot"),
        (rewriting('do_core="F"', 'do_core="T"'), "adds another potential"),
        (rewriting('sparseX_filename="', 'sparseX_filename="../../'), "not the name of a file of sparse points"),
        (rewriting('dimensions="[0-9]*"', 'dimensions="99999999"'), "not the SOAP of its sparse points"),
        (rewriting("n_max=4", "n_max=9999"), "not the SOAP of its sparse points"),
        (rewriting('alpha="[^"]*"', 'alpha="nan"'), "finite weights"),
        (rewriting('n_sparseX="[0-9]*"', 'n_sparseX="7"'), "7 finite weights"),
        (rewriting("<ase_flatten.*/>", ""), "was not made by ase-flatten"),
        (rewriting('numbers="8', 'numbers="800'), "atomic numbers"),
        (rewriting("settings='[^']*'", "settings='3'"), "settings are damaged"),
        (rewriting('"n_max"', '"other"'), "found others"),
        (rewriting('signal_variance="[^"]*"', ""), "QUIP refuses it: "),
    ],
)
def test_damaged_folders_are_refused(saved, damage, message):
    damage(saved)
    with pytest.raises(InputError, match=message) as refusal:
        load_model(saved)
    assert "\n" not in str(refusal.value)


class TestCalculator:
    @pytest.fixture
    def atoms(self, saved, water):
        return Atoms(water.numbers, water.positions[1], calculator=FlattenedGAP(saved))

    def test_contract(self, saved, water):
        check_calculator(FlattenedGAP(saved), water.numbers, water.positions[1])

    def test_it_optimizes_and_moves(self, atoms):
        with BFGS(atoms, logfile=None) as optimizer:
            assert optimizer.run(fmax=1e-3, steps=100)
        assert atoms.get_distance(0, 1) == pytest.approx(0.96, abs=0.03)
        atoms.set_momenta(np.random.default_rng(0).normal(size=(3, 3)) * np.sqrt(atoms.get_masses() * 0.02)[:, None])
        start = atoms.get_total_energy()
        VelocityVerlet(atoms, timestep=0.25 * units.fs).run(100)
        assert abs(atoms.get_total_energy() - start) < 2e-3

    def test_a_moved_folder_is_the_same_model(self, saved, atoms, tmp_path):
        energy = atoms.get_potential_energy()
        moved = shutil.move(saved, tmp_path / "an other place")
        twin = pickle.loads(pickle.dumps(atoms.calc))
        for calculator in (load_calculator(moved), twin):
            assert Atoms(atoms.numbers, atoms.positions, calculator=calculator).get_potential_energy() == energy

    def test_another_family_is_refused(self, saved):
        with pytest.raises(InputError, match="expected a model of the family sgdml"):
            FlattenedSGDML(saved)

    def test_it_is_quiet(self, saved, water):
        code = f"""
from ase import Atoms
from ase_flatten import load_calculator
atoms = Atoms({water.numbers.tolist()}, {water.positions[1].tolist()})
atoms.calc = load_calculator({str(saved)!r})
atoms.get_forces()
"""
        result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")

    def test_it_does_not_grow(self, atoms, water):
        atoms.get_forces()
        before = psutil.Process().memory_info().rss
        for step in range(300):  # quippy's own calculator takes 3 MB for these
            atoms.positions = water.positions[step]
            atoms.get_forces()
        assert psutil.Process().memory_info().rss - before < 2**20


class TestCommand:
    def call(self, *arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, result.stderr.strip().splitlines()[-1:] or [""]

    def test_train_and_resume(self, water_file, tmp_path):
        folder = tmp_path / "run"
        sizes = ["-i", "10", "-s", "5", "--out", folder, "-q"]
        tiny = [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]
        arguments = ["train", water_file, "--model", "gap", "--preset", "small", *tiny, *sizes]
        assert self.call(*arguments, "-n", "1")[0] == 0
        assert self.call("train", water_file, "-n", "2", "--out", folder, "--resume", "-q")[0] == 0
        assert json.loads((folder / "run.json").read_text())["trainer"]["n_max"] == TINY["n_max"]
        for place in ("steps/0000", "default", "improved"):
            names = {path.name for path in (folder / place).iterdir()}
            assert {"model.json", "model.xml", "gap_fit.log"} <= names and len(names) == 6
        card = json.loads((folder / "improved" / "model.json").read_text())
        assert (card["family"], card["units"]["energy"], len(card["training_frames"])) == ("gap", "eV", 20)
        assert "quippy-ase" in card["versions"]
        assert isinstance(load_calculator(folder).model, GAPModel)
        (folder / "improved" / "model.xml").write_text("<GAP>")
        status, (sentence,) = self.call("errors", water_file, folder, "--out", tmp_path / "errors")
        assert status == 2 and "expected a GAP model in " in sentence

    def test_a_preset_of_a_family_without_any_is_refused(self, water_file, tmp_path):
        status, (sentence,) = self.call("train", water_file, "--preset", "small", "--out", tmp_path / "run")
        assert status == 2 and "'preset' is not a setting of this model family" in sentence


class TestCtrlC:
    """Ctrl-C while QUIP computes: one line and status 130, no Fortran, and what was done is kept."""

    def stopped(self, command, folder, when) -> str:
        """Run a command, press Ctrl-C a second after it has begun to compute, and return what it said."""
        process = subprocess.Popen(
            [sys.executable, "-m", "ase_flatten.cli", *map(str, command)], cwd=folder, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        said = ""
        while when not in said and process.poll() is None:
            said += process.stdout.readline()
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to this process and its children
        said += process.communicate(timeout=60)[0]
        assert process.returncode == 130, said
        assert "ase-flatten: stopped" in said and not re.search("Traceback|ortran|Interrupt occured", said)
        return said

    @pytest.mark.parametrize("engine", ["batched", "ase", "ipi"])
    def test_molecular_dynamics(self, saved, tmp_path, engine):
        if engine == "ipi":
            needs("ipi", extra="md")
        command = ["md", "--models", saved, "--T", 300, "--replicas", 2, "--engine", engine, "--ps", 20, "--out", "md"]
        reached = []
        for _ in range(1 if engine == "ipi" else 2):  # the second one resumes
            self.stopped(command, tmp_path, "this takes about")
            files = sorted((tmp_path / "md" / "300K" / "model.partial").glob("chunk-*"))
            chunks = [read_chunk(path, n_replicas=2, n_atoms=3, n_records=4001) for path in files]
            assert all(chunk.alive.all() and chunk.failures == () for chunk in chunks)
            reached.append(chunks[-1].at if chunks else -500)
        assert engine == "ipi" or reached[0] < reached[1]  # which may not have begun in that time

    def test_sampling(self, saved, tmp_path):
        asked = ["sample", "H2O", "--calculator", saved, "--T", 100, "--frames", 100000, "-o", "water.npz", "-v"]
        self.stopped(asked, tmp_path, "sampling")
        assert (tmp_path / "water.npz.partial").is_dir()
