"""Files of molecular dynamics: those of all versions are read, and damaged ones are refused in a sentence."""

import json
import signal
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.harmonic import SpringCalculator
from damaged_md_files import damage

from ase_flatten.data.known_molecule import KnownMolecule
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.md import Protocol, run_md, verdict
from ase_flatten.md.analysis.comparison import analyse, comparisons, judge
from ase_flatten.md.analysis.verdict import table
from ase_flatten.md.criteria import Criteria
from ase_flatten.md.dynamics import Plan
from ase_flatten.md.result_files import read_comparison, read_reference_errors, read_summary
from ase_flatten.md.results import FORMAT, Failure, ReferenceErrors
from ase_flatten.md.saved_run import saved_runs
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.records import write_record

PLACES = np.array([[0.0, 0, 0], [1.0, 0, 0], [1.0, 1.0, 0]])
NUMBERS = np.array([8, 6, 1])
PROTOCOL = Protocol("test", 300.0, 0.5, 0.01, n_steps=60, n_replicas=3, interval=5, equilibration_steps=5)
KNOWN = KnownMolecule(NUMBERS, -0.1, 2.0, pair_distances(PLACES[None])[0])
SECONDS = 20
"""More than any of these files may take."""


def run(folder, model="default", until=None):
    plan = Plan(model, [Atoms(NUMBERS, PLACES)] * 3, PROTOCOL, Criteria.of_molecule(KNOWN, 300.0))
    return run_md(SpringCalculator(PLACES, 5.0), plan, folder / model, until=until)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A temperature with all files that molecular dynamics leaves, one of its models stopped at a look."""
    folder = tmp_path_factory.mktemp("md") / "300K"
    run(folder)
    run(folder, "improved")
    analyse(folder, KNOWN)
    write_record(folder / "default" / "reference_errors.json", ReferenceErrors("tblite:GFN2-xTB", 40, 0, 1.0, 0.5))
    run(folder, "stopped", until=30)
    assert (folder / "stopped.partial").is_dir()
    return folder


@contextmanager
def at_most(seconds):
    """Fail where a fifo or an endless loop holds the block up."""

    def late(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_all(folder):
    """Read and use whatever is in the folder of a temperature."""
    compared = comparisons(folder.parent)
    summaries = [saved.summary for saved in saved_runs(folder)]
    for word in (verdict(summaries, compared), *(cell for row in table(summaries) for cell in row)):
        assert "\x1b" not in word
    for saved in saved_runs(folder):
        for replica in range(saved.summary.n_replicas):
            assert len(saved.frames(replica, 5)) <= 5
    judge(folder, KNOWN)
    for path in folder.glob("*/reference_errors.json"):
        read_reference_errors(path)


def test_damaged_files_are_read_or_refused_in_a_sentence(sound, tmp_path):
    refused = 0
    for seed in range(60):
        target = tmp_path / str(seed) / "300K"
        path = damage(sound, target, seed)
        resumes = [lambda folder: run(folder, "stopped")] if "stopped" in path.parent.name else []
        for act in (read_all, *resumes):
            try:
                with at_most(SECONDS):
                    act(target)
            except InputError as error:
                refused += 1
                message = str(error)
                assert str(path) in message and "\n" not in message and len(message) < 1500, (seed, message)
                assert "delete " in message or "update ase-flatten" in message, (seed, message)
            except Exception as error:
                raise AssertionError(f"seed {seed}, {path.relative_to(target)}") from error
    assert refused > 30


def test_what_was_written_is_read_again(sound, tmp_path):
    summary = read_summary(sound / "default" / "summary.json")
    assert summary.format == FORMAT and summary.settings.n_steps == 60 and summary.outside_training is None
    write_record(tmp_path / "again.json", summary)
    assert read_summary(tmp_path / "again.json") == summary
    comparison = read_comparison(sound / "comparison.json")
    write_record(tmp_path / "again.json", comparison)
    assert read_comparison(tmp_path / "again.json") == comparison


FIRST = {
    "model": "default", "temperature_K": 400.0, "timestep_fs": 0.5, "n_steps": 4000, "n_replicas": 4, "n_failed": 1,
    "first_failure_ps": 0.31, "mean_total_energy": 15.25, "standard_error": 0.75, "drift": 0.125, "stable": False,
}  # fmt: skip
"""What the first versions wrote."""


def test_summaries_of_earlier_versions_are_completed(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(FIRST))
    summary = read_summary(path)
    assert (summary.format, summary.verdict, summary.why) == (FORMAT, "unstable", ("1 of 4 replicas failed",))
    assert summary.failures == summary.reasons == () and summary.thermostat == "langevin"
    reason = "replica 1 after 0.310 ps: the bond C3-H9 is 2.1 Å long"
    path.write_text(json.dumps({**FIRST, "reasons": [reason, "replica 9 after 1.000 ps: x", "lost"]}))
    assert read_summary(path).failures == (Failure(1, 620, 0.31, "the bond C3-H9 is 2.1 Å long"),)
    path.write_text(json.dumps({**FIRST, "n_failed": 0, "first_failure_ps": None, "stable": True, "drift_error": 0.25}))
    summary = read_summary(path)
    assert summary.verdict == "stable" and "+0.12 ± 0.25 kcal/mol/ps" in summary.why[0]
    assert table([summary])[0][-3:] == ("0 of 4", "–", "stable")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": FORMAT + 1}, f"expected format {FORMAT} of .*; update ase-flatten"),
        ({"n_replicas": -4}, "n_replicas"),
        ({"n_failed": 5}, "more failures than its 4 replicas"),
        ({"failures": [{"replica": 4, "step": 0, "time_ps": 0.0, "reason": ""}]}, "a failure of replica 4, of 4"),
        ({"drift": "steep"}, r"drift.*; delete .* and run ase-flatten md again"),
        ({"model": "\x1b[31m"}, "model"),
    ],
)
def test_a_summary_that_makes_no_sense_is_refused(tmp_path, changes, words):
    (tmp_path / "summary.json").write_text(json.dumps({**FIRST, **changes}))
    with pytest.raises(InputError, match=words) as caught:
        read_summary(tmp_path / "summary.json")
    assert str(tmp_path / "summary.json") in str(caught.value)


def test_energies_that_do_not_fit_their_summary_are_refused(sound):
    [default, *_] = saved_runs(sound)
    lost = replace(default.energies, potential=default.energies.potential.copy())
    assert {field.name for field in fields(lost)} > {"potential", "kinetic"}
    for name, change, words in (
        ("potential", lambda array: array[:, :2], "potential of shape"),
        ("time_ps", lambda array: array[::-1], "times that do not increase"),
        ("kinetic", lambda array: 1e300 * array, "values that no molecule has"),
        ("kinetic", lambda array: np.where(np.arange(13)[:, None] == 3, np.nan, array), "not finite before others"),
    ):
        path = Path(default.folder) / "energies.npz"
        before = path.read_bytes()
        with np.load(path) as archive:
            arrays = dict(archive)
        np.savez(path, **{**arrays, name: change(arrays[name])})
        try:
            with pytest.raises(InputError, match=words):
                _ = type(default)(default.folder).energies
        finally:
            path.write_bytes(before)
