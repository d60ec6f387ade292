"""Make a reference data set: Langevin dynamics of one molecule with a reference method.

The run is cut into chunks of a fixed number of steps. Each chunk starts from a fresh
calculator, since methods with a self-consistent field start each step from the result
of the last, and is written as a whole, with the state at its end. So a run that
was interrupted anywhere resumes from its last chunk and gives the very same data set.
"""

import hashlib
import logging
import math
import os
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import CalculatorError
from ase.optimize import LBFGS
from threadpoolctl import threadpool_limits

from ase_flatten.calculators import load_calculator
from ase_flatten.data.dataset import Dataset
from ase_flatten.geometry.bonds import count_fragments
from ase_flatten.geometry.pair_distances import pair_distances
from ase_flatten.md.engines.ipi_process import ipi_command
from ase_flatten.md.integrators.langevin import check_thermostat, check_timestep, draw_momenta
from ase_flatten.md.protocol import Protocol
from ase_flatten.models.resolver import NamedCalculator, resolve
from ase_flatten.sampling.partial_run import LabelledFrame, PartialRun, State
from ase_flatten.sampling.trajectory import SAMPLING_ENGINES, DynamicsError
from ase_flatten.utils.exceptions import BackendError, InputError, keeping, printable
from ase_flatten.utils.locks import lock_file
from ase_flatten.utils.progress import SILENT, Progress
from ase_flatten.utils.typing import FloatArray, IntArray

CHUNK_STEPS = 500
"""Steps between two checkpoints; the numbers of a run depend on it."""

RELAXED_FORCE = 0.01
"""The largest force on an atom of the relaxed structure, eV/Å."""

_RELAXATION_STEPS = 2000
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleSettings:
    """All that a data set depends on besides its structure; it is stored with an unfinished run and in the data set.

    Parameters
    ----------
    calculator : str
        A reference method or a model; see `load_calculator`.
    temperature_K, timestep_fs, friction_per_fs : float
        Of the Langevin dynamics.
    frames, stride : int
        Number of frames to keep, and number of steps from one to the next.
    equilibration_ps : float
        Time before the first frame is kept.
    seed : int
        Of velocities and noise.
    dtype : {"float64", "float32"}
        Precision of the stored positions and forces. Labels belong to the unrounded
        positions; rounding to float32 moves an atom by at most 3e-7 Å.
    engine : {"ase", "ipi"}
        What integrates: ASE, or an `i-pi` process that this one serves with forces.
    """

    calculator: str = "tblite:GFN2-xTB"
    temperature_K: float = 500.0  # noqa: N815
    frames: int = 10_000
    stride: int = 10
    timestep_fs: float = 0.5
    friction_per_fs: float = 0.01
    equilibration_ps: float = 2.0
    seed: int = 0
    dtype: str = "float64"
    engine: str = "ase"

    def check(self, atoms: Atoms) -> None:
        """Refuse settings that are impossible for this molecule; raise InputError."""
        for name in ("frames", "stride"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}; raise it")
        if not (math.isfinite(self.equilibration_ps) and self.equilibration_ps >= 0):
            raise InputError(
                f"the equilibration must be 0 ps or longer, got {self.equilibration_ps:g} ps; 2 ps is usual"
            )
        if self.seed < 0:
            raise InputError(f"the seed must be 0 or a positive integer, got {self.seed}; choose another")
        if self.dtype not in ("float32", "float64"):
            raise InputError(f"dtype must be float32 or float64, got {self.dtype!r}; choose one of them")
        if self.engine not in SAMPLING_ENGINES:
            raise InputError(
                f"the engine must be one of {', '.join(SAMPLING_ENGINES)}, got {self.engine!r}; choose one of them"
            )
        if self.engine == "ipi":
            ipi_command()
        check_thermostat(temperature_K=self.temperature_K, friction_per_fs=self.friction_per_fs)
        check_timestep(self.timestep_fs, atoms.numbers)

    @property
    def first_step(self) -> int:
        """Number of steps before sampling begins."""
        return round(1000 * self.equilibration_ps / self.timestep_fs)

    @property
    def n_steps(self) -> int:
        """Total number of steps."""
        return self.first_step + self.frames * self.stride

    def n_frames_until(self, step: int) -> int:
        """Return how many frames have been sampled after `step` steps."""
        return max(0, step - self.first_step) // self.stride

    def is_frame(self, step: int) -> bool:
        """Return whether the configuration after `step` steps belongs to the data set."""
        return step > self.first_step and (step - self.first_step) % self.stride == 0

    def chunk(self, step: int) -> Protocol:
        """Return the protocol of the steps from one checkpoint, after `step` steps, to the next."""
        n_steps = min(CHUNK_STEPS, self.n_steps - step)
        interval = math.gcd(self.stride, self.first_step - step, n_steps)  # meets every frame, and the end
        return Protocol(
            "sample", self.temperature_K, self.timestep_fs, self.friction_per_fs, n_steps, n_replicas=1,
            interval=interval,
        )  # fmt: skip


