"""Many independent calls through an executor: threads, processes, and what happens to those that die."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pytest
from threadpoolctl import threadpool_info

from ase_flatten.utils.exceptions import BackendError
from ase_flatten.utils.parallel import LocalExecutor, PerWorker, WorkerDiedError, map_tasks


def draw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=50) @ np.ones((50, 3))


def fail(task: int) -> int:
    if task in (3, 5):
        raise ValueError(f"task {task}")
    return task


def get_ctrl_c(task: int) -> int:
    """Be hit by Ctrl-C in the middle of a call that handles it itself, as f90wrap does around Fortran."""

    def jump_out(*_: object) -> None:
        raise RuntimeError("Interrupt occured")

    signal.signal(signal.SIGINT, jump_out)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
    return task


def count_and_die(folder: Path, times: int, task: int) -> int:
    """Leave a file for each time that a task is run; task 2 ends its process the first few times."""
    n_before = len(list(folder.glob(f"{task}-*")))
    (folder / f"{task}-{n_before}").touch()
    if task == 2 and n_before < times:
        os._exit(9)
    return task


def threads(_: int) -> set[int]:
    return {library["num_threads"] for library in threadpool_info()}


def place(_: int) -> int:
    return os.getpid()


def wait(folder: Path, _: int) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(60)


@pytest.fixture(scope="module")
def processes():
    with LocalExecutor(2) as executor:
        yield executor


def test_results_are_in_order_and_those_of_one_process(processes):
    tasks = list(range(20))
    alone = map_tasks(draw, tasks)
    with ThreadPoolExecutor(3) as several:
        for executor in (processes, several):
            assert np.array_equal(map_tasks(draw, tasks, executor=executor), alone)
    assert len(set(map_tasks(place, tasks, executor=processes)) - {os.getpid()}) == 2
    assert map_tasks(draw, [], executor=processes) == []


def test_linear_algebra_keeps_to_one_core_in_each_process(processes):
    assert map_tasks(threads, range(2), executor=processes) == [{1}, {1}]


@pytest.mark.parametrize("there", [True, False])
def test_the_first_failure_in_their_order_is_raised(processes, there):
    with pytest.raises(ValueError, match="task 3"):
        map_tasks(fail, range(8), executor=processes if there else None)


def test_tasks_that_have_not_begun_are_cancelled():
    class Lazy(ThreadPoolExecutor):
        def submit(self, function, task):
            future = super().submit(function, task) if task <= 3 else Future()
            submitted.append(future)
            return future

    submitted: list[Future] = []
    with Lazy(1) as executor, pytest.raises(ValueError, match="task 3"):
        map_tasks(fail, range(6), executor=executor)
    for future in submitted[4:]:
        with pytest.raises(CancelledError):
            future.result()


def test_progress_counts_tasks(processes):
    class Counting:
        @contextmanager
        def task(self, what, total):
            seen.append((what, total))
            yield seen.append

    for executor in (None, processes):
        seen: list = []
        map_tasks(fail, range(3), executor=executor, progress=Counting(), what="counting")
        assert seen == [("counting", 3), 1, 1, 1]


def test_a_task_whose_process_died_is_run_once_more_and_the_others_once(processes, tmp_path):
    assert map_tasks(partial(count_and_die, tmp_path, 1), range(6), executor=processes) == list(range(6))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-0", "1-0", "2-0", "2-1", "3-0", "4-0", "5-0"]


def test_a_task_whose_process_dies_again_costs_itself_only(processes, tmp_path):
    futures = [processes.submit(count_and_die, tmp_path, 9, task) for task in range(6)]
    with pytest.raises(BackendError, match=r"a worker process died \(EXIT\(9\)\)"):
        futures[2].result()
    assert [future.result() for task, future in enumerate(futures) if task != 2] == [0, 1, 3, 4, 5]
    assert len(list(tmp_path.glob("2-*"))) == 2


def test_another_executor_that_breaks_is_told_of(tmp_path):
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor,
        pytest.raises(WorkerDiedError, match="a worker of ProcessPoolExecutor died"),
    ):
        map_tasks(partial(count_and_die, tmp_path, 9), [2], executor=executor)


def test_an_object_is_made_once_in_each_worker(processes):
    made = PerWorker(partial(np.random.default_rng, None))
    with ThreadPoolExecutor(2) as several:
        for executor, n_workers in ((processes, 2), (several, 2), (None, 1)):
            identities = map_tasks(partial(identity, made), range(30), executor=executor)
            assert 1 <= len(set(identities)) <= n_workers
    others = [PerWorker(list) for _ in range(9)]
    first = others[0]()
    assert others[0]() is first
    for other in others:
        other()
    assert others[0]() is not first  # a worker keeps a few only


def test_a_shutdown_that_does_not_wait_lets_the_call_end(tmp_path):
    executor = LocalExecutor(1)
    future = executor.submit(place, 0)
    executor.shutdown(wait=False)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(future.result()):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.05)


def identity(made: PerWorker, _: int) -> tuple[int, int]:
    return os.getpid(), id(made())


def test_processes_are_ended_at_once_when_the_block_is_left_by_an_error(tmp_path):
    with pytest.raises(KeyError), LocalExecutor(1) as executor:
        futures = [executor.submit(wait, tmp_path, task) for task in range(2)]
        while not list(tmp_path.iterdir()):
            time.sleep(0.02)
        start = time.monotonic()
        raise KeyError
    assert time.monotonic() - start < 10
    assert not any(psutil.pid_exists(int(path.name)) for path in tmp_path.iterdir())
    assert all(future.cancelled() or isinstance(future.exception(), WorkerDiedError) for future in futures)


ENDLESS = """
import os, time
from ase_flatten.utils.parallel import LocalExecutor, map_tasks
def place(task):
    time.sleep(0.2)
    return os.getpid()
def work(task):
    while True:
        pass
with LocalExecutor(2) as executor:
    print(*map_tasks(place, range(4), executor=executor), flush=True)
    map_tasks(work, range(2), executor=executor)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_asks(tmp_path, how):
    script = tmp_path / "endless.py"  # without a guard around its main part
    script.write_text(ENDLESS)
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        workers = set(map(int, process.stdout.readline().split()))
        assert len(workers) == 2
        process.send_signal(how)
        process.wait(timeout=30)
    deadline = time.monotonic() + 15
    while any(map(psutil.pid_exists, workers)):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.05)


def test_ctrl_c_does_not_reach_the_processes():
    with LocalExecutor(2) as executor:
        assert map_tasks(get_ctrl_c, [1, 2], executor=executor) == [1, 2]
