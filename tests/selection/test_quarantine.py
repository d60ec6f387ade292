"""Frames with contradicted labels are not trained on, and sound ones are."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import WATER_SETTINGS
from typer.testing import CliRunner

from ase_flatten.checking.labels import LabelJudgement
from ase_flatten.cli.app import app
from ase_flatten.clustering.clusters import cluster
from ase_flatten.clustering.prepared_data import PreparedData
from ase_flatten.clustering.splits import split
from ase_flatten.data.io import read_dataset, write_dataset
from ase_flatten.data.units import output_units
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.models import family
from ase_flatten.models.model_folder import load_model
from ase_flatten.report.page import write_report
from ase_flatten.report.quarantine_page import quarantine_section, quarantine_sentences
from ase_flatten.selection.flattening import Schedule, flatten
from ase_flatten.selection.quarantine import (
    BEFORE_TRAINING,
    LEARNT,
    Alarm,
    Look,
    Quarantine,
    alarms,
    contradictions,
    read_frame_list,
)
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.run_folder import Run, RunSettings
from ase_flatten.workflow.train_run import train

BUNDLED = Path(__file__).parents[2] / "examples" / "data" / "salicylic_gfn2_500K.npz"
SCHEDULE = Schedule(n_steps=2, n_initial=45, step_size=15)
LIST = (3, 7, 40, 200)


@pytest.fixture(scope="module")
def sound():
    """Every fifteenth of the bundled frames of salicylic acid."""
    return read_dataset(BUNDLED).take(np.arange(0, 10_000, 15))


@pytest.fixture(scope="module")
def scene(sound):
    """Descriptors, clusters and splits, and four frames of the pool whose forces get the wrong sign."""
    descriptors = pair_distances(sound.positions)
    clustering = cluster(sound, rng=np.random.default_rng(0), n_geometry=4, n_energy=3)
    splits = split(clustering, descriptors, rng=np.random.default_rng(0))
    initial = (
        family("sgdml")
        .trainer()
        .default_frames(sound, splits.pool, SCHEDULE.n_initial, rng=np.random.default_rng([0, 0]))
    )
    bad = np.random.default_rng(5).choice(np.setdiff1d(splits.pool, initial), 4, replace=False)
    return descriptors, clustering, splits, np.sort(bad)


def flipped(dataset, frames):
    forces = dataset.forces.copy()
    forces[frames] *= -1
    return replace(dataset, forces=forces)


def grown(dataset, scene, **options):
    _, clustering, splits, _ = scene
    trainer = family("sgdml").trainer(sigma=20)
    return list(flatten(PreparedData(dataset, clustering, splits), trainer, SCHEDULE, seed=0, **options))


def test_frames_with_wrong_labels_are_not_chosen_and_go_to_quarantine(sound, scene):
    bad = scene[-1]
    unguarded = grown(flipped(sound, bad), scene)[-1]
    guarded = grown(flipped(sound, bad), scene, guard=True)[-1]
    assert np.isin(bad, unguarded.train_frames).sum() >= 2
    assert not np.isin(bad, guarded.train_frames).any() and len(guarded.train_frames) == 75
    assert len(guarded.quarantine.frames) >= 2 and np.isin(guarded.quarantine.frames, bad).all()
    last = guarded.quarantine.last_looks
    reasons = [last[frame].reason for frame in guarded.quarantine.frames]
    assert "the forces have the wrong sign" in reasons and all(reasons)


def test_wrong_labels_of_the_initial_set_are_found_once_a_model_knows_more_and_replaced(sound, scene):
    initial = grown(sound, scene)[0].train_frames
    bad = np.sort(initial[[5, 20]])
    steps = grown(flipped(sound, bad), scene, guard=True)
    assert np.isin(bad, steps[0].train_frames).all() and not np.isin(bad, steps[-1].train_frames).any()
    assert [len(step.train_frames) for step in steps] == [45, 60, 75]
    assert set(bad.tolist()) == {alarm.frame for alarm in steps[-1].quarantine.alarms}
    assert np.array_equal(steps[-1].quarantine.frames, bad)


def test_sound_data_are_trained_on_as_without_a_guard(sound, scene):
    guarded, unguarded = grown(sound, scene, guard=True)[-1], grown(sound, scene)[-1]
    assert not len(guarded.quarantine.frames)
    assert np.isin(unguarded.train_frames, guarded.train_frames).mean() > 0.9


def test_only_what_is_no_longer_contradicted_is_released(sound, scene):
    _, _, splits, bad = scene
    fine = np.setdiff1d(splits.pool, bad)[:2]
    doubts = [Look(BEFORE_TRAINING, frame, "doubtful", 1.5, "for a test") for frame in [*bad.tolist(), *fine.tolist()]]
    steps = grown(flipped(sound, bad), scene, guard=True, quarantine=Quarantine(tuple(doubts)))
    assert not np.isin(steps[0].train_frames, [*bad, *fine]).any()
    final = steps[-1].quarantine
    assert np.isin(bad, final.frames).all() and not np.isin(fine, final.frames).any()
    released = [step.quarantine.changes(step.number)["released_frames"] for step in steps]
    assert set(fine.tolist()) <= {frame for frames in released for frame in frames}


def test_a_doubt_is_dropped_once_the_model_has_come_closer_to_the_label():
    """As it does to a rare frame, but not to a wrong label."""

    def judged(force_errors):
        n = len(force_errors)
        nothing = np.zeros(n)
        return LabelJudgement(
            np.arange(n), np.full(n, 1.5), ("doubtful",) * n, ("why",) * n, nothing, np.array(force_errors), nothing
        )

    first = contradictions(judged([1.0, 1.0, np.nan]), 1)
    assert [look.force_error for look in first] == [1.0, 1.0, None]
    known = Quarantine(first)
    later = contradictions(judged([LEARNT, LEARNT + 0.01, 0.1]), 2, known)
    assert [look.frame for look in later] == [1, 2]
    before = Quarantine(contradictions(judged([1.0]), BEFORE_TRAINING))  # of other models
    assert len(contradictions(judged([0.1]), 1, before)) == 1


def test_a_continued_run_knows_what_an_unbroken_one_does(sound, scene, tmp_path):
    data = flipped(sound, scene[-1])
    whole = grown(data, scene, guard=True)
    known = Quarantine.from_json(json.loads(json.dumps(whole[-1].quarantine.to_json()))).up_to(1)
    rest = grown(data, scene, guard=True, quarantine=known, done=(1, whole[1].train_frames, whole[1].model))
    assert rest[-1].train_frames.tolist() == whole[-1].train_frames.tolist()
    assert rest[-1].quarantine.to_json() == whole[-1].quarantine.to_json()


def test_training_on_a_wrong_label_raises_an_alarm_and_on_sound_ones_none(sound, scene):
    _, _, splits, bad = scene
    trainer, rng = family("sgdml").trainer(sigma=20), np.random.default_rng(0)
    frames = rng.permutation(np.setdiff1d(splits.pool, bad))
    first, added = frames[:60], np.concatenate([frames[60:75], bad])
    others = np.sort(frames[75:])
    before = trainer.fit(sound, first, splits.valid, rng=rng)
    for data, expected in ((sound, set()), (flipped(sound, bad), set(bad.tolist()))):
        after = trainer.fit(data, np.concatenate([first, added]), splits.valid, rng=rng)
        raised = alarms(1, added, before, after, data, others)
        assert {alarm.frame for alarm in raised} <= expected
        assert len(raised) >= len(expected) / 2
        assert all("raised the force error of near frames" in alarm.reason for alarm in raised)


def test_data_with_wrong_labels_are_refused_before_anything_is_written(sound, scene, tmp_path):
    data = flipped(sound, scene[-1])
    with pytest.raises(InputError, match=r"wrong beyond doubt .*ase-flatten clean"):
        train(data, tmp_path / "run", RunSettings(schedule=SCHEDULE))
    assert not (tmp_path / "run").exists()


def test_the_command_refuses_wrong_labels_unless_told_otherwise(sound, scene, tmp_path):
    write_dataset(tmp_path / "bad.npz", flipped(sound, scene[-1]))
    command = ["train", str(tmp_path / "bad.npz"), "-n", "0", "-i", "10", "--set", "sigma=20", "-q"]
    refused = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "on")])
    assert refused.exit_code == 2 and not (tmp_path / "on").exists()
    trained = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "off"), "--quarantine", "off"])
    assert trained.exit_code == 0, trained.output
    assert not (tmp_path / "off" / "quarantine.json").exists()


@pytest.fixture(scope="module")
def listed_run(water, tmp_path_factory):
    """A run on the water data with a list of frames that are set aside."""
    settings = replace(WATER_SETTINGS, quarantine=LIST)
    return train(water, tmp_path_factory.mktemp("runs") / "listed", settings)


def test_listed_frames_and_no_others_are_set_aside(listed_run):
    assert tuple(listed_run.quarantine.frames) == LIST
    for scheme in ("default", "improved"):
        assert not np.isin(LIST, load_model(listed_run.folder / scheme).train_frames).any()
    splits, usable = listed_run.splits, listed_run.trainable(3)
    assert set(splits.pool) - set(usable.pool) == set(splits.pool) & set(LIST)
    assert set(splits.valid) - set(usable.valid) == set(splits.valid) & set(LIST)
    assert usable.heldout.tolist() == splits.heldout.tolist()


def test_the_report_shows_and_tells_of_the_quarantine(listed_run):
    run = listed_run
    section = quarantine_section(run)
    assert [row["frame"] for row in section["rows"]] == list(LIST)
    assert [picture["title"] for picture in section["pictures"]] == [f"frame {frame}" for frame in LIST]
    sentences = quarantine_sentences(run, output_units("kcal/mol"))
    assert sentences[0].startswith("4 of 416 frames are in quarantine")
    heldout = np.isin(LIST, run.splits.heldout).sum()
    assert heldout == 0 or sentences[1].startswith(f"{heldout} of the {len(run.splits.heldout)} held-out frames")
    page = write_report(run).read_text()
    assert "<h2>Quarantine</h2>" in page and "named in the list that was given" in page


def test_a_listed_run_resumes_to_itself_and_only_with_its_list(listed_run, water):
    before = (listed_run.folder / "quarantine.json").read_text()
    train(water, listed_run.folder, replace(WATER_SETTINGS, quarantine=LIST), resume=True)
    assert (listed_run.folder / "quarantine.json").read_text() == before
    with pytest.raises(InputError, match=r"was begun with .*quarantine: \(3, 7, 40, 200\) before, on now"):
        train(water, listed_run.folder, replace(WATER_SETTINGS, quarantine="on"), resume=True)


def test_runs_of_before_there_was_a_quarantine_go_on_without(water, tmp_path):
    short = replace(WATER_SETTINGS, quarantine="off", schedule=Schedule(n_steps=1, n_initial=10, step_size=5))
    run = train(water, tmp_path / "old", short)
    info = json.loads((run.folder / "run.json").read_text())
    del info["settings"]["quarantine"]
    (run.folder / "run.json").write_text(json.dumps(info))
    grown_run = train(water, run.folder, WATER_SETTINGS, resume=True)
    whole = train(water, tmp_path / "whole", replace(WATER_SETTINGS, quarantine="off"))
    assert not (run.folder / "quarantine.json").exists() and grown_run.settings.quarantine == "off"
    assert grown_run.history[-1].train_frames == whole.history[-1].train_frames
    assert quarantine_sentences(Run(run.folder), output_units("kcal/mol")) == []


def test_a_frame_is_in_quarantine_while_its_last_look_is_not_sound():
    looks = [Look(-1, 5, "doubtful", 1.2, "a"), Look(1, 5, "sound", 0.1, ""), Look(2, 5, "wrong", 2.5, "b")]
    quarantine = Quarantine(tuple(looks), (Alarm(2, 9, "c"),))
    assert [quarantine.up_to(step).frames.tolist() for step in (-1, 0, 1, 2)] == [[5], [5], [], [5]]
    assert quarantine.changes(1) == {"quarantined_frames": [], "released_frames": [5], "alarm_frames": []}
    entry = quarantine.up_to(1).to_json()["frames"][0]
    assert (entry["entered"], entry["released"], entry["reason"]) == (-1, 1, "a")
    assert Quarantine.from_json(json.loads(json.dumps(quarantine.to_json()))) == quarantine


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "# from a colleague\n7 3\n3, 12\n"),
        ("a.csv", "frame,reason\n3,zero forces\n7,sign\n12,sign\n"),
        ("a.json", json.dumps(Quarantine(tuple(Look(0, frame, "doubtful", 1, "") for frame in (12, 3, 7))).to_json())),
    ],
)
def test_lists_of_frames_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_frame_list(tmp_path / name) == (3, 7, 12)


def test_a_damaged_quarantine_as_a_list_is_named_once(tmp_path):
    (tmp_path / "quarantine.json").write_text('{"frames": 3}')
    with pytest.raises(InputError) as refused:
        read_frame_list(tmp_path / "quarantine.json")
    assert str(refused.value).count("quarantine.json, could not read") == 1
    assert str(refused.value).endswith("; give the quarantine.json of a run")


def test_a_wrong_list_is_one_sentence(tmp_path, water_file, water):
    (tmp_path / "list.txt").write_text("three\n")
    for asked in (tmp_path / "list.txt", "nothing.txt"):
        command = ["train", str(water_file), "--quarantine", str(asked), "--out", str(tmp_path / "run")]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 2 and not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="from 0 to 415 to set aside, found 416"):
        train(water, tmp_path / "run", replace(WATER_SETTINGS, quarantine=(416,)))
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="must be on, off or a list"):
        RunSettings(quarantine="maybe")