def sample(
    structure: str | Path,
    output: str | Path,
    settings: SampleSettings,
    *,
    resume: bool = True,
    progress: Progress = SILENT,
) -> Dataset:
    """Sample a molecule by Langevin dynamics and write a data set that `sgdml` reads as well.

    The structure is relaxed, equilibrated, and then every `stride`-th step is kept with the
    calculator's energy and forces. While it runs, finished chunks are in the folder
    ``<output>.partial``, from which the same call resumes. The same settings on the
    same machine give the same data set, bit for bit, interrupted or not, as long as
    the calculator is deterministic. Libraries run on one thread for that: on several threads,
    the order of summation in tblite varies.

    Parameters
    ----------
    structure : str or Path
        A file that ASE reads, or the name of a molecule that `ase.build.molecule` knows.
    output : str or Path
        The data set to write, npz. It must not exist.
    settings : SampleSettings
    resume : bool
        Whether to resume an unfinished run; if not, it is deleted.

    Returns
    -------
    Dataset
        The content of the written file.

    Raises
    ------
    InputError
        Impossible settings; a missing package that the calculator or the engine needs; a
        structure that cannot be read or is periodic; an output that exists, or that another process is
        sampling; or an unfinished run that is damaged or has other settings.
    BackendError
        The calculator fails, or the molecule comes apart; the frames before that stay in the partial folder.
    """
    atoms = read_structure(structure)
    settings.check(atoms)
    named = resolve(settings.calculator)
    load_calculator(named, numbers=atoms.numbers)  # so that its libraries are there for their threads to be limited
    run = PartialRun(Path(output), atoms.numbers, _record(settings, named, atoms))
    with lock_file(output):
        with threadpool_limits(limits=1):
            _run(run, atoms, settings, named, run.open(resume=resume), progress)
        return run.finish()


def _run(
    run: PartialRun,
    atoms: Atoms,
    settings: SampleSettings,
    named: NamedCalculator,
    state: State | None,
    progress: Progress,
) -> None:
    """Run from `state`, or from the structure, to the last step."""
    if state is None:
        state = _start(atoms, settings, named)
        run.save(state, [])
    run.require_frames(settings.n_frames_until(state.step))
    pieces = _count_pieces(atoms.numbers, atoms.positions)
    with progress.task("sampling", settings.n_steps) as advance:
        advance(state.step)
        while state.step < settings.n_steps:
            done = state.step
            with keeping(f"what was sampled before is kept in {run.folder}; resume with the same command"):
                state, chunk, failure = _run_chunk(atoms.numbers, settings, named, state, pieces=pieces)
            if failure is not None:
                raise BackendError(
                    f"expected a molecule that stays whole at {settings.temperature_K:g} K, but after "
                    f"{state.step * settings.timestep_fs / 1000:.3f} ps {failure}; {run.keep(chunk)}; "
                    "sample at a lower temperature or with a shorter time step"
                )
            run.save(state, chunk)
            advance(state.step - done)


