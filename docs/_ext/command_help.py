"""The directive `command-help`: what a command prints when it is asked for help, captured at build time."""

import os
import re
import subprocess
import sys

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

WIDTH = 88


class CommandHelp(SphinxDirective):
    """Show `python -m MODULE --help`, with the option `subcommands` a section for each command as well.

    A command that fails is an error of the build.
    """

    required_arguments = 1
    option_spec = {"subcommands": directives.flag}  # noqa: RUF012  (docutils declares it so)

    def run(self) -> list[nodes.Node]:
        """Run the command, and return its help as literal blocks."""
        module = self.arguments[0]
        text = self._help(module)
        shown: list[nodes.Node] = [_block(text)]
        if "subcommands" in self.options:
            for name in re.findall(r"^ {2}([a-z][\w-]*) {2,}", text, flags=re.MULTILINE):
                section = nodes.section(ids=[f"ase-flatten-{name}"])
                section += [nodes.title(name, name), _block(self._help(module, name))]
                shown.append(section)
        return shown

    def _help(self, *arguments: str) -> str:
        environment = {**os.environ, "COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1"}
        command = [sys.executable, "-m", *arguments, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise self.error(f"{' '.join(command)} ended with exit status {done.returncode}: {done.stderr}")
        return done.stdout


def _block(text: str) -> nodes.literal_block:
    return nodes.literal_block(text, text, language="text")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
