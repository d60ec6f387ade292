"""The command `ase-flatten`."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ase_flatten import __version__
from ase_flatten.utils import console
from ase_flatten.utils.exceptions import InputError, keeping

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Machine-learned force fields that are right everywhere, not on average.",
)

Data = Annotated[Path | None, typer.Option("-d", "--dataset", help="The data set, instead of the argument.")]
EnergyUnit = Annotated[str | None, typer.Option(help="Energy unit of a data set that declares none.")]
LengthUnit = Annotated[str | None, typer.Option(help="Length unit of a data set that declares none.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random [0].")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Show results and errors only.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show more of what is done.")]
Units = Annotated[str, typer.Option(help="Energy unit of the output, such as eV.")]
Subset = Annotated[
    bool | None,
    typer.Option(
        "--subset/--all-frames",
        help="Estimate cluster errors on random frames of each, or predict all [subset where models are slow].",
        show_default=False,
    ),
]


def _version(asked: bool) -> None:
    if asked:
        console.say(f"ase-flatten {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: ase-flatten check examples/data/salicylic_gfn2_500K.npz")
@console.user_errors
def check(
    dataset: Annotated[Path | None, typer.Argument(help="The data set.")] = None,
    data: Data = None,
    scores: Annotated[Path | None, typer.Option(help="CSV file for the score of each frame's labels.")] = None,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Look a data set over; refuse or explain what is wrong."""
    from ase_flatten.checking.cleaning import write_scores

    console.set_up_logging(quiet=quiet, verbose=verbose)
    path = _one(dataset, data)
    _, found = _check_up(path, energy_unit, length_unit, seed=seed, quiet=quiet)
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
        way_out = "" if found.whole_set else f"; leave those frames out with: ase-flatten clean {path} -o CLEAN"
        n = len(found.refused)
        raise InputError(
            f"expected data that agree with themselves, found {n} reason{'s' if n > 1 else ''} to refuse them, "
            f"see above{way_out}"
        )
    console.say("the data are fit to train on")


