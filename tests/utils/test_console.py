import io
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from rich.console import Console

from ase_flatten.utils import console
from ase_flatten.utils.exceptions import InputError, keeping
from ase_flatten.utils.progress import duration


@pytest.fixture(autouse=True)
def _keep_the_handler():
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def screen(monkeypatch):
    def make(terminal):
        text = io.StringIO()
        monkeypatch.setattr(console, "stderr", Console(file=text, force_terminal=terminal, width=100))
        return text

    return make


def test_ctrl_c_stops_at_the_next_report_and_the_second_at_once(screen):
    text = screen(False)
    progress = console.progress(True)
    with progress.task("work", 3) as advance:
        advance(1)
        signal.raise_signal(signal.SIGINT)
        assert "again to stop at once" in text.getvalue()
        with pytest.raises(KeyboardInterrupt):
            advance(1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), progress.task("more work", 1):
        pass


def test_plain_lines_tell_rate_and_time_left(screen, monkeypatch):
    text = screen(False)
    now = [0.0]
    monkeypatch.setattr(console.time, "perf_counter", lambda: now[0])
    with console.progress(False).task("predicting", 100) as advance:
        for seconds in (5, 11, 12, 40):
            now[0] = float(seconds)
            advance(20)
    assert text.getvalue().splitlines() == [
        "predicting: 40 of 100, 4/s, 16 s left", "predicting: 80 of 100, 2/s, 10 s left", "predicting: 40.0 s",
    ]  # fmt: skip


def test_a_terminal_gets_a_bar(screen):
    text = screen(True)
    with console.progress(False).task("predicting", 10) as advance:
        advance(4)
    assert "predicting" in text.getvalue() and "4/10" in text.getvalue()


def test_work_within_work_gets_a_bar_of_its_own(screen):
    text = screen(True)
    shown = console.progress(False)
    with shown.task("training", 1) as advance, shown.task("gradient steps", 9) as step:
        step(5)
        time.sleep(0.3)  # it is drawn ten times a second
        advance(1)
    assert "gradient steps" in text.getvalue() and "5/9" in text.getvalue() and "/1 " not in text.getvalue()


def test_a_lack_of_memory_is_said(screen):
    text = screen(False)

    @console.user_errors
    def command():
        raise MemoryError

    with pytest.raises(console.typer.Exit) as stopped:
        command()
    assert stopped.value.exit_code == 2 and "not enough memory" in text.getvalue()


def test_a_command_of_a_script_ends_with_its_status(screen):
    text = screen(False)

    def command(error):
        if error is not None:
            raise error

    console.run_command(command, None)
    for error, status in ((InputError("expected one, found two"), 2), (KeyboardInterrupt(), console.INTERRUPTED)):
        with pytest.raises(SystemExit) as stopped:
            console.run_command(command, error)
        assert stopped.value.code == status
    assert text.getvalue().startswith("ase-flatten: expected one, found two\n")


@pytest.mark.parametrize("module", ["ase_flatten.cli", "ase_flatten.md", "ase_flatten.ipi"])
def test_ctrl_c_while_a_command_is_imported_is_one_line(tmp_path, module):
    for name in ("numpy", "typer", "ase"):
        (tmp_path / f"{name}.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    package = str(Path(console.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), package])}
    done = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (130, "ase-flatten: stopped before anything was done\n")


def test_a_path_that_the_system_refuses_is_one_line(screen):
    text = screen(False)

    def command(error):
        raise error

    with pytest.raises(typer.Exit) as refused:
        console.user_errors(command)(PermissionError(13, "Permission denied", "/secret/run"))
    assert refused.value.exit_code == 2
    assert text.getvalue() == "ase-flatten: cannot open /secret/run: Permission denied; check the path\n"
    with pytest.raises(OSError, match="Input/output"):
        console.user_errors(command)(OSError(5, "Input/output error"))


def test_log_lines_are_whole_without_trailing_blanks_and_say_warnings(screen):
    text = screen(False)
    console.set_up_logging(quiet=False, verbose=False)
    log, long = logging.getLogger("ase_flatten.models"), "word " * 40 + "end"
    log.info("%s [bold]", long)
    log.warning("beware")
    log.debug("not shown")
    assert text.getvalue() == f"{long} [bold]\nwarning: beware\n"


def test_tables_keep_their_titles_and_cells_whole(monkeypatch):
    text = io.StringIO()
    monkeypatch.setattr(console, "stdout", Console(file=text, width=40))
    console.table("Force RMSE by cluster, kcal/(mol Å), worst first", ("cluster", "x" * 30), [("1", "y" * 50)])
    lines = text.getvalue().splitlines()
    assert lines[0] == "Force RMSE by cluster, kcal/(mol Å), worst first"
    assert text.getvalue().count("y") == 50 + 1 and "…" not in text.getvalue()
    assert all(line == line.rstrip() and len(line) <= 40 for line in lines[1:])


def test_the_total_of_a_task_may_move(screen, monkeypatch):
    text = screen(False)
    now = [0.0]
    monkeypatch.setattr(console.time, "perf_counter", lambda: now[0])
    with console.progress(False).task("trying", 3) as advance:
        now[0] = 20.0
        advance(1, total=5)
    assert text.getvalue().startswith("trying: 1 of 5, 20 s each, 80 s left\n")


def test_parts_of_a_task_are_not_told_when_they_are_done(screen, monkeypatch):
    text = screen(False)
    now = [0.0]
    monkeypatch.setattr(console.time, "perf_counter", lambda: now[0])
    shown = console.progress(False)
    with shown.task("training", 1) as advance:
        with shown.task("kernel matrix", 4) as part:
            now[0] = 15.0
            part(1)
            now[0] = 16.0
            part(3)
        advance(1)
    assert text.getvalue().splitlines() == ["kernel matrix: 1 of 4, 15 s each, 45 s left", "training: 16.0 s"]


def test_durations_are_rounded():
    assert [duration(seconds) for seconds in (3.4, 99, 100, 5000, 7200)] == [
        "3 s", "99 s", "2 min", "83 min", "2.0 h",
    ]  # fmt: skip


def test_ctrl_c_says_how_to_go_on(screen):
    text = screen(False)

    @console.user_errors
    def command():
        with keeping(lambda: "go on with: ase-flatten train --resume --out RUN"):
            raise KeyboardInterrupt

    with pytest.raises(typer.Exit):
        command()
    assert text.getvalue() == "ase-flatten: stopped; go on with: ase-flatten train --resume --out RUN\n"
