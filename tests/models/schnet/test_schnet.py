"""SchNet keeps the shared contract, equals SchNetPack, is trained fairly, and goes on where it was stopped."""

import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from conftest import RARE_WATER, needs
from typer.testing import CliRunner

needs("schnetpack", extra="schnet")
import torch  # noqa: E402

from ase_flatten import FlattenedSchNet, FlattenedSGDML, load_calculator  # noqa: E402
from ase_flatten.cli.app import app  # noqa: E402
from ase_flatten.models import Workplace, convergence_note  # noqa: E402
from ase_flatten.models.model_folder import load_model, save_model  # noqa: E402
from ase_flatten.models.schnet import FAMILY, SchNetModel, as_schnetpack, lightning_training, load_best_model  # noqa: E402
from ase_flatten.models.schnet.training_plan import VALIDATION_INTERVAL, TrainingOutcome, TrainingPlan  # noqa: E402
from ase_flatten.selection.cluster_errors import frame_errors  # noqa: E402
from ase_flatten.selection.flattening import Schedule  # noqa: E402
from ase_flatten.testing import check_calculator, check_model  # noqa: E402
from ase_flatten.utils.exceptions import BackendError, InputError  # noqa: E402
from ase_flatten.utils.progress import SILENT  # noqa: E402
from ase_flatten.workflow.run_folder import RunSettings  # noqa: E402
from ase_flatten.workflow.train_run import train  # noqa: E402

TINY = {"n_features": 16, "n_interactions": 2, "epochs": 40, "learning_rate": 0.005}
FRAMES = np.arange(0, 416, 7)
VALID = np.arange(3, 416, 7)


def trained(water, frames=FRAMES, seed=0, previous=None, workplace=None, **settings) -> SchNetModel:
    trainer = FAMILY.trainer(**{**TINY, **settings})
    if workplace is not None:
        trainer = trainer.within(workplace)
    return trainer.fit(water, frames, VALID, rng=np.random.default_rng(seed), previous=previous)


def force_rmse(model, dataset, frames) -> float:
    return float(np.sqrt(frame_errors(model, dataset, frames).force_mse.mean()))


def weights(model) -> list[np.ndarray]:
    return [value.numpy() for value in model.potential.state_dict().values()]


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.fixture(scope="module")
def model(water) -> SchNetModel:
    return trained(water, epochs=250)


