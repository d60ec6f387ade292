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
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from ase_flatten.utils.exceptions import BackendError, InputError, printable
from ase_flatten.utils.log_files import FILE_ONLY
from ase_flatten.utils.progress import SILENT, Advance, Progress, duration
from ase_flatten.utils.start import INTERRUPTED

_PLAIN_SECONDS = 10.0

_WIDE, _SHORT_BAR = 100, 6
"""On terminals that are narrower, bars are short, so that the text beside them is whole."""

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
            # The bar of a single piece of work moves to and fro, as it would stand at nothing until all is done.
            bar = bars.add_task(what, total=None if total == 1 else total, rate="")

            def advance(more: int, /, *, total: int | None = None) -> None:
                nonlocal done
                done += more
                bars.update(bar, completed=done, total=total, rate=_rate(done, start))

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
            TextColumn("{task.description}"), BarColumn(None if stderr.width >= _WIDE else _SHORT_BAR),
            _Count(_whole()), TextColumn("{task.fields[rate]}"), _Times(_whole()),
        )  # fmt: skip
        with Bars(*columns, console=stderr, transient=True, expand=True) as self._bars:
            try:
                yield self._bars
            finally:
                self._bars = None


def _whole() -> Column:
    """Return a column that is not wrapped on a narrow terminal."""
    return Column(no_wrap=True)


class _Count(ProgressColumn):
    """How much of a task is done, such as 3/9; nothing for a single piece of work."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}")


class _Times(ProgressColumn):
    """How long a task has taken, and how long it will still take."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text(duration(task.elapsed or 0) + ("" if left is None else f", {duration(left)} left"))


class PlainProgress:
    """Progress as a line from time to time, for pipes and log files."""

    def __init__(self) -> None:
        self._depth = 0

    @contextmanager
    def task(self, what: str, total: int) -> Iterator[Advance]:
        """Write the progress every ten seconds, and the total time at the end unless this is part of another task."""
        start = last = time.perf_counter()
        done, most = 0, total

        def advance(more: int, /, *, total: int | None = None) -> None:
            nonlocal done, last, most
            done, most = done + more, most if total is None else total
            now = time.perf_counter()
            if now - last > _PLAIN_SECONDS and 0 < done < most:
                last = now
                left = duration((now - start) / done * (most - done))
                _print(f"{what}: {done} of {most}, {_rate(done, start)}, {left} left")

        self._depth += 1
        try:
            yield advance
        finally:
            self._depth -= 1
        seconds = time.perf_counter() - start
        if seconds > 1 and self._depth == 0:
            _print(f"{what}: {seconds:.1f} s")


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
        _print("stopping after the current piece of work; press Ctrl-C again to stop at once")

    def _look(self) -> None:
        if self._asked:
            raise KeyboardInterrupt

    @contextmanager
    def task(self, what: str, total: int) -> Iterator[Advance]:
        """Start a task, unless Ctrl-C was pressed."""
        self._look()
        with self._shown.task(what, total) as advance:

            def look_and_advance(done: int, /, *, total: int | None = None) -> None:
                self._look()
                advance(done, total=total)

            yield look_and_advance


def progress(quiet: bool) -> Progress:
    """Choose how progress is shown: bars on a terminal, lines in a pipe, nothing when quiet."""
    if quiet:
        return Interruptible(SILENT)
    return Interruptible(TerminalProgress() if stderr.is_terminal else PlainProgress())


def set_up_logging(*, quiet: bool, verbose: bool) -> None:
    """Send the library's log to standard error."""
    handler = _OnStderr(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)
    library = logging.getLogger("ase_flatten")
    library.handlers, library.propagate = [handler], False
    library.setLevel(logging.DEBUG if verbose else logging.INFO)


class _OnStderr(logging.Handler):
    """Prints log records as whole lines, above the bars on a terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != FILE_ONLY:
            level = "" if record.levelno in (logging.INFO, logging.DEBUG) else f"{record.levelname.lower()}: "
            _print(f"{level}{record.getMessage()}")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table of cells that are text."""
    shown = Table()
    for number, column in enumerate(columns):
        shown.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*(str(cell) for cell in row))
    stdout.print(title, style="bold", markup=False, soft_wrap=True)
    stdout.print(shown)


def say(text: str) -> None:
    """Print a line of the results; where a log file is kept, it gets the line as well."""
    stdout.print(text, markup=False, soft_wrap=True)
    logging.getLogger(FILE_ONLY).info("%s", text)


def _print(text: str) -> None:
    """Print a line on standard error."""
    stderr.print(text, markup=False, soft_wrap=True)


def user_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Turn errors into a sentence and an exit status: 2 for InputError, 1 for BackendError, 130 for Ctrl-C."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except InputError as error:
            _print(f"ase-flatten: {error}")
            raise typer.Exit(2) from None
        except BackendError as error:
            sentences = "; ".join([str(error), *getattr(error, "__notes__", [])])
            _print(f"ase-flatten: {sentences}")
            raise typer.Exit(1) from None
        except OSError as error:
            if error.filename is None:
                raise
            reason = f"{printable(error.filename)}: {error.strerror}"
            _print(f"ase-flatten: cannot open {reason}; check the path")
            raise typer.Exit(2) from None
        except MemoryError:
            _print("ase-flatten: there is not enough memory; use fewer frames or a machine with more memory")
            raise typer.Exit(2) from None
        except KeyboardInterrupt as stopped:
            _print("; ".join(["ase-flatten: stopped", *getattr(stopped, "__notes__", [])]))
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
