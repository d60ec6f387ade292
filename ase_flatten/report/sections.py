"""A section of the page: a template and what it shows."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    template : str
        File in `templates/`. All values are escaped in it.
    content : mapping
        The variables of the template.
    """

    template: str
    content: Mapping[str, Any] = field(default_factory=dict)


def render(page: str, sections: Iterable[Section], **shared: Any) -> str:
    """Fill in the template of a page with its sections; all templates see the shared variables."""
    parts = [_environment().get_template(one.template).render(**shared, **one.content) for one in sections]
    return _environment().get_template(page).render(sections=list(map(Markup, parts)), **shared)


@cache
def _environment() -> Environment:
    return Environment(loader=PackageLoader("ase_flatten.report"), autoescape=True, undefined=StrictUndefined)
