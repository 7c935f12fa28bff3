"""SQL quoting without a connection, for ``makemigrations``."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from django.db.backends.postgresql.psycopg_any import get_adapters_template
from psycopg import sql

if TYPE_CHECKING:
    from psycopg.adapt import AdaptersMap


@cache
def _adapters() -> AdaptersMap:
    """psycopg's adapters with Django's setup, so that values are formatted as by Django."""
    adapters: AdaptersMap = get_adapters_template(use_tz=True, timezone=None)
    return adapters


class _Context:
    """An adaptation context without a connection."""

    connection = None

    @property
    def adapters(self) -> AdaptersMap:
        return _adapters()


def literal(value: object) -> str:
    """``value`` as an SQL literal. Text is quoted for any setting of the server."""
    return sql.Literal(value).as_string(_Context()).strip()


def identifier(name: str) -> str:
    """``name`` as a quoted SQL identifier."""
    return sql.Identifier(name).as_string()


def relation(db_table: str) -> str:
    """A model's ``db_table`` as Django writes it in SQL.

    Django does not quote names that are already quoted, which projects use for
    ``'"schema"."table"'``.
    """
    if db_table.startswith('"') and db_table.endswith('"'):
        return db_table
    return f'"{db_table}"'


def is_qualified(relation: str) -> bool:
    """Whether a table's quoted name includes its schema."""
    return '"."' in relation


def dollar_quoted(text: str, tag: str) -> str:
    """``text`` as a dollar-quoted literal, with a tag that does not occur in it."""
    number = ""
    while f"${tag}{number}$" in text:
        number = str(int(number or 1) + 1)
    delimiter = f"${tag}{number}$"
    return f"{delimiter}{text}{delimiter}"


def for_format(text: str) -> str:
    """``text`` escaped for PostgreSQL's ``format()``."""
    return text.replace("%", "%%")
