"""Progress of long computations: the interface to report it to, and an implementation that shows nothing."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Reports what is done of a task."""

    def __call__(self, done: int, /, *, total: int | None = None) -> None:
        """Report that `done` further units are done, which may be none, and a new total where it has changed.

        This may raise KeyboardInterrupt: it is where Ctrl-C stops a long computation.
        """


class Progress(Protocol):
    """Display of the progress of tasks."""

    def task(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """Begin a task of `total` units, whose progress is reported through the `Advance` that is yielded."""


class Silent:
    """A `Progress` that shows nothing."""

    @contextmanager
    def task(self, what: str, total: int) -> Iterator[Advance]:
        """Yield an `Advance` that does nothing."""
        yield nothing


def nothing(done: int, /, *, total: int | None = None) -> None:
    """Report nothing: an `Advance`."""


SILENT = Silent()


def duration(seconds: float) -> str:
    """Return a time in words, such as 40 s, 12 min or 3.5 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"
