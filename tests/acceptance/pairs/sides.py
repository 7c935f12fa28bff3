"""Filling, comparing and emptying the two sides, and connecting their receivers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from django.apps import apps
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import AutoField

from bulksafe import syncdb
from bulksafe.declarations import receivers
from bulksafe.patches.signals import connect_critical
from tests.acceptance.pairs.case import Case, Side
from tests.integration import inline

Ranks = dict[str, dict[Any, Any]]

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
    "Team",
    "Account",
    "Account_teams",
    "Profile",
    "Setting",
    "Address",
    "Notification",
    "Activity",
    "Label",
    "Page",
    "Page_labels",
    "Revision",
    "Follow",
    "Comment",
    "Document",
    "Rendition",
    "Product",
    "PriceChange",
    "Invoice",
    "Line",
    "Payment",
    "Review",
)

#: What receivers note or create for themselves. The order of their rows is that of the calls,
#: which bulk may change.
UNORDERED = {
    "Log",
    "Account_teams",
    "Profile",
    "Setting",
    "Notification",
    "Activity",
    "Page_labels",
    "Revision",
    "Rendition",
    "PriceChange",
}


def side(label: str) -> Side:
    definitions = importlib.import_module("tests.apps.pairs.definitions")
    found = definitions.side(label)
    found.calls = []
    found.Document._meta.get_field("file").storage.calls = found.calls
    found.log = lambda text: found.Log.objects.create(text=text)
    return found


@cache
def _all_models() -> list[Any]:
    return [apps.get_model(label, name) for label in ("plain", "critical") for name in TABLES]


_RESTART = """
SELECT setval(format('%%I.%%I', schemaname, sequencename), 1, false)
FROM pg_sequences
WHERE sequencename = ANY (%s) AND last_value IS NOT NULL
"""


def empty() -> None:
    """No rows, and keys that begin at one."""
    used = [
        getattr(m, name)._meta for m in (side("plain"), side("critical")) for name in _filled(m)
    ]
    script = ["RESET enable_hashjoin; RESET enable_mergejoin"]
    script += [f"DELETE FROM {meta.db_table}" for meta in used]
    _in_place(script)
    with connection.cursor() as cursor:
        # Including the tables whose rows a case has deleted.
        cursor.execute(_RESTART, [[model._meta.db_table + "_id_seq" for model in _all_models()]])
    if used:
        # New rows would take the places of deleted ones, so that an UPDATE that has no order of
        # its own would meet the rows in a different one each time.
        with connection.cursor() as cursor:
            cursor.execute(f"VACUUM {', '.join(meta.db_table for meta in used)}")


def copy_to_critical() -> None:
    """Give the critical tables the rows of the plain ones, with no trigger firing."""
    statements = []
    for name in TABLES:
        plain, critical = (apps.get_model(s, name)._meta for s in ("plain", "critical"))
        statements.append(f"INSERT INTO {critical.db_table} SELECT * FROM {plain.db_table}")
        if _has_sequence(critical):
            statements.append(
                f"SELECT setval('{critical.db_table}_id_seq', last_value, is_called) "
                f"FROM {plain.db_table}_id_seq"
            )
        statements += [_critical_type(critical.db_table, f) for f in _types(critical)]
    _in_place(statements)


def _has_sequence(meta: Any) -> bool:
    return isinstance(meta.pk, AutoField)


def _types(meta: Any) -> list[Any]:
    return [f for f in meta.concrete_fields if f.related_model is ContentType]


def _critical_type(table: str, field: Any) -> str:
    """Let a generic foreign key name the table of the same side."""
    return (
        f"UPDATE {table} SET {field.column} = own.id "
        "FROM django_content_type AS own JOIN django_content_type AS other USING (model) "
        f"WHERE other.id = {table}.{field.column} AND own.app_label = 'critical'"
    )


def _in_place(statements: list[str]) -> None:
    """Run the statements with no trigger firing."""
    script = ["SET LOCAL session_replication_role = replica", *statements]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("; ".join(script))


def state(m: Side) -> dict[str, list[Any]]:
    """All rows; ranks stand for keys, since a rollback leaves gaps in a sequence."""
    stored: dict[str, list[Any]] = {name: [] for name in TABLES}
    stored |= {name: _stored(getattr(m, name)) for name in _filled(m)}
    ranks = {
        name: {row[getattr(m, name)._meta.pk.attname]: n for n, row in enumerate(rows)}
        for name, rows in stored.items()
    }
    types = ContentType.objects.filter(app_label=m.label)
    ranks["ContentType"] = {t.pk: apps.get_model(m.label, t.model).__name__ for t in types}
    return {name: _comparable_rows(getattr(m, name), rows, ranks) for name, rows in stored.items()}


def _filled(m: Side) -> list[str]:
    """The tables that have rows: most have none, and one query is faster than one for each."""
    query = " UNION ALL ".join(
        f"SELECT '{name}' WHERE EXISTS (SELECT FROM {getattr(m, name)._meta.db_table})"
        for name in TABLES
    )
    with connection.cursor() as cursor:
        cursor.execute(query)
        return [name for (name,) in cursor.fetchall()]


def _stored(model: Any) -> list[dict[str, Any]]:
    names = [f.attname for f in model._meta.concrete_fields]
    return list(model._base_manager.order_by("pk").values(*names))


def _comparable_rows(model: Any, rows: list[Any], ranks: Ranks) -> list[dict[str, Any]]:
    unordered = model.__name__ in UNORDERED
    fields = [f for f in model._meta.concrete_fields if not (unordered and f.primary_key)]
    found = [{f.attname: _comparable(f, row[f.attname], ranks) for f in fields} for row in rows]
    for generic in (f for f in model._meta.private_fields if isinstance(f, GenericForeignKey)):
        for row in found:
            of_target = ranks[row[f"{generic.ct_field}_id"]]
            by_text = {str(key): rank for key, rank in of_target.items()}
            row[generic.fk_field] = by_text.get(row[generic.fk_field], row[generic.fk_field])
    return sorted(found, key=repr) if unordered else found


def _comparable(field: Any, value: Any, ranks: Ranks) -> Any:
    model = field.related_model or field.model
    if value is not None and (field.primary_key or field.is_relation):
        return ranks[model.__name__].get(value, value)
    return value


@contextmanager
def plain_receivers(case: Case, m: Side) -> Iterator[None]:
    m.reconnect = lambda signal, model, function: signal.connect(function, model, weak=False)
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
    m.reconnect = _reconnect_critical
    with inline.only_these():
        for signal, model, function, *options in case.declare(m):
            inline.critical(signal, model, function, **(options[0] if options else {}))
        syncdb.note_receivers(None, "default")
        try:
            yield
        finally:
            _uninstall()
    syncdb.note_receivers(None, "default")


def _reconnect_critical(signal: Any, model: Any, function: Any) -> None:
    for receiver in receivers.receivers:
        if receiver.function is function:
            connect_critical(receiver)


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
