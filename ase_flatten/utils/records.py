"""Records in files: JSON and npz read into typed objects at one edge, understood or refused.

Whatever a file holds, reading it returns an object of the requested type or raises an `InputError` that names the file,
what is wrong with it and what to do.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from ase_flatten.utils.atomic_files import plain, write_json, write_text
from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.npz_files import NPZ_ERRORS, open_npz, require_regular

Record = TypeVar("Record")

MOST_BYTES = 1 << 28
"""Largest size of a JSON file; those written here are a thousand times smaller."""

MOST_BYTES_OF_ARRAYS = 1 << 33
"""Largest total size of the arrays of an npz file, as declared in it."""

_KINDS = {"int": "iu", "float": "f", "bool": "b"}

_DAMAGE = (*NPZ_ERRORS, RecursionError, msgspec.MsgspecError)
"""What readers raise on damaged files."""


def read_record(path: Path, kind: type[Record], *, what: str, remedy: str, version: int | None = None) -> Record:
    """Read a JSON file into an object.

    Parameters
    ----------
    kind : type
        A dataclass, or any other type that msgspec can decode.
    what : str
        What the file should hold, such as "the settings of a run".
    remedy : str
        What the user can do otherwise, such as "delete md/400K and run it again".
    version : int, optional
        The latest version of this kind of file that can be read; the file holds its own as `format`.

    Raises
    ------
    InputError
        The file is missing, not a regular file, too large, not JSON, of a later version, or of another structure.
    """
    try:
        content = _read_bytes(path)
        found = 0 if version is None else msgspec.json.decode(content, type=_Versioned).format
    except _DAMAGE as error:
        raise refusal(path, what, remedy, error) from error
    if version is not None and found > version:
        raise InputError(f"expected format {version} of {path}, found {found}; update ase-flatten to read it")
    try:
        return msgspec.json.decode(content, type=kind)
    except _DAMAGE as error:
        raise refusal(path, what, remedy, error) from error


def read_lines(path: Path, kind: type[Record], *, what: str, remedy: str) -> list[Record]:
    """Read a file with one JSON record per line; see `read_record`."""
    try:
        return msgspec.json.Decoder(kind).decode_lines(_read_bytes(path))
    except _DAMAGE as error:
        raise refusal(path, what, remedy, error) from error


def write_record(path: Path, record: Any) -> None:
    """Write an object as JSON, atomically."""
    write_json(path, msgspec.to_builtins(record, enc_hook=plain))


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """Write a file with one JSON record per line, atomically."""
    lines = (json.dumps(msgspec.to_builtins(record, enc_hook=plain), allow_nan=False) for record in records)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_arrays(
    path: Path, names: Collection[str], *, what: str, remedy: str, shapes: Mapping[str, str] | None = None
) -> dict[str, np.ndarray]:
    """Read all arrays of an npz file, never unpickling.

    Parameters
    ----------
    names : collection of str
        Arrays that must be there.
    what, remedy : str
        See `read_record`.
    shapes : mapping of str to str, optional
        The kind and the axes of each array that is there, such as "float frames atoms 3": int, float or bool, then
        numbers, or names of sizes that must agree between arrays. Floats must be finite.

    Raises
    ------
    InputError
        The file is missing, not a regular file, damaged, without an array of these names, with an array of another
        shape, or declares arrays larger than `MOST_BYTES_OF_ARRAYS`.
    """
    try:
        with open_npz(path) as archive:
            declared = sum(member.file_size for member in archive.zip.infolist())
            if declared > MOST_BYTES_OF_ARRAYS:
                raise ValueError(f"arrays of {declared / 2**30:.1f} GiB")
            arrays = {name: archive[name] for name in archive.files}
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ValueError(f"no array {missing[0]}")
        _check_shapes(arrays, shapes or {})
    except _DAMAGE as error:
        raise refusal(path, what, remedy, error) from error
    return arrays


@contextmanager
def understood(path: Path, *, what: str, remedy: str) -> Iterator[None]:
    """Refuse a file, as `read_record` does, if its content makes the block fail."""
    try:
        yield
    except _DAMAGE as error:
        raise refusal(path, what, remedy, error) from error


def _check_shapes(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, str]) -> None:
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in arrays:
            continue
        array, (kind, *axes) = arrays[name], shape.split()
        expected = [int(axis) if axis.isdigit() else sizes.get(axis) for axis in axes]
        agrees = array.ndim == len(axes) and all(
            size in (None, found) for size, found in zip(expected, array.shape, strict=True)
        )
        if not agrees or array.dtype.kind not in _KINDS[kind]:
            raise ValueError(f"{name} is an array of {array.dtype}, {array.shape}, not of {shape}")
        if kind == "float" and not np.isfinite(array).all():
            raise ValueError(f"{name} holds values that are not finite")
        sizes.update(zip(axes, array.shape, strict=True))


def _read_bytes(path: Path) -> bytes:
    require_regular(path)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{size / 2**20:.0f} MiB")
    return path.read_bytes()


def refusal(path: Path, what: str, remedy: str, error: BaseException) -> InputError:
    """Return the error that says which file was not understood, why, and what to do; see `read_record`."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"expected {what} in {path}, found no such file; {remedy}")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return InputError(f"expected {what} in {path}, could not read it: {printable(reason)}; {remedy}")


class _Versioned(msgspec.Struct):
    format: int = 1
