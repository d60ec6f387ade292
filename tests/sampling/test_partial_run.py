"""Unfinished sampling runs: no frame is lost to a second process, to a kill at any moment, or to a damaged file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ase_flatten
from ase_flatten.data.io import read_dataset
from ase_flatten.sampling import sample as sampling
from ase_flatten.sampling.sample import SampleSettings, sample
from ase_flatten.utils.exceptions import InputError

SETTINGS = {
    "calculator": "ase:test_sample:Springs", "temperature_K": 400, "frames": 40, "stride": 2, "equilibration_ps": 0.0,
}  # fmt: skip

CHUNK_STEPS = 40

PATHS = [str(Path(ase_flatten.__file__).parents[1]), *(str(Path(__file__).parents[level]) for level in (0, 1))]

SCRIPT = f"""
import sys
from ase_flatten.sampling import sample as sampling
sampling.CHUNK_STEPS = {CHUNK_STEPS}
"""

ONE_OF_TWO = f"""{SCRIPT}
import time
from ase_flatten.utils.exceptions import InputError
start, sampling._start = sampling._start, lambda *given: (time.sleep(1), start(*given))[1]
print("ready", flush=True)
sys.stdin.readline()
try:
    print(sampling.sample("H2O", "water.npz", sampling.SampleSettings(**{SETTINGS})).n_frames)
except InputError as error:
    sys.exit(str(error))
"""

KILLED_EVERYWHERE = f"""{SCRIPT}
import os, shutil, signal
os.fsync = lambda descriptor: None  # matters to a power cut only, and takes most of the time
from ase_flatten.sampling.partial_run import PartialRun
from ase_flatten.utils.exceptions import InputError

CHANGES = {{"os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate"}}

def child(killed_at):
    # The process is killed before its n-th change of the file system.
    if process := os.fork():
        return os.waitpid(process, 0)[1]
    left = killed_at
    def count(event, given):
        nonlocal left
        if event in CHANGES or event == "open" and given[2] and given[2] & (os.O_WRONLY | os.O_RDWR):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    try:
        sampling.sample("H2O", "water.npz", sampling.SampleSettings(**{SETTINGS}))
    except InputError as error:
        assert "expected no file water.npz, found one" in str(error), error
        os._exit(3)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)

# All frames are there, and nothing of the clean-up is done.
with_finish, PartialRun.finish = PartialRun.finish, lambda run: None
sampling.sample("H2O", "water.npz", sampling.SampleSettings(**{SETTINGS}))
PartialRun.finish = with_finish
shutil.move("water.npz.partial", "template")
whole, endings = None, []
for killed_at in range(1, 200):
    shutil.copytree("template", "water.npz.partial")
    first = child(killed_at)
    was_written = os.path.exists("water.npz")
    second = os.waitstatus_to_exitcode(child(0))
    assert second == 0 or second == 3 and was_written, (killed_at, second)
    content = open("water.npz", "rb").read()
    assert killed_at == 1 or content == whole, killed_at
    assert set(os.listdir()) <= {{"template", "water.npz"}}, (killed_at, os.listdir())
    whole = content
    os.remove("water.npz")
    endings.append(second)
    if first == 0:
        break
print(len(endings), *sorted(set(endings)))
"""


def python(code, folder, **pipes):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(PATHS)}
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment, text=True, **pipes)


def test_two_of_the_same_command_at_once(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [python(ONE_OF_TWO, tmp_path, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said
    assert sorted(out for out, _ in said) == ["", "40\n"]
    refused = max(err for _, err in said)
    assert f"but process {min(both, key=lambda process: process.returncode).pid} on" in refused
    assert read_dataset(tmp_path / "water.npz").n_frames == 40
    assert [path.name for path in tmp_path.iterdir()] == ["water.npz"]


def test_a_kill_at_any_change_of_the_final_clean_up_loses_nothing(tmp_path):
    with python(KILLED_EVERYWHERE, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    n_killed, *endings = map(int, out.split())
    assert n_killed > 10 and endings == [0, 3]


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    """The folder of a run that has sampled all its frames in three chunks."""
    monkeypatch.setattr(sampling, "CHUNK_STEPS", CHUNK_STEPS)
    with monkeypatch.context() as patch:
        patch.setattr(sampling.PartialRun, "finish", lambda run: None)
        sample("H2O", tmp_path / "water.npz", SampleSettings(**SETTINGS))
    folder = tmp_path / "water.npz.partial"
    assert len(list(folder.glob("chunk-*.npz"))) == 3
    return folder


def rewrite(path, **changes):
    with np.load(path) as chunk:
        arrays = {**chunk, **changes}
    np.savez(path, **arrays)


DAMAGE = {
    "a chunk is missing": (lambda chunks: chunks[1].unlink(), "expected 40 frames in .*partial, found 20"),
    "as a kill of version 0.1 left it": (
        lambda chunks: [chunks[k].unlink() for k in (0, 1)],
        "expected 40 frames in .*partial, found 20",
    ),
    "a chunk is cut off": (lambda chunks: os.truncate(chunks[1], 900), "could not read it"),
    "a chunk is empty": (lambda chunks: os.truncate(chunks[-1], 0), "could not read it"),
    "no settings": (lambda chunks: (chunks[0].parent / "settings.json").unlink(), "found frames only"),
    "settings that are a list": (
        lambda chunks: (chunks[0].parent / "settings.json").write_text("[]"),
        "expected the settings of a run in .*json, could not read it",
    ),
    "forces of another shape": (
        lambda chunks: rewrite(chunks[1], forces=np.zeros((20, 3))),
        r"found forces of the shape \(20, 3\) and the type float64",
    ),
    "energies that are text": (
        lambda chunks: rewrite(chunks[1], energies=np.full(20, "x")),
        r"found energies of the shape \(20,\) and the type <U1",
    ),
    "no state": (lambda chunks: rewrite(chunks[-1], generator="{}"), "expected a chunk of this run in .*80.npz"),
    "a state of another step": (lambda chunks: rewrite(chunks[-1], step=40), "found that of step 40"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_is_refused_and_left_as_it_is(name, unfinished):
    damage, words = DAMAGE[name]
    damage(sorted(unfinished.glob("chunk-*.npz")))
    output = unfinished.with_name("water.npz")
    output.write_text("precious")
    before = {path.name: path.read_bytes() for path in unfinished.iterdir()}
    with pytest.raises(InputError, match=f"{words}.*; delete the folder .*partial and run the same command again"):
        sample("H2O", output, SampleSettings(**SETTINGS))
    assert output.read_text() == "precious"
    assert {path.name: path.read_bytes() for path in unfinished.iterdir()} == before


def test_an_output_that_became_a_folder(unfinished):
    unfinished.with_name("water.npz").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*water\.npz"):
        sample("H2O", unfinished.with_name("water.npz"), SampleSettings(**SETTINGS))


def test_settings_from_a_file_are_shown_on_one_line(unfinished):
    settings = json.loads((unfinished / "settings.json").read_text())
    (unfinished / "settings.json").write_text(json.dumps({**settings, "theory": 1, "seed": "\x1b[31m\n" + 9999 * "x"}))
    with pytest.raises(InputError) as refused:
        sample("H2O", unfinished.with_name("water.npz"), SampleSettings(**SETTINGS))
    assert "\x1b" not in str(refused.value) and len(str(refused.value)) < 1000
