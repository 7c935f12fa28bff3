"""Ranges of primary keys of any type, as SQL.

A key is a tuple of texts, one for each column: PostgreSQL reads back what it writes, whatever the
type, and compares with the column's own order and collation.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from django.db import DataError

from bulksafe.adoption.errors import Unusable, message_of
from bulksafe.adoption.tables import reading
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bulksafe.adoption.tables import Table

Key: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """The rows after one key, up to and including another; None for the ends of the table."""

    after: Key | None
    until: Key | None


def key_columns(table: Table, row: str = "new") -> list[str]:
    return [f"{quoting.identifier(row)}.{quoting.identifier(column)}" for column in table.key]


def as_texts(table: Table) -> str:
    """The select list for a key."""
    return ", ".join(f"{column}::pg_catalog.text" for column in key_columns(table))


def ordered(table: Table) -> str:
    return ", ".join(key_columns(table))


def within(table: Table, span: Span) -> str:
    """The condition that a row is in ``span``."""
    tests = ["true"]
    if span.after is not None:
        tests.append(f"({ordered(table)}) > ({_literals(table, span.after)})")
    if span.until is not None:
        tests.append(f"({ordered(table)}) <= ({_literals(table, span.until)})")
    return " AND ".join(tests)


def among(table: Table, keys: Sequence[Key], columns: Sequence[str]) -> str:
    """The condition that a row has one of ``keys``.

    Args:
        columns: the columns of the key, as the statement names them.
    """
    arrays = [
        f"{quoting.literal(list(texts))}::pg_catalog.text[]" for texts in zip(*keys, strict=True)
    ]
    types = [table.columns[column].type for column in table.key]
    if len(columns) == 1:
        return f"{columns[0]} = ANY ({arrays[0]}::{types[0]}[])"
    names = [f"k{number}" for number, _ in enumerate(columns)]
    typed = ", ".join(f"{name}::{type_}" for name, type_ in zip(names, types, strict=True))
    source = f"unnest({', '.join(arrays)}) AS keys({', '.join(names)})"
    return f"({', '.join(columns)}) IN (SELECT {typed} FROM {source})"  # noqa: S608


def _literals(table: Table, key: Key) -> str:
    return ", ".join(
        f"{quoting.literal(text)}::{table.columns[column].type}"
        for column, text in zip(table.key, key, strict=True)
    )


def spans(table: Table, size: int, after: Key | None = None) -> Iterator[Span]:
    """The table in ranges of ``size`` rows, in key order. The last one is open-ended."""
    while True:
        with reading(table) as cursor:
            cursor.execute(
                f"SELECT {as_texts(table)} "  # noqa: S608
                f'FROM {table.name} AS "new" WHERE {within(table, Span(after, None))} '
                f"ORDER BY {ordered(table)} OFFSET {size - 1} LIMIT 1"
            )
            until = cursor.fetchone()
        yield Span(after, until)
        if until is None:
            return
        after = until


def keys_in(table: Table, span: Span) -> list[Key]:
    """The keys of all rows of ``span``."""
    with reading(table) as cursor:
        cursor.execute(
            f'SELECT {as_texts(table)} FROM {table.name} AS "new" '  # noqa: S608
            f"WHERE {within(table, span)} ORDER BY {ordered(table)}"
        )
        return [tuple(row) for row in cursor.fetchall()]


def shown(table: Table, key: Key) -> Any:
    """A key for people and JSON: a number or a text; a list of them if it is composite."""
    parts = [
        int(text) if table.columns[column].type in _INTEGERS else text
        for column, text in zip(table.key, key, strict=True)
    ]
    return parts[0] if len(parts) == 1 else parts


_INTEGERS = ("pg_catalog.int2", "pg_catalog.int4", "pg_catalog.int8")


def as_text(table: Table, key: Key) -> str:
    """A key as one text, which ``parsed`` reads."""
    value = shown(table, key)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)


def parsed(table: Table, text: str) -> Key:
    """The key that a user wrote: a value, or a JSON array if it is composite.

    Raises:
        Unusable: it is no key of the table.
    """
    names = ", ".join(table.key)
    parts: Any = [text]
    if len(table.key) > 1:
        try:
            parts = json.loads(text)
        except ValueError:
            parts = None
        if not isinstance(parts, list) or len(parts) != len(table.key):
            raise Unusable(f"{text!r} is not a key of ({names}). Write a JSON array of the values.")
        if any(part is None or isinstance(part, (list, dict)) for part in parts):
            raise Unusable(f"{text!r} is not a key of ({names}): each value is a text or a number.")
        # true is a boolean to PostgreSQL as it is to JSON.
        parts = [json.dumps(part) if isinstance(part, bool) else part for part in parts]
    key = tuple(str(part) for part in parts)
    try:
        # Fails here, and not in the middle of the work, if a text is not a value of its type.
        with reading(table) as cursor:
            cursor.execute(f"SELECT {_literals(table, key)}")
    except (DataError, psycopg.DataError) as error:
        # The driver refuses a NUL itself.
        raise Unusable(f"{text!r} is not a key of ({names}): {message_of(error)}.") from error
    return key
