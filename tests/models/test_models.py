"""The shared contract, and what is particular to sGDML; the `sgdml` package is the reference."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import RARE_WATER

from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.models import families, family
from ase_flatten.models.model_folder import CARD, load_model, save_model
from ase_flatten.models.sgdml import FAMILY, SGDMLModel, length_scale, load_model_file
from ase_flatten.selection.cluster_errors import frame_errors
from ase_flatten.testing import check_model
from ase_flatten.utils.exceptions import InputError

FRAMES = np.arange(0, 300, 6)
VALID = np.arange(3, 300, 6)


@pytest.fixture(scope="session")
def ethanol_model(ethanol_like) -> SGDMLModel:
    return FAMILY.trainer(sigma=20).fit(ethanol_like, FRAMES, VALID, rng=np.random.default_rng(0))


@pytest.fixture
def saved(ethanol_model, ethanol_like, tmp_path) -> Path:
    save_model(tmp_path / "model", ethanol_model, FAMILY, ethanol_like, FRAMES)
    return tmp_path / "model"


def test_contract(ethanol_model, ethanol_like, tmp_path):
    check_model(ethanol_model, ethanol_like.positions[[1, 50, 200]], reload=FAMILY.load, folder=tmp_path)


class TestTheContractCanFail:
    positions = property(lambda self: self.dataset.positions[[1, 50]])

    @pytest.fixture(autouse=True)
    def _data(self, ethanol_like, ethanol_model, tmp_path):
        self.dataset, self.model, self.folder = ethanol_like, ethanol_model, tmp_path

    def fails(self, match, change):
        class Spoiled(SGDMLModel):
            def predict(self, positions):
                return change(super().predict(positions), positions)

        with pytest.raises(AssertionError, match=match):
            check_model(Spoiled(self.model.content), self.positions, reload=FAMILY.load, folder=self.folder)

    def test_sign(self):
        self.fails("not -dE/dx", lambda prediction, _: replace(prediction, forces=-prediction.forces))

    def test_batch(self):
        self.fails(
            "batch", lambda prediction, x: replace(prediction, energies=prediction.energies + (len(x) > 1) * 1e-3)
        )

    def test_orientation(self):
        self.fails(
            "net force|not turn|changes the energy|-dE/dx",
            lambda prediction, x: replace(prediction, energies=prediction.energies + 1e-3 * x[:, 0, 0]),
        )


def test_the_model_is_good_and_no_worse_than_the_package(ethanol_model, ethanol_like):
    errors = frame_errors(ethanol_model, ethanol_like, VALID)
    spread = np.std(ethanol_like.forces)
    assert np.sqrt(errors.force_mse.mean()) < 0.05 * spread
    assert np.abs(errors.energy).max() < 0.02


def test_the_package_loads_the_file_and_predicts_the_same(saved, ethanol_model, ethanol_like, capfd):
    code = f"""
