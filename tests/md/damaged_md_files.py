"""Damage the files of molecular dynamics at random, as disks, editors and other programs do."""

import json
import os
import shutil
from pathlib import Path

import numpy as np

VALUES = (
    None, True, -1, 0, 10**30, 1.5, -1e308, "", "x", "\x1b[31m", "stable", [], {}, [[]], [None], {"a": 1}, "9" * 5000,
)  # fmt: skip
"""What a value of a JSON file is replaced by."""


def damage(source: Path, target: Path, seed: int) -> Path:
    """Copy a folder and damage one of its files.

    Parameters
    ----------
    source : Path
        A folder with files of molecular dynamics, such as ``RUN/md/400K``.
    target : Path
        Must not exist.
    seed : int
        Decides which file is damaged, and how.

    Returns
    -------
    Path
        The file that was damaged.
    """
    rng = np.random.default_rng(seed)
    shutil.copytree(source, target)
    suffix = (".json", ".npz", ".traj")[rng.integers(3)]
    files = sorted(target.rglob(f"*{suffix}"))
    path = files[rng.integers(len(files))]
    own = {".json": _damage_json, ".npz": _damage_npz, ".traj": _damage_bytes}[suffix]
    (own if rng.random() < 0.6 else _damage_bytes)(path, rng)
    return path


def _damage_bytes(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    kind = rng.integers(8)
    if kind >= 5:
        path.unlink()
        if kind == 5:
            path.mkdir()
        elif kind == 6:
            os.mkfifo(path)
        return
    if kind == 0:
        content = content[: rng.integers(len(content))]
    elif kind == 1:
        content = bytearray()
    elif kind == 2:
        content = bytearray(rng.bytes(rng.integers(1, 200)))
    else:
        for place in rng.integers(len(content), size=1 if kind == 3 else 20):
            content[place] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def _damage_json(path: Path, rng: np.random.Generator) -> None:
    content = json.loads(path.read_text())
    node, parent, key = content, None, None
    while isinstance(node, dict | list) and len(node) and rng.random() < 0.8:
        parent = node
        key = list(node)[rng.integers(len(node))] if isinstance(node, dict) else int(rng.integers(len(node)))
        node = parent[key]
    if parent is None:
        content = VALUES[rng.integers(len(VALUES))]
    elif rng.random() < 0.2:
        del parent[key]
    elif rng.random() < 0.1:
        content["format"] = 99
    else:
        parent[key] = VALUES[rng.integers(len(VALUES))]
    path.write_text(json.dumps(content))


def _damage_npz(path: Path, rng: np.random.Generator) -> None:
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = sorted(arrays)[rng.integers(len(arrays))]
    kind = rng.integers(4)
    if kind == 0:
        del arrays[name]
    elif kind == 1 and arrays[name].dtype.kind == "f" and arrays[name].size:
        values = arrays[name].ravel()
        values[rng.integers(values.size)] = (np.nan, np.inf, 1e300)[rng.integers(3)]
        arrays[name] = values.reshape(arrays[name].shape)
    elif kind == 2:
        arrays[name] = arrays[name][..., :1] if arrays[name].ndim else arrays[name][None]
    else:
        others = _others(arrays[name].shape)
        arrays[name] = others[rng.integers(len(others))]
    np.savez(path, **arrays)


def _others(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return what an array of a shape is replaced by."""
    values = np.nan, np.inf, 1e300, "a", 1j, True, 1, np.datetime64("2020-01-01")
    return [
        np.array([]),
        np.zeros(3),
        np.zeros((2, 2)),
        np.zeros((0, *shape)),
        *(np.full(shape, one) for one in values),
    ]