@pytest.fixture(scope="module")
def saved_once(model, water, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("schnet") / "model"
    save_model(folder, model, FAMILY, water, FRAMES)
    return folder


@pytest.fixture
def saved(saved_once, tmp_path) -> Path:
    return Path(shutil.copytree(saved_once, tmp_path / "model"))


@pytest.fixture
def best_model(saved, tmp_path) -> Path:
    """What SchNetPack itself would have written."""
    torch.save(as_schnetpack(saved), tmp_path / "best_model")
    return tmp_path / "best_model"


class TestModel:
    def test_contract(self, model, water, tmp_path):
        check_model(model, water.positions[[1, 50, 200]], reload=FAMILY.load, folder=tmp_path)

    def test_it_is_good(self, model, water):
        assert force_rmse(model, water, VALID) < 0.15 * np.std(water.forces)
        assert np.std(frame_errors(model, water, VALID).energy) < 0.1 * np.std(water.energies)

    def test_many_at_once_are_predicted_in_pieces(self, model, water, monkeypatch):
        whole = model.predict(water.positions[:50])
        monkeypatch.setitem(sys.modules[SchNetModel.__module__]._PAIR_FEATURES_AT_ONCE, "cpu", 9 * 16 * 7)
        pieces = model.predict(water.positions[:50])
        np.testing.assert_allclose(pieces.energies, whole.energies, atol=1e-10)
        np.testing.assert_allclose(pieces.forces, whole.forces, atol=1e-10)
        assert model.predict(water.positions[:0]).forces.shape == (0, 3, 3)

    def test_atoms_that_are_nowhere_have_no_energy(self, model, water):
        positions = water.positions[:2].copy()
        positions[0, 1, 2] = np.nan
        prediction = model.predict(positions)
        assert np.isnan(prediction.energies).tolist() == [True, False] and np.isfinite(prediction.forces[1]).all()

    def test_the_file_is_plain(self, saved):
        content = torch.load(saved / "model.pt", weights_only=True)
        assert content["numbers"].tolist() == [8, 1, 1]
        assert all(value.isfinite().all() for value in content["state_dict"].values())

    def test_single_precision_is_near(self, saved, water):
        exact, quick = FlattenedSchNet(saved), FlattenedSchNet(saved, dtype="float32")
        one, other = exact.predict(water.positions[:20]), quick.predict(water.positions[:20])
        assert 0 < np.abs(one.forces - other.forces).max() < 1e-4
        assert np.abs(one.energies - other.energies).max() < 1e-5


class TestSchNetPack:
    @pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    def test_it_says_the_same_of_the_same_weights(self, best_model, model, water, monkeypatch):
        from schnetpack.interfaces import SpkCalculator
        from schnetpack.transform import ASENeighborList

        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        peer = SpkCalculator(
            str(best_model), ASENeighborList(cutoff=5.0), energy_unit="kcal/mol", dtype=torch.float64
        )  # fmt: skip
        for frame in (0, 26, 77):
            atoms = Atoms(water.numbers, water.positions[frame], calculator=peer)
            prediction = model.predict(water.positions[frame : frame + 1])
            assert atoms.get_potential_energy() == pytest.approx(prediction.energies[0], abs=1e-6)
            np.testing.assert_allclose(atoms.get_forces(), prediction.forces[0], atol=1e-6)

    def test_pairs_beyond_the_cutoff_do_not_count(self, water):
        near = trained(water, FRAMES[:10], epochs=1, cutoff=1.2)
        far = water.positions[:2].copy()
        far[1] = far[0] + [[0, 0, 0], [0, 0, 0.9], [3, 0, 0]]
        far[1, 2] += far[1, 0] - far[1, 2] + [5.0, 0, 0]
        assert np.array_equal(near.predict(far).forces[1, 2], np.zeros(3))

    def test_its_own_models_are_analysed(self, best_model, model, water_file, tmp_path):
        given = f"schnetpack:{best_model}:kcal/mol"
        result = CliRunner().invoke(app, ["errors", str(water_file), given, "--out", str(tmp_path / "out")])
        assert result.exit_code == 0, result.output
        assert (tmp_path / "out" / "errors.csv").is_file()
        loaded = load_best_model(best_model, model.numbers, "kcal/mol")
        positions = np.random.default_rng(0).normal(size=(3, 3, 3))
        np.testing.assert_allclose(loaded.predict(positions).forces, model.predict(positions).forces, atol=1e-10)

    def test_a_file_that_would_run_something_is_not_loaded(self, tmp_path, water):
        class Bomb:
            def __reduce__(self):
                return os.system, ("echo ran > " + str(tmp_path / "ran"),)

        torch.save({"representation": Bomb()}, tmp_path / "best_model")
        with pytest.raises(InputError, match=r"needs posix.system; it is not loaded"):
            load_best_model(tmp_path / "best_model", water.numbers, "eV")
        assert not (tmp_path / "ran").exists()

    def test_a_torch_that_would_unpickle_is_not_asked(self, best_model, water, monkeypatch):
        monkeypatch.delattr(torch.serialization, "get_unsafe_globals_in_checkpoint")
        with pytest.raises(InputError, match=r"expected PyTorch 2\.6 or later"):
            load_best_model(best_model, water.numbers, "eV")

    def test_other_networks_are_refused(self, tmp_path, water):
        from schnetpack.atomistic import Atomwise
        from schnetpack.model import NeuralNetworkPotential
        from schnetpack.nn import CosineCutoff, GaussianRBF
        from schnetpack.representation import PaiNN

        painn = PaiNN(n_atom_basis=8, n_interactions=1, radial_basis=GaussianRBF(5, 5.0), cutoff_fn=CosineCutoff(5.0))
        torch.save(NeuralNetworkPotential(painn, output_modules=[Atomwise(n_in=8)]), tmp_path / "best_model")
        with pytest.raises(InputError, match=r"expected a SchNet in .*, found PaiNN"):
            load_best_model(tmp_path / "best_model", water.numbers, "eV")

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("schnetpack:best_model", "with the energy unit of the model"),
            ("schnetpack:nowhere:eV", "found no file nowhere"),
            ("schnetpack:{file}:kcal", "unit"),
            ("schnetpack:{text}:eV", "could not read it"),
        ],
    )
    def test_what_is_wrong_with_a_file_is_said(self, best_model, water_file, tmp_path, given, message):
        (tmp_path / "text").write_text("no model")
        spec = given.format(file=best_model, text=tmp_path / "text")
        result = CliRunner().invoke(app, ["errors", str(water_file), spec, "--out", str(tmp_path / "out")])
        assert result.exit_code == 2 and message in result.output

    def test_its_import_leaves_the_users_log_alone(self):
        code = (
            "import logging, ase_flatten.models.schnet; print(logging.getLogger().handlers, logging.getLogger().level)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert (done.stdout.strip(), done.stderr) == ("[] 30", "")

    def test_the_shim_is_still_needed(self):
        """SchNetPack 2.1 imports a name that PyTorch 2.6 renamed: when this fails, native.py can do without it."""
        import schnetpack

        source = Path(schnetpack.__file__).parent / "data" / "loader.py"
        assert "T_co" in source.read_text().split("class ")[0]


class TestTraining:
    def test_the_same_seed_gives_the_same_model(self, water):
        model, again, other = trained(water), trained(water), trained(water, seed=1)
        assert same(model, again) and not same(model, other)

    def test_nothing_is_printed_and_torch_is_left_as_it_was(self, water, capfd, monkeypatch):
        monkeypatch.setattr(logging.getLogger("ase_flatten"), "handlers", [])
        before, threads = torch.random.get_rng_state(), torch.get_num_threads()
        trained(water, epochs=1)
        assert capfd.readouterr() == ("", "")
        assert torch.equal(before, torch.random.get_rng_state()) and threads == torch.get_num_threads()

    def test_energies_alone_teach_forces_too(self, water):
        model = trained(water, epochs=250, force_weight=0)
        assert force_rmse(model, water, VALID) < 0.4 * np.std(water.forces)
        assert np.std(frame_errors(model, water, VALID).energy) < 0.15 * np.std(water.energies)

    def test_a_step_goes_on_from_the_last_weights(self, water):
        first = trained(water, FRAMES[:40])
        grown = trained(water, FRAMES, seed=1, previous=first)
        assert first.hyper_parameters["gradient_steps"] == 250
        assert grown.hyper_parameters["gradient_steps"] == 250 + 250
        assert force_rmse(grown, water, VALID) < force_rmse(first, water, VALID)

    def test_the_offset_is_that_of_the_validation_frames(self, water, tmp_path):
        rich = np.r_[RARE_WATER, FRAMES[:24]]
        model = trained(water, rich)
        assert abs(frame_errors(model, water, VALID).energy.mean()) < 1e-6
        assert abs(frame_errors(model, water, rich).energy.mean()) > 1e-3
        model.save(tmp_path)
        reloaded = FAMILY.load(tmp_path)
        assert np.array_equal(
            reloaded.predict(water.positions[:5]).energies, model.predict(water.positions[:5]).energies
        )

    def test_a_training_that_was_too_short_says_so(self, water, caplog):
        model = trained(water, epochs=1)
        assert model.hyper_parameters["converged"] is False
        with caplog.at_level(logging.WARNING):
            FAMILY.trainer(**TINY).settle(water, [(FRAMES, model)], VALID, rng=np.random.default_rng(0))
        assert "not converged after 250 gradient steps" in caplog.text

    @pytest.mark.parametrize(
        ("exponent", "n_looks", "ended_early", "converged"),
        [(1.0, 40, False, False), (0.05, 40, False, True), (0.0, 40, False, True), (1.0, 40, True, True),
         (0.0, 4, False, False)],
    )  # fmt: skip
    def test_convergence_is_told_by_twice_the_steps(self, exponent, n_looks, ended_early, converged):
        plan = TrainingPlan(n_looks * VALIDATION_INTERVAL, 10, 1e-3, 0.99, 0.999, None, 0)
        curve = [float(look**-exponent) for look in range(1, n_looks + 1)]
        found = TrainingOutcome.of(curve, plan, ended_early=ended_early)
        assert found.converged is converged and found.n_steps == plan.n_steps
        if n_looks == 40:
            assert found.validation_trend == pytest.approx(1 - 0.5**exponent, abs=0.01)
        assert (convergence_note(vars(found) | {"gradient_steps": found.n_steps}) is None) is converged

    def test_of_earlier_models_nothing_is_said(self):
        assert convergence_note({"gradient_steps": 250}) is None

    def test_another_training_set_gets_the_same_number_of_steps_from_scratch(self, water):
        improved = trained(water, FRAMES, previous=trained(water, FRAMES[:40]))
        default = trained(water, FRAMES + 1, seed=1, previous=improved)
        assert default.hyper_parameters == improved.hyper_parameters
        assert same(default, trained(water, FRAMES + 1, seed=1, previous=improved))
        assert default._offset != improved._offset

    def test_a_cold_restart_begins_anew(self, water):
        grown = trained(water, FRAMES, previous=trained(water, FRAMES[:40], warm=False))
        alone = trained(water, FRAMES, warm=False)
        assert grown.hyper_parameters["gradient_steps"] == alone.hyper_parameters["gradient_steps"] == 250
        assert same(grown, alone)

    def test_it_ends_early_without_gain(self, water):
        stopped = trained(water, epochs=4000, patience=1, learning_rate=0.05, averaging=0)
        assert stopped.hyper_parameters["gradient_steps"] < 4000 * len(FRAMES) / 10

    def test_a_plateau_halves_the_learning_rate(self, water):
        task = task_of(water)
        task.valid_set = lightning_training.Labels(*(torch.zeros_like(part) for part in vars(task.valid_set).values()))
        task.best["force_rmse"] = 0.0
        for _ in range(lightning_training._PLATEAU + 1):
            task._squares = {"force": 1.0, "energy": 1.0}
            task.on_validation_epoch_end()
        task.steps_done = 200
        task.on_train_batch_start()
        assert task.optimizer.param_groups[0]["lr"] == pytest.approx(0.5e-3)

    def test_the_learning_rate_rises_and_falls(self, water):
        task = task_of(water)
        heights = [task.plan.ramp(step) for step in range(1000)]
        assert heights[0] == 0.01 and max(heights) == 1 == heights[500] and 0 < heights[-1] < 0.01

    @pytest.mark.filterwarnings("ignore::RuntimeWarning")
    def test_a_training_that_diverges_is_told_of(self, water):
        broken = replace(water, forces=water.forces * 1e30)
        with pytest.raises(BackendError, match=r"the training diverged after 250 steps.*try a learning_rate below"):
            trained(broken, learning_rate=1.0)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"n_featurs": 3}, "did you mean n_features"),
            ({"preset": "huge"}, "preset must be one of small, large"),
            ({"epochs": 1.5}, "epochs must be a whole number of at least 1, got 1.5"),
            ({"cutoff": 0}, "cutoff must be positive, got 0"),
            ({"learning_rate": "fast"}, "learning_rate must be between 0 and 1, got 'fast'"),
            ({"force_weight": 1.5}, "force_weight must be between 0 and 1, got 1.5"),
            ({"warm": 1}, "warm must be true or false, got 1"),
            ({"device": "tpu"}, "the device must be cpu or cuda, got 'tpu'"),
            ({"device": "meta"}, "the device must be cpu or cuda, got 'meta'"),
            ({"device": "cuda:99"}, "cuda:99 was asked for, this machine has"),
        ],
    )
    def test_settings_are_checked(self, settings, message):
        with pytest.raises(InputError, match=message):
            FAMILY.trainer(**settings)

    def test_the_large_preset_is_of_schnetpacks_size(self):
        settings = FAMILY.settings(FAMILY.trainer(preset="large", epochs=3))
        assert settings["n_features"] == 128 and settings["n_interactions"] == 6 and settings["epochs"] == 3


