"""Runs show what they are, whatever state their folder is in."""

import shutil

from ase_flatten.workflow.run_folder import Run


def test_a_run_shows_its_errors(finished_run):
    default, improved = (curve.force_rmse * 23.0605 for curve in finished_run.evaluation.final)
    assert repr(finished_run) == (
        f"<Run {finished_run.folder}: family sgdml, molecule H2O, data 416 frames of water.npz, state 3 of 3 steps, "
        f"force RMSE, default {default:.3f} kcal/(mol Å), force RMSE, improved {improved:.3f} kcal/(mol Å)>"
    )
    assert f"{improved:.3f} kcal/(mol Å)" in finished_run._repr_html_()
    assert repr(finished_run.info) == "<RunInfo: family sgdml, molecule H2O, data 416 frames of water.npz>"
    assert "water.npz" in finished_run.info._repr_html_()


def test_a_display_never_fails(finished_run, tmp_path):
    assert "unreadable expected a run folder" in repr(Run(tmp_path / "nowhere"))
    folder = tmp_path / "run"
    shutil.copytree(finished_run.folder, folder)
    (folder / "curves.json").unlink()
    assert repr(Run(folder)).endswith("state 3 of 3 steps>")
    (folder / "history.jsonl").write_text("damaged")
    assert "could not read it" in repr(Run(folder))
    assert "could not read it" in Run(folder)._repr_html_()


def test_text_from_files_is_escaped(finished_run, tmp_path):
    folder = tmp_path / "<b>"
    shutil.copytree(finished_run.folder, folder)
    assert (
        "<b>" not in Run(folder)._repr_html_().replace("<caption><b>", "") and "&lt;b&gt;" in Run(folder)._repr_html_()
    )
