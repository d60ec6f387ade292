"""The main module of i-PI's process: run the script of the first argument until it or standard input ends.

The process that starts this one holds the other end of standard input. When it is killed, i-PI ends as well and its
private folder, in which it runs, is removed. Otherwise i-PI would wait for ever for a driver that was killed before it
connected.
"""

import os
import runpy
import select
import shutil
import sys
import threading
from pathlib import Path

_SECONDS = 1.0
"""Time within which standard input ends after the socket, s."""


def _end_with_starter() -> None:
    os.read(0, 1)
    _remove_folder()
    os._exit(1)


def _remove_folder() -> None:
    """Remove the folder, even while i-PI writes its last files into it."""
    folder = Path.cwd()
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


if __name__ == "__main__":
    threading.Thread(target=_end_with_starter, daemon=True).start()
    del sys.argv[0]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        # i-PI also ends when its driver disconnects; the folder then stays, because its log may still be read.
        if select.select([0], [], [], _SECONDS)[0]:
            _remove_folder()
