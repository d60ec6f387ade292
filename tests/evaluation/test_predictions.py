"""Predicted against true values: every force component is counted once, where it belongs."""

import numpy as np
import pytest

from ase_flatten.evaluation.held_out import SCHEMES
from ase_flatten.evaluation.predictions import HELDOUT_PREDICTIONS, ForceCounts, HeldoutPredictions, force_edges
from ase_flatten.models.model_folder import load_model
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.run_folder import Run


def test_components_are_counted_by_their_true_and_predicted_value():
    counted = ForceCounts(np.array([-2.0, -1.0, 0.0, 1.0, 2.0]))
    counted.add(np.array([[[-1.5, 0.5, 1.5]]]), np.array([[[-0.5, 0.5, 9.0]]]))
    counted.add(np.array([[[0.5, 0.5, 0.5]]]), np.array([[[-99.0, 0.5, 2.0]]]))
    assert counted.counts[0].tolist() == [0, 1, 0, 0]
    assert counted.counts[2].tolist() == [1, 0, 2, 1]  # beyond the edges: the outermost bin
    assert counted.counts[3].tolist() == [0, 0, 0, 1]
    assert counted.counts.sum() == 6


def test_edges_hold_all_forces_and_none(rng):
    forces = rng.normal(size=(5, 3, 3))
    edges = force_edges(forces)
    assert edges[0] < forces.min() and edges[-1] > forces.max() and edges[0] == -edges[-1]
    assert np.all(np.diff(force_edges(np.zeros((2, 3, 3)))) > 0)


def test_a_run_keeps_those_of_its_final_models(finished_run, water):
    kept, heldout = finished_run.heldout_predictions, finished_run.splits.heldout
    np.testing.assert_allclose(kept.energies, water.energies[heldout] - water.energies.min(), atol=1e-9)
    for scheme in SCHEMES:
        predicted = load_model(finished_run.folder / scheme).model.predict(water.positions[heldout]).forces
        edges = kept.force_edges
        true = water.forces[heldout].ravel()
        expected = np.histogram2d(true, np.clip(predicted.ravel(), edges[0], edges[-1]), bins=(edges, edges))[0]
        assert np.abs(kept.force_counts[scheme] - expected).sum() <= 4  # rounding at edges
        assert kept.force_counts[scheme].sum() == 9 * len(heldout)


def test_runs_of_before_have_none(tmp_path):
    assert Run(tmp_path).heldout_predictions is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("energies", np.zeros(3)),
        ("force_edges", np.array([2.0, 1.0, 0.0])),
        ("force_counts_default", np.full((2, 2), -1)),
        ("force_counts_improved", np.zeros((2, 2), dtype=int)),
        ("force_counts_improved", np.ones((3, 3), dtype=int)),
    ],
)
def test_a_damaged_file_is_refused(name, value, tmp_path):
    path = tmp_path / HELDOUT_PREDICTIONS
    counts = {scheme: np.ones((2, 2), dtype=np.int64) for scheme in SCHEMES}
    HeldoutPredictions(np.zeros(2), np.array([-1.0, 0.0, 1.0]), counts).write(path)
    assert HeldoutPredictions.read(path, SCHEMES, n_heldout=2).force_counts["improved"].sum() == 4
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    np.savez(path, **{**arrays, name: value})
    with pytest.raises(InputError, match=r"expected the held-out predictions of a run in .*--resume"):
        HeldoutPredictions.read(path, SCHEMES, n_heldout=2)