import numpy as np
from sgdml.predict import GDMLPredict
model = np.load({str(saved / "model.npz")!r}, allow_pickle=True)
assert model["f_err"].item().keys() == {{"mae", "rmse"}}
positions = np.load({str(saved / "positions.npy")!r})
energies, forces = GDMLPredict(model).predict(positions.reshape(len(positions), -1))
np.savez({str(saved / "package.npz")!r}, energies=energies, forces=forces)
"""
    positions = ethanol_like.positions[:20]
    np.save(saved / "positions.npy", positions)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    package = np.load(saved / "package.npz")
    ours = ethanol_model.predict(positions)
    np.testing.assert_allclose(ours.energies / KCAL_PER_MOL, package["energies"], rtol=1e-9)
    forces = package["forces"].reshape(positions.shape)
    np.testing.assert_allclose(ours.forces / KCAL_PER_MOL, forces, atol=1e-6 * np.abs(forces).max())


def test_symmetries_are_found_once_and_kept(ethanol_like, ethanol_model, monkeypatch):
    assert len(ethanol_model.permutations) in (3, 6)
    monkeypatch.setattr("ase_flatten.models.sgdml.symmetries.find", None)
    trainer = FAMILY.trainer(sigma=5)
    larger = trainer.fit(
        ethanol_like, np.arange(0, 300, 10), VALID, rng=np.random.default_rng(0), previous=ethanol_model
    )
    assert np.array_equal(larger.permutations, ethanol_model.permutations)
    assert larger.sigma == 20


def test_the_length_scale_is_chosen_on_validation_frames(water):
    frames, valid = np.arange(0, 416, 14), np.arange(5, 416, 9)
    chosen = FAMILY.trainer().fit(water, frames, valid, rng=np.random.default_rng(0))
    of_chosen = frame_errors(chosen, water, valid).force_mse
    for sigma in (2, 10, 20, 200):
        other = FAMILY.trainer(sigma=sigma).fit(water, frames, valid, rng=np.random.default_rng(0))
        gain = of_chosen - frame_errors(other, water, valid).force_mse
        assert gain.mean() <= np.std(gain) / np.sqrt(len(valid)), sigma


def test_settling_mends_a_bad_length_scale_for_all_models_alike(water):
    valid = np.arange(5, 416, 9)
    sets = [np.arange(0, 416, 14), np.arange(1, 416, 14)]
    bad = [FAMILY.trainer(sigma=200).fit(water, frames, valid, rng=np.random.default_rng(0)) for frames in sets]
    settled = FAMILY.trainer().settle(water, list(zip(sets, bad, strict=True)), valid, rng=np.random.default_rng(0))
    (sigma,) = {model.sigma for model in settled}
    assert sigma < 150  # it walks on, not one place only
    errors = {
        scale: sum(
            frame_errors(
                FAMILY.trainer(sigma=scale).fit(water, frames, valid, rng=np.random.default_rng(0)), water, valid
            ).force_mse.mean()
            for frames in sets
        )
        for scale in (sigma, 150, 200)
    }
    assert errors[sigma] < 0.5 * min(errors[150], errors[200])
    assert [len(model.content["idxs_train"]) for model in settled] == [30, 30]
    fixed = FAMILY.trainer(sigma=200).settle(
        water, list(zip(sets, bad, strict=True)), valid, rng=np.random.default_rng(0)
    )
    assert fixed[0] is bad[0]


def test_a_few_frames_far_away_do_not_choose_the_length_scale():
    first, rng = length_scale.LENGTH_SCALES.index(length_scale.FIRST_LENGTH_SCALE), np.random.default_rng(0)
    usual, far = rng.uniform(0.9, 1.1, 100), np.zeros(100)
    far[:2] = 5000

    def of_most(place):
        return usual * (1 + 0.1 * abs(place - first))

    def of_all(place):  # two frames want forces near zero, and decide the mean
        return of_most(place) + far * np.array([1 + 0.02 * (place - first), 1 - 0.01 * (place - first)] * 50)

    assert np.argmin([of_all(place).mean() for place in range(first + 1)]) == 0
    assert length_scale.descend(first, of_all, n_standard_errors=1) == first
    assert length_scale.descend(0, of_most, n_standard_errors=1) == first
    away = {0: 1.0, 1: 2.0, first: 0.5}  # a minimum at the shortest length scale, with a barrier before it
    barred = lambda place: usual * away.get(place, 3.0)  # noqa: E731
    assert length_scale.descend(0, barred, n_standard_errors=2) == 0
    assert length_scale.descend(0, barred, n_standard_errors=2, shortcuts=[first]) == first


def test_the_integration_constant_is_that_of_the_validation_frames(water):
    frames = np.r_[RARE_WATER, 1:26]  # rich in outliers
    model = FAMILY.trainer(sigma=10).fit(water, frames, VALID, rng=np.random.default_rng(0))
    assert abs(frame_errors(model, water, VALID).energy.mean()) < 1e-9
    assert abs(frame_errors(model, water, frames).energy.mean()) > 1e-6
    alone = FAMILY.trainer(sigma=10).fit(water, frames, VALID[:0], rng=np.random.default_rng(0))
    assert abs(frame_errors(alone, water, frames).energy.mean()) < 1e-9
    assert np.array_equal(alone.predict(water.positions).forces, model.predict(water.positions).forces)


def test_training_is_quiet_and_leaves_no_processes(water, capfd):
    import multiprocessing

    FAMILY.trainer(sigma=10).fit(water, np.arange(0, 416, 20), np.arange(5, 416, 9), rng=np.random.default_rng(0))
    assert capfd.readouterr() == ("", "")
    assert multiprocessing.active_children() == []


def test_a_model_survives_pickling(ethanol_model, ethanol_like):
    twin = pickle.loads(pickle.dumps(ethanol_model))
    assert np.array_equal(
        twin.predict(ethanol_like.positions[:3]).forces, ethanol_model.predict(ethanol_like.positions[:3]).forces
    )


def test_a_model_folder_says_what_it_holds(saved, ethanol_like):
    card = json.loads((saved / CARD).read_text())
    assert card["species"] == ["C", "C", "O", "H", "H", "H", "H", "H", "H"]
    assert card["training_frames"] == FRAMES.tolist()
    assert card["dataset_digest"] == ethanol_like.digest
    assert card["hyper_parameters"]["sigma"] == 20
    assert {"sgdml", "numpy", "ase", "ase-flatten"} <= set(card["versions"])
    loaded = load_model(saved)
    assert np.array_equal(loaded.training_positions, ethanol_like.positions[FRAMES])
    assert len(load_model(saved / "model.npz").train_frames) == 0


def spoil(folder: Path, what: str) -> Path:
    if what == "nothing there":
        return folder / "nowhere"
    if what == "half a file":
        content = (folder / "model.npz").read_bytes()
        (folder / "model.npz").write_bytes(content[: len(content) // 2])
    if what == "a data set":
        np.savez(folder / "model.npz", z=[1], R=[0])
    if what == "no card":
        (folder / CARD).write_text("{")
    card = json.loads((folder / CARD).read_text()) if what != "no card" else {}
    if what == "a later format":
        (folder / CARD).write_text(json.dumps({**card, "format": 99}))
    if what == "other species":
        (folder / CARD).write_text(json.dumps({**card, "species": ["H"]}))
    if what == "an unknown family":
        (folder / CARD).write_text(json.dumps({**card, "family": "none"}))
    if what == "no training geometries":
        (folder / "training.npz").unlink()
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing there", "expected a run folder or a model folder"),
        ("half a file", "damaged|could not read"),
        ("a data set", "no entry R_desc; is it a data set"),
        ("no card", "could not read"),
        ("a later format", "update ase-flatten"),
        ("other species", "train it again"),
        ("an unknown family", "must be one of"),
        ("no training geometries", "training geometries"),
    ],
)
def test_damaged_folders_are_refused(saved, what, message):
    with pytest.raises(InputError, match=message):
        load_model(spoil(saved, what))


def test_objects_in_a_model_file_are_never_unpickled(saved):
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit('unpickled')",)

    content = dict(np.load(saved / "model.npz", allow_pickle=True))
    np.savez(saved / "model.npz", **{**content, "perms": np.array(Bomb(), dtype=object)})
    with pytest.raises(InputError, match="could not read"):
        load_model_file(saved / "model.npz")


@pytest.mark.parametrize("entry", ["lattice", "alphas_E"])
def test_models_beyond_plain_sgdml_are_refused(saved, entry):
    content = dict(np.load(saved / "model.npz", allow_pickle=True))
    np.savez(saved / "model.npz", **content, **{entry: np.eye(3)})
    with pytest.raises(InputError, match=f"found {entry}"):
        load_model_file(saved / "model.npz")


def test_families_and_their_settings_are_looked_up():
    assert "sgdml" in families()
    with pytest.raises(InputError, match=r"must be one of .*sgdml.*got 'sgmdl'"):
        family("sgmdl")
    with pytest.raises(InputError, match="did you mean sigma"):
        FAMILY.trainer(sigmaa=3)
    with pytest.raises(InputError, match="must be a positive number"):
        FAMILY.trainer(sigma=-3)
