"""A log file beside the results: what the library logs and the command line says, with times."""

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ase_flatten import __version__
from ase_flatten.utils.atomic_files import unwritable

FILE_ONLY = "ase_flatten.said"
"""Logger of what is printed already, and belongs in log files only."""


@contextmanager
def log_to(path: str | Path) -> Iterator[None]:
    """Append what this package logs in the block to a file, after a line with the command and the version.

    The folder of the file should be locked (`ase_flatten.utils.locks`). An error that ends the block is the last line.

    Raises
    ------
    InputError
        The file cannot be written.
    """
    path = Path(path)
    library = logging.getLogger("ase_flatten")
    level = library.level
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    handler.setFormatter(logging.Formatter("%(asctime)s  %(levelname)-7s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.setLevel(logging.INFO)
    # Where logging is not set up, Python shows warnings only as long as there is no handler at all.
    handlers = [handler] if library.hasHandlers() or logging.lastResort is None else [handler, logging.lastResort]
    said = logging.getLogger(FILE_ONLY)
    with _nothing_more(library):
        for one in handlers:
            library.addHandler(one)
        if not library.isEnabledFor(logging.INFO):
            library.setLevel(logging.INFO)
        try:
            said.info("ase-flatten %s: %s", __version__, shlex.join(sys.argv))
            yield
        except BaseException as error:
            said.info("ended by %s", ": ".join(filter(None, [type(error).__name__, str(error)])))
            raise
        finally:
            library.setLevel(level)
            for one in handlers:
                library.removeHandler(one)
            handler.close()


@contextmanager
def _nothing_more(library: logging.Logger) -> Iterator[None]:
    """Let the handlers that there are, such as those of a notebook, show what they would without a log file."""
    least = library.getEffectiveLevel()

    def shown(record: logging.LogRecord) -> bool:
        return record.levelno >= least or record.name.partition(".")[0] != library.name

    handlers = list(library.handlers)
    above = library.parent if library.propagate else None
    while above is not None:
        handlers += above.handlers
        above = above.parent if above.propagate else None
    for one in handlers:
        one.addFilter(shown)
    try:
        yield
    finally:
        for one in handlers:
            one.removeFilter(shown)