def task_of(water):
    from ase_flatten.models.schnet.native import make_potential
    from ase_flatten.models.schnet.network import MoleculeNetwork
    from ase_flatten.models.schnet.trainer import _labels

    potential = make_potential(n_features=4, n_interactions=1, n_rbf=4, cutoff=5.0, offset=0.0, n_atoms=3)
    labels = _labels(water, FRAMES, 0.0, 1.0)
    plan = TrainingPlan(1000, 10, 1e-3, 0.99, 0.9, None, 0)
    return lightning_training._TrainingModule(MoleculeNetwork(potential, water.numbers), labels, labels, plan)


class StopAfter:
    """Press Ctrl-C after so many looks at the validation frames."""

    def __init__(self, n_looks):
        self.left = n_looks + 1  # the first report is of what was there before

    @contextmanager
    def task(self, what, total):
        def advance(done):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

        yield advance


class TestResumption:
    def test_stopped_again_and_again_it_ends_in_the_same_weights(self, water, tmp_path):
        whole, n_stops = trained(water, epochs=80), 0
        while True:
            try:
                model = trained(water, epochs=80, workplace=Workplace(tmp_path / "kept", StopAfter(1)))
                break
            except KeyboardInterrupt:
                n_stops += 1
        assert n_stops == 2 and same(model, whole)  # the second time it had only to say that it was done
        assert not list((tmp_path / "kept").iterdir())

    def test_a_damaged_state_is_refused(self, water, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            trained(water, epochs=80, workplace=Workplace(tmp_path, StopAfter(1)))
        (kept,) = tmp_path.iterdir()
        kept.write_bytes(kept.read_bytes()[:1000])
        with pytest.raises(InputError, match="expected the state of a training"):
            trained(water, epochs=80, workplace=Workplace(tmp_path, SILENT))

    def test_another_training_is_not_mistaken_for_it(self, water, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            trained(water, epochs=80, workplace=Workplace(tmp_path, StopAfter(1)))
        other = trained(water, FRAMES + 1, epochs=80, workplace=Workplace(tmp_path, SILENT))
        assert same(other, trained(water, FRAMES + 1, epochs=80))

    def test_a_run_killed_in_the_middle_of_a_training_ends_the_same(self, water_file, tmp_path):
        settings = ("n_features=16", "n_interactions=1", "epochs=200")
        command = [
            sys.executable, "-m", "ase_flatten.cli", "train", str(water_file), "--model", "schnet", "-n", "1", "-i",
            "20", "-s", "10", "--resume", "-q", *(word for setting in settings for word in ("--set", setting)),
        ]  # fmt: skip
        subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True)
        broken = [*command, "--out", str(tmp_path / "broken")]
        process = subprocess.Popen(broken)
        unfinished = tmp_path / "broken" / "unfinished"
        while not list(unfinished.glob("*.pt")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "broken" / "steps" / "0000").exists()
        subprocess.run(broken, check=True)
        for name in ("improved", "default"):
            assert same(load_model(tmp_path / "whole" / name).model, load_model(tmp_path / "broken" / name).model)
        assert not unfinished.exists()


@pytest.fixture(scope="module")
def run(water, tmp_path_factory):
    settings = RunSettings(
        family="schnet", trainer=TINY, schedule=Schedule(n_steps=1, n_initial=30, step_size=10), n_geometry=4,
        n_energy=3, seed=1,
    )  # fmt: skip
    return train(water, tmp_path_factory.mktemp("runs") / "water", settings, source="water.npz")


class TestFlattening:
    def test_both_models_had_the_same_gradient_steps(self, run):
        steps = [
            load_model(run.folder / name).model.hyper_parameters["gradient_steps"] for name in ("default", "improved")
        ]
        assert steps == [250 + 250] * 2
        assert [entry.hyper_parameters["gradient_steps"] for entry in run.history] == [250, 500]

    def test_the_run_is_whole(self, run):
        default, improved = run.evaluation.final
        assert np.isfinite([default.force_rmse, improved.force_rmse, default.worst, improved.worst]).all()
        assert run.info.trainer["epochs"] == 40

    def test_it_is_a_calculator(self, run, water):
        atoms = Atoms(water.numbers, water.positions[0], calculator=load_calculator(run.folder))
        assert np.isfinite(atoms.get_forces()).all()


class TestCalculator:
    def test_contract(self, saved, water):
        check_calculator(FlattenedSchNet(saved), water.numbers, water.positions[3])

    def test_precision_survives_pickling(self, saved, water):
        calculator = pickle.loads(pickle.dumps(FlattenedSchNet(saved, dtype="float32")))
        assert calculator.model.network.representation.embedding.weight.dtype == torch.float32

    def test_it_conserves_energy(self, saved, water):
        from ase import units
        from ase.md.verlet import VelocityVerlet

        ranges = []
        for timestep in (0.4, 0.2):
            atoms = Atoms(water.numbers, water.positions[1], calculator=FlattenedSchNet(saved))
            energies = []
            dynamics = VelocityVerlet(atoms, timestep * units.fs)
            for _ in range(round(40 / timestep)):
                dynamics.run(1)
                energies.append(atoms.get_total_energy())
            ranges.append(np.std(energies))
        assert 2.5 < ranges[0] / ranges[1] < 6

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"device": "cuda:99"}, "cuda:99 was asked for"),
            ({"device": "gpu"}, "must be cpu or cuda, got 'gpu'"),
            ({"dtype": "float16"}, "dtype must be float64 or float32, got 'float16'"),
        ],
    )
    def test_wrong_choices_are_refused(self, saved, arguments, message):
        with pytest.raises(InputError, match=message):
            FlattenedSchNet(saved, **arguments)

    def test_models_of_other_families_are_refused(self, saved):
        with pytest.raises(InputError, match=r"expected a model of the family sgdml in .*, found schnet"):
            FlattenedSGDML(saved)

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda path: path.unlink(), "No such file"),
            (lambda path: path.write_bytes(path.read_bytes()[:5000]), "could not read it"),
            (lambda path: path.write_text("{}"), "could not read it"),
            (lambda path: torch.save({"weights": 1}, path), "found another file of torch"),
            (lambda path: torch.save([1, 2], path), "found another file of torch"),
        ],
    )
    def test_damaged_files_are_refused(self, saved, spoil, message):
        spoil(saved / "model.pt")
        with pytest.raises(InputError, match=message):
            FlattenedSchNet(saved)

    def test_a_model_file_that_would_run_something_is_not_loaded(self, saved):
        class Bomb:
            def __reduce__(self):
                return exec, ("raise SystemExit('unpickled')",)

        torch.save({"numbers": Bomb()}, saved / "model.pt")
        with pytest.raises(InputError, match="could not read it"):
            FlattenedSchNet(saved)
