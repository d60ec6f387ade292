"""Locks: one process at a time writes to a folder or a file.

A lock is an advisory lock (``flock``) of the operating system on a small hidden file, which says who holds it. The
system releases it when the process ends, however it ends, so a lock file that a killed process leaves behind
blocks nobody. On NFS, Linux passes the lock on to the server, where it holds between machines, unless the mount
option ``nolock`` or ``local_lock`` limits it to one machine. A file system without locks gives a warning only.
"""

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from ase_flatten.utils.atomic_files import LOCK, remove_unfinished, unwritable
from ase_flatten.utils.exceptions import InputError, printable

log = logging.getLogger(__name__)

_WAIT_SECONDS = 0.2
"""Long enough for a process that is just finishing, and for a holder to write down who it is."""

_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)
_MOST_BYTES = 1000


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Hold the lock of a folder that is written to while the block runs; make the folder if there is none.

    The lock file is ``.lock`` in the folder. It is removed at the end, and with it the folders that were made
    here and stayed empty; files left by writes that were killed before the lock was taken are removed
    when the block ends without an error.

    Raises
    ------
    InputError
        Another process, or another part of this one, holds the lock; or the folder cannot be written.
    """
    folder = Path(folder)
    made: list[Path] = []
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        with _lock(folder / LOCK, folder) as since:
            yield
            remove_unfinished(folder, before=since)
    finally:
        for path in made:
            with suppress(OSError):  # not empty
                path.rmdir()


@contextmanager
def lock_file(path: str | Path) -> Iterator[None]:
    """Hold the lock of a file that is to be written while the block runs; its folder is made if there is none.

    The lock file lies beside the file, ``.NAME.lock``, and is removed at the end.

    Raises
    ------
    InputError
        Another process, or another part of this one, holds the lock; or the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    with _lock(path.with_name(f".{path.name}{LOCK}"), path):
        yield


@contextmanager
def _lock(lock_path: Path, guarded: Path) -> Iterator[float]:
    """Hold a lock; yield the time at which it was taken, by the clock of the file system, s."""
    lock = FileLock(lock_path, timeout=_WAIT_SECONDS, fallback_to_soft=False)
    try:
        _acquire(lock, guarded)
        lock_path.write_text(json.dumps(_this_process()), encoding="utf-8")
        since = lock_path.stat().st_mtime
    except Timeout:
        raise InputError(
            f"expected {guarded} to be free, but {_holder(lock_path)} is writing to it; "
            "wait until it has finished, stop it, or choose another name"
        ) from None
    except OSError as error:
        lock.release()
        raise unwritable(guarded, error) from error
    try:
        yield since
    finally:
        # Still locked: a process that has opened this file and waits finds that it is gone, and makes another.
        lock_path.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, guarded: Path) -> None:
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        log.warning(
            "the file system of %s does not support locks; make sure that no other process writes to it", guarded
        )


def _this_process() -> dict[str, str | int]:
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since}


def _holder(lock_path: Path) -> str:
    """Describe the holder of a lock."""
    try:
        with open(lock_path, encoding="utf-8") as stream:
            found = json.loads(stream.read(_MOST_BYTES))
        return printable(f"process {found['pid']} on {found['host']} (since {found['since']})")
    except (OSError, ValueError, LookupError, TypeError):
        return "another process"
