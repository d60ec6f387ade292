"""The exceptions that the command line shows as a sentence, and what such sentences share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches


class InputError(ValueError):
    """A mistake in the user's input.

    The message is one sentence: what was expected, what was found, what to do.
    The command line prints it and exits with status 2.
    """


class BackendError(Exception):
    """A computation that failed on valid input: a program or a worker ended, or a training diverged.

    The message says what was expected, what happened and what to do; notes on it (`BaseException.add_note`) say
    what is kept and how to resume. The command line prints both and exits with status 1. It is not a
    RuntimeError, since calculators raise these for a single configuration that is too hard for them.
    """


@contextmanager
def keeping(note: str | Callable[[], str]) -> Iterator[None]:
    """Add what is kept, and how to resume, to a `BackendError` or a Ctrl-C in the block; the command line prints it."""
    try:
        yield
    except (BackendError, KeyboardInterrupt) as error:
        error.add_note(note if isinstance(note, str) else note())
        raise


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a suggestion: the known name that is most like an unknown one, or all of them if none is."""
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def printable(text: object, *, most: int = 300) -> str:
    """Return text from a file in a form fit for a message: without control characters, and not too long."""
    shown = "".join(character if character.isprintable() else " " for character in str(text)[: most + 1])
    return shown if len(shown) <= most else f"{shown[:most]}..."


def not_installed(what: str, package: str, *, extra: str, error: ImportError | None = None) -> InputError:
    """Return the error for a missing package that `what` needs and that an extra of this distribution installs."""
    reason = "" if error is None else f" ({error})"
    return InputError(f"{what} needs the package {package}, which is not installed{reason}; {installation(extra)}")


def installation(extra: str) -> str:
    """Return how to install an extra of this distribution, which is on no package index."""
    return f"install it in the folder that ase-flatten was cloned into, with: pip install '.[{extra}]'"
