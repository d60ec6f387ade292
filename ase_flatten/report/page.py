"""The report of a run: its figures and one self-contained HTML page, assembled from sections."""

from pathlib import Path
from typing import Any

from ase_flatten.data.units import FIELD_UNITS, OutputUnits
from ase_flatten.evaluation.claims import BETTER
from ase_flatten.evaluation.conclusions import conclude
from ase_flatten.evaluation.frame_groups import N_LEAST
from ase_flatten.evaluation.held_out import SCHEMES
from ase_flatten.models import convergence_note
from ase_flatten.models.model_folder import CARD, read_card
from ase_flatten.report.accuracy_sentences import accuracy_sentences
from ase_flatten.report.cluster_sections import clusters_section, distinction_words, growth_section, worst_section
from ase_flatten.report.dynamics_section import dynamics_section, read_temperatures
from ase_flatten.report.error_sections import errors_section, predictions_section, test_section
from ase_flatten.report.quarantine_page import quarantine_section, quarantine_sentences
from ase_flatten.report.sections import Section, render
from ase_flatten.utils.atomic_files import write_text
from ase_flatten.workflow.run_folder import Run


def write_report(run: Run, *, units: OutputUnits = FIELD_UNITS) -> Path:
    """Write RUN/figures and RUN/report.html.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        The run is not finished, a file is damaged, or the folder cannot be written.
    """
    evaluation, temperatures = run.evaluation, read_temperatures(run.folder)
    page = render(
        "report.html",
        _sections(run, units, temperatures),
        name=run.folder.resolve().name,
        info=run.info,
        units=units,
        few=N_LEAST,
        n_frames=evaluation.final[0].n_train,
        n_heldout=int(evaluation.n_heldout.sum()),
        n_clusters=len(evaluation.populations),
        n_groups=len(run.claims.groups.members),
        n_draws=run.claims.n_draws,
        verdict=_error_sentences(run, units, temperatures),
        headlines=[temperature["headline"] for temperature in temperatures],
    )
    path = run.folder / "report.html"
    write_text(path, page)
    return path


def _sections(run: Run, units: OutputUnits, temperatures: list[dict[str, Any]]) -> list[Section]:
    """Return the sections of the page, in their order."""
    sections = [
        errors_section(run, units),
        predictions_section(run, units),
        worst_section(run, units),
        clusters_section(run, units),
    ]
    if run.test_claims is not None:
        sections.insert(1, test_section(run, run.test_claims, units))
    if temperatures:
        sections.append(dynamics_section(temperatures))
    sections.append(growth_section(run, units))
    quarantine = quarantine_section(run)
    if quarantine["rows"] or quarantine["alarms"]:
        sections.append(Section("quarantine.html", {**quarantine, "judged": run.settings.quarantine == "on"}))
    sections.append(_settings_section(run))
    return sections


def verdict_sentences(run: Run, *, units: OutputUnits = FIELD_UNITS) -> list[str]:
    """Return the conclusions of a run; the first sentence stands alone, those on molecular dynamics come last.

    Raises
    ------
    InputError
        The run is not finished.
    """
    temperatures = read_temperatures(run.folder)
    return _error_sentences(run, units, temperatures) + [temperature["verdict"] for temperature in temperatures]


def _error_sentences(run: Run, units: OutputUnits, temperatures: list[dict[str, Any]]) -> list[str]:
    sentences = conclude(run.claims, run.evaluation.final[0].n_train, units, seed=run.settings.seed)
    worst = run.claims.worst("default")
    if words := distinction_words(run, worst, units):
        place = next(number for number, one in enumerate(sentences) if one.startswith("The worst group is"))
        sentences.insert(place + 1, f"{run.claims.groups.name(worst).capitalize()}: {words}.")
    sentences += accuracy_sentences(run, units)
    for scheme in SCHEMES:
        folder = run.folder / scheme
        if not (folder / CARD).exists():
            continue
        if (note := convergence_note(read_card(folder).hyper_parameters)) is not None:
            sentences.append(f"The {scheme} model is {note}.")
    sentences += quarantine_sentences(run, units)
    if run.claims.of["worst_group"].verdict == BETTER and not temperatures:
        sentences.append(f"Next, compare both models in molecular dynamics with: ase-flatten md {run.folder}")
    return sentences


def _settings_section(run: Run) -> Section:
    return Section(
        "settings.html",
        {"settings": _flat(run.info.settings), "trainer": _trainer(run), "versions": _flat(run.info.versions)},
    )


def _trainer(run: Run) -> dict[str, Any]:
    """Return the settings of the trainer, and what was found for the improved model where that says more."""
    settings, folder = _flat(run.info.trainer), run.folder / "improved"
    used = read_card(folder).hyper_parameters if (folder / CARD).exists() else {}
    shown = {}
    for name, value in settings.items():
        found = used.get(name)
        shown[name] = "not set" if value is None else value
        if found is not None and found != value:
            in_words = "; ".join(map(str, found)) if isinstance(found, list) else found
            shown[name] = f"{shown[name]}; {in_words or 'none'} in the improved model"
    return shown


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their path."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
