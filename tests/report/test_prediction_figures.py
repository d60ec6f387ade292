"""Figures of single predictions: what is drawn."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from ase_flatten.data.units import KCAL_PER_MOL
from ase_flatten.evaluation.held_out import Curve, Evaluation, HeldoutErrors
from ase_flatten.evaluation.predictions import HeldoutPredictions
from ase_flatten.report.prediction_figures import (
    draw_density,
    draw_error_histogram,
    draw_exceedance,
    plot_error_distribution,
    plot_predictions,
)

N_FRAMES = 400


@pytest.fixture
def errors(rng: np.random.Generator) -> HeldoutErrors:
    forces = {"default": rng.lognormal(-3, 0.6, N_FRAMES), "improved": rng.lognormal(-3.2, 0.3, N_FRAMES)}
    energies = {scheme: rng.normal(scale=0.02, size=N_FRAMES) for scheme in forces}
    return HeldoutErrors(np.arange(N_FRAMES), np.zeros(N_FRAMES, dtype=np.int64), forces, energies)


def test_quantiles_are_marked_where_they_are(errors: HeldoutErrors) -> None:
    axes = draw_exceedance(Figure().add_subplot(), errors)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    points = {(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1}
    expected = {
        (np.quantile(errors.force_rmse[scheme], quantile) / KCAL_PER_MOL, 100 * (1 - quantile))
        for scheme in ("default", "improved") for quantile in (0.5, 0.9, 0.99)
    }  # fmt: skip
    np.testing.assert_allclose(sorted(points), sorted(expected))
    for line in axes.lines:
        if line.get_label() in errors.force_rmse:
            values, larger = line.get_data()
            assert larger[0] == 100 and larger[-1] == pytest.approx(100 / N_FRAMES)
            assert np.all(np.diff(values) >= 0) and np.all(np.diff(larger) < 0)


def test_each_frame_counts_once_in_the_histogram(errors: HeldoutErrors) -> None:
    axes = draw_error_histogram(Figure().add_subplot(), errors)
    assert axes.get_xscale() == "log"
    for steps in axes.patches:
        assert steps.get_data().values.sum() == pytest.approx(100)


def test_density_has_the_identity_and_shows_empty_bins_as_nothing() -> None:
    counts = np.array([[5, 0], [1, 7]])
    axes = draw_density(Figure().add_subplot(), counts, np.array([-1.0, 0.0, 1.0]), "default")
    (line,) = axes.lines
    assert list(line.get_xdata()) == list(line.get_ydata()) == [-1, 1]
    (image,) = axes.images
    shown = image.get_array()
    assert image.origin == "lower" and image.get_extent() == [-1, 1, -1, 1]
    assert shown[0].tolist() == [5, 1]  # predicted upwards, true to the right
    assert shown.mask.sum() == 1


@pytest.mark.parametrize("perfect", [False, True])
def test_figure_files(perfect: bool, errors: HeldoutErrors, tmp_path: Path, rng: np.random.Generator) -> None:
    if perfect:
        zero = {scheme: np.zeros(N_FRAMES) for scheme in errors.force_rmse}
        errors = HeldoutErrors(errors.frames, errors.labels, zero, zero)
    energies = np.zeros(N_FRAMES) if perfect else rng.gamma(4, 0.1, N_FRAMES)
    counts = {scheme: np.diag([1, 5, 1]) for scheme in errors.force_rmse}
    predictions = HeldoutPredictions(energies, np.array([-3.0, -1.0, 1.0, 3.0]), counts)
    one = np.array([0.0 if perfect else 0.05])
    curves = tuple(Curve(scheme, 50, one[0], one[0], one, one) for scheme in ("default", "improved"))
    evaluation = Evaluation(curves, np.array([2 * N_FRAMES]), np.array([N_FRAMES]))
    paths = plot_predictions(predictions, errors, evaluation, tmp_path / "predictions")
    paths += plot_error_distribution(errors, tmp_path / "distribution")
    assert [path.suffix for path in paths] == [".png", ".pdf"] * 2
    assert all(path.stat().st_size > 3000 for path in paths)
