"""The log file beside the results."""

import io
import logging

import pytest

from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.log_files import FILE_ONLY, log_to


def test_the_log_is_appended_with_times_and_ends_with_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["ase-flatten", "train", "my data.npz"])
    path = tmp_path / "train.log"
    with log_to(path):
        logging.getLogger("ase_flatten.models").info("length scale %g", 20)
        logging.getLogger(FILE_ONLY).info("step 1 of 3")
    with pytest.raises(KeyboardInterrupt), log_to(path):
        raise KeyboardInterrupt
    logging.getLogger("ase_flatten").info("nobody listens")
    lines = [line.split("  ", 1) for line in path.read_text().splitlines()]
    assert all(len(time) == len("2026-01-01 00:00:00") for time, _ in lines)
    assert [rest.split(maxsplit=1)[1].strip() for _, rest in lines] == [
        "ase-flatten 0.1.0: ase-flatten train 'my data.npz'", "length scale 20", "step 1 of 3",
        "ase-flatten 0.1.0: ase-flatten train 'my data.npz'", "ended by KeyboardInterrupt",
    ]  # fmt: skip


def test_warnings_are_still_shown_where_logging_is_not_set_up(tmp_path, capsys, monkeypatch):
    library = logging.getLogger("ase_flatten")
    monkeypatch.setattr(library, "propagate", False)  # pytest listens at the root
    with log_to(tmp_path / "a.log"):
        library.warning("beware")
    assert not library.handlers and "beware" in (tmp_path / "a.log").read_text()


def test_what_is_shown_elsewhere_does_not_change(tmp_path):
    """Messages of level INFO are for the file, unless the user has asked for them."""
    stream = io.StringIO()
    handler, root = logging.StreamHandler(stream), logging.getLogger()
    root.addHandler(handler)
    try:
        with log_to(tmp_path / "a.log"):
            logging.getLogger("ase_flatten.models").info("detail")
            logging.getLogger("ase_flatten.models").warning("beware")
    finally:
        root.removeHandler(handler)
    assert stream.getvalue() == "beware\n" and not handler.filters
    assert "detail" in (tmp_path / "a.log").read_text()


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*nowhere/a\.log"), log_to(tmp_path / "nowhere" / "a.log"):
        pass
