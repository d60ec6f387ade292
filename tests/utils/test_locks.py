"""Locks: the second process is told who holds one, and a killed process holds none."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from ase_flatten.utils.atomic_files import is_empty, remove_folder, remove_unfinished
from ase_flatten.utils.exceptions import InputError
from ase_flatten.utils.locks import lock_file, lock_folder

HOLD = """
import os, sys, time
from ase_flatten.utils.locks import lock_folder
with lock_folder(sys.argv[1]):
    if sys.argv[2:] and not os.fork():
        time.sleep(60)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


def held_by_another_process(folder, *arguments):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), *arguments], **pipes)
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_is_named_and_a_killed_one_holds_nothing(tmp_path):
    process = held_by_another_process(tmp_path / "run")
    with process:
        with pytest.raises(InputError) as refused, lock_folder(tmp_path / "run"):
            raise AssertionError  # pragma: no cover
        assert re.fullmatch(
            rf"expected .*run to be free, but process {process.pid} on {socket.gethostname()} \(since 20\d\d-.* UTC\) "
            "is writing to it; wait until it has finished, stop it, or choose another name",
            str(refused.value),
        )
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "run" / ".lock").exists() and is_empty(tmp_path / "run")
    with lock_folder(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").exists()
    assert not list((tmp_path / "run").iterdir())


def test_a_child_that_outlives_a_killed_process_does_not_hold_its_lock(tmp_path):
    with held_by_another_process(tmp_path / "run", "fork") as process:
        (child,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            with lock_folder(tmp_path / "run"):
                assert child.is_running()
        finally:
            child.kill()


def test_a_lock_is_held_against_the_same_process_too(tmp_path):
    with lock_file(tmp_path / "deep" / "a.npz"):
        with pytest.raises(InputError, match=f"process {os.getpid()} on"), lock_file(tmp_path / "deep" / "a.npz"):
            raise AssertionError  # pragma: no cover
        with lock_file(tmp_path / "deep" / "b.npz"):
            pass
    assert not list((tmp_path / "deep").iterdir())
    with lock_file(tmp_path / "deep" / "a.npz"):
        (tmp_path / "deep" / ".a.npz.lock").write_text("\x1b no JSON")
        with pytest.raises(InputError, match="but another process is writing"), lock_file(tmp_path / "deep" / "a.npz"):
            raise AssertionError  # pragma: no cover


def test_folders_made_for_a_lock_do_not_stay_empty(tmp_path):
    with pytest.raises(KeyError), lock_folder(tmp_path / "runs" / "a"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    with lock_folder(tmp_path / "runs" / "a"):
        (tmp_path / "runs" / "a" / "run.json").touch()
    assert [path.name for path in (tmp_path / "runs" / "a").iterdir()] == ["run.json"]


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for lock, path in ((lock_folder, tmp_path / "file" / "run"), (lock_file, tmp_path / "file" / "a.npz")):
        with pytest.raises(InputError, match="cannot write"), lock(path):
            raise AssertionError  # pragma: no cover

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(InputError, match="No space left"), lock_file(tmp_path / "a.npz"):
        raise AssertionError  # pragma: no cover
    monkeypatch.undo()
    with lock_file(tmp_path / "a.npz"):
        pass


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch, caplog):
    def unsupported(*args):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", unsupported)
    with lock_folder(tmp_path / "run"):
        (tmp_path / "run" / "run.json").touch()
    assert "does not support locks" in caplog.text
    monkeypatch.setattr("fcntl.flock", lambda *args: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(InputError, match="Input/output error"), lock_folder(tmp_path / "run"):
        raise AssertionError  # pragma: no cover


def test_what_killed_writes_left_is_removed_when_a_locked_block_ends(tmp_path):
    deep = tmp_path / "steps"
    deep.mkdir()
    for name in (".writing-a", ".writing-b"):
        (deep / name).mkdir()
        (deep / name / ".writing-c.json").touch()
    (tmp_path / ".writing-d.json").touch()
    (tmp_path / ".writing-link").symlink_to(tmp_path / "steps")
    time.sleep(0.02)  # the clock of a file system may tick every 10 ms
    with lock_folder(tmp_path):
        (tmp_path / ".writing-now").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".writing-now", "steps"]
    remove_unfinished(tmp_path, before=time.time() + 10)
    assert [path.name for path in tmp_path.iterdir()] == ["steps"]


def test_a_write_under_a_lock_of_its_own_is_not_taken_for_a_killed_one(tmp_path):
    with lock_folder(tmp_path / "run" / "md"):
        (tmp_path / "run" / "md" / ".writing-a").mkdir()
        time.sleep(0.02)
        with lock_folder(tmp_path / "run"):
            pass
        assert (tmp_path / "run" / "md" / ".writing-a").exists()
    with lock_folder(tmp_path / "run"):
        time.sleep(0.02)
    assert not (tmp_path / "run" / "md" / ".writing-a").exists()


def test_a_removed_folder_is_never_half_there(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").touch()
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *args, **kwargs: None)  # as if killed there
        remove_folder(tmp_path / "a")
    assert not (tmp_path / "a").exists() and (tmp_path / ".writing-a" / "file").exists()
    remove_folder(tmp_path / "a")
    assert not list(tmp_path.iterdir())
    (tmp_path / "a").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *args: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with pytest.raises(InputError, match="Permission denied"):
            remove_folder(tmp_path / "a")
