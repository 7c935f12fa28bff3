"""The versioned SQL templates of ``migrations_templates/`` with functions to fill them.

A template is an SQL file with psql's notation for variables: ``:'x'`` becomes a literal, ``:"x"``
an identifier, ``:$x`` a dollar-quoted literal and ``:x`` unquoted text. So the template shows how
each value is quoted.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

_VARIABLE = re.compile(
    r"""(?<![:\w]):(?:'(?P<literal>\w+)'|"(?P<identifier>\w+)"|\$(?P<dollar>\w+)|(?P<raw>[a-z]\w*))"""
)
_HEADER = re.compile(r"\A(?:--[^\n]*\n)+\n*")


def _folder() -> Traversable:
    package = resources.files("bulksafe")
    packaged = package / "migrations_templates"
    if packaged.is_dir():
        return packaged
    # A checkout keeps the templates beside the package; the wheel carries them inside it.
    return package / ".." / "migrations_templates"


@cache
def read(version: str, name: str) -> str:
    """The template ``migrations_templates/{version}/{name}.sql`` without the comment at its top."""
    path = _folder() / version / f"{name}.sql"
    return _HEADER.sub("", path.read_text(encoding="utf-8")).strip()


def fill(version: str, name: str, values: Mapping[str, str]) -> str:
    """The template with every variable replaced from ``values``.

    Raises:
        KeyError: a variable of the template is missing in ``values``.
    """

    def replacement(match: re.Match[str]) -> str:
        kind = match.lastgroup or ""
        value = values[match[kind]]
        if kind == "literal":
            return quoting.literal(value)
        if kind == "identifier":
            return quoting.identifier(value)
        if kind == "dollar":
            return quoting.dollar_quoted(f"\n{value}\n", match[kind])
        return value

    return _VARIABLE.sub(replacement, read(version, name))
