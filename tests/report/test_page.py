"""The report: one page that needs nothing beside itself, and words that are true."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from PIL import Image

from ase_flatten.data.units import KCAL_PER_MOL, output_units
from ase_flatten.evaluation.distinctions import DISTINCTIONS, Difference, Distinction, Spread, write_distinctions
from ase_flatten.evaluation.held_out import Curve
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.report.page import verdict_sentences, write_report
from ase_flatten.selection.flattening import Schedule
from ase_flatten.utils.atomic_files import write_json, write_npz, write_text
from ase_flatten.utils.exceptions import InputError
from ase_flatten.workflow.run_folder import Run, RunSettings

HOSTILE = """<script>alert("1")</script>'&<img src="https://example.org/x.png">"""
N_HELDOUT = [40, 30, 20, 10, 3, 0]
DEFAULT = [1.0, 1.2, 1.5, 2.0, 6.0, None]
IMPROVED = [1.1, 1.25, 1.45, 1.5, 2.5, None]
WORST = np.sqrt((20 * np.array([1.5, 1.45]) ** 2 + 10 * np.array([2.0, 1.5]) ** 2 + 3 * np.array([6.0, 2.5]) ** 2) / 33)
"""Force RMSE of both models on clusters 2 to 5: those with fewer than 20 held-out frames are merged."""


def curve(scheme: str, n_train: int, overall: float, rmse: list[float | None], energy: float = 0.5) -> Curve:
    values = np.array([np.nan if value is None else value for value in rmse])
    return Curve(scheme, n_train, overall, energy, values, 0.1 * values)


def write_run(
    folder: Path,
    final: tuple[Curve, Curve],
    *,
    source: str = "made up",
    finished: bool = True,
    draws: Sequence[float] = (),
) -> Run:
    """Write the files of a run that the report reads; the errors of default draws are multiples of the default ones."""
    atoms = molecule("CH3CH2OH")
    n_clusters = len(final[0].cluster_force_rmse)
    n_heldout = (N_HELDOUT + [0] * n_clusters)[:n_clusters]
    populations = [5 * number + 2 for number in n_heldout]
    write_json(
        folder / "run.json",
        {
            "format": 1,
            "settings": asdict(RunSettings(schedule=Schedule(n_steps=1, n_initial=20, step_size=10), seed=17)),
            "trainer": {"sigma": None, "regularisation": 1e-10},
            "dataset": {
                "source": source,
                "digest": "d1ge57",
                "formula": "C2H6O",
                "n_frames": sum(populations),
                "theory": "PBE",
            },
            "versions": {"ase-flatten": "0.1.0", "resumed_with": {"ase-flatten": "0.2.0"}},
        },
    )
    shifts = np.random.default_rng(3).normal(scale=0.05, size=(n_clusters, len(atoms), 3))
    write_npz(
        folder / "reference.npz",
        {
            "numbers": atoms.numbers,
            "lowest_energy": -10.0,
            "mean_pair_distances": pair_distances(atoms.positions[None])[0],
            "lowest_positions": atoms.positions,
            "energies": np.linspace(-9.9, -9, n_clusters),
            "positions": atoms.positions + shifts,
        },
    )
    steps = [
        {
            "step": number,
            "train_frames": list(range(20 + 10 * number)),
            "added_frames": list(range(10)),
            "cluster_rmse": [0.1, 0.2, None],
            "overall_rmse": 0.125,
            "bad_clusters": [3, 4][: 2 * number],
            "seconds": {"select": 0.5, "train": 2.25},
        }
        for number in range(2)
    ]
    write_text(folder / "history.jsonl", "".join(json.dumps(step) + "\n" for step in steps))
    if finished:
        rmse = [3.0 if number else None for number in n_heldout]
        initial = [curve(scheme, 20, 2.5, rmse) for scheme in ("default", "improved")]
        curves = [
            {
                name: [None if np.isnan(one) else one for one in value] if isinstance(value, np.ndarray) else value
                for name, value in vars(one).items()
            }
            for one in (*initial, *final)
        ]
        content = {"units": {}, "populations": populations, "n_heldout": n_heldout, "curves": curves}
        write_json(folder / "curves.json", content)
        labels = np.repeat(np.arange(n_clusters), n_heldout)
        of_frame = np.random.default_rng(2).uniform(0.6, 1.4, len(labels))
        of_frame /= np.sqrt(np.bincount(labels, of_frame**2) / np.bincount(labels))[labels]
        arrays = {"frames": np.arange(len(labels)), "labels": labels}
        for one in final:
            arrays[f"force_rmse_{one.scheme}"] = one.cluster_force_rmse[labels] * of_frame
            arrays[f"energy_error_{one.scheme}"] = np.full(len(labels), one.energy_rmse)
        if draws:
            arrays["force_rmse_default_draws"] = np.outer(draws, arrays["force_rmse_default"])
            arrays["energy_error_default_draws"] = np.outer(draws, arrays["energy_error_default"])
        write_npz(folder / "heldout_errors.npz", arrays)
        every = np.repeat(np.arange(n_clusters), populations)
        write_npz(folder / "clusters.npz", {"labels": every, "geometry": 0 * every, "n_ward": len(every)})
    return Run(folder)


