"""Npz files of plain arrays, opened with a check of their declared sizes and never unpickled."""

import lzma
import math
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from ase_flatten.utils.exceptions import InputError, printable

NPZ_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    LookupError,
    SyntaxError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What reading a damaged npz file raises."""

LARGEST_COMPRESSION = 100
"""Most declared bytes per byte of the file: coordinates compress to about a half, and only constants by this much."""

SMALL_BYTES = 1 << 28
"""Arrays of up to this size may be compressed to any degree."""


def require_regular(path: Path) -> None:
    """Raise ValueError for pipes and devices, which may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")


@contextmanager
def open_npz(path: str | Path) -> Iterator[NpzFile]:
    """Open an npz file; its arrays are read one by one in the block.

    Raises
    ------
    One of NPZ_ERRORS
        The file is missing, not a regular file, damaged or not an archive of arrays; an array is larger than its
        place in the archive; or all together are too large for the size of the file.
    """
    path = Path(path)
    require_regular(path)
    with open(path, "rb") as stream:  # numpy leaves a damaged file open
        archive = np.load(stream, allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise ValueError("a bare array")
        with archive:
            declared = sum(member.file_size for member in archive.zip.infolist())
            size = path.stat().st_size
            if declared > SMALL_BYTES + LARGEST_COMPRESSION * size:
                raise ValueError(f"arrays of {declared / 2**30:.1f} GiB in a file of {size / 2**20:.1f} MiB")
            yield archive


@contextmanager
def reading_npz(path: str | Path, what: str) -> Iterator[NpzFile]:
    """Open an npz file of plain arrays, never unpickling.

    Parameters
    ----------
    what : str
        What the file should hold, for the error message.

    Raises
    ------
    InputError
        The file is missing, damaged, or holds something else; also where that is found within the block.
    """
    try:
        with open_npz(path) as archive:
            yield archive
    except InputError:
        raise
    except NPZ_ERRORS as error:
        reason = printable(error) or type(error).__name__
        raise InputError(f"expected {what} in {path}, could not read it: {reason}") from error


def declared_shape(archive: NpzFile, name: str) -> tuple[int, ...]:
    """Return the shape of an array of an npz file without reading the array.

    Raises
    ------
    ValueError
        The array holds something other than numbers or text, or is not as long as its header says.
    """
    member = f"{name}.npy" if f"{name}.npy" in archive.zip.namelist() else name
    with archive.zip.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        found = archive.zip.getinfo(member).file_size - stream.tell()
    if dtype.hasobject or dtype.itemsize * math.prod(shape) != found:
        raise ValueError(f"{name} of the shape {shape} and the type {dtype} in {found} bytes")
    return tuple(shape)
