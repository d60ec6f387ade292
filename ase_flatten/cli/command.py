"""What typer's commands do not do: help in groups that is readable in a pipe, several values after an option, and
calculators in the current folder.

Typer's own groups are boxes. These are plain sections, named by the same ``rich_help_panel``.
"""

import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup

DATA = "Data"
MODEL = "Model"
TRAINING_SET = "Training set"
CLUSTERS = "Clusters"
DYNAMICS = "Dynamics"
CONNECTION = "Connection"
OUTPUT = "Output"
OTHERS = "Options"
"""Where options without a group stand, at the end."""

SEVERAL = ("--T", "--models")
"""Options that several values may follow in commands that take several; each other option takes one, so that a data set
may come next."""

_ORDER = ("Arguments", DATA, MODEL, TRAINING_SET, CLUSTERS, DYNAMICS, CONNECTION, OUTPUT)

_WIDEST = 30
"""Columns for the names of options; the text of a longer one begins on the next line."""

_SENTENCE = 100
"""Characters of a command's help in the list of commands."""


class Command(TyperCommand):
    """A command that shows its options in groups and reads ``--T 300 400``."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options by group."""
        groups: dict[str, list[tuple[str, str]]] = {heading: [] for heading in _ORDER}
        others: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            is_option = parameter.param_type_name == "option"
            heading = getattr(parameter, "rich_help_panel", None) if is_option else "Arguments"
            record = parameter.get_help_record(ctx)
            if record is not None:
                (groups[heading] if heading else others).append(record)
        _write(formatter, {**groups, OTHERS: others})

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read ``--T 300 400`` as ``--T 300 --T 400``, and find calculators that the user names."""
        for word in args:
            _find_here(word.rpartition("=")[2])
        several = {
            name for one in self.get_params(ctx) if getattr(one, "multiple", False) for name in one.opts
        }.intersection(SEVERAL)
        given: list[str] = []
        option, has_value = "", False
        for word in args:
            if has_value and word.startswith("-"):
                option = ""
            if option and has_value:
                given.append(option)
            given.append(word)
            if option:
                has_value = True
            elif word in several:
                option, has_value = word, False
        parsed: list[str] = super().parse_args(ctx, given)
        return parsed


class CommandGroup(TyperGroup):
    """Commands in groups, and then the options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the first sentence of each command's help, and the options."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            heading = getattr(command, "rich_help_panel", None) or "Commands"
            groups.setdefault(heading, []).append((name, command.get_short_help_str(_SENTENCE)))
        options = [parameter.get_help_record(ctx) for parameter in self.get_params(ctx)]
        _write(formatter, {**groups, OTHERS: [record for record in options if record is not None]})


def _find_here(word: str) -> None:
    """Let the module of ``ase:MODULE:FACTORY`` be imported from the current folder unless it is found elsewhere.

    Worker processes search where their parent does. Only what was typed comes here: a name in a file, such as run.json,
    makes nothing of the current folder importable.
    """
    named = re.match(r"ase:(\w+)", word)
    if named and named[1] not in sys.modules and find_spec(named[1]) is None:
        here = Path.cwd()
        if (here / f"{named[1]}.py").is_file() or (here / named[1]).is_dir():
            sys.path.append(str(here))


def _write(formatter: Any, groups: dict[str, list[tuple[str, str]]]) -> None:
    """Write sections whose texts begin in the same column."""
    width = max((len(name) for rows in groups.values() for name, _ in rows if len(name) <= _WIDEST), default=0)
    for heading, rows in groups.items():
        if rows:
            with formatter.section(heading):
                formatter.write_dl(_padded(rows, width), col_max=_WIDEST)


def _padded(rows: Sequence[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    return [(name.ljust(width), text) for name, text in rows]
