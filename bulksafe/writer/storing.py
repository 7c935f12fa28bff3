"""Stores attributes of instances with one UPDATE for many rows."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import connections

from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.models import Field, Model

    #: An instance, and the key of its row in the table that is written, column by column.
    _Keyed = tuple[Model, tuple[Any, ...]]

_Item = TypeVar("_Item")

#: The maximum number of rows of one UPDATE.
_ROWS = 2000

#: The maximum number of keys in one query.
_KEYS = 5000

#: The maximum number of parameters of one statement.
_PARAMETERS = 65_535

#: A cast to a type with a length truncates values that an assignment refuses.
_LENGTH = re.compile(
    r"\A((?:varchar|char|bit|varbit|character varying)\b[^(]*)\(\d+\)", re.IGNORECASE
)


def batches(items: Iterable[_Item], columns: int, size: int = _KEYS) -> Iterator[list[_Item]]:
    """Split items into batches for statements that list each of them.

    Args:
        columns: the number of parameters per item.
        size: the maximum number of items.
    """
    rest = iter(items)
    size = min(size, _PARAMETERS // columns)
    while batch := list(islice(rest, size)):
        yield batch


def placeholder(field: Field[Any, Any], value: Any, connection: BaseDatabaseWrapper) -> str:
    """The placeholder of a value of the field, with its type."""
    kind = _LENGTH.sub(r"\1", str(field.cast_db_type(connection)))
    if hasattr(field, "get_placeholder"):
        compiler = field.model._base_manager.using(connection.alias).query.get_compiler(
            connection.alias
        )
        return f"{field.get_placeholder(value, compiler, connection)}::{kind}"
    return f"%s::{kind}"


def store(rows: Sequence[tuple[Model, Collection[str], Any]], using: str) -> None:
    """Store attributes of rows that are in the database.

    Args:
        rows: instances, the names of the attributes that are stored of each, and the stored key of
            the row: the instance may already have a different one.
    """
    by_table: dict[tuple[type[Model], frozenset[str]], list[_Keyed]] = defaultdict(list)
    for instance, names, key in rows:
        wanted: dict[type[Model], set[str]] = defaultdict(set)
        for field in instance._meta.concrete_fields:
            # The database generates it, and refuses a value.
            if field.attname in names and not field.generated:
                wanted[field.model].add(field.attname)
        for table, own in wanted.items():
            by_table[table, frozenset(own)].append((instance, _key(table, instance, key)))
    for (table, names), listed in by_table.items():
        fields = [one for one in table._meta.local_concrete_fields if one.attname in names]
        for batch in batches(listed, len(table._meta.pk_fields) + len(fields), _ROWS):
            _update(table, fields, batch, using)


def _key(table: type[Model], instance: Model, key: Any) -> tuple[Any, ...]:
    """The key of the part of a row in one table."""
    if table is instance._meta.concrete_model:
        return key if isinstance(key, tuple) else (key,)
    return tuple(getattr(instance, one.attname) for one in table._meta.pk_fields)


def _update(
    table: type[Model], fields: Sequence[Field[Any, Any]], rows: Sequence[_Keyed], using: str
) -> None:
    connection = connections[using]
    keys = list(table._meta.pk_fields)
    every = [*keys, *fields]
    texts, params = [], []
    for instance, key in rows:
        values = [*key, *(getattr(instance, one.attname) for one in fields)]
        if any(hasattr(value, "resolve_expression") for value in values):
            _update_one(table, fields, (instance, key), using)
            continue
        texts.append(
            "("
            + ", ".join(placeholder(f, v, connection) for f, v in zip(every, values, strict=True))
            + ")"
        )
        params += [f.get_db_prep_save(v, connection) for f, v in zip(every, values, strict=True)]
    if not texts:
        return
    relation = quoting.relation(table._meta.db_table)
    names = [quoting.identifier(str(one.column)) for one in every]
    # Columns of the list of values have names of their own, so that none is ambiguous.
    aliases = [f"v{number}" for number in range(len(every))]
    pairs = list(zip(names, aliases, strict=True))
    assigned = ", ".join(f"{name} = v.{alias}" for name, alias in pairs[len(keys) :])
    matched = " AND ".join(f"t.{name} = v.{alias}" for name, alias in pairs[: len(keys)])
    head = f"UPDATE {relation} AS t SET {assigned} FROM (VALUES ".replace("%", "%%")  # noqa: S608
    tail = f") AS v ({', '.join(aliases)}) WHERE {matched}".replace("%", "%%")
    with connection.cursor() as cursor:
        cursor.execute(f"{head}{', '.join(texts)}{tail}", params)


def _update_one(
    table: type[Model], fields: Sequence[Field[Any, Any]], row: _Keyed, using: str
) -> None:
    """With expressions, which Django compiles."""
    instance, key = row
    found: Any = table._base_manager.using(using).filter(pk=key if len(key) > 1 else key[0])
    # As in save(): update() would be a separate write with receivers.
    found._update([(one, None, getattr(instance, one.attname)) for one in fields])
