"""The sections of the report on held-out errors: figures and tables."""

from pathlib import Path
from typing import Any

from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.claims import LEAST_DIFFERENCE, Claims
from ase_flatten.evaluation.conclusions import table
from ase_flatten.evaluation.held_out import SCHEMES, Curve, Evaluation
from ase_flatten.report.figures import plot_comparison, plot_error_curves, plot_learning_curve
from ase_flatten.report.number_formats import formats
from ase_flatten.report.pictures import small_data_uri
from ase_flatten.report.prediction_figures import plot_error_distribution, plot_predictions
from ase_flatten.report.sections import Section
from ase_flatten.workflow.run_folder import Run


def errors_section(run: Run, units: OutputUnits) -> Section:
    """Return the errors of both models: measures, groups of clusters, sizes of the training set."""
    claims, figures = run.claims, run.folder / "figures"
    grouped = run.evaluation.grouped(claims.groups)
    pictures = {
        "comparison": plot_comparison(grouped, claims, figures / "comparison", units=units),
        "error_curves": plot_error_curves(grouped, figures / "error_curves", units=units),
        "learning_curve": plot_learning_curve(grouped, claims, figures / "learning_curve", units=units),
    }
    return Section(
        "errors.html",
        {
            "measures": table(claims, units),
            "least_difference": LEAST_DIFFERENCE,
            "sizes": _sizes(grouped, units),
            "pictures": {name: small_data_uri(paths[0].read_bytes()) for name, paths in pictures.items()},
        },
    )


def test_section(run: Run, claims: Claims, units: OutputUnits) -> Section:
    """Return the errors of both models on the external test set of a run, from the claims on it."""
    name = Path(run.info.test.source).name if run.info.test else "an external test set"
    return Section("test_set.html", {"measures": table(claims, units), "n_test": claims.n_frames, "test": name})


def predictions_section(run: Run, units: OutputUnits) -> Section:
    """Return the distribution of the force errors, and predicted against true values if the run kept them."""
    errors, predictions, figures = run.heldout_errors, run.heldout_predictions, run.folder / "figures"
    pictures = {"error_distribution": plot_error_distribution(errors, figures / "error_distribution", units=units)}
    n_components = 0
    if predictions is not None:
        n_components = int(predictions.force_counts["default"].sum())
        pictures["predictions"] = plot_predictions(
            predictions, errors, run.evaluation, figures / "predictions", units=units
        )
    return Section(
        "predictions.html",
        {
            "pictures": {name: small_data_uri(paths[0].read_bytes()) for name, paths in pictures.items()},
            "n_components": n_components,
        },
    )


def _flatness(curve: Curve) -> float:
    return curve.worst / curve.force_rmse if curve.force_rmse else float("nan")


def _sizes(evaluation: Evaluation, units: OutputUnits) -> list[dict[str, Any]]:
    """Return one row for each size, with the errors of each scheme."""
    force, energy = formats(evaluation, units)
    rows: dict[int, dict[str, Any]] = {}
    for scheme in SCHEMES:
        for curve in evaluation.of(scheme):
            rows.setdefault(curve.n_train, {"n_train": curve.n_train})[scheme] = [
                force(curve.force_rmse),
                force(curve.worst),
                f"{_flatness(curve):.2f}",
                energy(curve.energy_rmse),
            ]
    return [{scheme: ["–"] * 4 for scheme in SCHEMES} | rows[n_train] for n_train in sorted(rows)]
