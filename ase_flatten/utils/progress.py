"""Progress of long work: an object to report to, with a silent twin for libraries and tests."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Report that so many more units of the work are done."""


class Progress(Protocol):
    """Show how far a piece of work has got."""

    def task(self, what: str, total: int) -> AbstractContextManager[Advance]:
        """Begin a piece of work of `total` units; call what it gives with each advance."""


class Silent:
    """Show nothing."""

    @contextmanager
    def task(self, what: str, total: int) -> Iterator[Advance]:
        """Return an `Advance` that does nothing."""
        yield lambda done: None


SILENT = Silent()
