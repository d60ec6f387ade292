"""How objects show themselves in a notebook."""

from collections.abc import Sequence
from html import escape


def html_table(title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Return a small table of names and values for `_repr_html_`, with all text escaped."""
    rows = "".join(
        f"<tr><td style='text-align: left'>{escape(name)}</td><td style='text-align: left'>{escape(value)}</td></tr>"
        for name, value in facts
    )
    return f"<table><caption><b>{escape(title)}</b></caption>{rows}</table>"
