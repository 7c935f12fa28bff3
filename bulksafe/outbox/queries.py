"""The run-time queries: ``bulksafe/sql/*.sql``, each under a name.

A query begins with a line ``-- name: what_it_does`` and a comment with its reasons.
``{query:what_it_does}`` in the text of a query stands for the text of that one.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^--[^\n]*\n", re.MULTILINE)
_PART = re.compile(r"\{query:(\w+)\}")


@cache
def _all() -> dict[str, str]:
    found: dict[str, str] = {}
    folder = resources.files("bulksafe") / "sql"
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        if path.name.endswith(".sql"):
            _, *parts = _NAME.split(path.read_text(encoding="utf-8"))
            names, texts = parts[::2], parts[1::2]
            for name, text in zip(names, texts, strict=True):
                found[name] = _COMMENT.sub("", text).strip()
    return found


@cache
def query(name: str) -> str:
    """The text of one query, with psycopg's ``%(name)s`` for its parameters.

    The caller fills in all other braces.
    """
    return _PART.sub(lambda part: query(part[1]), _all()[name])