def read_structure(structure: str | Path) -> Atoms:
    """Read one molecule, centred on its mass, from a file or by its name in ASE's collection.

    Raises
    ------
    InputError
        Neither a readable file nor a known name, a periodic cell, or a single atom.
    """
    path = Path(structure)
    try:
        atoms = ase.io.read(path) if path.is_file() else molecule(str(structure))
    except KeyError as error:
        raise InputError(
            f"expected a structure file or the name of a molecule that ASE knows, found no {structure}; check the path"
        ) from error
    except Exception as error:  # ASE's readers raise whatever their parsers do
        raise InputError(f"expected a structure that ASE reads, could not read {path}: {printable(error)}") from error
    if isinstance(atoms, list):
        atoms = atoms[-1]
    if atoms.pbc.any():
        raise InputError(f"expected a molecule without a cell, found a periodic one in {path}; remove the cell")
    if len(atoms) < 2:
        raise InputError(f"expected a molecule of at least 2 atoms, found {len(atoms)} in {path}; give another one")
    atoms = Atoms(atoms.numbers, atoms.positions)
    atoms.positions -= atoms.get_center_of_mass()
    return atoms


def _start(atoms: Atoms, settings: SampleSettings, named: NamedCalculator) -> State:
    """Relax the structure and draw the first momenta."""
    atoms = atoms.copy()
    atoms.calc = load_calculator(named, numbers=atoms.numbers)
    try:
        with LBFGS(atoms, logfile=os.devnull) as optimizer:
            relaxed = optimizer.run(fmax=RELAXED_FORCE, steps=_RELAXATION_STEPS)
    except CalculatorError as error:
        raise BackendError(
            f"expected a structure that {settings.calculator} can relax, its calculation failed ({error}); "
            "check the structure"
        ) from error
    if not relaxed:
        _log.warning("the structure is not relaxed to %g eV/Å after %d steps", RELAXED_FORCE, _RELAXATION_STEPS)
    atoms.positions -= atoms.get_center_of_mass()
    rng = np.random.default_rng(settings.seed)
    draw_momenta(atoms, settings.temperature_K, rng)
    return State(0, atoms.get_positions(), atoms.get_momenta(), dict(rng.bit_generator.state))


def _run_chunk(
    numbers: IntArray, settings: SampleSettings, named: NamedCalculator, state: State, *, pieces: int
) -> tuple[State, list[LabelledFrame], str | None]:
    """Run one chunk; return the new state, the frames sampled, and why it failed if it did."""
    chunk = settings.chunk(state.step)
    stop = state.step + chunk.n_steps
    dynamics = SAMPLING_ENGINES[settings.engine](load_calculator(named, numbers=numbers), numbers, state, chunk)
    frames: list[LabelledFrame] = []
    failure = None
    with closing(dynamics):
        try:
            for state, atoms in dynamics:
                is_frame, forces = settings.is_frame(state.step), atoms.get_forces(apply_constraint=False)
                if not (np.isfinite(atoms.positions).all() and np.isfinite(forces).all()):
                    failure = "its positions or forces are not finite"
                elif (is_frame or state.step == stop) and _count_pieces(numbers, atoms.positions) > pieces:
                    failure = "it came apart"
                elif is_frame:
                    frames.append(LabelledFrame(atoms.get_positions(), float(atoms.get_potential_energy()), forces))
                if failure is not None:
                    break
        except DynamicsError as error:
            failure = str(error)
    return state, frames, failure


def _count_pieces(numbers: IntArray, positions: FloatArray) -> int:
    return int(count_fragments(numbers, pair_distances(positions[None]))[0])


def _record(settings: SampleSettings, named: NamedCalculator, atoms: Atoms) -> dict[str, Any]:
    """Collect everything that the frames depend on."""
    structure = hashlib.sha256(atoms.numbers.astype(np.int64).tobytes() + atoms.positions.tobytes()).hexdigest()
    record = {**asdict(settings), "structure": structure, "versions": _versions(settings)}
    if named.digest != named.spec:  # a model, whose file may change under its name
        record["model"] = hashlib.sha256(named.digest.encode()).hexdigest()
    return record


def _versions(settings: SampleSettings) -> dict[str, str]:
    """Return the versions of the packages that the numbers depend on."""
    packages = ["ase-flatten", "ase", "numpy"]
    packages += ["tblite"] if settings.calculator.startswith("tblite:") else []
    packages += ["ipi"] if settings.engine == "ipi" else []
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
