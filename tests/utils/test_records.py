import os
from dataclasses import dataclass

import numpy as np
import pytest

from ase_flatten.utils.exceptions import InputError, printable
from ase_flatten.utils.records import read_arrays, read_lines, read_record, understood, write_lines, write_record

WORDS = {"what": "a count", "remedy": "count again"}


@dataclass(frozen=True)
class Count:
    name: str
    frames: list[int]
    share: float | None = None


def test_what_is_written_is_read_back(tmp_path):
    write_record(tmp_path / "a.json", Count("x", [1, 2], 0.5))
    assert read_record(tmp_path / "a.json", Count, **WORDS) == Count("x", [1, 2], 0.5)


def test_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"name": "x", "frames": []}\n{"name": "y", "frames": [3]}\n')
    assert read_lines(tmp_path / "a.jsonl", Count, **WORDS) == [Count("x", []), Count("y", [3])]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"name": 3, "frames": []}', b'{"name": "x"}', b"\xff\xfe", b"[" * 100_000, b"NaN",
     b'{"name": "x", "frames": [1e400]}'],
)  # fmt: skip
def test_other_content_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    for read in (read_record, read_lines):
        if read is read_lines and not content:
            continue
        with pytest.raises(InputError, match=r"expected a count in .*a\.json, could not read it: .+; count again") as e:
            read(tmp_path / "a.json", Count, **WORDS)
        assert "\n" not in str(e.value)


def test_files_that_never_end_are_not_begun(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to("/dev/zero")
    for name in ("a.json", "b.json"):
        for read in (lambda path: read_record(path, Count, **WORDS), lambda path: read_arrays(path, (), **WORDS)):
            with pytest.raises(InputError, match="not a regular file"):
                read(tmp_path / name)


def test_arrays(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(3), y=np.zeros(100_000))
    assert read_arrays(tmp_path / "a.npz", ["x"], **WORDS)["x"].tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="no array z; count again"):
        read_arrays(tmp_path / "a.npz", ["x", "z"], **WORDS)
    monkeypatch.setattr("ase_flatten.utils.records.MOST_BYTES_OF_ARRAYS", 100_000)
    with pytest.raises(InputError, match=r"arrays of 0\.0 GiB"):
        read_arrays(tmp_path / "a.npz", ["x"], **WORDS)
    with pytest.raises(InputError, match="no such file"):
        read_arrays(tmp_path / "b.npz", ["x"], **WORDS)


def test_damaged_arrays_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(300), y=np.zeros(10))
    whole = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(whole)
        for at in rng.integers(len(broken), size=3):
            broken[at] = rng.integers(256)
        (tmp_path / "b.npz").write_bytes(broken)
        try:
            read_arrays(tmp_path / "b.npz", ["x"], **WORDS)
        except InputError as error:
            assert str(error).endswith("; count again")


def test_lines_are_written_as_they_are_read(tmp_path):
    write_lines(tmp_path / "a.jsonl", [Count("x", [1], 0.5), {"name": "y", "frames": np.arange(2)}])
    assert (tmp_path / "a.jsonl").read_text().splitlines()[1] == '{"name": "y", "frames": [0, 1]}'
    assert read_lines(tmp_path / "a.jsonl", Count, **WORDS) == [Count("x", [1], 0.5), Count("y", [0, 1])]


def test_a_later_version_is_refused_whatever_it_holds(tmp_path):
    (tmp_path / "a.json").write_text('{"format": 3, "name": {}}')
    with pytest.raises(InputError, match=r"expected format 2 of .*a\.json, found 3; update ase-flatten to read it"):
        read_record(tmp_path / "a.json", Count, **WORDS, version=2)
    (tmp_path / "a.json").write_text('{"format": "x"}')
    with pytest.raises(InputError, match=r"Expected `int`, got `str`.*; count again"):
        read_record(tmp_path / "a.json", Count, **WORDS, version=2)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("x", np.zeros((2, 3)), None),
        ("x", np.zeros((3, 3)), "x is an array of float64, .3, 3., not of float frames 3"),
        ("x", np.zeros((2, 4)), "not of float frames 3"),
        ("x", np.zeros(2), "not of float frames 3"),
        ("x", np.zeros((2, 3), dtype=int), "not of float frames 3"),
        ("x", np.full((2, 3), np.nan), "x holds values that are not finite"),
        ("n", np.array(0.5), "not of int"),
        ("other", np.zeros(7), None),
    ],
)
def test_arrays_of_other_shapes_are_refused(tmp_path, name, array, message):
    arrays = {"frames": np.arange(2), "x": np.zeros((2, 3)), "n": np.array(1), name: array}
    np.savez(tmp_path / "a.npz", **arrays)
    shapes = {"frames": "int frames", "x": "float frames 3", "n": "int", "missing": "bool frames"}
    if message is None:
        assert set(read_arrays(tmp_path / "a.npz", ["x"], **WORDS, shapes=shapes)) == set(arrays)
    else:
        with pytest.raises(InputError, match=message):
            read_arrays(tmp_path / "a.npz", ["x"], **WORDS, shapes=shapes)


def test_what_follows_from_a_file_is_its_fault(tmp_path):
    refused = pytest.raises(InputError, match=r"expected a count in .*, could not read it: too many; count again")
    with refused, understood(tmp_path / "a.json", **WORDS):
        raise ValueError("too many")


def test_text_from_files_is_made_printable():
    assert printable("a\x1b[31m\nb") == "a [31m b"
    assert len(printable("x" * 1000)) == 303
