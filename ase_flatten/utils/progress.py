"""Progress of long computations: the interface to report it to, and an implementation that shows nothing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Reports that a number of further units of a task are done."""


class Progress(Protocol):
    """Display of the progress of tasks."""

    def task(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """Begin a task of `total` units, whose progress is reported through the `Advance` that is yielded."""


class Silent:
    """A `Progress` that shows nothing."""

    @contextmanager
    def task(self, what: str, total: int) -> Iterator[Advance]:
        """Yield an `Advance` that does nothing."""
        yield lambda done: None


SILENT = Silent()
