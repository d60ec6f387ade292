"""What the documentation shows works: examples of public names, README's lines, and the pages that are named."""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ase_flatten
from ase_flatten import read_dataset, write_dataset
from ase_flatten.models import family
from ase_flatten.models.model_folder import save_model

ROOT = Path(__file__).parents[1]
DATA = "examples/data/salicylic_gfn2_500K.npz"
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a sparse copy of the bundled data and a small model, under the names that the examples use."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / DATA).parent.mkdir(parents=True)
    full = read_dataset(ROOT / DATA)
    data = full.take(np.arange(0, full.n_frames, 25))
    write_dataset(folder / DATA, data)
    made_by, frames = family("sgdml"), np.arange(0, 400, 20)
    model = made_by.trainer(sigma=20).fit(data, frames, frames + 1, rng=np.random.default_rng(0))
    improved = folder / "runs" / "demo" / "improved"
    save_model(improved, model, made_by, data, frames)
    return folder


@pytest.fixture(autouse=True)
def _at_home(home, monkeypatch) -> Iterator[None]:
    monkeypatch.chdir(home)
    yield


@pytest.mark.parametrize("name", ase_flatten.__all__)
def test_the_example_of_a_public_name(name):
    examples = doctest.DocTestFinder(recurse=False).find(getattr(ase_flatten, name), name, globs={})
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    report: list[str] = []
    for example in examples:
        runner.run(example, out=report.append)
    assert runner.tries > 0, f"{name} has no example"
    assert runner.failures == 0, "".join(report)


def test_readme_in_python(capsys):
    lines = re.search(r"code-block:: python\n\n((?: {4}.*\n|\n)+)", (ROOT / "README.rst").read_text())
    exec(re.sub("^    ", "", lines.group(1), flags=re.MULTILINE), {})
    numbers = [float(word) for word in capsys.readouterr().out.split()]
    assert len(numbers) == 4 and np.isfinite(numbers).all()


def test_the_page_on_notebooks(capsys):
    """Its code runs from top to bottom, and prints nothing."""
    blocks = re.findall(r"code-block:: python\n\n((?: {4}.*\n|\n)+)", (ROOT / "docs/howto/notebook.rst").read_text())
    names: dict[str, Any] = {}
    for block in blocks:
        exec(re.sub("^    ", "", block, flags=re.MULTILINE), names)
    assert capsys.readouterr().out == ""
    assert len(names["summaries"]) == 2 and names["prediction"].forces.shape == (100, 16, 3)


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"<([^>`]+)>`_", (ROOT / "README.rst").read_text())
    assert len(links) > 10
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_commands_in_the_documentation_exist():
    """Options on lines that call `ase-flatten COMMAND` are options of that command."""
    from typer.main import get_command

    from ase_flatten.cli.app import app

    commands = get_command(app).commands
    pages = [ROOT / "README.rst", *(ROOT / "docs").glob("*.rst"), *(ROOT / "docs" / "howto").glob("*.rst")]
    text = "\n".join(page.read_text() for page in pages)
    calls = re.findall(r"^ {4}(?:timeout \d+ )?ase-flatten (\w+)(.*)$", text, flags=re.MULTILINE)
    assert len(calls) > 10
    for command, arguments in calls:
        parameters = commands[command].params
        known = {option for one in parameters for option in (*one.opts, *one.secondary_opts)}
        given = set(re.findall(r"(?<!\S)(--?[A-Za-z][\w-]*)", arguments.partition("#")[0]))
        assert given <= known, f"ase-flatten {command} has no {given - known}"
