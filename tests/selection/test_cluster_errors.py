import numpy as np
import pytest

from ase_flatten.clustering.clusters import Clustering
from ase_flatten.data.dataset import Dataset
from ase_flatten.evaluation.predictions import ForceCounts, force_edges
from ase_flatten.models import Prediction
from ase_flatten.selection.cluster_errors import by_cluster, cluster_errors, frame_errors
from ase_flatten.utils.exceptions import InputError


class Off:
    """Predict the reference, off by a known amount on each frame."""

    permutations = np.arange(2)[None]
    hyper_parameters = {}  # noqa: RUF012

    def __init__(self, dataset, by):
        self.numbers, self.dataset, self.by = dataset.numbers, dataset, by

    def predict(self, positions):
        frames = positions[:, 0, 0].astype(int)
        return Prediction(
            self.dataset.energies[frames] - self.by[frames],
            self.dataset.forces[frames] + self.by[frames][:, None, None] * np.array([1.0, -1.0])[:, None],
        )


@pytest.fixture
def data(rng):
    positions = rng.normal(size=(2500, 2, 3))
    positions[:, 0, 0] = np.arange(2500)
    return Dataset(np.array([1, 1]), positions, rng.normal(size=2500), rng.normal(size=(2500, 2, 3)))


def test_errors_are_per_component_and_by_cluster(data):
    labels = np.arange(2500) % 3
    model = Off(data, np.array([0.1, 0.2, 0.4])[labels])
    errors = cluster_errors(model, data, Clustering(labels))
    np.testing.assert_allclose(errors.rmse, [0.1, 0.2, 0.4])
    np.testing.assert_allclose(errors.mae, [0.1, 0.2, 0.4])
    np.testing.assert_allclose(errors.energy_rmse, [0.1, 0.2, 0.4])
    assert errors.overall_rmse == pytest.approx(np.sqrt(np.mean(np.array([0.1, 0.2, 0.4])[labels] ** 2)))
    assert errors.ascending.tolist() == [0, 1, 2] and errors.worst == 2
    assert errors.above(1.1).tolist() == [2] and errors.above(0.5).tolist() == [1, 2]
    assert errors.counts.tolist() == errors.populations.tolist() == [834, 833, 833]


def test_a_cluster_without_predicted_frames_has_no_error(data):
    labels = (np.arange(2500) > 2000).astype(int)
    errors = cluster_errors(Off(data, np.full(2500, 0.1)), data, Clustering(labels), frames=np.arange(100))
    assert np.isnan(errors.rmse[1]) and errors.counts.tolist() == [100, 0]
    assert errors.ascending.tolist() == [0] and errors.above(1.1).tolist() == []


def test_signs_of_energy_errors_are_kept(data):
    assert np.all(frame_errors(Off(data, np.full(2500, 0.1)), data).energy < 0)


def test_another_molecule_is_refused(data):
    model = Off(data, np.zeros(2500))
    model.numbers = np.array([1, 8])
    with pytest.raises(InputError, match=r"expected a model of H2 .* found one of HO"):
        frame_errors(model, data)


def test_clusters_of_other_data_are_refused(data):
    errors = frame_errors(Off(data, np.zeros(2500)), data)
    with pytest.raises(InputError, match="labels of 10 frames only"):
        by_cluster(errors, Clustering(np.zeros(10, dtype=int)))


def test_nan_is_refused(data):
    with pytest.raises(InputError, match="NaN or infinity for 1 frames"):
        frame_errors(Off(data, np.where(np.arange(2500) == 7, np.nan, 0.1)), data)


def test_forces_that_are_not_finite_are_not_counted(data):
    counted = ForceCounts(force_edges(data.forces))
    with pytest.raises(InputError, match="NaN or infinity for 1 frames"):
        frame_errors(Off(data, np.where(np.arange(2500) == 7, np.nan, 0.1)), data, on_forces=counted.add)
    assert counted.counts.sum() == 6 * 2499
