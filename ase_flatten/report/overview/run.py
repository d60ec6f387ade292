"""What a run is, and how far it is."""

from collections.abc import Sequence
from pathlib import Path

from ase_flatten.data.units import OutputUnits
from ase_flatten.evaluation.held_out import CURVES, Curve
from ase_flatten.report.overview.base import DIGITS, Overview, Table
from ase_flatten.report.overview.model import in_words
from ase_flatten.report.overview.results import summaries_below
from ase_flatten.report.page import verdict_sentences
from ase_flatten.workflow.run_folder import Run


def of_run(folder: Path, units: OutputUnits) -> Overview:
    """Describe a run folder, finished or not."""
    run = Run(folder)
    info, settings = run.info, run.settings
    schedule, data = settings.schedule, info.dataset
    n_done, is_finished = len(run.history), _is_finished(run)
    facts = [
        ("data set", ", ".join(filter(None, [data.source, data.formula, f"{data.n_frames} frames", data.theory]))),
        ("digest", data.digest[:DIGITS]),
        ("family", ": ".join(filter(None, [settings.family, in_words(info.trainer)]))),
        (
            "schedule",
            f"{schedule.n_initial} frames and {schedule.n_steps} steps of {schedule.step_size}, "
            f"{schedule.n_train(schedule.n_steps)} frames in the end; seed {settings.seed}, "
            f"{settings.holdout:.0%} of the frames held out",
        ),
        ("state", _state(run, n_done, is_finished)),
    ]
    if len(run.quarantine.frames):
        facts.append(("quarantine", f"{len(run.quarantine.frames)} frames with doubtful labels"))
    if temperatures := sorted({f"{summary.temperature_K:g} K" for summary in summaries_below(folder / "md")}):
        facts.append(("molecular dynamics", f"{', '.join(temperatures)}, in {folder / 'md'}"))
    page = folder / "report.html"
    facts.append(("report", str(page) if page.exists() else f"none; write it with: ase-flatten report {folder}"))
    if not is_finished:
        return Overview("run", facts)
    facts.append(("verdict", verdict_sentences(run, units=units)[0]))
    return Overview("run", facts, _errors_of(run.evaluation.final, units))


def _is_finished(run: Run) -> bool:
    schedule = run.settings.schedule
    if not (run.folder / CURVES).exists():
        return False
    return all(curve.n_train == schedule.n_train(schedule.n_steps) for curve in run.evaluation.final)


def _state(run: Run, n_done: int, is_finished: bool) -> str:
    resume = f"resume with: ase-flatten train --resume --out {run.folder}"
    seconds = sum(sum(line.seconds.values()) for line in run.history)
    if is_finished:
        return f"finished; its steps took {seconds:.0f} s"
    if not n_done:
        return f"begun, no model is trained; {resume}"
    n_steps = run.settings.schedule.n_steps
    if n_done <= n_steps:
        return f"step {n_done - 1} of {n_steps} is done; {resume}"
    return f"all {n_steps} steps are done, the comparison with the default model is not; {resume}"


def _errors_of(curves: Sequence[Curve], units: OutputUnits) -> Table:
    return Table(
        f"Errors on held-out frames (RMSE), {units.energy} and {units.force}",
        ("model", "training frames", "force", "force, worst cluster", "energy"),
        [
            (
                curve.scheme,
                str(curve.n_train),
                *(f"{value * units.scale:.3f}" for value in (curve.force_rmse, curve.worst, curve.energy_rmse)),
            )
            for curve in curves
        ],
    )
