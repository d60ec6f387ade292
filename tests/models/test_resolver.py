"""Names of models and calculators mean the same everywhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from conftest import needs
from typer.testing import CliRunner

import ase_flatten
from ase_flatten import FlattenedSGDML, load_calculator
from ase_flatten.calculators import FlattenedCalculator
from ase_flatten.cli.app import app
from ase_flatten.data.units import FIELD_UNITS
from ase_flatten.ipi.model import load_answer
from ase_flatten.models.model_folder import load_model
from ase_flatten.models.resolver import KINDS, Kind, NamedCalculator, resolve
from ase_flatten.report.outliers import find_outliers
from ase_flatten.sampling.sample import SampleSettings, sample
from ase_flatten.utils.exceptions import InputError


@pytest.fixture
def bare(finished_run, tmp_path):
    """A native sGDML file outside any run."""
    return shutil.copy(finished_run.folder / "improved" / "model.npz", tmp_path / "alone.npz")


SHAPE = {"n_features": 8, "n_interactions": 1, "n_rbf": 5, "cutoff": 3.0}


@pytest.fixture
def potential():
    """An untrained network of SchNetPack."""
    needs("schnetpack", extra="schnet")
    import torch

    from ase_flatten.models.schnet.native import make_potential

    torch.manual_seed(0)
    return make_potential(**SHAPE, offset=0.0, n_atoms=3)


@pytest.fixture
def schnetpack(potential, tmp_path):
    """What SchNetPack wrote, by its name."""
    import torch

    torch.save(potential, tmp_path / "best_model")
    return f"schnetpack:{tmp_path / 'best_model'}:kcal/mol"


@pytest.fixture(params=["bare", "schnetpack"])
def spec(request):
    """What a user may name that was not trained in a run here."""
    return str(request.getfixturevalue(request.param))


def test_what_is_known_of_a_run_and_of_its_models(finished_run, water):
    run, folder, file = (resolve(finished_run.folder / name) for name in ("", "improved", "improved/model.npz"))
    for named in (run, folder, file):
        assert named.family == "sgdml" and not named.expensive and named.predicts_batches
        assert named.numbers.tolist() == [8, 1, 1]
    assert [named.name for named in (run, folder, file)] == ["water", "improved", "model"]
    card = json.loads((finished_run.folder / "improved" / "model.json").read_text())
    assert run.digest == folder.digest == str(card) != file.digest  # as runs of MD up to version 0.1 have it
    assert folder.train_frames(water.digest).tolist() == card["training_frames"]
    assert not len(folder.train_frames("of other data")) and not len(file.train_frames(water.digest))
    assert np.array_equal(folder.training_positions, water.positions[card["training_frames"]])
    assert not len(file.training_positions)


def test_a_model_of_another_molecule_is_refused(finished_run, tmp_path):
    with pytest.raises(InputError, match=r"expected H2O .*reorder the atoms or choose another model"):
        load_calculator(finished_run.folder, numbers=[1, 8, 1])
    with pytest.raises(InputError, match="choose another model"):
        sample("CH4", tmp_path / "methane.npz", SampleSettings(calculator=str(finished_run.folder)))


def test_the_current_folder_has_a_name(finished_run, monkeypatch):
    monkeypatch.chdir(finished_run.folder)
    assert resolve(".").name == "water"


@pytest.mark.parametrize(
    ("spec", "name"), [("tblite:GFN2-xTB", "tblite-GFN2-xTB"), ("ase:some.module:make", "ase-some.module-make")]
)
def test_what_is_known_of_calculators_before_they_are_made(spec, name):
    named = resolve(spec)
    assert (named.name, named.digest, named.numbers, named.family) == (name, spec, None, None)
    assert named.expensive and not named.predicts_batches
    with pytest.raises(InputError, match=f"expected the molecule's elements for {spec}"):
        named.model()
    with pytest.raises(InputError, match=r"expected a model, found .* an ASE calculator"):
        FlattenedCalculator(spec)


def test_another_file_under_the_same_name_has_another_digest(spec, tmp_path):
    before = resolve(spec).digest
    with (tmp_path / spec.partition(":")[2].partition(":")[0] if ":" in spec else Path(spec)).open("ab") as stream:
        stream.write(b"\0")  # which neither format minds
    assert resolve(spec).digest != before


def test_a_wrong_name_is_told_all_kinds(tmp_path):
    for wrong in ("nowhere", "mopac:PM7", "", "x" * 9999, tmp_path / "tblite:GFN2-xTB"):
        with pytest.raises(InputError) as refusal:
            resolve(wrong)
        assert all(kind.form in str(refusal.value) for kind in KINDS.values()) and len(str(refusal.value)) < 600
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"expected a model file \(.npz of sgdml, .pt of schnet, .xml of gap\)"):
        resolve(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="expected schnetpack:FILE:UNIT with the energy unit"):
        resolve("schnetpack:best_model")
    with pytest.raises(InputError, match="found no file nowhere"):
        resolve("schnetpack:nowhere:eV")


def test_schnetpack_that_is_not_installed_is_told_of(tmp_path, monkeypatch):
    (tmp_path / "best_model").touch()
    monkeypatch.setitem(sys.modules, "ase_flatten.models.schnet", None)
    with pytest.raises(InputError, match=r"pip install '\.\[schnet\]'"):
        resolve(f"schnetpack:{tmp_path / 'best_model'}:eV")


def test_a_new_kind_is_one_entry(monkeypatch, water):
    def read(spec: str, rest: str) -> NamedCalculator:
        return NamedCalculator(spec, rest, spec, expensive=True, make=resolve("tblite:GFN2-xTB").make)

    monkeypatch.setitem(KINDS, "pyscf", Kind("pyscf:FUNCTIONAL/BASIS", read))
    atoms = Atoms(water.numbers, water.positions[0], calculator=load_calculator("pyscf:PBE"))
    assert atoms.get_potential_energy() == pytest.approx(water.energies[0], abs=1e-5)
    with pytest.raises(InputError, match="pyscf:FUNCTIONAL/BASIS, found 'mopac:PM7'"):
        resolve("mopac:PM7")


def test_native_files_of_other_families(potential, tmp_path, water):
    from ase_flatten.models.schnet import SchNetModel

    training = {"digest": water.digest, "frames": np.arange(2)}
    model = SchNetModel(potential, water.numbers, hyper_parameters=SHAPE, training=training)
    model.save(tmp_path)
    saved = load_model(tmp_path / "model.pt")
    assert saved.card.family == "schnet" and not len(saved.train_frames)
    assert np.array_equal(saved.model.predict(water.positions[:2]).forces, model.predict(water.positions[:2]).forces)


def test_a_native_file_that_a_parser_fails_on_is_refused(bare, monkeypatch):
    def fail(folder):
        raise ZeroDivisionError("in a parser")

    monkeypatch.setattr("ase_flatten.models.sgdml.trainer.load_model_file", fail)
    with pytest.raises(InputError, match=r"expected a model of the family sgdml in .*alone\.npz, .*in a parser"):
        load_calculator(bare)


# -- the same names for every command


def test_a_calculator_of_any_kind_in_python(spec, water):
    calculator = load_calculator(spec, numbers=water.numbers)
    forces = Atoms(water.numbers, water.positions[0], calculator=calculator).get_forces()
    np.testing.assert_allclose(calculator.predict(water.positions[:1]).forces[0], forces, atol=1e-10)
    if spec.startswith("schnetpack"):
        with pytest.raises(InputError, match="expected the molecule's elements"):
            load_calculator(spec)
        with pytest.raises(InputError, match=r"of the family sgdml in schnetpack:.* found schnet"):
            FlattenedSGDML(spec, numbers=water.numbers)


def test_the_same_name_in_errors(spec, water, tmp_path, monkeypatch):
    monkeypatch.setattr("ase_flatten.report.outliers.plot_outliers", lambda *_, **__: None)
    found = find_outliers(water, spec, tmp_path / "out", n_worst=1, units=FIELD_UNITS)
    assert found.n_frames == water.n_frames == found.errors.counts.sum()


def test_the_same_name_in_i_pi(spec, water, tmp_path):
    water.atoms(0).write(tmp_path / "water.xyz")
    answer, numbers = load_answer(spec, tmp_path / "water.xyz")
    calculator = load_calculator(spec, numbers=numbers)
    assert np.array_equal(answer(water.positions[:2])[1], calculator.predict(water.positions[:2]).forces)
    if spec.startswith("schnetpack"):
        with pytest.raises(InputError, match="name them with --structure"):
            load_answer(spec)


def test_the_same_names_in_molecular_dynamics(bare, schnetpack, finished_run, tmp_path):
    models = [str(bare), schnetpack, str(finished_run.folder / "improved")]
    arguments = ["md", "--models", *models, "--T", "300", "--steps", "10", "--replicas", "2", "-q"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "md")])
    assert done.exit_code == 0, done.output
    found = {path.parent.name for path in (tmp_path / "md" / "300K").glob("*/summary.json")}
    assert found == {"alone", "schnetpack-best_model", "improved"}


def test_the_same_name_in_sampling(spec, tmp_path):
    output = tmp_path / "water.npz"
    data = sample(
        "H2O", output, SampleSettings(calculator=spec, frames=4, stride=2, equilibration_ps=0.0, temperature_K=50)
    )
    calculator = load_calculator(spec, numbers=data.numbers)
    np.testing.assert_allclose(calculator.predict(data.positions).forces, data.forces, atol=1e-6)


MINE = """
import os
from pathlib import Path
def make():
    Path(f"made-by-{os.getpid()}").touch()
    from tblite.ase import TBLite
    return TBLite(method="GFN2-xTB", verbosity=0)
