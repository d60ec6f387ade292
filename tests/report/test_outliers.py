"""Outlier detection on the data of a run uses the clusters of the run."""

from pathlib import Path

import numpy as np
import pytest

from ase_flatten.data.dataset import Dataset
from ase_flatten.data.units import FIELD_UNITS
from ase_flatten.report.outliers import find_outliers
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.run_folder import read_clusters


@pytest.fixture
def outliers_of(water, tmp_path, monkeypatch):
    """Judge a model, without the figure; give what was found, and the labels that were written."""
    monkeypatch.setattr("ase_flatten.report.outliers.plot_outliers", lambda *_, **__: None)

    def call(spec: str | Path, *, dataset: Dataset = water, clusters: Path | None = None):
        found = find_outliers(dataset, str(spec), tmp_path / "out", n_worst=1, units=FIELD_UNITS, clusters=clusters)
        return found, read_clusters(tmp_path / "out" / "clusters.npz").labels

    return call


@pytest.fixture
def other_water(water) -> Dataset:
    """As many frames of the same molecule, but not the same data."""
    return Dataset(water.numbers, water.positions + 1.0, water.energies, water.forces)


@pytest.mark.parametrize("model", [".", "improved", "default", "steps/0001", "steps/0001/model.npz"])
def test_a_model_of_a_run_is_judged_on_its_clusters(outliers_of, finished_run, model):
    found, labels = outliers_of(finished_run.folder / model)
    assert np.array_equal(labels, finished_run.clustering.labels)
    assert found.clusters_of is not None and found.clusters_of.resolve() == finished_run.folder.resolve()
    assert f"including the {len(finished_run.splits.valid)} validation frames" in found.which_frames


def test_on_other_data_they_are_clustered_anew(outliers_of, finished_run, other_water):
    found, labels = outliers_of(finished_run.folder, dataset=other_water)
    assert found.clusters_of is None and found.n_frames == other_water.n_frames
    assert "validation" not in found.which_frames
    assert len(np.unique(labels)) != finished_run.clustering.n_clusters


@pytest.mark.parametrize("clusters", [".", "clusters.npz"])
def test_any_model_is_judged_on_clusters_that_are_given(outliers_of, finished_run, tmp_path, clusters):
    alone = tmp_path / "model.npz"
    alone.write_bytes((finished_run.folder / "default" / "model.npz").read_bytes())
    assert outliers_of(alone)[0].clusters_of is None
    found, labels = outliers_of(alone, clusters=finished_run.folder / clusters)
    assert found.clusters_of == finished_run.folder / clusters
    assert np.array_equal(labels, finished_run.clustering.labels)


def test_clusters_of_other_data_are_refused(outliers_of, finished_run, water, other_water, tmp_path):
    run = finished_run.folder
    fewer = Dataset(water.numbers, water.positions[:100], water.energies[:100], water.forces[:100])
    with pytest.raises(InputError, match="of the 100 frames of this data set, found labels of 416"):
        outliers_of(run, dataset=fewer, clusters=run)
    with pytest.raises(InputError, match="a run on other data of the same size"):
        outliers_of(run, dataset=other_water, clusters=run)
    with pytest.raises(InputError, match="expected clusters in"):
        outliers_of(run, clusters=run / "splits.npz")
    with pytest.raises(InputError, match="expected clusters in"):
        outliers_of(run, clusters=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()
