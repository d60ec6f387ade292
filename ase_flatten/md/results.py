"""Results of molecular dynamics: what summary.json, comparison.json and reference_errors.json hold.

Energies are in kcal/mol above the lowest potential energy of the data, times in ps, temperatures in K. None
stands for what is not known. `ase_flatten.md.result_files` reads and writes them.
"""

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

Verdict = Literal["stable", "unstable", "cannot tell"]
STABLE: Final = "stable"
UNSTABLE: Final = "unstable"
CANNOT_TELL: Final = "cannot tell"

FORMAT = 1
"""Version of summary.json and comparison.json; files without one are older."""

# Ranges that the values of a file must lie in.
Number = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e15)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1 + 1e-9)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1, le=10**12)]
Text = Annotated[str, msgspec.Meta(max_length=10**6, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$")]
"""Text without control characters, which a terminal would execute."""
Replica = Annotated[int, msgspec.Meta(ge=0, lt=10**6)]


@dataclass(frozen=True)
class Failure:
    """The unphysical frame that ended a replica; steps and times below zero are equilibration.

    Parameters
    ----------
    replica, step : int
    time_ps : float
    reason : str
    """

    replica: Replica
    step: int
    time_ps: Number
    reason: Text


@dataclass(frozen=True)
class Lifetime:
    """Mean lifetime of a replica and its 95 % confidence interval, ps.

    Parameters
    ----------
    mean_ps : float or None
        The total time of all replicas divided by the number of failures; None if none failed.
    low_ps : float
        0 if the total time is 0.
    high_ps : float or None
        None if none failed: there is no upper limit.
    """

    mean_ps: NotNegative | None
    low_ps: NotNegative
    high_ps: NotNegative | None


@dataclass(frozen=True)
class ExpectedPotential:
    """Expected potential energy of a run, kcal/mol above the lowest of the data.

    Parameters
    ----------
    mean, error : float
        The mean, and its standard error.
    std : float
        The canonical standard deviation of the instantaneous energy.
    source : str
        Where it comes from, such as "the data at 507 K".
    """

    mean: Number
    std: NotNegative
    error: NotNegative
    source: Text


@dataclass(frozen=True)
class Conservation:
    """Conservation of the energy in a run without a thermostat.

    Parameters
    ----------
    drift, drift_error : float or None
        Of the total energy, and its standard error, meV/atom/ps.
    ratio : float or None
        The drift over the whole run, relative to the standard deviation of the kinetic energy.
    conserved : bool or None
        Whether that is below 1.
    """

    drift: Number | None
    drift_error: NotNegative | None
    ratio: NotNegative | None
    conserved: bool | None


@dataclass(frozen=True)
class Limits:
    """Limits of a physical frame, from the `ase_flatten.md.criteria.Criteria` of the run.

    Parameters
    ----------
    rules : int
        The version of the criteria.
    n_bond_graphs, n_fragments : int
    stretch : float, Å
    closer : float
    lowest_potential_eV, highest_potential_eV, lowest_window_mean_eV : float, eV
    energy_source : str
        Where the limits of the energy come from.
    """

    rules: int
    n_bond_graphs: Count
    stretch: Number
    closer: Number
    n_fragments: Count
    lowest_potential_eV: Number  # noqa: N815
    highest_potential_eV: Number  # noqa: N815
    lowest_window_mean_eV: Number | None  # noqa: N815
    energy_source: Text


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that the frames of a run depend on: a run with other settings is another run.

    Parameters
    ----------
    name, temperature_K, timestep_fs, friction_per_fs, n_steps, n_replicas, interval, equilibration_steps, thermostat
        Of the `Protocol`; n_steps are those that were planned, and None, with interval, in files before format 1
        that do not say so.
    model, engine : str
    seed : int
    zero_energy_eV, highest_energy_eV : float
        The lowest and the highest potential energy of the data.
    criteria : Limits
    digest : str
        Distinguishes this model from others of the same name.
    start : str
        Digest of the starting geometries and of the limits that are not in `criteria`.
    """

    zero_energy_eV: Number  # noqa: N815
    thermostat: str = "langevin"
    name: Text = ""
    temperature_K: Positive | None = None  # noqa: N815
    timestep_fs: Positive | None = None
    friction_per_fs: Positive | None = None
    n_steps: AtLeastOne | None = None
    n_replicas: AtLeastOne | None = None
    interval: AtLeastOne | None = None
    equilibration_steps: Count = 0
    model: Text = ""
    engine: Text = ""
    seed: int | None = None
    highest_energy_eV: Number | None = None  # noqa: N815
    criteria: Limits | None = None
    digest: Text = ""
    start: Text = ""


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """Assessment of the energies and failures of a run; see `ase_flatten.md.analysis.stability.summarize`.

    All fields after the first six refer to the replicas that did not fail.

    Parameters
    ----------
    n_failed : int
    first_failure_ps : float or None
        0 for a replica that failed in equilibration.
    reasons : tuple of str
        A sentence for each replica that failed.
    failures : tuple of Failure
    lived_ps : float
        The total time of all replicas.
    lifetime : Lifetime
    equilibration_ps : float
        The transient that is discarded for all following fields; None if it does not end.
    mean_total_energy, standard_error : float, kcal/mol
    mean_potential_energy, potential_error : float, kcal/mol
    drift, drift_error : float, kcal/mol/ps
        Of the total energy.
    drift_tolerance : float, kcal/mol
        The largest allowed drift over the run.
    departed : tuple of int
        Replicas that are far from the expected energy in the second half of the run.
    expected : ExpectedPotential
    verdict : str
        stable, unstable or cannot tell.
    stable : bool or None
        True, False and None, respectively.
    why : tuple of str
        The sentences that led to the verdict.
    """

    n_failed: Count
    first_failure_ps: NotNegative | None
    reasons: tuple[Text, ...] = ()
    failures: tuple[Failure, ...] = ()
    lived_ps: NotNegative | None = None
    lifetime: Lifetime | None = None
    equilibration_ps: NotNegative | None = None
    mean_total_energy: Number | None
    standard_error: NotNegative | None
    mean_potential_energy: Number | None = None
    potential_error: NotNegative | None = None
    drift: Number | None
    drift_error: NotNegative | None = None
    drift_tolerance: NotNegative | None = None
    departed: tuple[Replica, ...] = ()
    expected: ExpectedPotential | None = None
    verdict: Verdict = "cannot tell"
    stable: bool | None
    why: tuple[Text, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Summary(Assessment):
    """Summary of one model's run at one temperature: the content of summary.json.

    Parameters
    ----------
    format : int
    model : str
    temperature_K, timestep_fs : float
        Of the thermostat; of a step.
    n_steps : int
        Steps that were run, without equilibration.
    n_replicas : int
    engine : str
    outside_training : float or None
        The fraction of frames, evenly spread and before a failure, that lie outside the model's training geometries
        (extrapolation above 1, see `ase_flatten.geometry.extrapolation`); None for calculators that do not compute it.
    settings : Settings or None
    nve : Conservation or None
        Of a run without a thermostat.
    expected_total : float or None
        The expected total energy, with equipartition of the kinetic energy, kcal/mol.
    """

    format: Count = 0
    model: Text
    temperature_K: Positive  # noqa: N815
    timestep_fs: Positive
    n_steps: Count
    n_replicas: Annotated[int, msgspec.Meta(ge=1, le=10**6)]
    engine: Text = ""
    outside_training: Share | None = None
    settings: Settings | None = None
    nve: Conservation | None = None
    expected_total: Number | None = None

    def __post_init__(self) -> None:
        if self.n_failed > self.n_replicas or len(self.failures) > self.n_replicas:
            raise ValueError(f"more failures than its {self.n_replicas} replicas")
        for failure in self.failures:
            if failure.replica >= self.n_replicas:
                raise ValueError(
                    f"a failure of replica {failure.replica}, of {self.n_replicas} that are counted from 0"
                )

    @property
    def thermostat(self) -> str:
        """The thermostat; files that do not name it were written when only Langevin's was available."""
        return "langevin" if self.settings is None else self.settings.thermostat


@dataclass(frozen=True)
class DistanceError:
    """Error of a distribution of distances: ∫ |h - h(target)| dr, from 0 to 2.

    Parameters
    ----------
    error : float or None
        Over all replicas together.
    standard_error : float or None
    of_replicas : tuple of float or None
        Of each replica.
    """

    error: Number | None
    standard_error: NotNegative | None
    of_replicas: tuple[Number | None, ...] = ()


@dataclass(frozen=True)
class DistanceErrors:
    """Errors of the distributions of all pair distances and of the bond lengths."""

    pairs: DistanceError
    bonds: DistanceError


@dataclass(frozen=True)
class ReferenceErrors:
    """Errors of a model against the reference method, on frames of its own dynamics.

    Parameters
    ----------
    reference : str
        The method.
    n_frames : int
    n_failed : int
        Frames for which the method failed.
    force_rmse : float or None
        Per component, kcal/(mol Å).
    energy_rmse : float or None
        kcal/mol.
    """

    reference: Text
    n_frames: Count
    n_failed: Count
    force_rmse: NotNegative | None
    energy_rmse: NotNegative | None


@dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """Results of the analysis for one model.

    Parameters
    ----------
    duration_ps : float
    survival, survival_low, survival_high : float
        The fraction of replicas that survive to the end, and its 95 % confidence interval.
    n_effective : float or None
        Independent samples of the total energy.
    kinetic_temperature_K, configurational_temperature_K : float or None
        Over replicas that did not fail; ``_error_K`` are their standard errors.
    distances : dict
        By what they are compared with: data, reference.
    reference_errors : ReferenceErrors or None
    nve : Conservation or None
        Of this run, or of the one in ``nve/`` beside it.
    """

    duration_ps: NotNegative
    survival: Share
    survival_low: Share
    survival_high: Share
    n_effective: NotNegative | None
    kinetic_temperature_K: NotNegative | None  # noqa: N815
    kinetic_temperature_error_K: NotNegative | None  # noqa: N815
    configurational_temperature_K: Number | None  # noqa: N815
    configurational_temperature_error_K: NotNegative | None  # noqa: N815
    distances: dict[Text, DistanceErrors]
    reference_errors: ReferenceErrors | None = None
    nve: Conservation | None = None


@dataclass(frozen=True, kw_only=True)
class SurvivalTest:
    """Log-rank test of the survival of two models, and the power of the comparison.

    Parameters
    ----------
    models : (str, str)
    p_value : float
    level : float
        The p-value below which it is significant: 0.05, divided among the looks at the runs (Bonferroni).
    rates : tuple of float or None
        Failures of each model per ps of the total time of its replicas.
    lived_ps : tuple of float
        The total time of all replicas of each model.
    needed_ps : float or None
        The total time of each model at which the rates could be distinguished with a power of 80 %; None if they are
        equal.
    detectable_lifetime_ps : float or None
        The longest lifetime that the runs could have distinguished from an infinite one.
    """

    models: tuple[Text, Text]
    p_value: Share
    level: Share = 0.05
    rates: tuple[NotNegative | None, ...] = ()
    lived_ps: tuple[NotNegative, ...] = ()
    needed_ps: NotNegative | None = None
    detectable_lifetime_ps: NotNegative | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of the models at one temperature: the content of comparison.json.

    Parameters
    ----------
    format : int
    temperature_K : float
    models : dict of ModelComparison
        By the name of the model.
    log_rank : SurvivalTest or None
        Of the two models, if there are two besides the reference.
    """

    format: Count = 0
    temperature_K: Positive  # noqa: N815
    models: dict[Text, ModelComparison]
    log_rank: SurvivalTest | None

    def __post_init__(self) -> None:
        for name in self.log_rank.models if self.log_rank is not None else ():
            if name not in self.models:
                raise ValueError(f"a test of the model {name}, which is not among the models")
        if self.log_rank is not None and len(self.log_rank.lived_ps) not in (0, 2):
            raise ValueError("a test of two models without the time of both")
