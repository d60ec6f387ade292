"""Protocols of molecular dynamics, read from TOML."""

import math
import tomllib
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from ase_flatten.md.integrators import INTEGRATORS
from ase_flatten.md.integrators.langevin import check_thermostat, check_timestep
from ase_flatten.utils.exceptions import InputError, nearest

THERMOSTATS = tuple(INTEGRATORS)


@dataclass(frozen=True)
class Protocol:
    """How a model is run in molecular dynamics.

    Parameters
    ----------
    name : str
    temperature_K, timestep_fs, friction_per_fs : float
        Of the Langevin thermostat.
    n_steps : int
        Recorded steps of each replica.
    n_replicas : int
        Runs that differ in their start and their noise.
    interval : int
        Steps from one recorded frame to the next.
    equilibration_steps : int
        Langevin steps before time zero, whose frames are not recorded.
    thermostat : str
        After equilibration: langevin, svr (stochastic velocity rescaling), nhc (a Nosé-Hoover chain) or
        none, which keeps the energy; the time constant of svr and nhc is the inverse friction.
    looks : int
        How often the runs are judged, each time after twice as many steps as before and finally after `n_steps`;
        they end as soon as the verdict is decided.

    Raises
    ------
    InputError
        A setting out of its range.
    """

    name: str
    temperature_K: float  # noqa: N815
    timestep_fs: float
    friction_per_fs: float
    n_steps: int
    n_replicas: int
    interval: int
    equilibration_steps: int = 0
    thermostat: str = "langevin"
    looks: int = 1

    def __post_init__(self) -> None:
        if self.thermostat not in THERMOSTATS:
            raise InputError(f"the thermostat must be one of {', '.join(THERMOSTATS)}, got {self.thermostat!r}")
        for name in ("temperature_K", "timestep_fs", "friction_per_fs"):
            if not isinstance(getattr(self, name), int | float):
                raise InputError(f"{name} of a protocol must be a number, got {getattr(self, name)!r}; correct it")
        check_thermostat(temperature_K=self.temperature_K, friction_per_fs=self.friction_per_fs)
        check_timestep(self.timestep_fs)
        least_of = {"n_steps": 1, "n_replicas": 1, "interval": 1, "equilibration_steps": 0, "looks": 1}
        for name, least in least_of.items():
            if type(getattr(self, name)) is not int:
                raise InputError(f"{name} of a protocol must be an integer, got {getattr(self, name)!r}; correct it")
            if getattr(self, name) < least:
                raise InputError(f"{name} of a protocol must be at least {least}, got {getattr(self, name)}; raise it")
        if self.interval > self.n_steps:
            raise InputError(
                f"the interval of a protocol must be at most its n_steps {self.n_steps}, got {self.interval}; lower it"
            )

    @property
    def n_records(self) -> int:
        """Number of recorded frames of a replica, the one at time zero among them."""
        return self.n_steps // self.interval + 1

    @property
    def look_steps(self) -> list[int]:
        """Return the steps at which the runs are judged, multiples of the interval except for the last one."""
        halved = [self.n_steps // 2**power // self.interval * self.interval for power in range(1, self.looks)]
        return sorted({self.n_steps, *(step for step in halved if step > 0)})

    @property
    def duration_ps(self) -> float:
        """The time of each replica, ps."""
        return self.n_steps * self.timestep_fs / 1000

    def lasting(self, time_ps: float) -> "Protocol":
        """Return the same protocol with another duration of each replica, ps.

        Raises
        ------
        InputError
            A time that is not positive, or shorter than a step.
        """
        if not (math.isfinite(time_ps) and time_ps > 0):
            raise InputError(
                f"the time of a replica must be above 0 ps, got {time_ps:g} ps; the quick protocol runs 2 ps"
            )
        n_steps = round(time_ps * 1000 / self.timestep_fs)
        return replace(self, n_steps=n_steps, interval=min(self.interval, n_steps))


def protocol_names() -> list[str]:
    """List the protocols that come with the package."""
    return sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))


def load_protocol(source: str | Path) -> Protocol:
    """Read a protocol from a TOML file, or one of the package's own by its name.

    Raises
    ------
    InputError
        No such file or name, no TOML, keys that are missing or unknown, a setting out of its range.
    """
    path = Path(source)
    if path.suffix == ".toml" and not path.is_file():
        raise InputError(f"expected a protocol, found no file {path}; check the path")
    entry: Traversable = path if path.suffix == ".toml" else _folder() / f"{source}.toml"
    if not entry.is_file():
        raise InputError(f"the protocol must be a .toml file or one of {', '.join(protocol_names())}, got {source}")
    try:
        content = tomllib.loads(entry.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"expected TOML in the protocol {source}, could not read it: {error}; correct the file"
        ) from error
    return _protocol(str(source), {"name": entry.name.removesuffix(".toml"), **content})


def _protocol(source: str, content: dict[str, Any]) -> Protocol:
    known = [field.name for field in fields(Protocol)]
    for key in content:
        if key not in known:
            raise InputError(f"{key!r} is not a setting of a protocol, found in {source}; {nearest(key, known)}")
    optional = ("equilibration_steps", "thermostat", "looks")
    missing = [key for key in known if key not in content and key not in optional]
    if missing:
        raise InputError(f"expected {', '.join(missing)} in the protocol {source}, found none; add what is missing")
    return Protocol(**content)


def _folder() -> Traversable:
    return files("ase_flatten.md") / "protocols"
