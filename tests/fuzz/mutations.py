"""Mutate small files with fixed seeds, and read them in a process of bounded time and memory.

`survey` is told how to make each kind of file and how to read it. It counts what comes of the mutants, and
complains of each that is neither read nor refused in one short sentence.

    python tests/fuzz/mutations.py --n 1000        (make fuzz)
"""

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ase_flatten.utils.exceptions import InputError

SECONDS = 10
"""Time for reading one mutant."""

MEMORY = 1 << 30
"""Bytes that reading may take beyond what the process has."""

LONGEST_MESSAGE = 1500

Build = Callable[[Path], None]
"""Write a file, or a folder, at a path."""

Read = Callable[[Path], object]
"""Read what was written; raise InputError where it is refused."""


@dataclass
class Survey:
    """Outcomes of reading mutants.

    Parameters
    ----------
    n_read, n_refused : int
        Mutants that were read, and those that were refused with an InputError.
    complaints : list of str
        Of all others, the kind of file, the number of the mutant and what happened.
    """

    n_read: int = 0
    n_refused: int = 0
    complaints: list[str] = field(default_factory=list)


def survey(kinds: Mapping[str, tuple[Build, Read]], n_mutants: int, *, seed: int, folder: Path) -> Survey:
    """Read mutants of each kind of file, and report what came of them.

    Parameters
    ----------
    kinds : mapping
        From the name of a file or folder, whose suffix tells readers its format, to how it is made and read.
    n_mutants : int
        In all; the kinds take turns.
    seed : int
        Mutant k of a seed is always the same.
    folder : Path
        An empty folder to work in.
    """
    found = Survey()
    names = list(kinds)
    (folder / "whole").mkdir()
    for name, (build, _) in kinds.items():
        build(folder / "whole" / name)

    def read_one(number: int) -> str:
        name = names[number % len(names)]
        path = folder / "mutant" / name
        shutil.rmtree(path.parent, ignore_errors=True)
        shutil.copytree(folder / "whole", path.parent)
        if number >= 0:
            mutate(path, np.random.default_rng([seed, number]))
        return _outcome(kinds[name][1], path)

    # Negative numbers stand for the files as they were made.
    for number, outcome in enumerate(_bounded(read_one, range(-len(names), n_mutants)), -len(names)):
        if number < 0:
            assert outcome == "", f"{names[number]} itself: {outcome}"
        elif outcome == "":
            found.n_read += 1
        elif outcome.startswith("refused"):
            found.n_refused += 1
        else:
            found.complaints.append(f"{names[number % len(names)]}, mutant {number} of seed {seed}: {outcome}")
    return found


def mutate(path: Path, rng: np.random.Generator) -> None:
    """Damage a file, or one file of a folder."""
    if path.is_dir():
        files = sorted(inner for inner in path.rglob("*") if inner.is_file())
        path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    for _ in range(rng.integers(1, 4)):
        MUTATIONS[rng.integers(len(MUTATIONS))](content, rng)
    path.write_bytes(content)


def _flip(content: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(len(content), size=rng.integers(1, 9)) if content else ():
        content[at] ^= 1 << int(rng.integers(8))


def _cut(content: bytearray, rng: np.random.Generator) -> None:
    del content[rng.integers(len(content) + 1) :]


def _remove(content: bytearray, rng: np.random.Generator) -> None:
    start = rng.integers(len(content) + 1)
    del content[start : start + rng.integers(1, 200)]


def _repeat(content: bytearray, rng: np.random.Generator) -> None:
    start = rng.integers(len(content) + 1)
    content[start:start] = content[start : start + rng.integers(1, 200)]


def _overwrite(content: bytearray, rng: np.random.Generator) -> None:
    start = rng.integers(len(content) + 1)
    content[start : start + 8] = [b"\0" * 8, b"\xff" * 8, b"\x1b[31m\n\r\t", rng.bytes(8)][rng.integers(4)]


_WORDS = (b"nan", b"-1", b"1e400", b"2147483648", b"1099511627776", b'""', b"[]", b"{}", b"null", b"true", b"0.5")


def _replace_number(content: bytearray, rng: np.random.Generator) -> None:
    """Replace a number in text by something that stands for trouble."""
    digits = [at for at, byte in enumerate(content) if 48 <= byte < 58]
    if digits:
        start = end = digits[rng.integers(len(digits))]
        while end < len(content) and 48 <= content[end] < 58:
            end += 1
        content[start:end] = _WORDS[rng.integers(len(_WORDS))]


MUTATIONS = (_flip, _cut, _remove, _repeat, _overwrite, _replace_number)


def _bounded(work: Callable[[int], str], numbers: range) -> list[str]:
    """Return what `work` returns for each number, or how the process died in which it was done.

    The work is done in a child of bounded memory, with a limit of time for each number; after a death in another.
    """
    done: list[str] = []
    while len(done) < len(numbers):
        out, back = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads: the child uses none
            child = os.fork()
        if child == 0:
            try:
                os.close(out)
                _work_in_child(work, numbers[len(done) :], back)
            finally:
                os._exit(0)
        os.close(back)
        with os.fdopen(out, encoding="utf-8") as stream:
            done += [json.loads(line) for line in stream]
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            done.append(f"took longer than {SECONDS} s" if status == -signal.SIGALRM else f"died with status {status}")
    return done


def _work_in_child(work: Callable[[int], str], numbers: range, back: int) -> None:
    limit = _memory_in_use() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process in the midst of a C library, too
    for number in numbers:
        signal.alarm(SECONDS)
        os.write(back, f"{json.dumps(work(number)[:3000])}\n".encode())


def _outcome(read: Read, path: Path) -> str:
    """Return in words what comes of reading, nothing where all is well."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except InputError as error:
        message = str(error)
        if not message.isprintable() or len(message) > LONGEST_MESSAGE:
            return f"a message of {len(message)} characters: {message[:500]!r}"
        return f"refused: {message}"
    except BaseException:
        return traceback.format_exc(limit=-4)
    return ""


def _memory_in_use() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> None:
    """Run more mutants than the test suite does, and print what came of them."""
    from file_kinds import DATA_FILES, PARTIAL_RUNS

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--n", type=int, default=1000, help="number of mutants [1000]")
    parser.add_argument("--seed", type=int, default=1, help="seed of the mutations [1]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = survey({**DATA_FILES, **PARTIAL_RUNS}, given.n, seed=given.seed, folder=Path(folder))
    for complaint in found.complaints:
        sys.stdout.write(f"{complaint}\n")
    sys.stdout.write(f"{found.n_read} read, {found.n_refused} refused, {len(found.complaints)} neither\n")
    sys.exit(bool(found.complaints))


if __name__ == "__main__":
    main()
