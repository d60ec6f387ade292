"""Start a command line so that Ctrl-C while it is still being imported ends in one line.

This module imports nothing that takes time.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""


@contextmanager
def starting() -> Iterator[None]:
    """End the process with one line and status 130 if Ctrl-C is pressed during the imports in the block."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("ase-flatten: stopped before anything was done\n")
        sys.stderr.flush()
        # At once: libraries that are half imported may fail at the interpreter's own end.
        os._exit(INTERRUPTED)
