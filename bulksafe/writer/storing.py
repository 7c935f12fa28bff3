"""Storing what receivers have assigned, and rows as they were rehearsed: one UPDATE for many."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from django.db import connections

from bulksafe.rendering import quoting
from bulksafe.writer.changes import key_of_instance

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django.db.models import Field, Model

#: How many rows one UPDATE changes: the server takes 65,535 parameters of a prepared statement.
_ROWS = 2000

#: A cast to a type with a length cuts what an assignment refuses.
_LENGTH = re.compile(
    r"\A((?:varchar|char|bit|varbit|character varying)\b[^(]*)\(\d+\)", re.IGNORECASE
)


def placeholder(field: Field[Any, Any], value: Any, connection: Any) -> str:
    """Where a value of the field stands in a statement, with its type."""
    kind = _LENGTH.sub(r"\1", str(field.cast_db_type(connection)))
    if hasattr(field, "get_placeholder"):
        compiler = field.model._base_manager.using(connection.alias).query.get_compiler(
            connection.alias
        )
        return f"{field.get_placeholder(value, compiler, connection)}::{kind}"
    return f"%s::{kind}"


def store(rows: Sequence[tuple[Model, Collection[str]]], using: str) -> None:
    """Store attributes of rows that are in the database.

    Args:
        rows: instances and the names of the attributes that are stored of each.
    """
    by_table: dict[tuple[type[Model], frozenset[str]], list[Model]] = defaultdict(list)
    wanted: dict[type[Model], set[str]] = defaultdict(set)
    for instance, names in rows:
        for field in instance._meta.concrete_fields:
            if field.attname in names:
                wanted[field.model].add(field.attname)
    for table, names in wanted.items():
        listed = [
            instance
            for instance, own in rows
            if any(f.attname in own for f in instance._meta.concrete_fields if f.model is table)
        ]
        by_table[table, frozenset(names)] += listed
    for (table, names), instances in by_table.items():
        fields = [one for one in table._meta.local_concrete_fields if one.attname in names]
        for start in range(0, len(instances), _ROWS):
            _update(table, fields, instances[start : start + _ROWS], using)


def _update(
    table: type[Model], fields: Sequence[Field[Any, Any]], instances: Sequence[Model], using: str
) -> None:
    connection = connections[using]
    keys = list(table._meta.pk_fields)
    every = [*keys, *fields]
    texts, params = [], []
    for instance in instances:
        values = [getattr(instance, one.attname) for one in every]
        if any(hasattr(value, "resolve_expression") for value in values):
            _update_one(table, fields, instance, using)
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
    table: type[Model], fields: Sequence[Field[Any, Any]], instance: Model, using: str
) -> None:
    """With expressions, which Django compiles."""
    rows = table._base_manager.using(using).filter(pk=key_of_instance(instance))
    rows.update(**{one.name: getattr(instance, one.attname) for one in fields})
