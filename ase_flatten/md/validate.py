"""The validation: models side by side in molecular dynamics, from the same starts with the same noise."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_flatten.calculators import load_calculator
from ase_flatten.data.known_molecule import KnownMolecule
from ase_flatten.md.analysis.comparison import analyse, decided, judge, require_packages
from ase_flatten.md.analysis.figure import plot_total_energy
from ase_flatten.md.criteria import Criteria
from ase_flatten.md.dynamics import discard_rest, run_md
from ase_flatten.md.engines.batched import BatchedEngine
from ase_flatten.md.protocol import Protocol
from ase_flatten.models.model_folder import CARD, card_digest, load_model
from ase_flatten.models.reference_methods import reference_calculator
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray
from ase_flatten.workflow.run_folder import Run

log = logging.getLogger(__name__)

LARGEST_FLUCTUATION = 0.1
"""Of the total energy without a thermostat, as a share of the kinetic energy's: with more the time step is too long."""

_CHECKED_STEPS = 200


@dataclass(frozen=True, eq=False)
class Subject:
    """Hold what is compared.

    Parameters
    ----------
    models : dict
        Model folders, or specs of ASE calculators as in `reference_calculator`, by their names in tables.
    known : dict
        What is known of the molecule, as `Reference.arrays`.
    positions : (n, n_atoms, 3) array, Å
        Configurations to start from, the best first.
    folder : Path
        Gets a folder for each temperature.
    """

    models: dict[str, str | Path]
    known: dict[str, np.ndarray]
    positions: FloatArray
    folder: Path

    def criteria(self, temperature_K: float) -> Criteria:
        """Derive what the molecule may do at a temperature."""
        return Criteria.of_molecule(KnownMolecule.of_arrays(self.known), temperature_K)

    @classmethod
    def of_run(cls, run: Run, *, start: str = "clusters") -> "Subject":
        """Take the default and the improved model of a run.

        Parameters
        ----------
        start : str
            clusters: representatives of the broad clusters, from the lowest in energy on, the lower half;
            worst: those of the clusters that the default model is worst on; minimum: the lowest frame of the data.

        Raises
        ------
        InputError
            A run that is not finished.
        """
        known = run.reference.arrays
        models: dict[str, str | Path] = {}
        for name in ("default", "improved"):
            models[name] = run.folder / name
            if not (run.folder / name).is_dir():
                raise InputError(
                    f"expected a finished run, found no {name} model in {run.folder}; "
                    "finish it with: ase-flatten train --resume"
                )
        if start == "minimum":
            positions = known["lowest_positions"][None]
        elif start == "worst":
            errors = run.evaluation.final[0].cluster_force_rmse
            positions = known["positions"][np.argsort(-np.nan_to_num(np.array(errors, dtype=float)), kind="stable")]
        else:
            positions = _lower_half(known["positions"], known["energies"])
        return cls(models, known, positions, run.folder / "md")

    @classmethod
    def of_models(cls, models: Sequence[str | Path], out: Path) -> "Subject":
        """Take model folders, and ASE calculators as in `reference_calculator`, for one molecule.

        Starts, bonds and the range of energies are those of the first folder's training.

        Raises
        ------
        InputError
            No model folder, or models of different molecules.
        """
        named: dict[str, str | Path] = {}
        for model in models:
            name = model.replace(":", "-") if isinstance(model, str) else model.name
            if name in named and isinstance(model, Path):
                name = f"{model.parent.name}-{name}"
            named[name] = model
        saved = {name: load_model(model) for name, model in named.items() if isinstance(model, Path)}
        if not saved:
            raise InputError("expected a model folder among --models, to start from its training geometries; add one")
        first = next(iter(saved.values()))
        for name, other in saved.items():
            if not np.array_equal(other.model.numbers, first.model.numbers):
                raise InputError(f"expected models of one molecule, found another one in {named[name]}; leave it out")
        positions = first.training_positions
        if not len(positions):
            raise InputError(
                "expected a model folder with training geometries to start from, found none in the first one"
            )
        energies = first.model.predict(positions).energies
        known = {**KnownMolecule.of_frames(first.model.numbers, positions, energies).arrays, "energies": energies}
        return cls(named, known, _lower_half(positions, energies), out)

    def starts(self, n_replicas: int) -> list[Atoms]:
        """Return the start of each replica, evenly over the configurations, all of them more than once if need be."""
        n_different = min(n_replicas, len(self.positions))
        chosen = np.linspace(0, len(self.positions) - 1, n_different).astype(int)
        return [Atoms(self.known["numbers"], self.positions[chosen[k % n_different]]) for k in range(n_replicas)]


