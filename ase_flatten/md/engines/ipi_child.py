"""Run the script that is named first until it ends, or until standard input does: the main part of i-PI's process.

Who starts it holds the other end of standard input, so that i-PI goes when that process does. By itself
it waits for ever for a driver that has been killed before it came.
"""

import os
import runpy
import sys
import threading


def _end_with_starter() -> None:
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_starter, daemon=True).start()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
