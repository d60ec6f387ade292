"""The validation: models side by side in molecular dynamics, from the same starts with the same noise."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_flatten.calculators import load_calculator
from ase_flatten.data.known_molecule import KnownMolecule
from ase_flatten.md.analysis.comparison import analyse, decided, judge, require_packages
from ase_flatten.md.analysis.figure import plot_total_energy
from ase_flatten.md.criteria import Criteria
from ase_flatten.md.dynamics import Plan, discard_rest, run_md
from ase_flatten.md.earlier_results import refuse_others, steps_left
from ase_flatten.md.engines import check_engine
from ase_flatten.md.engines.batched import BatchedEngine
from ase_flatten.md.protocol import Protocol, load_protocol
from ase_flatten.md.results import Summary
from ase_flatten.md.workload import OfOneModel, Workload, seconds_per_step
from ase_flatten.models.resolver import NamedCalculator, resolve
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.locks import lock_folder
from ase_flatten.utils.log_files import log_to
from ase_flatten.utils.progress import SILENT, Progress, duration
from ase_flatten.utils.typing import FloatArray
from ase_flatten.workflow.run_folder import Run

log = logging.getLogger(__name__)

LOG = "md.log"
"""In the folder of the results."""

LARGEST_FLUCTUATION = 0.1
"""Fluctuation of the total energy without a thermostat above which a warning is logged; see `energy_fluctuation`."""

STARTS = ("clusters", "worst", "minimum")

_CHECKED_STEPS = 200


@dataclass(frozen=True, eq=False)
class Subject:
    """Models that are compared, and what is known of their molecule.

    Parameters
    ----------
    models : mapping
        Models and calculators, as `resolve` reads them or has read them, by their names in tables.
    known : KnownMolecule
        What is known of the molecule.
    positions : (n, n_atoms, 3) array, Å
        Configurations to start from, the best first.
    folder : Path
        Gets a folder for each temperature.
    """

    models: Mapping[str, str | Path | NamedCalculator]
    known: KnownMolecule
    positions: FloatArray
    folder: Path

    def criteria(self, temperature_K: float) -> Criteria:
        """Derive the criteria for physical frames at a temperature."""
        return Criteria.of_molecule(self.known, temperature_K)

    @classmethod
    def of_run(cls, run: Run, *, start: str = "clusters") -> "Subject":
        """Take the default and the improved model of a run.

        Parameters
        ----------
        start : str
            clusters: representatives of the half of the broad clusters that is lowest in energy; worst: those of the
            clusters on which the default model is worst; minimum: the frame of lowest energy in the data.

        Raises
        ------
        InputError
            A run that is not finished, or an unknown start.
        """
        if start not in STARTS:
            raise InputError(f"the start must be one of {', '.join(STARTS)}, got {start!r}")
        models: dict[str, str | Path] = {}
        for name in ("default", "improved"):
            models[name] = run.folder / name
            if not (run.folder / name).is_dir():
                raise InputError(
                    f"expected a finished run, found no {name} model in {run.folder}; "
                    f"finish it with: ase-flatten train --resume --out {run.folder}"
                )
        reference = run.reference
        if start == "minimum":
            positions = reference.lowest_positions[None]
        elif start == "worst":
            errors = run.evaluation.final[0].cluster_force_rmse
            positions = reference.positions[np.argsort(-np.nan_to_num(np.array(errors, dtype=float)), kind="stable")]
        else:
            positions = _lower_half(reference.positions, reference.energies)
        return cls(models, reference.molecule, positions, run.folder / "md")

    @classmethod
    def of_models(cls, models: Sequence[str | Path], out: str | Path) -> "Subject":
        """Take models and calculators for one molecule, as `resolve` reads them.

        Starts, bonds and the range of energies are those of the training of the first model folder.

        Raises
        ------
        InputError
            No model folder with training geometries, or models of different molecules.
        """
        named: dict[str, NamedCalculator] = {}
        for model in map(resolve, models):
            name = model.name
            if name in named and model.path is not None:
                name = f"{model.path.absolute().parent.name}-{name}"
            named[name] = model
        first = next((model.saved for model in named.values() if len(model.training_positions)), None)
        if first is None:
            raise InputError("expected a model folder among --models, to start from its training geometries; add one")
        for model in named.values():
            if model.numbers is not None and not np.array_equal(model.numbers, first.model.numbers):
                raise InputError(f"expected models of one molecule, found another one in {model.spec}; leave it out")
        positions = first.training_positions
        energies = first.model.predict(positions).energies
        known = KnownMolecule.of_frames(first.model.numbers, positions, energies)
        return cls(named, known, _lower_half(positions, energies), Path(out))

    def starts(self, n_replicas: int) -> list[Atoms]:
        """Return the start of each replica, evenly over the configurations; some are used more than once if need be."""
        n_different = min(n_replicas, len(self.positions))
        chosen = np.linspace(0, len(self.positions) - 1, n_different).astype(int)
        return [Atoms(self.known.numbers, self.positions[chosen[k % n_different]]) for k in range(n_replicas)]


@dataclass(frozen=True)
class Validation:
    """Settings of a validation, the same for each model.

    Parameters
    ----------
    temperatures_K : sequence of float
    protocol : Protocol
        Its temperature is replaced by each of `temperatures_K`. With several looks, all models run to one of them
        before any continues to the next.
    engine : str
        One of `ase_flatten.md.engines.ENGINES`.
    nve_ps : float
        Duration of an additional run of each model without a thermostat, ps.
    reference : str, optional
        A reference method, as `load_calculator` takes it.
    reference_ps : float, optional
        The longest time of its replicas, ps, since it may be a thousand times as expensive as a model; by default that
        of the models.
    seed : int
        Of velocities and noise.

    Raises
    ------
    InputError
        An engine that does not exist, or a thermostat that it does not have.

    Examples
    --------
    >>> from ase_flatten import Validation
    >>> from ase_flatten.md import load_protocol
    >>> Validation([300], load_protocol("quick").lasting(5)).protocol.n_steps  # 5 ps
    10000
    """

    temperatures_K: Sequence[float] = (300.0, 400.0)  # noqa: N815
    protocol: Protocol = field(default_factory=lambda: load_protocol("quick"))
    engine: str = "batched"
    nve_ps: float = 0.0
    reference: str | None = None
    reference_ps: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_engine(self.engine, self.protocol.thermostat)

    def protocols(self, temperature_K: float) -> list[Protocol]:
        """Return the protocol at a temperature, and the one without a thermostat where there is one."""
        at = replace(self.protocol, temperature_K=float(temperature_K))
        return [at, *([replace(at.lasting(self.nve_ps), thermostat="none")] if self.nve_ps else [])]

    def protocol_of(self, name: str, protocol: Protocol) -> Protocol:
        """Return the protocol of a model: that of the reference method may be shorter."""
        if name != "reference" or self.reference_ps is None:
            return protocol
        return protocol.lasting(min(self.reference_ps, protocol.duration_ps))


@dataclass(frozen=True, eq=False)
class _Models:
    """The models that are run side by side, ready to be run."""

    subject: Subject
    validation: Validation
    calculators: dict[str, BaseCalculator]
    digests: dict[str, str]
    starts: list[Atoms]
    progress: Progress

    def protocols(self, temperature_K: float) -> list[tuple[Path, Protocol]]:
        """Return the protocols of a temperature, with and without a thermostat, and the folders of their results."""
        folder = self.subject.folder / f"{temperature_K:g}K"
        return list(zip([folder, folder / "nve"], self.validation.protocols(temperature_K), strict=False))

    def plans(self) -> Iterator[tuple[Path, Plan]]:
        """Yield the plan of each run of each model, with its folder."""
        for temperature in self.validation.temperatures_K:
            for folder, protocol in self.protocols(temperature):
                for name in self.calculators:
                    yield folder / name, self.plan(name, protocol)

    def plan(self, name: str, protocol: Protocol) -> Plan:
        """Return the plan of a model's run."""
        return Plan(
            name, self.starts, self.validation.protocol_of(name, protocol),
            self.subject.criteria(protocol.temperature_K), self.validation.engine, self.validation.seed,
            self.digests[name],
        )  # fmt: skip

    def workload(self) -> Workload:
        """Count the steps that are left, and measure what they cost."""
        steps = dict.fromkeys(self.calculators, 0)
        for folder, plan in self.plans():
            steps[plan.model] += steps_left(folder, plan.settings)
        seconds = {
            name: seconds_per_step(calculator, self.starts, self.validation.engine)
            for name, calculator in self.calculators.items()
            if steps[name]
        }
        left = {name: n_steps for name, n_steps in steps.items() if n_steps}
        return Workload(left, seconds, len(self.validation.temperatures_K))

    def run(
        self, protocol: Protocol, folder: Path, until: int, progress: Mapping[str, Progress], *, resume: bool
    ) -> list[Summary]:
        """Run all models up to a step."""
        return [
            run_md(
                calculator, self.plan(name, protocol), folder / name, resume=resume, until=until,
                progress=progress.get(name, SILENT),
            )
            for name, calculator in self.calculators.items()
        ]  # fmt: skip


