"""Help in groups, several values after an option, and completion."""

import os
import re
import subprocess
import sys
from typing import Annotated

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from ase_flatten.cli.app import app
from ase_flatten.cli.command import Command

NAMES = list(get_command(app).commands)


def shown(*arguments, columns=None):
    """Return what the command prints into a pipe."""
    environment = {**os.environ, **({} if columns is None else {"COLUMNS": str(columns)})}
    command = [sys.executable, "-m", "ase_flatten.cli", *arguments, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.parametrize("columns", [None, 80, 160])
@pytest.mark.parametrize("arguments", [[], ["md"]])
def test_help_is_plain_text_that_fits(arguments, columns):
    lines = shown(*arguments, columns=columns).splitlines()
    assert all(line == line.rstrip() and len(line) <= 80 for line in lines)
    assert not re.search("[\u2500-\u257f\x1b]", "".join(lines))


def test_the_commands_are_in_groups():
    text = shown()
    headings = re.findall(r"^(\w.*):$", text, flags=re.MULTILINE)
    assert headings == ["Data", "Models", "Dynamics", "Options"]
    assert re.findall(r"^ {2}([a-z]\w*) {2,}\w", text, flags=re.MULTILINE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_shown_once(name):
    command = get_command(app).commands[name]
    text = CliRunner().invoke(app, [name, "--help"]).output.partition("  Example:")[0]
    for parameter in command.params:
        for option in parameter.opts if parameter.param_type_name == "option" and not parameter.hidden else []:
            assert len(re.findall(rf"^  (?:-\w, )?{option}(?=[ ,\n])", text, flags=re.MULTILINE)) == 1, option
    texts = {re.search(r"  \S.*?( {2,})\S", line).end() - 1 for line in text.splitlines() if re.match("  -.*  ", line)}
    assert len(texts) == 1  # all texts begin in one column


def test_options_of_a_group_stand_together():
    text = shown("md")
    headings = re.findall(r"^(\w.*):$", text, flags=re.MULTILINE)
    assert headings == ["Arguments", "Model", "Dynamics", "Output", "Options"]
    model = text.partition("Model:")[2].partition("Dynamics:")[0]
    assert re.findall(r"^ {2}(--\S+)", model, flags=re.MULTILINE) == [
        "--models",
        "--reference",
        "--reference-ps",
        "--start",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "--T", "300", "400", "-q"], ("a", [300, 400], True)),
        (["--T", "300", "--T", "400", "500", "-q", "b"], ("b", [300, 400, 500], True)),
        (["--T=300", "b"], ("b", [300], False)),
        (["--T", "-3"], (None, [-3], False)),
        (["a"], ("a", [], False)),
    ],
)
def test_several_values_after_an_option(words, expected):
    found = []
    one = typer.Typer(rich_markup_mode=None)

    @one.command(cls=Command)
    def command(
        what: str | None = None,
        t: Annotated[list[float] | None, typer.Option("--T")] = None,
        quiet: Annotated[bool, typer.Option("-q")] = False,
    ):
        found.append((what, t or [], quiet))

    result = CliRunner().invoke(one, [f"--what={word}" if word in "ab" else word for word in words])
    assert result.exit_code == 0, result.output
    assert found == [expected]


def test_one_value_after_an_option_that_takes_one():
    """``sample --T 500 STRUCTURE``: what follows is the structure."""
    result = CliRunner().invoke(app, ["sample", "--T", "500", "nosuchmolecule", "-o", "x.npz"])
    assert result.exit_code == 2 and "nosuchmolecule" in result.output and "--T" not in result.output


def test_completion():
    """In bash: the script, the commands, the options of one of them."""
    options = ["--reference", "--reference-ps", "--replicas", "--resume"]
    run = f"{sys.executable} -m ase_flatten.cli"
    script = subprocess.run(["bash", "-c", f"{run} --show-completion; true"], capture_output=True, text=True).stdout
    assert "_ASE_FLATTEN_COMPLETE=complete_bash" in script and "complete -o" in script and "ase-flatten" in script
    for words, expected in (("ase-flatten ", NAMES), ("ase-flatten md --re", options)):
        environment = {
            **os.environ, "_ASE_FLATTEN_COMPLETE": "complete_bash", "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }  # fmt: skip
        found = subprocess.run(run.split(), capture_output=True, text=True, env=environment).stdout.split()
        assert found == expected
