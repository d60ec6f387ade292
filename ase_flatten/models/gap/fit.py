"""Run `gap_fit`, QUIP's program that fits a GAP."""

import importlib.util
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
from ase import Atoms
from ase.io import write

from ase_flatten.data.dataset import Dataset
from ase_flatten.models.gap.cost import fit_bytes
from ase_flatten.models.gap.native import LOG_FILE, MODEL_FILE, NativeFiles, take_native
from ase_flatten.utils.exceptions import BackendError, InputError, installation
from ase_flatten.utils.typing import IntArray

log = logging.getLogger(__name__)

_OLDEST = (0, 9)
_FRAMES_FILE = "frames.xyz"
_TELL_SECONDS = 10.0
_WORTH_TELLING = ("TIMER", "Started", "Covariance matrix", "Using LAPACK")
# One core, because with more the order of summation, and thus the result for a seed, would vary.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "GFORTRAN_UNBUFFERED_PRECONNECTED": "y"}


def find_gap_fit() -> Path:
    """Find `gap_fit`, in quippy first and then on the path, and check that it runs.

    Raises
    ------
    InputError
        It is missing, does not run, or is too old.
    """
    hint = installation("gap")
    package = importlib.util.find_spec("quippy")
    if package is None:
        raise InputError(f"GAP needs quippy, which is not installed; {hint}")
    homes = [Path(home) / "gap_fit" for home in package.submodule_search_locations or []]
    found = next((home for home in homes if os.access(home, os.X_OK)), None) or shutil.which("gap_fit")
    if found is None:
        raise InputError(f"GAP needs the program gap_fit, which was not found; {hint}")
    try:
        greeting = subprocess.run(
            [str(found), "--help"], capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"expected {found} to run, it does not: {error}; {hint}") from error
    version = re.search(r"QUIP,v(\d+)\.(\d+)", greeting.stdout)
    if version and tuple(map(int, version.groups())) < _OLDEST:
        raise InputError(f"expected gap_fit of QUIP {'.'.join(map(str, _OLDEST))} or later, found {version[0]}; {hint}")
    if "e0_method" not in greeting.stdout:
        raise InputError(f"expected {found} to be gap_fit, it answers {_reason(greeting.stdout)}; {hint}")
    return Path(found)


def run_gap_fit(
    program: Path, dataset: Dataset, frames: IntArray, settings: Mapping[str, Any], seed: int
) -> NativeFiles:
    """Fit a GAP to the energies and forces of frames.

    Parameters
    ----------
    settings : mapping
        Those of `GAPTrainer`.

    Raises
    ------
    InputError
        `gap_fit` would need more memory than there is.
    BackendError
        `gap_fit` fails.
    """
    _check_memory(dataset, frames, settings)
    with tempfile.TemporaryDirectory(prefix="ase-flatten-") as name:
        folder = Path(name)
        _write_frames(folder / _FRAMES_FILE, dataset, frames)
        _run([str(program), *arguments(settings, seed)], folder)
        return take_native(folder, dataset.numbers, settings)


def arguments(settings: Mapping[str, Any], seed: int) -> list[str]:
    """Return the command-line arguments of `gap_fit`."""
    soap = {
        "cutoff": settings["cutoff"], "n_max": settings["n_max"], "l_max": settings["l_max"],
        "atom_sigma": settings["atom_sigma"], "covariance_type": "dot_product", "zeta": settings["zeta"],
        "delta": settings["delta"], "n_sparse": settings["n_sparse"], "sparse_method": settings["sparse_method"],
        "add_species": "T",
    }  # fmt: skip
    e0 = settings["e0"]
    reference = (
        "e0_method=average" if e0 == "average" else f"e0={{{':'.join(f'{name}:{e0[name]!r}' for name in sorted(e0))}}}"
    )
    return [
        f"atoms_filename={_FRAMES_FILE}",
        f"gap={{soap {' '.join(f'{name}={value}' for name, value in soap.items())}}}",
        f"default_sigma={{{settings['energy_sigma']} {settings['force_sigma']} 0 0}}",
        "energy_parameter_name=reference_energy",
        "force_parameter_name=reference_force",
        reference,
        f"sparse_jitter={settings['sparse_jitter']}",
        f"gap_file={MODEL_FILE}",
        "do_copy_atoms_file=F",
        f"rnd_seed={seed}",
    ]


def _run(command: list[str], folder: Path) -> None:
    """Run `gap_fit` in a folder, keep its output, and log its progress from time to time."""
    # In a session of its own, Ctrl-C is left to the process that waits for it.
    with (folder / LOG_FILE).open("w", encoding="utf-8") as kept, subprocess.Popen(
        command, cwd=folder, env={**os.environ, **_ENVIRONMENT}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            _follow(process.stdout, kept)
            status = process.wait()
        except BaseException:
            process.kill()
            raise
    # QUIP ends with status 0 on some errors.
    if status != 0 or not (folder / MODEL_FILE).is_file():
        output = (folder / LOG_FILE).read_text(encoding="utf-8")
        log.debug("gap_fit printed:\n%s", output)
        raise BackendError(
            f"expected gap_fit to fit a model, it ended with status {status}: {_reason(output)}; "
            "change the settings (--set NAME=VALUE) or the frames"
        )


def _follow(output: IO[str], kept: IO[str]) -> None:
    start = told = time.monotonic()
    for line in output:
        kept.write(line)
        now = time.monotonic()
        if now - told > _TELL_SECONDS and line.startswith(_WORTH_TELLING):
            told = now
            log.info("gap_fit, %.0f s: %s", now - start, line.strip())


def _reason(output: str) -> str:
    """Return the line of QUIP's output that gives the reason of a failure."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for marker in ("SYSTEM ABORT", "error", "ERROR", "missing"):
        for line in reversed(lines):
            if marker in line:
                return line
    return lines[-1] if lines else "it does not say why"


def _write_frames(path: Path, dataset: Dataset, frames: IntArray) -> None:
    configurations = []
    for frame in frames:
        atoms = Atoms(dataset.numbers, dataset.positions[frame])
        atoms.cell[:] = np.eye(3) * (np.ptp(atoms.positions) + 100)  # QUIP requires a cell
        atoms.info["reference_energy"] = float(dataset.energies[frame])
        atoms.arrays["reference_force"] = dataset.forces[frame]
        configurations.append(atoms)
    write(path, configurations, format="extxyz")


def _check_memory(dataset: Dataset, frames: IntArray, settings: Mapping[str, Any]) -> None:
    """Refuse a fit that needs too much memory: `gap_fit` keeps the gradients of all SOAP vectors at once."""
    needed = fit_bytes(dataset, frames, settings)
    available = psutil.virtual_memory().available
    if needed > available:
        raise InputError(
            f"gap_fit needs about {needed / 2**30:.0f} GiB for {len(frames)} frames of {dataset.formula} with n_max="
            f"{settings['n_max']} and l_max={settings['l_max']}, {available / 2**30:.0f} GiB are free; "
            "use fewer frames, or fewer SOAP functions such as --preset small has"
        )
