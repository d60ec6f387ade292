"""Selectors: how they are found and combined, farthest points, and one of another package."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from conftest import WATER_SETTINGS

from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.models import family
from ase_flatten.selection.fine_cluster_selector import CENTROID, LARGEST_ERROR, POPULATION, RANDOM
from ase_flatten.selection.flattening import flatten
from ase_flatten.selection.frame_selection import SelectionRule, select
from ase_flatten.selection.selectors import Candidates, find_selector, selectors
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT
from ase_flatten.workflow.run_folder import Run
from ase_flatten.workflow.train_run import train


@pytest.fixture
def candidates(rng):
    frames = np.sort(rng.choice(500, 120, replace=False))
    return Candidates(frames, rng.random(120), 3 + rng.random((120, 6)), 3 + rng.random((10, 6)))


def test_five_selectors_are_installed():
    assert set(selectors()) >= {"largest-error", "population", "centroid", "random", "farthest-point"}
    for selector in (LARGEST_ERROR, POPULATION, CENTROID, RANDOM):
        assert find_selector(selector.name) == selector == SelectionRule(select=selector.name).selector
    assert SelectionRule(pick="centroid", share="population").selector.name == "centroid-population"


def test_farthest_points_are_those_of_a_direct_computation(candidates, rng):
    chosen = select(candidates, 15, find_selector("farthest-point"), rng=rng)
    known, left = list(candidates.train_descriptors), dict(zip(candidates.frames, candidates.descriptors, strict=True))
    for frame in chosen:
        distances = {one: min(np.linalg.norm(own - other) for other in known) for one, own in left.items()}
        assert frame == max(distances, key=distances.get)
        known.append(left.pop(frame))


def test_farthest_points_begin_without_training_frames_and_end_with_different_ones(candidates):
    rows = np.arange(120) % 7
    copies = replace(candidates, descriptors=candidates.descriptors[rows], train_descriptors=np.empty((0, 6)))
    choose = find_selector("farthest-point").prepare(copies, 20, rng=None, progress=SILENT)
    found = choose(np.zeros(120, dtype=bool))
    assert sorted(rows[found]) == list(range(7))
    refused = np.zeros(120, dtype=bool)
    refused[found] = True
    again = choose(refused)  # the copies take their place
    assert not set(again) & set(found) and sorted(rows[again]) == list(range(7))


def test_a_name_and_the_settings_it_stands_for_are_one_rule():
    assert SelectionRule(select="population") == SelectionRule(share="population")
    assert SelectionRule(select="random", n_fine=12).select is None
    protocol = SelectionRule(1.2, n_fine=12, share="population")
    assert protocol.changed(select="centroid") == SelectionRule(1.2, n_fine=12, pick="centroid")
    assert protocol.changed(select="farthest-point") == SelectionRule(1.2, select="farthest-point")
    assert protocol.changed(select="farthest-point").changed(pick="random") == SelectionRule(1.2, pick="random")
    assert protocol.changed(pick="random", factor=1.3) == SelectionRule(1.3, 12, "random", "population")
    assert protocol.changed() == protocol
    assert SelectionRule().changed(select="random", pick="random", n_fine=3) == SelectionRule(n_fine=3, pick="random")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select": "random", "pick": "centroid"}, "random cannot be combined with pick centroid, since it implies"),
        ({"select": "population", "share": "one"}, "population cannot be combined with share one, since it implies"),
        ({"select": "centroid", "pick": "largest-error"}, "centroid cannot be combined with pick largest-error"),
        ({"select": "farthest-point", "pick": "random"}, "since it uses no fine clusters"),
        ({"select": "farthest-point", "n_fine": 7}, "cannot be combined with n-fine 7"),
    ],
)
def test_contradictory_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        SelectionRule().changed(**settings)


def test_contradictions_in_a_protocol_are_refused():
    with pytest.raises(InputError, match="random cannot be combined with pick centroid"):
        SelectionRule(select="random", pick="centroid")


def test_an_unknown_selector_is_refused_before_anything_is_written(water, tmp_path):
    rule = SelectionRule(select="farthest")
    with pytest.raises(InputError, match=r"must be one of .*farthest-point.*, got 'farthest'"):
        train(water, tmp_path / "run", replace(WATER_SETTINGS, schedule=replace(WATER_SETTINGS.schedule, rule=rule)))
    assert not (tmp_path / "run").exists()


OTHER_PACKAGE = """
import numpy as np

class First:
    name = "first"

    def prepare(self, candidates, n_added, *, rng, progress):
        return lambda refused: np.flatnonzero(~refused)[:n_added]

FIRST = First()
"""


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """Install a package that declares two selectors, of which one is missing."""
    (tmp_path / "first_selector.py").write_text(OTHER_PACKAGE)
    info = tmp_path / "first_selector-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: first-selector\nVersion: 1.0\n")
    entries = "first = first_selector:FIRST\nlast = first_selector:LAST\n"
    (info / "entry_points.txt").write_text(f"[ase_flatten.selectors]\n{entries}")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_selector_of_another_package_is_trained_with(other_package, water, finished_run):
    data = PreparedData(water, finished_run.clustering, finished_run.splits)
    schedule = replace(WATER_SETTINGS.schedule, n_steps=1, rule=SelectionRule(select="first"))
    first, second = flatten(data, family("sgdml").trainer(sigma=10), schedule, seed=0)
    bad = data.splits.pool[np.isin(data.clustering.labels[data.splits.pool], second.bad_clusters)]
    assert second.added_frames.tolist() == np.setdiff1d(bad, first.train_frames)[:5].tolist()
    with pytest.raises(InputError, match="cannot be imported"):
        find_selector("last")


def test_a_run_of_before_there_were_selectors_resumes(finished_run, water, tmp_path):
    folder = shutil.copytree(finished_run.folder, tmp_path / "run")
    info = json.loads((folder / "run.json").read_text())
    assert info["settings"]["schedule"]["rule"].pop("select") is None
    (folder / "run.json").write_text(json.dumps(info))
    assert Run(folder).settings.schedule.rule == SelectionRule()
    train(water, folder, WATER_SETTINGS, resume=True)
    assert json.loads((folder / "run.json").read_text())["settings"]["schedule"] == asdict(WATER_SETTINGS.schedule)
    other = replace(WATER_SETTINGS, schedule=replace(WATER_SETTINGS.schedule, rule=SelectionRule(select="random")))
    with pytest.raises(InputError, match=r"was begun with .*pick: largest-error before, random now"):
        train(water, folder, other, resume=True)
