"""Commands about a data set: ``check``, ``clean`` and ``cluster``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from ase_flatten.cli.command import CLUSTERS, OUTPUT
from ase_flatten.cli.options import (
    Data,
    DataArgument,
    EnergyKey,
    EnergyUnit,
    ForcesKey,
    LengthUnit,
    NEnergy,
    NGeometry,
    Quiet,
    Seed,
    Units,
    Verbose,
    one_path,
    read,
    repeated,
    results_folder,
)
from ase_flatten.utils import console
from ase_flatten.utils.exceptions import InputError

if TYPE_CHECKING:
    from ase_flatten.checking.check import Checkup
    from ase_flatten.data.dataset import Dataset


@console.user_errors
def check(
    dataset: DataArgument = None,
    data: Data = None,
    scores: Annotated[
        Path | None, typer.Option(help="CSV file to write a score for each frame's labels to.", rich_help_panel=OUTPUT)
    ] = None,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Check a data set, and explain what is wrong with it."""
    from ase_flatten.checking.cleaning import write_scores

    console.set_up_logging(quiet=quiet, verbose=verbose)
    path = one_path(dataset, data)
    declared = (energy_unit, length_unit, energy_key, forces_key)
    _, found = _check_up(path, *declared, seed=seed, quiet=quiet)
    for finding in found.findings:
        console.say(f"{finding.level}: {finding.message}")
        if verbose:
            for row, frame in enumerate(finding.frames):
                console.say(f"  frame {frame}: {finding.reason(row)}")
    if scores is not None:
        if found.labels is None:
            raise InputError("expected data whose frames can be judged, found the whole set at fault; see above")
        write_scores(scores, found.labels)
        console.say(f"scores: {scores}")
    if found.refused:
        command = f"ase-flatten clean {repeated(path, *declared)} -o CLEAN"
        way_out = "" if found.whole_set else f"; leave those frames out with: {command}"
        n = len(found.refused)
        raise InputError(
            f"expected data that are consistent, found {n} reason{'s' if n > 1 else ''} to refuse them, "
            f"see above{way_out}"
        )
    console.say("the data are fit to train on")


@console.user_errors
def clean(
    dataset: DataArgument = None,
    data: Data = None,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The data set to write: .npz, .xyz or .extxyz.", rich_help_panel=OUTPUT),
    ] = ...,  # type: ignore[assignment]
    doubtful: Annotated[bool, typer.Option(help="Leave out doubtful frames as well.", rich_help_panel=OUTPUT)] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an output that exists.", rich_help_panel=OUTPUT)] = False,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a data set without its refused frames.

    A list names the frames that were left out, and why.
    """
    from ase_flatten.checking.cleaning import check_output, choose_frames, write_clean

    console.set_up_logging(quiet=quiet, verbose=verbose)
    path = one_path(dataset, data)
    listed = check_output(path, output, overwrite=overwrite)
    content, found = _check_up(path, energy_unit, length_unit, energy_key, forces_key, seed=seed, quiet=quiet)
    selection = choose_frames(content, found, doubtful=doubtful)
    write_clean(output, listed, content, selection)
    for reason, count in selection.summary:
        console.say(f"left out: {count} frame{'s' if count > 1 else ''}: {reason}")
    console.say(f"{len(selection.kept)} of {content.n_frames} frames kept: {output}")
    console.say(f"list of what was left out: {listed}")


@console.user_errors
def cluster(
    dataset: DataArgument = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for clusters.npz [runs/NAME-clusters].", rich_help_panel=OUTPUT)
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace clusters of other data.", rich_help_panel=OUTPUT)] = False,
    n_geometry: NGeometry = None,
    n_energy: NEnergy = None,
    n_ward: Annotated[
        int,
        typer.Option(
            min=2,
            help="Frames clustered by Ward's method; the others are assigned to these clusters.",
            rich_help_panel=CLUSTERS,
        ),
    ] = 20_000,
    assignment: Annotated[
        str, typer.Option(help="Rule for the others: average, ward or maximum.", rich_help_panel=CLUSTERS)
    ] = "average",
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    energy_key: EnergyKey = None,
    forces_key: ForcesKey = None,
    units: Units = "kcal/mol",
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Cluster configurational space by pair distances, then by energy."""
    from ase_flatten.clustering import clusters
    from ase_flatten.data.io import write_frames
    from ase_flatten.data.units import output_units
    from ase_flatten.report.results_record import RECORD, ResultsRecord, check_replaceable, subject_of_data
    from ase_flatten.utils.records import write_record
    from ase_flatten.workflow.run_folder import write_clusters

    console.set_up_logging(quiet=quiet, verbose=verbose)
    path = one_path(dataset, data)
    folder = results_folder(out, f"{path.stem}-clusters")
    content, unit = read(path, energy_unit, length_unit, energy_key, forces_key), output_units(units)
    record = ResultsRecord(dataset=subject_of_data(content, path))
    check_replaceable(folder, record, ("clusters.npz", "representatives.extxyz"), overwrite=overwrite)
    by_default = clusters.n_clusters_of(content.n_frames)
    found = clusters.cluster(
        content, rng=np.random.default_rng(seed or 0), n_geometry=n_geometry or by_default[0],
        n_energy=n_energy or by_default[1], n_ward=n_ward, assignment=assignment, progress=console.progress(quiet),
    )  # fmt: skip
    frames = clusters.representatives(found, content.pair_distances)
    write_record(folder / RECORD, record)
    write_clusters(folder / "clusters.npz", found, frames)
    write_frames(folder / "representatives.extxyz", content, frames, cluster=np.arange(found.n_clusters))
    energies = (content.energies - content.energies.min()) * unit.scale
    console.table(
        f"{found.n_clusters} clusters of {content.n_frames} frames",
        ("cluster", "frames", f"mean energy, {unit.energy}", "representative"),
        [
            (label, population, f"{energies[found.members(label)].mean():.2f}", frames[label])
            for label, population in enumerate(found.populations)
        ],
    )
    console.say(f"labels, populations and representatives: {folder}")


def _check_up(path: Path, *declared: str | None, seed: int | None, quiet: bool) -> "tuple[Dataset, Checkup]":
    """Read a data set, print what it is, and check it."""
    from ase_flatten.checking.check import check_up

    content = read(path, *declared)
    console.say(
        f"{content.n_frames} frames of {content.formula} ({content.n_atoms} atoms)"
        + (f", {content.theory}" if content.theory else "")
    )
    return content, check_up(content, rng=np.random.default_rng(seed or 0), progress=console.progress(quiet))