@app.command(epilog="Example: ase-flatten clean examples/data/salicylic_gfn2_500K.npz -o runs/clean.npz")
@console.user_errors
def clean(
    dataset: Annotated[Path | None, typer.Argument(help="The data set.")] = None,
    data: Data = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The data set to write: .npz, .xyz or .extxyz.")] = ...,  # type: ignore[assignment]
    doubtful: Annotated[bool, typer.Option(help="Leave out doubtful frames as well.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace an output that exists.")] = False,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the data set without refused frames, and a list of what was left out and why."""
    from ase_flatten.checking.cleaning import check_output, choose_frames, write_clean

    console.set_up_logging(quiet=quiet, verbose=verbose)
    path = _one(dataset, data)
    listed = check_output(path, output, overwrite=overwrite)
    content, found = _check_up(path, energy_unit, length_unit, seed=seed, quiet=quiet)
    selection = choose_frames(content, found, doubtful=doubtful)
    write_clean(output, listed, content, selection)
    for reason, count in selection.summary:
        console.say(f"left out: {count} frame{'s' if count > 1 else ''}: {reason}")
    console.say(f"{len(selection.kept)} of {content.n_frames} frames kept: {output}")
    console.say(f"list of what was left out: {listed}")


@app.command(epilog="Example: ase-flatten cluster examples/data/salicylic_gfn2_500K.npz --out runs/clusters")
@console.user_errors
def cluster(
    dataset: Annotated[Path | None, typer.Argument(help="The data set.")] = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder for clusters.npz [runs/NAME-clusters].")] = None,
    n_geometry: Annotated[int, typer.Option(min=1, help="Clusters by pair distances.")] = 10,
    n_energy: Annotated[int, typer.Option(min=1, help="Clusters by energy within each of them.")] = 5,
    n_ward: Annotated[
        int, typer.Option(min=2, help="Frames clustered by Ward's method; the rest is assigned.")
    ] = 20_000,
    assignment: Annotated[str, typer.Option(help="Rule for the rest: average, ward or maximum.")] = "average",
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    units: Units = "kcal/mol",
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Cluster configurational space: by pair distances, then by energy."""
    from ase_flatten.clustering import clusters
    from ase_flatten.data.io import write_frames
    from ase_flatten.data.units import output_units
    from ase_flatten.geometry.pair_distances import pair_distances
    from ase_flatten.workflow.run_folder import write_clusters

    console.set_up_logging(quiet=quiet, verbose=verbose)
    path = _one(dataset, data)
    content, unit = _read(path, energy_unit, length_unit), output_units(units)
    found = clusters.cluster(
        content, rng=np.random.default_rng(seed or 0), n_geometry=n_geometry, n_energy=n_energy, n_ward=n_ward,
        assignment=assignment, progress=console.progress(quiet),
    )  # fmt: skip
    folder = out or Path("runs") / f"{path.stem}-clusters"
    descriptors = pair_distances(content.positions)
    frames = clusters.representatives(found, descriptors)
    write_clusters(folder / "clusters.npz", found, descriptors)
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


@app.command(epilog="Example: ase-flatten errors examples/data/salicylic_gfn2_500K.npz runs/demo --out runs/outliers")
@console.user_errors
def errors(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="DATASET MODEL", help="Data set and model.")] = None,
    data: Data = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-i",
            "--model",
            help="A run or model folder, a model file, schnetpack:FILE:UNIT, tblite:METHOD or ase:MODULE:FACTORY.",
        ),
    ] = None,
    clusters: Annotated[
        Path | None,
        typer.Option(help="A run folder or clusters.npz whose clusters to use [the model's run, else clustered anew]."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results [runs/NAME-errors].")] = None,
    worst: Annotated[int, typer.Option(min=1, help="Clusters whose frames are written out.")] = 3,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes for an ASE calculator [one a core, 8 at most].")
    ] = None,
    subset: Subset = None,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    units: Units = "kcal/mol",
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find outliers: the force RMSE of a model on each cluster."""
    from ase_flatten.data.units import output_units
    from ase_flatten.report.outliers import MAX_WORKERS, find_outliers
    from ase_flatten.utils.cores import n_cores
    from ase_flatten.utils.parallel import LocalExecutor

    console.set_up_logging(quiet=quiet, verbose=verbose)
    given = list(arguments or [])
    path = Path(str(data or (given.pop(0) if given else "")))
    spec = model or (given.pop(0) if given else None)
    if not path.name or spec is None or given:
        raise InputError("expected one data set and one model; see ase-flatten errors --help")
    content, unit = _read(path, energy_unit, length_unit), output_units(units)
    folder = out or Path("runs") / f"{path.stem}-errors"
    with LocalExecutor(workers or min(n_cores(), MAX_WORKERS)) as executor:
        outliers = find_outliers(
            content, spec, folder, n_worst=worst, units=unit, seed=seed or 0, subset=subset, executor=executor,
            clusters=clusters, progress=console.progress(quiet),
        )  # fmt: skip
    found = outliers.errors
    if outliers.clusters_of:
        console.say(f"clusters of {outliers.clusters_of}")
    console.table(
        f"Force RMSE by cluster, {unit.force}, worst first",
        ("cluster", "frames", "force RMSE", "±", "force MAE", f"energy RMSE, {unit.energy}"),
        [
            (label, found.populations[label], *(f"{value[label] * unit.scale:.3f}" for value in outliers.columns))
            for label in found.ascending[::-1][: None if verbose else 10]
        ],
    )
    console.say(
        f"over {outliers.n_frames} frames {outliers.stratum}{outliers.how}: {found.overall_rmse * unit.scale:.3f} "
        f"{unit.force}"
    )
    console.say(f"tables, figure and worst frames: {folder}")


@app.command(epilog="Example: ase-flatten train examples/data/salicylic_gfn2_500K.npz -n 3 -i 40 -s 20 --out runs/demo")
@console.user_errors
def train(
    dataset: Annotated[Path | None, typer.Argument(help="The data set.")] = None,
    data: Data = None,
    model: Annotated[str | None, typer.Option(help="Model family: sgdml, schnet or gap [sgdml].")] = None,
    n_steps: Annotated[int | None, typer.Option("-n", "--steps", min=0, help="Steps [8].")] = None,
    n_initial: Annotated[int | None, typer.Option("-i", "--initial", min=2, help="Frames to start with [200].")] = None,
    step_size: Annotated[int | None, typer.Option("-s", "--step-size", min=1, help="Frames a step adds [100].")] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder [runs/NAME-MODEL-seedN].")] = None,
    holdout: Annotated[float | None, typer.Option(help="Share of frames that only judge [0.2].")] = None,
    pick: Annotated[str | None, typer.Option(help="largest-error, centroid or random [largest-error].")] = None,
    share: Annotated[str | None, typer.Option(help="Frames of a fine cluster: one or population [one].")] = None,
    n_fine: Annotated[int | None, typer.Option(min=1, help="Fine clusters [twice the step size].")] = None,
    factor: Annotated[float | None, typer.Option(help="Bad is above this multiple of the overall error [1.1].")] = None,
    protocol: Annotated[
        Path | None, typer.Option(help="TOML file with settings of a run; options here go before it.")
    ] = None,
    subset: Subset = None,
    quarantine: Annotated[
        str | None,
        typer.Option(help="Set frames with contradicted labels aside: on, off, or a FILE that lists frames [on]."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings of the family under one name: small suits a laptop (gap, schnet).")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a setting of the family, such as sigma=20.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a run, with its own settings.")] = False,
    default_draws: Annotated[
        int | None,
        typer.Option(min=1, help="Default training sets of the final size [4, or 1 where training takes long]."),
    ] = None,
    strict: Annotated[
        bool, typer.Option(help="Exit with 1 unless the improved model is better in the worst group beyond noise.")
    ] = False,
    energy_unit: EnergyUnit = None,
    length_unit: LengthUnit = None,
    units: Units = "kcal/mol",
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train the improved model, and the default model of equal size; report both on held-out frames."""
    from ase_flatten.checking.check import WRONG_LABELS, check_up
    from ase_flatten.data.units import output_units
    from ase_flatten.evaluation.claims import BETTER
    from ase_flatten.report.page import verdict_sentences, write_report
    from ase_flatten.workflow.run_folder import Run, RunSettings, read_protocol
    from ase_flatten.workflow.train_run import train as train_run

    console.set_up_logging(quiet=quiet, verbose=verbose)
    path, unit, progress = _one(dataset, data), output_units(units), console.progress(quiet)
    base = read_protocol(protocol) if protocol else RunSettings()
    folder = out or Path("runs") / f"{path.stem}-{model or base.family}-seed{base.seed if seed is None else seed}"
    if protocol is None and resume and (folder / "run.json").exists():
        base = Run(folder).settings
    rule = _changed(base.schedule.rule, pick=pick, share=share, n_fine=n_fine, factor=factor)
    schedule = _changed(base.schedule, n_steps=n_steps, n_initial=n_initial, step_size=step_size, rule=rule)
    settings = _changed(
        base, family=model, schedule=schedule, holdout=holdout, seed=seed, subset=subset, default_draws=default_draws,
        quarantine=_quarantine(quarantine), trainer={**base.trainer, **_settings(setting, preset)},
    )  # fmt: skip
    content = _read(path, energy_unit, length_unit)
    found = check_up(content, rng=np.random.default_rng(settings.seed), progress=progress)
    refused = [one for one in found.refused if settings.quarantine == "on" or one.what != WRONG_LABELS]
    if refused:
        way_out = "" if found.whole_set else f"; or leave those frames out with: ase-flatten clean {path} -o CLEAN"
        raise InputError(f"{refused[0].message}{way_out}")

    def tell(step: Any) -> None:
        if not quiet:
            overall, worst = step.errors.overall_rmse, step.errors.rmse[step.errors.worst]
            console.say(
                f"step {step.number}: {len(step.train_frames)} frames, force RMSE {overall * unit.scale:.3f}, "
                f"worst cluster {worst * unit.scale:.3f} {unit.force} ({sum(step.seconds.values()):.0f} s)"
            )

    with keeping(f"finished steps are kept in {folder}; resume with the same command and --resume"):
        run = train_run(content, folder, settings, resume=resume, on_step=tell, progress=progress, source=path.name)
    page = write_report(run, units=unit)
    _conclude(page, verdict_sentences(run, units=unit))
    if strict and run.claims.of["worst_group"].verdict != BETTER:
        raise typer.Exit(1)


@app.command(epilog="Example: ase-flatten report runs/demo")
@console.user_errors
def report(
    run: Annotated[Path | None, typer.Argument(help="The run folder [the newest below runs/].")] = None,
    units: Units = "kcal/mol",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw the figures and write one self-contained page."""
    from ase_flatten.data.units import output_units
    from ase_flatten.report.page import verdict_sentences, write_report
    from ase_flatten.workflow.run_folder import open_run

    console.set_up_logging(quiet=quiet, verbose=verbose)
    found, unit = open_run(run), output_units(units)
    page = write_report(found, units=unit)
    _conclude(page, verdict_sentences(found, units=unit))


@app.command(
    epilog="Example: ase-flatten sample examples/data/salicylic_acid.xyz --T 500 --frames 1000 -o runs/salicylic.npz"
)
@console.user_errors
def sample(
    structure: Annotated[Path, typer.Argument(help="A structure file, or the name of a molecule that ASE knows.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The data set to write (.npz).")],
    calculator: Annotated[str, typer.Option(help="tblite:METHOD, ase:MODULE:FACTORY, or a model.")] = "tblite:GFN2-xTB",
    temperature: Annotated[float, typer.Option("--T", help="Temperature, K.")] = 500.0,
    frames: Annotated[int, typer.Option(min=1, help="Frames to keep.")] = 10_000,
    stride: Annotated[int, typer.Option(min=1, help="Steps between them.")] = 10,
    timestep: Annotated[float, typer.Option(help="Time step, fs.")] = 0.5,
    friction: Annotated[float, typer.Option(help="Langevin friction, 1/fs.")] = 0.01,
    equilibration: Annotated[float, typer.Option(help="Equilibration, ps.")] = 2.0,
    dtype: Annotated[str, typer.Option(help="Precision of the file: float64 or float32.")] = "float64",
    engine: Annotated[str, typer.Option(help="What integrates: ase, or ipi for an i-PI process.")] = "ase",
    seed: Seed = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make a reference trajectory with any ASE calculator; goes on where it was stopped."""
    from ase_flatten.sampling.sample import sample as sample_trajectory

    console.set_up_logging(quiet=quiet, verbose=verbose)
    data = sample_trajectory(
        structure, output, calculator=calculator, temperature_K=temperature, frames=frames, stride=stride,
        timestep_fs=timestep, friction_per_fs=friction, equilibration_ps=equilibration, seed=seed or 0, dtype=dtype,
        engine=engine, progress=console.progress(quiet),
    )  # fmt: skip
    console.say(f"{data.n_frames} frames of {data.formula}: {output}")


def main() -> None:
    """Run the command line."""
    app(prog_name="ase-flatten")


def _conclude(page: Path, sentences: list[str]) -> None:
    """Print the verdict, its reasons first."""
    headline, *reasons = sentences
    for sentence in reasons:
        console.say(sentence)
    console.say(f"report: {page}")
    console.say(f"verdict: {headline}")


def _one(argument: Path | None, option: Path | None) -> Path:
    if (argument is None) == (option is None):
        raise InputError("expected one data set, as the argument or with -d; give one")
    return argument or option or Path()


def _read(path: Path, energy_unit: str | None, length_unit: str | None) -> Any:
    from ase_flatten.data.io import read_dataset

    return read_dataset(path, energy_unit=energy_unit, length_unit=length_unit)


def _check_up(path: Path, energy_unit: str | None, length_unit: str | None, *, seed: int | None, quiet: bool) -> Any:
    """Read a data set, say what it is, and look it over."""
    from ase_flatten.checking.check import check_up

    content = _read(path, energy_unit, length_unit)
    console.say(
        f"{content.n_frames} frames of {content.formula} ({content.n_atoms} atoms)"
        + (f", {content.theory}" if content.theory else "")
    )
    return content, check_up(content, rng=np.random.default_rng(seed or 0), progress=console.progress(quiet))


def _changed(base: Any, **changes: Any) -> Any:
    """Replace the fields of a settings object that were given."""
    from dataclasses import replace

    return replace(base, **{name: value for name, value in changes.items() if value is not None})


def _quarantine(asked: str | None) -> str | tuple[int, ...] | None:
    """Read a list of frames where neither on nor off is asked for."""
    from ase_flatten.selection.quarantine import read_frame_list

    return asked if asked in (None, "on", "off") else read_frame_list(Path(asked))


def _settings(pairs: list[str] | None, preset: str | None) -> dict[str, Any]:
    """Read NAME=VALUE pairs, values as JSON where they are."""
    settings: dict[str, Any] = {} if preset is None else {"preset": preset}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"expected NAME=VALUE after --set, got {pair!r}")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


if __name__ == "__main__":
    main()