def validate(
    subject: Subject | Run,
    validation: Validation | None = None,
    *,
    resume: bool = True,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> list[Summary]:
    """Run all models, and the reference method if there is one; write and plot the results.

    Parameters
    ----------
    subject : Subject or Run
        The models; of a run, its default and its improved one.
    validation : Validation, optional
        Temperatures, protocol, engine and seed.
    resume : bool
        Whether unfinished runs are resumed, or begin anew.
    overwrite : bool
        Whether results of other settings are replaced, or refused.

    Returns
    -------
    list of Summary
        By temperature and model; summaries of runs without a thermostat are only written.

    Raises
    ------
    InputError
        Settings that molecular dynamics does not allow, results of other settings, a damaged file of an earlier run,
        or a folder that another process is writing to.

    Examples
    --------
    >>> from ase_flatten import Validation, validate
    >>> from ase_flatten.md import load_protocol
    >>> from ase_flatten.md.validate import Subject
    >>> subject = Subject.of_models(["runs/demo/improved"], "runs/md")
    >>> briefly = load_protocol("quick").lasting(0.01)  # ps
    >>> (summary,) = validate(subject, Validation([300], briefly))
    >>> summary.model, summary.n_failed
    ('improved', 0)
    """
    require_packages()
    subject = Subject.of_run(subject) if isinstance(subject, Run) else subject
    validation = validation or Validation()
    validation.protocol_of("reference", validation.protocol)  # refuse a time that makes no sense before anything runs
    with lock_folder(subject.folder):
        models = _ready(subject, validation, progress)
        for folder, plan in models.plans():
            if not overwrite:
                refuse_others(folder, plan.settings)
        with log_to(subject.folder / LOG):
            log.info("%s", _what(models))
            work = models.workload()
            if work.steps:
                _check_time_step(models)
                log.info("this takes about %s", duration(max(1, work.total_seconds)))
            with progress.task("molecular dynamics", work.n_units) as whole:
                of_models = {name: OfOneModel(whole, work.weight(name)) for name in work.steps}
                return [
                    summary
                    for temperature in validation.temperatures_K
                    for summary in _at(models, temperature, of_models, resume=resume)
                ]


def _what(models: _Models) -> str:
    """Say what is run, and where the results are."""
    validation, protocol = models.validation, models.validation.protocol
    looks = f", or until the verdict is decided at one of {protocol.looks} looks" if protocol.looks > 1 else ""
    temperatures = " and ".join(f"{temperature:g}" for temperature in validation.temperatures_K)
    return (
        f"{' and '.join(models.calculators)} at {temperatures} K: {protocol.n_replicas} replicas of "
        f"{protocol.duration_ps:g} ps{looks}, {protocol.timestep_fs:g} fs steps, thermostat {protocol.thermostat}, "
        f"engine {validation.engine}; results in {models.subject.folder}"
    )


def _ready(subject: Subject, validation: Validation, progress: Progress) -> _Models:
    """Load the models, and the reference method where it is named."""
    named = {name: resolve(model) for name, model in subject.models.items()}
    if validation.reference is not None:
        named["reference"] = resolve(validation.reference)
    return _Models(
        subject,
        validation,
        {name: load_calculator(model, numbers=subject.known.numbers) for name, model in named.items()},
        {name: model.digest for name, model in named.items()},
        subject.starts(validation.protocol.n_replicas),
        progress,
    )


def _at(models: _Models, temperature_K: float, progress: Mapping[str, Progress], *, resume: bool) -> list[Summary]:
    """Run and compare all models at one temperature."""
    known = models.subject.known
    (folder, at), *without_thermostat = models.protocols(temperature_K)
    n_looks = len(at.look_steps)
    for step in at.look_steps:
        reached = models.run(at, folder, step, progress, resume=resume or step > at.look_steps[0])
        judged = judge(folder, known)
        if max(summary.n_steps for summary in reached) > step:
            continue  # a run that was stopped: this look had decided nothing
        if decided(folder, judged, looks=n_looks, longest_ps=at.duration_ps):
            break
    for name in models.calculators:
        discard_rest(folder / name)
    plot_total_energy(folder)
    for beside, nve in without_thermostat:
        models.run(nve, beside, nve.n_steps, progress, resume=resume)
        plot_total_energy(beside)
    analyse(folder, known, reference=models.validation.reference, looks=n_looks, progress=models.progress)
    return [judged[name] for name in models.calculators]


def energy_fluctuation(
    calculator: BaseCalculator, start: Sequence[Atoms], protocol: Protocol, *, seed: int, progress: Progress = SILENT
) -> float:
    """Measure the fluctuation of the total energy without a thermostat, relative to that of the kinetic energy.

    The standard deviation of each, about a straight line, over 200 steps from the first starts; the median over
    these. It falls fourfold when the time step is halved.
    """
    plan = replace(protocol, thermostat="none", equilibration_steps=0, n_replicas=min(4, len(start)))
    engine = BatchedEngine(calculator, start[0].numbers, plan, seed=seed)
    frame = engine.begin(np.array([atoms.positions for atoms in start[: plan.n_replicas]]))
    alive = np.ones(plan.n_replicas, dtype=bool)
    total, kinetic = [], []
    with progress.task("checking the time step", _CHECKED_STEPS) as advance:
        for _ in range(_CHECKED_STEPS):
            frame = engine.advance(1, alive)
            total.append(frame.conserved)
            kinetic.append(frame.conserved - frame.potential)
            advance(1)
    with np.errstate(all="ignore"):
        return float(np.median(np.std(total, axis=0) / np.std(kinetic, axis=0)))


def _check_time_step(models: _Models) -> None:
    """Warn if a short run without a thermostat shows that the time step is too long."""
    name, calculator = next(iter(models.calculators.items()))
    hottest = max(models.validation.temperatures_K)
    protocol = replace(models.validation.protocol, temperature_K=float(hottest))
    share = energy_fluctuation(calculator, models.starts, protocol, seed=0, progress=models.progress)
    log.info(
        "time-step check: the fluctuation of the total energy of %s is %.3g times that of the kinetic energy",
        name,
        share,
    )
    if not share <= LARGEST_FLUCTUATION:
        log.warning(
            "without a thermostat, the fluctuation of the total energy of %s is %.2g times that of the kinetic energy "
            "(more than %g): a time step shorter than %g fs may be needed, or the model is not smooth",
            name, share, LARGEST_FLUCTUATION, protocol.timestep_fs,
        )  # fmt: skip


def _lower_half(positions: FloatArray, energies: FloatArray) -> FloatArray:
    order = np.argsort(energies, kind="stable")
    return positions[order[: max(1, len(order) // 2)]]
