"""Atomic writes: a file is written completely or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ase_flatten.utils.exceptions import InputError

LOCK = ".lock"
"""Name of the file that locks a folder, see `ase_flatten.utils.locks`."""

_UNFINISHED = ".writing-"


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without an error.

    Raises
    ------
    InputError
        The folder cannot be written, or the disk is full; `path` is as it was.
    """
    path = Path(path)
    beside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays, since writers choose the format by it.
        descriptor, name = tempfile.mkstemp(prefix=_UNFINISHED, suffix="".join(path.suffixes[-1:]), dir=path.parent)
        os.close(descriptor)
        beside = Path(name)
        os.chmod(beside, 0o666 & ~_umask())
        yield beside
        with open(beside, "rb") as written:
            os.fsync(written.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


@contextmanager
def writing_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` when the block ends without an error."""
    path = Path(path)
    beside = aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=path.parent))
        os.chmod(beside, 0o777 & ~_umask())
        yield beside
        if path.exists():
            # A kill in the middle of a removal must not leave half a folder under its name.
            aside = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=path.parent))
            os.replace(path, aside / path.name)
        try:
            os.replace(beside, path)
        except OSError:
            if aside is not None:
                os.replace(aside / path.name, path)
            raise
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        for left in (beside, aside):
            if left is not None:
                shutil.rmtree(left, ignore_errors=True)


def is_empty(folder: Path, *, ignore: str | None = None) -> bool:
    """Return whether a folder holds nothing but a lock, remains of killed writes, and a file that is to be ignored."""
    return all(path.name in (LOCK, ignore) or path.name.startswith(_UNFINISHED) for path in folder.iterdir())


def remove_folder(folder: Path) -> None:
    """Remove a folder so that a kill leaves it complete or not at all; the next call removes any remains."""
    aside = folder.with_name(f"{_UNFINISHED}{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        try:
            os.replace(folder, aside)
        except OSError as error:
            raise unwritable(folder, error) from error
        shutil.rmtree(aside, ignore_errors=True)


def remove_unfinished(folder: Path, *, before: float) -> None:
    """Remove what killed writes left below a folder and last modified before a time, s.

    Folders below it that have a lock of their own are left alone: another process may be writing there.
    """
    locked = {path.parent for path in folder.rglob(LOCK)} - {folder}
    for path in list(folder.rglob(f"{_UNFINISHED}*")):
        if not locked.isdisjoint(path.parents):
            continue
        with suppress(OSError):  # gone already, with a folder that it was in
            if path.lstat().st_mtime < before:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink()


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    text = json.dumps(content, indent=2, default=plain, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, atomically."""
    with writing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_npz(path: str | Path, arrays: dict[str, Any], *, writer: Callable[..., None] = np.savez_compressed) -> None:
    """Write named arrays as npz, atomically."""
    with writing(path) as beside, open(beside, "wb") as stream:
        writer(stream, **arrays)


def plain(value: Any) -> Any:
    """Return an array or a number of NumPy as what JSON has; raise TypeError for anything else."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def unwritable(path: Path, error: OSError) -> InputError:
    """Return the error for a file or a folder that cannot be written."""
    reason = error.strerror or str(error)
    return InputError(f"cannot write {path}: {reason}; free space or choose a folder that can be written")
