"""The one exception that a user's mistake raises."""

from collections.abc import Sequence
from difflib import get_close_matches


class InputError(ValueError):
    """Report a mistake in what the user gave.

    The message is one sentence: what was expected, what was found, what to do.
    The command line prints it and exits with status 2.
    """


def unknown_name(name: str, known: Sequence[str], owner: str) -> InputError:
    """Make the error for a setting that its owner does not have, naming the nearest one that it has."""
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return InputError(f"{name!r} is no setting of {owner}; {hint}")
