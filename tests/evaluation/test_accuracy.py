"""RMSE, MAE and relative errors over many frames."""

from dataclasses import replace

import numpy as np
import pytest

from ase_flatten.data.units import output_units
from ase_flatten.evaluation.accuracy import accuracies_of, accuracy_of, compared_in_words, in_words, percent
from ase_flatten.models.model_folder import load_model
from ase_flatten.selection.cluster_errors import cluster_errors

KCAL, EV = output_units("kcal/mol"), output_units("eV")


@pytest.fixture
def predicted(finished_run, water):
    """The forces and energies of each final model on the held-out frames."""
    frames = finished_run.splits.heldout
    models = {scheme: load_model(finished_run.folder / scheme).model for scheme in ("default", "improved")}
    return frames, {scheme: model.predict(water.positions[frames]) for scheme, model in models.items()}


def test_the_accuracies_of_a_run_are_those_of_its_models(finished_run, water, predicted):
    frames, predictions = predicted
    for scheme, found in accuracies_of(finished_run.heldout_errors).items():
        forces = predictions[scheme].forces - water.forces[frames]
        energies = predictions[scheme].energies - water.energies[frames]
        assert found.force_rmse == pytest.approx(np.sqrt(np.mean(forces**2)))
        assert found.force_mae == pytest.approx(np.mean(np.abs(forces)))
        assert found.energy_rmse == pytest.approx(np.sqrt(np.mean(energies**2)))
        assert found.energy_mae == pytest.approx(np.mean(np.abs(energies)))
        scale = np.sqrt(np.mean(water.forces[frames] ** 2)), np.std(water.energies[frames])
        assert found.relative_force_rmse == pytest.approx(found.force_rmse / scale[0])
        assert found.relative_energy_rmse == pytest.approx(found.energy_rmse / scale[1])


def test_the_accuracy_of_any_model(finished_run, water):
    model, clusters = load_model(finished_run.folder).model, finished_run.clustering
    errors = cluster_errors(model, water, clusters)
    found = accuracy_of(errors, water, np.arange(water.n_frames))
    assert (found.force_rmse, found.energy_mae) == (errors.overall_rmse, errors.overall_energy_mae)
    assert found.relative_energy_rmse == pytest.approx(errors.overall_energy_rmse / water.energies.std())


def test_the_words_have_one_unit_and_no_other(finished_run):
    accuracies = accuracies_of(finished_run.heldout_errors)
    for units, other in ((KCAL, "eV"), (EV, "kcal")):
        said = " ".join([*compared_in_words(accuracies, units, frames="them"), *in_words(accuracies["default"], units)])
        assert f"{units.force}" in said and other not in said and "MAE" in said and " % → " in said


def test_runs_made_before_say_nothing_of_it(finished_run):
    before = replace(finished_run.heldout_errors, reference=None, force_mae={})
    assert accuracies_of(before) == {} and compared_in_words({}, KCAL, frames="them") == []


def test_nothing_to_be_relative_to(finished_run):
    accuracy = replace(accuracies_of(finished_run.heldout_errors)["default"], reference_energy=0.0)
    assert np.isnan(accuracy.relative_energy_rmse) and "– of the standard deviation" in in_words(accuracy, KCAL)[1]


@pytest.mark.parametrize(("share", "text"), [(0.0412, "4.1 %"), (0.26, "26 %"), (3.5, "350 %"), (0.0, "0 %")])
def test_percent(share, text):
    assert percent(share) == text
