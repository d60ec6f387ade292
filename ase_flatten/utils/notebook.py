"""How objects show themselves in Python and in notebooks: a title, and names with values."""

from collections.abc import Sequence
from html import escape


def short_repr(title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Return a line for `__repr__`."""
    return f"<{title}: {', '.join(f'{name} {value}'.strip() for name, value in facts)}>"


def html_table(title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Return a small table for `_repr_html_`, with all text escaped."""
    rows = "".join(
        f"<tr><td style='text-align: left'>{escape(name)}</td><td style='text-align: left'>{escape(value)}</td></tr>"
        for name, value in facts
    )
    return f"<table><caption><b>{escape(title)}</b></caption>{rows}</table>"
