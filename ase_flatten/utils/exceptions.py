"""The one exception that a user's mistake raises, and what its sentences share."""

from collections.abc import Sequence
from difflib import get_close_matches


class InputError(ValueError):
    """Report a mistake in what the user gave.

    The message is one sentence: what was expected, what was found, what to do.
    The command line prints it and exits with status 2.
    """


def nearest(name: str, known: Sequence[str]) -> str:
    """Return which of the known names an unknown one is most like, or all of them where it is like none."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def printable(text: object, *, most: int = 300) -> str:
    """Return text from a file so that it can stand in a message: no control characters, and not too long."""
    shown = "".join(character if character.isprintable() else " " for character in str(text)[: most + 1])
    return shown if len(shown) <= most else f"{shown[:most]}..."


def not_installed(what: str, package: str, *, extra: str, error: ImportError | None = None) -> InputError:
    """Make the error for a package that `what` needs, and that an extra of this distribution installs."""
    reason = "" if error is None else f" ({error})"
    return InputError(
        f"{what} needs the package {package}, which is not installed{reason}; "
        f"install it with: pip install 'ase-flatten[{extra}]'"
    )
