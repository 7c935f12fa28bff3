"""Filling, comparing and emptying the two sides, and connecting their receivers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from django.apps import apps
from django.db import connection, transaction

from bulksafe import syncdb
from tests.acceptance.pairs.case import Case, Side
from tests.integration import inline

#: In this order, rows find what they refer to.
TABLES = (
    "Group",
    "Tag",
    "Item",
    "Tagging",
    "Part",
    "Step",
    "Place",
    "Restaurant",
    "Bar",
    "Log",
)


def side(label: str) -> Side:
    definitions = importlib.import_module("tests.apps.pairs.definitions")
    found = definitions.side(label)
    found.calls = []
    found.log = lambda text: found.Log.objects.create(text=text)
    return found


@cache
def _all_models() -> list[Any]:
    return [apps.get_model(label, name) for label in ("plain", "critical") for name in TABLES]


def empty() -> None:
    """No rows, keys that begin at one, and no trigger or constraint that a case has added."""
    with connection.cursor() as cursor:
        cursor.execute("RESET enable_hashjoin; RESET enable_mergejoin")
    _in_place("DELETE FROM {table}", "ALTER SEQUENCE IF EXISTS {table}_id_seq RESTART")


def copy_to_critical() -> None:
    """Give the critical tables the rows of the plain ones, with no trigger firing."""
    statements = []
    for name in TABLES:
        plain, critical = (apps.get_model(s, name)._meta for s in ("plain", "critical"))
        statements.append(f"INSERT INTO {critical.db_table} SELECT * FROM {plain.db_table}")
        if critical.pk.name == "id":
            statements.append(
                f"SELECT setval('{critical.db_table}_id_seq', last_value, is_called) "
                f"FROM {plain.db_table}_id_seq"
            )
    _in_place(statements=statements)


def _in_place(*templates: str, statements: list[str] | None = None) -> None:
    listed = statements or [
        template.format(table=model._meta.db_table)
        for model in _all_models()
        for template in templates
        if model._meta.pk.name == "id" or "SEQUENCE" not in template
    ]
    script = ["SET LOCAL session_replication_role = replica", *listed]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("; ".join(script))


def state(m: Side) -> dict[str, list[Any]]:
    """All rows; ranks stand for keys, since a rollback leaves gaps in a sequence."""
    ranks = {name: {pk: n for n, pk in enumerate(_keys(getattr(m, name)))} for name in TABLES}
    found: dict[str, list[Any]] = {}
    for name in TABLES:
        model = getattr(m, name)
        found[name] = [
            {f.attname: _comparable(f, value, ranks) for f, value in zip(fields, row, strict=True)}
            for fields in [model._meta.concrete_fields]
            for row in model.objects.order_by("pk").values_list(*[f.attname for f in fields])
        ]
    # The order in which receivers note something is that of their calls, which bulk may change.
    found["Log"] = sorted(row["text"] for row in found["Log"])
    return found


def _keys(model: Any) -> list[Any]:
    return list(model.objects.order_by("pk").values_list("pk", flat=True))


def _comparable(field: Any, value: Any, ranks: dict[str, dict[Any, int]]) -> Any:
    model = field.related_model or field.model
    if value is not None and (field.primary_key or field.is_relation):
        return ranks[model.__name__].get(value, value)
    return value


@contextmanager
def plain_receivers(case: Case, m: Side) -> Iterator[None]:
    connected = [(signal, model, function) for signal, model, function, *_ in case.declare(m)]
    for signal, model, function in connected:
        signal.connect(function, sender=model, weak=False)
    try:
        yield
    finally:
        for signal, model, function in connected:
            signal.disconnect(function, sender=model)


@contextmanager
def critical_receivers(case: Case, m: Side) -> Iterator[None]:
    with inline.only_these():
        for signal, model, function, *options in case.declare(m):
            inline.critical(signal, model, function, **(options[0] if options else {}))
        syncdb.note_receivers(None, "default")
        try:
            yield
        finally:
            _uninstall()
    syncdb.note_receivers(None, "default")


#: What cases add to the tables, as statements that take it off.
_ADDED = """
SELECT format('DROP TRIGGER %%I ON %%s', tgname, tgrelid::regclass)
FROM pg_trigger
WHERE tgrelid = ANY (%(tables)s::regclass[]) AND NOT tgisinternal
UNION ALL
SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass, conname)
FROM pg_constraint
WHERE conrelid = ANY (%(tables)s::regclass[]) AND conname LIKE 'pairs%%'
UNION ALL
SELECT format('DROP RULE own ON %%s', ev_class::regclass)
FROM pg_rewrite
WHERE ev_class = ANY (%(tables)s::regclass[]) AND rulename = 'own'
"""


def _uninstall() -> None:
    with connection.cursor() as cursor:
        cursor.execute(_ADDED, {"tables": [model._meta.db_table for model in _all_models()]})
        if dropping := [statement for (statement,) in cursor.fetchall()]:
            cursor.execute("; ".join(dropping))