def write_dynamics(folder: Path, temperature_K: float, *, failed: bool) -> None:
    for model in ("default", "improved"):
        broken = failed and model == "default"
        summary = {
            "model": model,
            "temperature_K": temperature_K,
            "timestep_fs": 0.5,
            "n_steps": 4000,
            "n_replicas": 4,
            "n_failed": 2 if broken else 0,
            "first_failure_ps": 0.31 if broken else None,
            "reasons": [f"replica 1 after 0.310 ps: {HOSTILE}"] if broken else [],
            "mean_total_energy": None if broken else 15.25,
            "standard_error": None if broken else 0.75,
            "drift": None if broken else 0.125,
            "drift_error": None if broken else 0.25,
            "stable": not broken,
        }
        write_json(folder / model / "summary.json", summary)


def write_comparison(folder: Path, temperature_K: float) -> None:
    """Write what the analysis leaves: default lost half of its replicas, and the reference method was asked."""
    error = {"error": 0.25, "standard_error": 0.0625, "of_replicas": [0.25]}
    known = {
        "duration_ps": 2.0, "survival": 1.0, "survival_low": 0.4, "survival_high": 1.0, "n_effective": 1234.5,
        "kinetic_temperature_K": 401.0, "kinetic_temperature_error_K": 3.0, "configurational_temperature_K": 390.0,
        "configurational_temperature_error_K": 21.0, "distances": {"data": {"pairs": error, "bonds": error}},
        "reference_errors": {"reference": "x", "n_frames": 40, "n_failed": 0, "force_rmse": 3.125, "energy_rmse": 7.5},
    }  # fmt: skip
    unknown = {name: None for name in known if "temperature" in name}
    lost = {"survival": 0.5, "survival_low": 0.07, "survival_high": 0.93, "n_effective": None, "distances": {}}
    models = {"default": {**known, **unknown, **lost, "reference_errors": None}, "improved": known}
    test = {"models": ["default", "improved"], "p_value": 0.134}
    write_json(folder / "comparison.json", {"temperature_K": temperature_K, "models": models, "log_rank": test})


class Page(HTMLParser):
    """Read a page: its text, its tags, and what it would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.resources: list[str] = []
        self.scenes: list[dict] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " " if tag in ("br", "td", "th") else ""
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                self.resources.append(value or "")
            if name == "data-scene":
                self.scenes.append(json.loads(value or ""))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a hostile name of its data and molecular dynamics at two temperatures."""
    folder = tmp_path_factory.mktemp("runs") / "a <b>bold</b> run"
    final = curve("default", 30, 1.75, DEFAULT, 0.8), curve("improved", 30, 1.5, IMPROVED, 0.4)
    run = write_run(folder, final, source=HOSTILE)
    write_dynamics(folder / "md" / "400K", 400, failed=True)
    write_dynamics(folder / "md" / "50K", 50, failed=False)
    (folder / "md" / "600K").mkdir()  # begun, nothing done
    write_comparison(folder / "md" / "400K", 400)
    for name in ("total_energy", "survival"):
        Image.new("RGB", (8, 8), "red").save(folder / "md" / "400K" / f"{name}.png")
    assert write_report(run) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder / "report.html")


