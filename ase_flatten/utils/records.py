"""Records in files: JSON and npz read into typed objects at one edge, understood or refused.

Whatever a file holds, what comes back is an object of the type that was asked for, or an `InputError` that
names the file, what is wrong with it and what to do.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from ase_flatten.utils.atomic_files import write_json
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.npz_files import NPZ_ERRORS, open_npz, require_regular

Record = TypeVar("Record")

MOST_BYTES = 1 << 28
"""Of a JSON file; those written here are a thousandth of that."""

MOST_BYTES_OF_ARRAYS = 1 << 33
"""Of all arrays of an npz file together, by the sizes that it declares."""


def read_record(path: Path, kind: type[Record], *, what: str, remedy: str) -> Record:
    """Read a JSON file into an object.

    Parameters
    ----------
    kind : type
        A dataclass, or any other type that msgspec can decode.
    what : str
        What the file should hold, such as "the settings of a run".
    remedy : str
        What the user can do where it does not, such as "delete md/400K and run it again".

    Raises
    ------
    InputError
        The file is missing, not a regular file, too large, no JSON, or of another structure.
    """
    try:
        return msgspec.json.decode(_read_bytes(path), type=kind)
    except (OSError, msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise _refusal(path, what, remedy, error) from error


def read_lines(path: Path, kind: type[Record], *, what: str, remedy: str) -> list[Record]:
    """Read a file with one JSON record a line; see `read_record`."""
    try:
        return msgspec.json.Decoder(kind).decode_lines(_read_bytes(path))
    except (OSError, msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise _refusal(path, what, remedy, error) from error


def write_record(path: Path, record: Any) -> None:
    """Write an object as JSON, atomically."""
    write_json(path, msgspec.to_builtins(record, enc_hook=_plain))


def read_arrays(path: Path, names: Collection[str], *, what: str, remedy: str) -> dict[str, np.ndarray]:
    """Read all arrays of an npz file, never unpickling.

    Parameters
    ----------
    names : collection of str
        Arrays that must be there.
    what, remedy : str
        See `read_record`.

    Raises
    ------
    InputError
        The file is missing, not a regular file, damaged, without an array of these names, or declares arrays
        larger than `MOST_BYTES_OF_ARRAYS`.
    """
    try:
        with open_npz(path) as archive:
            declared = sum(member.file_size for member in archive.zip.infolist())
            if declared > MOST_BYTES_OF_ARRAYS:
                raise ValueError(f"arrays of {declared / 2**30:.1f} GiB")
            arrays = {name: archive[name] for name in archive.files}
    except NPZ_ERRORS as error:
        raise _refusal(path, what, remedy, error) from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise _refusal(path, what, remedy, ValueError(f"no array {missing[0]}"))
    return arrays


def _read_bytes(path: Path) -> bytes:
    require_regular(path)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{size / 2**20:.0f} MiB")
    return path.read_bytes()


def _refusal(path: Path, what: str, remedy: str, error: BaseException) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"expected {what} in {path}, found no such file; {remedy}")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return InputError(f"expected {what} in {path}, could not read it: {printable(reason)}; {remedy}")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not go into JSON")
