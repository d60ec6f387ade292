"""Damaged and hostile files: each is read or refused in one sentence, in bounded time and memory."""

from file_kinds import DATA_FILES, PARTIAL_RUNS
from mutations import survey

from ase_flatten.utils.exceptions import InputError

WHOLE = b"all 1 " * 20


def test_mutants_of_data_sets_and_partial_runs(tmp_path):
    found = survey({**DATA_FILES, **PARTIAL_RUNS}, 105, seed=0, folder=tmp_path)
    assert found.complaints == []
    assert found.n_read > 5 and found.n_refused > 50 and found.n_read + found.n_refused == 105


def test_the_survey_can_complain(tmp_path, monkeypatch):
    monkeypatch.setattr("mutations.SECONDS", 1)

    def traceback(path):
        if path.read_bytes() != WHOLE:
            raise KeyError("no")

    def long_message(path):
        if path.read_bytes() != WHOLE:
            raise InputError("\x1b")

    def hang(path):
        while path.read_bytes() != WHOLE:
            pass

    def memory(path):
        if path.read_bytes() != WHOLE:
            bytearray(1 << 32)

    readers = {"a": traceback, "b": long_message, "c": hang, "d": memory}
    kinds = {name: (lambda path: path.write_bytes(WHOLE), read) for name, read in readers.items()}
    found = survey(kinds, 4, seed=2, folder=tmp_path)
    words = ("KeyError", "a message of 1 characters", "took longer", "MemoryError")
    assert all(any(word in complaint for complaint in found.complaints) for word in words), found.complaints
