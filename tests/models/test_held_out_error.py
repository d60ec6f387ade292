import json
import shutil

from ase_flatten.models.held_out_error import held_out_error


def test_each_model_of_a_run_finds_its_own_error(finished_run):
    folder = finished_run.folder
    curves = {(curve.scheme, curve.n_train): curve.force_rmse for curve in finished_run.evaluation.curves}
    for path, n_train, scheme in (
        (folder, 25, "improved"),
        (folder / "improved", 25, "improved"),
        (folder / "improved" / "model.npz", 25, "improved"),
        (folder / "steps" / "0002", 20, "improved"),
        (folder / "default", 25, "default"),
    ):
        found = held_out_error(path, n_train)
        assert found is not None and abs(found.force_rmse - curves[scheme, n_train]) < 1e-9, path
    assert held_out_error(folder / "default_draws" / "0001", 25) is None
    assert held_out_error(folder / "improved", 24) is None


def test_without_a_run_or_with_a_damaged_one_it_is_unknown(finished_run, tmp_path):
    shutil.copytree(finished_run.folder / "improved", tmp_path / "improved")
    assert held_out_error(tmp_path / "improved", 25) is None
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "curves.json").write_text(json.dumps({"curves": "none"}))
    assert held_out_error(tmp_path / "improved", 25) is None