def validate(
    subject: Subject,
    temperatures_K: Sequence[float],
    protocol: Protocol,
    *,
    engine: str = "batched",
    nve_ps: float = 0.0,
    reference: str | None = None,
    reference_ps: float | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """Run all models, and the reference method where it is named; write down and draw what they do.

    Parameters
    ----------
    temperatures_K : sequence of float
    protocol : Protocol
        Its temperature gives way to each of `temperatures_K`. With several looks, all models run to one of them
        before any goes on to the next.
    engine : str
        One of `ase_flatten.md.engines.ENGINES`.
    nve_ps : float
        Time to run each model without a thermostat besides, ps.
    reference : str, optional
        An ASE calculator, as in `reference_calculator`.
    reference_ps : float, optional
        The longest time of its replicas, ps, since it may cost a thousand times as much as a model [as the models].
    resume : bool
        Whether unfinished runs go on, or begin anew.

    Returns
    -------
    list of dict
        The summaries, by temperature and model; those without a thermostat are only written.

    Raises
    ------
    InputError
        Settings that molecular dynamics does not allow.
    """
    require_packages()
    _at_most(protocol, reference_ps)  # a time that makes no sense is refused before anything runs
    starts = subject.starts(protocol.n_replicas)
    models = {**subject.models, **({"reference": reference} if reference is not None else {})}
    calculators = {name: _calculator(model) for name, model in models.items()}
    first = next(iter(calculators))
    _check_time_step(calculators[first], starts, protocol, max(temperatures_K), first)
    summaries = []
    for temperature in temperatures_K:
        at = replace(protocol, temperature_K=float(temperature))
        folder = subject.folder / f"{temperature:g}K"

        def run_all(plan: Protocol, folder: Path, until: int, *, resume: bool) -> list[dict[str, Any]]:
            return [
                run_md(
                    calculators[name],
                    starts,
                    _at_most(plan, reference_ps) if name == "reference" else plan,
                    folder / name,
                    model=name,
                    criteria=subject.criteria(plan.temperature_K),
                    engine=engine,
                    seed=seed,
                    digest=_digest(model),
                    resume=resume,
                    until=until,
                    progress=progress,
                )
                for name, model in models.items()
            ]

        for step in at.look_steps:
            reached = run_all(at, folder, step, resume=resume or step > at.look_steps[0])
            judged = judge(folder, subject.known)
            if max(summary["n_steps"] for summary in reached) > step:
                continue  # a run that was stopped: this look had decided nothing
            if decided(folder, judged, looks=len(at.look_steps), longest_ps=at.duration_ps):
                break
        for name in models:
            discard_rest(folder / name)
        summaries += [judged[name] for name in models]
        plot_total_energy(folder)
        if nve_ps:
            plan = replace(at.lasting(nve_ps), thermostat="none")
            run_all(plan, folder / "nve", plan.n_steps, resume=resume)
            plot_total_energy(folder / "nve")
        analyse(folder, subject.known, reference=reference, looks=len(at.look_steps), progress=progress)
    return summaries


def energy_fluctuation(calculator: BaseCalculator, start: Sequence[Atoms], protocol: Protocol, *, seed: int) -> float:
    """Measure how much the total energy fluctuates without a thermostat, as a share of the kinetic energy's.

    The standard deviation of each, about a straight line, over 200 steps from the first starts; the median over
    these. It falls fourfold when the time step is halved.
    """
    plan = replace(protocol, thermostat="none", equilibration_steps=0, n_replicas=min(4, len(start)))
    engine = BatchedEngine(calculator, start[0].numbers, plan, seed=seed)
    frame = engine.begin(np.array([atoms.positions for atoms in start[: plan.n_replicas]]))
    alive = np.ones(plan.n_replicas, dtype=bool)
    total, kinetic = [], []
    for _ in range(_CHECKED_STEPS):
        frame = engine.advance(1, alive)
        total.append(frame.conserved)
        kinetic.append(frame.conserved - frame.potential)
    with np.errstate(all="ignore"):
        return float(np.median(np.std(total, axis=0) / np.std(kinetic, axis=0)))


def _check_time_step(
    calculator: BaseCalculator, starts: list[Atoms], protocol: Protocol, temperature: float, name: str
) -> None:
    """Warn of a time step that a short piece without a thermostat shows to be too long."""
    share = energy_fluctuation(calculator, starts, replace(protocol, temperature_K=float(temperature)), seed=0)
    log.info("time-step check: the total energy of %s fluctuates by %.3g of the kinetic energy's", name, share)
    if not share <= LARGEST_FLUCTUATION:
        log.warning(
            "without a thermostat the total energy of %s fluctuates by %.2g of the kinetic energy's fluctuation "
            "(more than %g): a time step shorter than %g fs may be needed, or the model is not smooth",
            name, share, LARGEST_FLUCTUATION, protocol.timestep_fs,
        )  # fmt: skip


def _at_most(protocol: Protocol, time_ps: float | None) -> Protocol:
    return protocol if time_ps is None else protocol.lasting(min(time_ps, protocol.duration_ps))


def _lower_half(positions: FloatArray, energies: FloatArray) -> FloatArray:
    order = np.argsort(energies, kind="stable")
    return positions[order[: max(1, len(order) // 2)]]


def _calculator(model: str | Path) -> BaseCalculator:
    return reference_calculator(model) if isinstance(model, str) else load_calculator(model)


def _digest(model: str | Path) -> str:
    if isinstance(model, str):
        return model
    folder = model if (model / CARD).is_file() else model / "improved"
    return card_digest(folder)