def test_figures_are_written(folder: Path) -> None:
    names = {path.name for path in (folder / "figures").iterdir()}
    stems = ("outliers", "error_curves", "comparison", "learning_curve", "error_distribution")
    assert names == {f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")}


def test_page_loads_nothing_from_elsewhere(page: Page) -> None:
    pictures = [resource for resource in page.resources if not resource.startswith("#")]
    assert len(pictures) == 5 + 4 + 2  # figures, structures, one temperature
    assert all(resource.startswith("data:image/png;base64,") for resource in pictures)
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    markup = page.source.replace("https://example.org/x.png", "")
    assert not any(word in markup for word in ("http://", "https://", "url(", "@import", "fetch("))


def test_page_escapes_what_it_is_given(page: Page) -> None:
    assert page.tags.count("script") == 1
    # The data set's name at the head and in the settings; a failure's reason in words and in full.
    assert page.text.count(HOSTILE) == 4
    assert HOSTILE not in page.source
    assert "<b>bold</b>" not in page.source


def test_page_tells_the_numbers(page: Page, folder: Path) -> None:
    for words in (
        "6.00", "2.50", "1.75", "1.50", "0.800", "0.400",  # the final models
        *(f"{worst:.2f}" for worst in WORST), *(f"{w / o:.2f}" for w, o in zip(WORST, (1.75, 1.5), strict=True)),
        "103 held-out frames", "d1ge57", "PBE", "527", "17", "resumed_with.ase-flatten",
        "not set", "schedule.n_steps", "0.31", "15.25 ± 0.75", "+0.125 ± 0.250",
        "0.50 (0.07 to 0.93)", "1,234", "401 ± 3", "390 ± 21", "0.250 ± 0.062", "3.12", "7.50", "(log-rank p = 0.13)",
        "2.88",  # 0.125 eV/Å, the error in the pool
    ):  # fmt: skip
        assert words in page.text, words
    for sentence in verdict_sentences(Run(folder)):
        assert sentence in page.text


def test_page_holds_structures_to_turn(page: Page) -> None:
    assert len(page.scenes) == 4  # the frame of lowest energy, and three groups
    assert all(len(scene["positions"]) == 9 and len(scene["bonds"]) == 8 for scene in page.scenes)
    # The worst clusters come by falling error, after the frame of lowest energy.
    places = [page.text.index(words) for words in (f"clusters 2-5 {WORST[0]:.2f} →", "cluster 1 1.20 →")]
    assert places == sorted(places)


def test_groups_come_by_falling_error_with_their_clusters(page: Page) -> None:
    table = page.text[page.text.index("6 clusters in 3 groups, in descending order") :]
    lines = [
        *(f"clusters 2-5 {5 * 33 + 8} 33 {WORST[0]:.2f}", "cluster 2 102 20 1.50", "cluster 3 52 10 ∗ 2.00"),
        *("cluster 4 17 3 ∗ 6.00", "cluster 5 2 0 ∗ –", "cluster 1 152 30 1.20", "cluster 0 202 40 1.00"),
    ]
    places = [table.replace("\xa0", " ").index(line) for line in lines]
    assert places == sorted(places)


def test_steps_name_their_worst_cluster(page: Page) -> None:
    assert "4.61 cluster 1" in page.text  # 0.2 eV/Å


def test_dynamics_is_a_table(page: Page, folder: Path) -> None:
    rows = page.text[page.text.index("replicas lost lifetime (95 %) [ps]") :]
    places = [rows.index(row) for row in ("50 default 0 of 4", "50 improved 0 of 4", "400 default 2 of 4")]
    assert places == sorted(places)
    assert "At 50 K: stable (default model), stable (improved model). Molecular dynamics" in page.text
    assert page.text.index("50 K model time per replica") < page.text.index("400 K Total energy")
    words = verdict_sentences(Run(folder))
    assert [sentence.split(" K")[0] for sentence in words[-2:]] == ["At 50", "At 400"]
    assert all(sentence in page.text for sentence in words)  # in full, on demand


def test_a_damaged_picture_of_dynamics_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    (copy / "md" / "400K" / "survival.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"expected a figure in .*survival\.png.*draw it again"):
        write_report(Run(copy))


def test_what_distinguishes_the_worst_group_is_told(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    assert "distinguishes it" not in (copy / "report.html").read_text()
    difference = Difference((2, 8), True, False, 0.99, Spread(1.62, 0.1), Spread(0.99, 0.03))
    energy = 3 * KCAL_PER_MOL, 9 * KCAL_PER_MOL
    found = Distinction((2, 3, 4, 5), energy, difference), Distinction((1,), (0.0, 0.0))
    write_distinctions(copy / DISTINCTIONS, found)
    words = (
        "O2–H8 is 1.62 ± 0.10 Å here and 0.99 ± 0.03 Å elsewhere; "
        "its frames have 3.0 to 9.0 kcal/mol more energy than the median of the others"
    )
    assert f"Clusters 2-5: {words}." in verdict_sentences(Run(copy))
    page = Page(write_report(Run(copy)))
    assert page.text.count(words) == 2  # in the verdict and below the structure
    assert "No single distance, angle or dihedral distinguishes it" in page.text
    assert [scene["marked"] for scene in page.scenes] == [[], [2, 8], [], []]
    (copy / DISTINCTIONS).write_text((copy / DISTINCTIONS).read_text().replace("8", "88"))
    with pytest.raises(InputError, match="atoms beyond the 9 of the molecule"):
        verdict_sentences(Run(copy))


def test_predictions_are_shown_where_they_were_kept(finished_run: Run) -> None:
    page = Page(write_report(finished_run))
    n_heldout = len(finished_run.splits.heldout)
    assert f"{9 * n_heldout:,} components of forces" in page.text
    assert (finished_run.folder / "figures" / "predictions.pdf").exists()
    assert (finished_run.folder / "report.html").stat().st_size < 3_000_000


def test_a_test_set_has_a_section(folder: Path, page: Page, tmp_path: Path) -> None:
    assert "Test set" not in page.text
    run = Run(Path(shutil.copytree(folder, tmp_path / "run")))
    vars(run)["test_claims"] = run.claims  # the same frames, as if they came from elsewhere
    shown = Page(write_report(run)).text
    assert (
        shown.index("Test set") < shown.index("Over the 103 frames of an external test set") < shown.index("Single pre")
    )


def test_report_in_other_units(tmp_path: Path) -> None:
    final = curve("default", 30, 1.75, DEFAULT), curve("improved", 30, 1.5, IMPROVED)
    run = write_run(tmp_path / "run", final)
    page = Page(write_report(run, units=output_units("meV")))
    before, after = WORST * 43.364
    assert f"force RMSE of the worst group {before:.1f} → {after:.1f} [" in page.text and "meV/Å" in page.text
    assert "kcal" not in page.text
    assert "Molecular dynamics" not in page.text


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    final = curve("default", 30, 1.75, DEFAULT), curve("improved", 30, 1.5, IMPROVED)
    run = write_run(tmp_path / "run", final, finished=False)
    for act in (write_report, verdict_sentences):
        with pytest.raises(InputError, match="finished run"):
            act(run)
    assert not (tmp_path / "run" / "figures").exists()


def group_of_three(worst: float, draws: Sequence[float], tmp_path: Path) -> list[str]:
    """Give the verdict on a run whose improved model is so many times as wrong in the worst of three clusters."""
    n_heldout = N_HELDOUT[:3]
    default, improved = np.array([1.0, 1.0, 4.0]), np.array([1.0, 1.0, 4.0 * worst])
    overall = [float(np.sqrt(np.average(values**2, weights=n_heldout))) for values in (default, improved)]
    final = curve("default", 30, overall[0], default.tolist()), curve("improved", 30, overall[1], improved.tolist())
    return verdict_sentences(write_run(tmp_path / "run", final, draws=draws))


@pytest.mark.parametrize(
    ("worst", "draws", "expected"),
    [
        (0.6, (), "The improved model is better where errors are largest: "),
        (1.6, (), "The improved model is worse where errors are largest: "),
        (1.0, (), "No difference beyond noise where errors are largest: "),
        (0.6, (0.99, 1.02, 1.01), "The improved model is better where errors are largest: "),
        (0.6, (0.5, 0.8, 1.2), "No difference beyond noise where errors are largest: "),
        (0.8, (0.9,), "No difference beyond noise where errors are largest: "),  # two draws tell little
        (1.6, (0.99, 1.02, 1.01), "The improved model is worse where errors are largest: "),
    ],
)
def test_verdict_is_beyond_the_noise_of_frames_and_of_draws(
    worst: float, draws: tuple[float, ...], expected: str, tmp_path: Path
) -> None:
    words = group_of_three(worst, draws, tmp_path)
    assert words[0].startswith(expected + "force RMSE of the worst group 4.0")
    assert ("default training sets) →" in words[0]) == bool(draws)
    assert any("only one was drawn" in one for one in words) == (not draws)
    assert any("To decide, " in one or "poorly known" in one for one in words) == ("No difference" in expected)


def test_verdict_says_what_to_do_next(tmp_path: Path) -> None:
    assert "holds out more frames (--holdout)" in group_of_three(1.0, (), tmp_path / "frames")[-1]
    assert "--resume --default-draws 4" in group_of_three(0.8, (0.9,), tmp_path / "few")[-1]
    assert "--resume --default-draws 8" in group_of_three(0.6, (0.5, 0.8, 1.2), tmp_path / "spread")[-1]
    assert group_of_three(0.6, (), tmp_path / "better")[-1].endswith(f"ase-flatten md {tmp_path}/better/run")
    assert group_of_three(1.6, (), tmp_path / "worse")[-1].startswith("Use the default model")


def test_verdict_says_both_when_the_tail_falls_and_the_median_rises(tmp_path: Path) -> None:
    final = curve("default", 30, 2.0, [1.0, 1.0, 6.0]), curve("improved", 30, 1.5, [1.3, 1.3, 2.0])
    words = " ".join(verdict_sentences(write_run(tmp_path / "both", final)))
    assert "The largest errors became smaller, while those of typical frames became larger." in words
    assert "the median rose from 1." in words and "(worse)" in words


def test_verdict_names_groups_and_their_frames(folder: Path, tmp_path: Path) -> None:
    words = verdict_sentences(Run(folder))
    assert "The worst group is clusters 2-5 (33 held-out frames) for both models." in words
    assert "The energy RMSE over all frames fell from 0.800 to 0.400 kcal/mol (better)." in words
    assert any("30 frames" in one and "103 held-out frames" in one for one in words)
    assert any("Single seed (17)" in one for one in words)
    final = curve("default", 30, 2.0, [1.0, 6.0, 2.0]), curve("improved", 30, 1.5, [3.0, 1.5, 2.0])
    words = verdict_sentences(write_run(tmp_path, final))
    assert (
        "The worst group is cluster 1 (30 held-out frames) for the default model and "
        "cluster 0 (40 held-out frames) for the improved one." in words
    )


def test_perfect_models_are_equal(tmp_path: Path) -> None:
    final = curve("default", 30, 0.0, [0.0, 0.0], 0.0), curve("improved", 30, 0.0, [0.0, 0.0], 0.0)
    words = verdict_sentences(write_run(tmp_path, final))
    assert words[0].startswith("No difference beyond noise")


def test_a_model_that_has_not_converged_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, (curve("default", 30, 1.5, [1.0, 2.0]), curve("improved", 30, 1.0, [0.9, 1.0])))
    card = {"format": 1, "family": "schnet", "species": [], "training_frames": []}
    short = {"gradient_steps": 250, "converged": False, "validation_trend": 0.4}
    write_json(tmp_path / "improved" / "model.json", {**card, "hyper_parameters": short})
    write_json(tmp_path / "default" / "model.json", {**card, "hyper_parameters": {"gradient_steps": 250}})
    (words,) = [sentence for sentence in verdict_sentences(run) if "converged" in sentence]
    assert words.startswith("The improved model is not converged after 250 gradient steps") and "40%" in words


def test_a_run_without_errors_of_frames_is_refused(tmp_path: Path) -> None:
    final = curve("default", 30, 1.75, DEFAULT), curve("improved", 30, 1.5, IMPROVED)
    run = write_run(tmp_path, final)
    (tmp_path / "heldout_errors.npz").unlink()
    with pytest.raises(InputError, match=r"found no heldout_errors\.npz"):
        write_report(run)
