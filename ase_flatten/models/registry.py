"""The installed model families, found through their entry points."""

from importlib.metadata import entry_points

from ase_flatten.models.base import Family
from ase_flatten.utils.exceptions import InputError, not_installed

ENTRY_POINT_GROUP = "ase_flatten.models"


def families() -> list[str]:
    """Return the names of the installed families."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)})


def family(name: str) -> Family:
    """Return a family by its name.

    Raises
    ------
    InputError
        No installed package provides it, or a package that it needs is missing.
    """
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        try:
            found: Family = point.load()
        except ImportError as error:
            raise not_installed(f"the model family {name}", error.name or name, extra=name, error=error) from error
        return found
    raise InputError(f"the model family must be one of {', '.join(families()) or 'none installed'}, got {name!r}")
