"""The validation: default and improved models of a run side by side in molecular dynamics."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms

from ase_flatten.calculators import load_calculator
from ase_flatten.exceptions import InputError
from ase_flatten.md.compare import analyse, require_packages
from ase_flatten.md.criteria import Criteria
from ase_flatten.md.figure import plot_total_energy
from ase_flatten.md.geometry import reference_bonds
from ase_flatten.md.protocol import Protocol
from ase_flatten.md.run import run_md
from ase_flatten.models.folder import read_card
from ase_flatten.progress import SILENT, Progress
from ase_flatten.reference import reference_calculator
from ase_flatten.run import Run

log = logging.getLogger(__name__)


def validate(
    run: Run,
    temperatures_K: Sequence[float],
    protocol: Protocol,
    *,
    reference: str | None = None,
    engine: str = "batched",
    seed: int = 0,
    resume: bool = True,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """Run the default and the improved model of a run, and the reference method where it is named.

    Replicas start from representatives of the broad clusters, from the lowest in energy
    on, evenly over the lower half; the models get the same starts and the same noise.

    Parameters
    ----------
    temperatures_K : sequence of float
    protocol : Protocol
        Its temperature gives way to each of `temperatures_K`.
    reference : str, optional
        An ASE calculator, as in `reference_calculator`.
    engine : str
        One of `ase_flatten.md.engines.ENGINES`.
    resume : bool
        Whether unfinished runs go on, or begin anew.

    Returns
    -------
    list of dict
        The summaries, by temperature and model.

    Raises
    ------
    InputError
        A run that is not finished, or settings that molecular dynamics does not allow.
    """
    require_packages()
    known = run.reference
    criteria = Criteria(
        known["numbers"],
        reference_bonds(known["numbers"], known["mean_pair_distances"]),
        float(known["lowest_energy"]),
        float(known["highest_energy"]),
    )
    starts = _starts(known, protocol.n_replicas)
    models: dict[str, Any] = {}
    for name in ("default", "improved"):
        folder = run.folder / name
        if not folder.is_dir():
            raise InputError(
                f"expected a finished run, found no {name} model in {run.folder}; finish it with: ase-flatten train "
                "--resume"
            )
        models[name] = folder
    if reference is not None:
        models["reference"] = reference
    summaries = []
    for temperature in temperatures_K:
        at = replace(protocol, temperature_K=float(temperature))
        folder = run.folder / "md" / f"{temperature:g}K"
        for name, model in models.items():
            external = name == "reference"
            summary = run_md(
                reference_calculator(model) if external else load_calculator(model),
                starts,
                at,
                folder / name,
                model=name,
                criteria=criteria,
                engine=engine,
                seed=seed,
                digest=model if external else str(read_card(model)),
                resume=resume,
                progress=progress,
            )
            summaries.append(summary)
        plot_total_energy(folder)
        analyse(folder, known, reference=reference, progress=progress)
    return summaries


def _starts(known: dict[str, np.ndarray], n_replicas: int) -> list[Atoms]:
    """Give the start of each replica, from the lower half of the representatives' energies."""
    order = np.argsort(known["energies"], kind="stable")
    lower = order[: max(1, len(order) // 2)]
    chosen = lower[np.linspace(0, len(lower) - 1, n_replicas).astype(int)]
    return [Atoms(known["numbers"], known["positions"][representative]) for representative in chosen]