def fail():
    return undefined
"""


def console_script(*arguments, folder):
    """Run the command as its console script does: Python does not search the current folder."""
    code = "import sys; sys.path = [one for one in sys.path if one]; from ase_flatten.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(ase_flatten.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=folder, env=environment
    )


def test_a_calculator_in_the_current_folder(water_file, tmp_path):
    (tmp_path / "mycalc.py").write_text(MINE)
    asked = "errors", water_file, "ase:mycalc:make", "--workers", 2, "--out", "found"
    done = console_script(*asked, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("made-by-*"))) > 1  # the workers find it as well
    missing = console_script("sample", "H2O", "--calculator=ase:nothere:make", "-o", "x.npz", folder=tmp_path)
    assert missing.returncode == 2 and "No module named 'nothere'" in missing.stderr
    assert "in the current folder" in missing.stderr
    failing = console_script("sample", "H2O", "--calculator", "ase:mycalc:fail", "-o", "x.npz", folder=tmp_path)
    assert failing.returncode == 2 and "NameError" in failing.stderr and "Traceback" not in failing.stderr


def test_only_what_was_typed_is_found_in_the_current_folder(tmp_path, finished_run):
    """A file that names a module makes nothing of the current folder importable."""
    shutil.copytree(finished_run.folder, tmp_path / "run")
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    card["settings"]["family"] = "ase:evil:make"
    (tmp_path / "run" / "run.json").write_text(json.dumps(card))
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('imported').touch()\n")
    for command in (["report", "run"], ["md", "run", "--T", "300", "--steps", "10"]):
        console_script(*command, folder=tmp_path)
    assert not (tmp_path / "imported").exists()
