"""Damage files of a run folder, by a seed: what disks, editors, copies and other people do to them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

VALUES: tuple[Any, ...] = (
    None, "text", "", "\x1b[2J\n", -1, 10**30, 1e308, 0.5, True, [], {}, [[]], {"a": 1}, "x" * 5000,
)  # fmt: skip
"""What takes the place of a value in JSON."""


def damage(path: Path, rng: np.random.Generator) -> str:
    """Damage one file in one way; return what was done to it, in words."""
    ways: list[Callable[[Path, np.random.Generator], str]] = [
        empty, cut, flip, be_a_folder, be_a_pipe, be_endless, be_missing, be_text, be_old_numpy,
    ]  # fmt: skip
    if path.suffix in (".json", ".jsonl"):
        ways += 3 * [change_a_value, lose_a_value, change_a_value] + [be_not_a_number]
    if path.suffix == ".npz":
        ways += 3 * [change_an_array] + [lose_an_array]
    return ways[rng.integers(len(ways))](path, rng)


def empty(path: Path, rng: np.random.Generator) -> str:
    path.write_bytes(b"")
    return "empty"


def cut(path: Path, rng: np.random.Generator) -> str:
    content = path.read_bytes()
    path.write_bytes(content[: rng.integers(len(content))])
    return "cut short"


def flip(path: Path, rng: np.random.Generator) -> str:
    content = bytearray(path.read_bytes())
    for place in rng.integers(len(content), size=rng.integers(1, 9)):
        content[place] = rng.integers(256)
    path.write_bytes(content)
    return "bytes changed"


def be_a_folder(path: Path, rng: np.random.Generator) -> str:
    path.unlink()
    path.mkdir()
    return "a folder in its place"


def be_a_pipe(path: Path, rng: np.random.Generator) -> str:
    path.unlink()
    os.mkfifo(path)
    return "a pipe in its place"


def be_endless(path: Path, rng: np.random.Generator) -> str:
    path.unlink()
    path.symlink_to("/dev/zero")
    return "a link to an endless device"


def be_missing(path: Path, rng: np.random.Generator) -> str:
    path.unlink()
    return "missing"


def be_text(path: Path, rng: np.random.Generator) -> str:
    path.write_text("[" * 100_000 if rng.random() < 0.5 else "Dear reviewer,\n\nplease find enclosed\n")
    return "another text"


def be_old_numpy(path: Path, rng: np.random.Generator) -> str:
    with open(path, "wb") as stream:
        np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return "a pickled array"


def change_a_value(path: Path, rng: np.random.Generator) -> str:
    return _edit(path, rng, lambda parent, key: parent.__setitem__(key, VALUES[rng.integers(len(VALUES))]))


def lose_a_value(path: Path, rng: np.random.Generator) -> str:
    return _edit(path, rng, lambda parent, key: parent.__delitem__(key))


def be_not_a_number(path: Path, rng: np.random.Generator) -> str:
    return _edit(path, rng, lambda parent, key: parent.__setitem__(key, [np.nan, np.inf][rng.integers(2)]))


def _edit(path: Path, rng: np.random.Generator, change: Callable[[Any, Any], None]) -> str:
    """Change a value at a random place of a random line."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = int(rng.integers(len(lines)))
    content = json.loads(lines[number])
    parent, names = content, []
    while True:
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        key = keys[rng.integers(len(keys))]
        names.append(str(key))
        inside = parent[key]
        if not isinstance(inside, (dict, list)) or not inside or rng.random() < 0.3:
            break
        parent = inside
    change(parent, key)
    lines[number] = json.dumps(content)
    path.write_text("\n".join(lines) + "\n")
    return f"another value of {'.'.join(names)}"


def change_an_array(path: Path, rng: np.random.Generator) -> str:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if name not in ("f_err", "e_err", "md5_test")}
    name = sorted(arrays)[rng.integers(len(arrays))]
    array = arrays[name]
    number = array.dtype.kind in "if"
    changed = [
        lambda: array[None],
        lambda: array.ravel()[:-1],
        lambda: array.astype(str),
        lambda: array * np.nan if number else array,
        lambda: np.zeros(0),
        lambda: -1 - array if number else array,
        lambda: np.array(7),
        lambda: np.zeros_like(array),
        lambda: np.full_like(array, 2**40) if number else array,
        lambda: array.astype(np.float16) if number else array,
        lambda: np.array([b"x"]),
    ]
    way = int(rng.integers(len(changed)))
    with np.errstate(all="ignore"):
        arrays[name] = changed[way]()
    np.savez(path, **arrays)
    return f"another array {name} ({way})"


def lose_an_array(path: Path, rng: np.random.Generator) -> str:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files if name not in ("f_err", "e_err", "md5_test")}
    name = sorted(arrays)[rng.integers(len(arrays))]
    del arrays[name]
    np.savez(path, **arrays)
    return f"no array {name}"
