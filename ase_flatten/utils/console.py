"""Output of the command line: progress, tables, and errors of the user in one sentence."""

import functools
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ase_flatten.utils.exceptions import BackendError, InputError, printable
from ase_flatten.utils.progress import SILENT, Advance, Progress
from ase_flatten.utils.start import INTERRUPTED

_PLAIN_SECONDS = 10.0

# A pipe has no width; tables must not be wrapped at eighty columns.
stdout = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
stderr = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 160)


class TerminalProgress:
    """Progress as bars with rate and time left, one below the other for nested tasks."""

    def __init__(self) -> None:
        self._bars: Bars | None = None

    @contextmanager
    def task(self, what: str, total: int) -> Iterator[Advance]:
        """Show a bar while the block runs."""
        within = self._bars is not None
        with self._display() as bars:
            start, done = time.perf_counter(), 0
            bar = bars.add_task(what, total=total, rate="")

            def advance(more: int) -> None:
                nonlocal done
                done += more
                bars.update(bar, completed=done, rate=_rate(done, start))

            try:
                yield advance
            finally:
                if within:
                    bars.remove_task(bar)

    @contextmanager
    def _display(self) -> Iterator[Bars]:
        """Return the bars on the terminal, which can show only one set of them."""
        if self._bars is not None:
            yield self._bars
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        with Bars(*columns, console=stderr, transient=True) as self._bars:
            try:
                yield self._bars
            finally:
                self._bars = None


class PlainProgress:
    """Progress as a line from time to time, for pipes and log files."""

    @contextmanager
    def task(self, what: str, total: int) -> Iterator[Advance]:
        """Write the progress every ten seconds, and the total time at the end."""
        start = last = time.perf_counter()
        done = 0

        def advance(more: int) -> None:
            nonlocal done, last
            done += more
            now = time.perf_counter()
            if now - last > _PLAIN_SECONDS and 0 < done < total:
                last = now
                left = (now - start) / done * (total - done)
                stderr.print(f"{what}: {done} of {total}, {_rate(done, start)}, {left:.0f} s left", soft_wrap=True)

        yield advance
        seconds = time.perf_counter() - start
        if seconds > 1:
            stderr.print(f"{what}: {seconds:.1f} s", soft_wrap=True)


class Interruptible:
    """Progress that stops the program at its next report after Ctrl-C, and at once after a second Ctrl-C.

    An exception that is raised inside another package is lost if it falls into a callback of the
    interpreter, and may leave that package in an undefined state.
    """

    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._asked = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._ask)

    def _ask(self, *_: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        stderr.print("stopping after the current piece of work; press Ctrl-C again to stop at once")

    def _look(self) -> None:
        if self._asked:
            raise KeyboardInterrupt

    @contextmanager
    def task(self, what: str, total: int) -> Iterator[Advance]:
        """Start a task, unless Ctrl-C was pressed."""
        self._look()
        with self._shown.task(what, total) as advance:

            def look_and_advance(done: int) -> None:
                self._look()
                advance(done)

            yield look_and_advance


def progress(quiet: bool) -> Progress:
    """Choose how progress is shown: bars on a terminal, lines in a pipe, nothing when quiet."""
    if quiet:
        return Interruptible(SILENT)
    return Interruptible(TerminalProgress() if stderr.is_terminal else PlainProgress())


def set_up_logging(*, quiet: bool, verbose: bool) -> None:
    """Send the library's log to standard error."""
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    handler = RichHandler(console=stderr, show_time=False, show_path=False, show_level=verbose)
    library = logging.getLogger("ase_flatten")
    library.handlers, library.propagate = [handler], False
    library.setLevel(level)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table of cells that are text."""
    shown = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        shown.add_row(*(str(cell) for cell in row))
    stdout.print(shown)


def say(text: str) -> None:
    """Print a line of the results."""
    stdout.print(text, markup=False, soft_wrap=True)


def user_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors into a sentence and an exit status: 2 for InputError, 1 for BackendError, 130 for Ctrl-C."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except InputError as error:
            stderr.print(f"ase-flatten: {error}", markup=False, soft_wrap=True)
            raise typer.Exit(2) from None
        except BackendError as error:
            sentences = "; ".join([str(error), *getattr(error, "__notes__", [])])
            stderr.print(f"ase-flatten: {sentences}", markup=False, soft_wrap=True)
            raise typer.Exit(1) from None
        except OSError as error:
            if error.filename is None:
                raise
            reason = f"{printable(error.filename)}: {error.strerror}"
            stderr.print(f"ase-flatten: cannot open {reason}; check the path", markup=False, soft_wrap=True)
            raise typer.Exit(2) from None
        except MemoryError:
            stderr.print("ase-flatten: there is not enough memory; use fewer frames or a machine with more memory")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            stderr.print(
                "ase-flatten: stopped; finished work is kept: repeat the same command to resume (train needs --resume)",
                soft_wrap=True,
            )
            raise typer.Exit(INTERRUPTED) from None

    return wrapped


def run_command(command: Callable[..., None], *arguments: Any) -> None:
    """Run a command whose arguments were not read by typer; exit with its status unless it is 0."""
    try:
        user_errors(command)(*arguments)
    except typer.Exit as finished:
        sys.exit(finished.exit_code)


def _rate(done: float, start: float) -> str:
    seconds = max(time.perf_counter() - start, 1e-9)
    rate = done / seconds
    return f"{rate:.0f}/s" if rate >= 1 else f"{1 / rate:.0f} s each" if rate > 0 else ""
