"""Filling, emptying and comparing the twin tables, and writing to the one that is the oracle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction
from django.db.models import Model
from psycopg import sql

from bulksafe.outbox import schema
from tests.acceptance.data_changes import COMPUTED, Operation, Row, Step
from tests.apps.twins import models

ALL = (
    models.Entry,
    models.EntryTwin,
    models.Folder,
    models.FolderTwin,
    models.Shelf,
    models.Parcel,
    models.ParcelTwin,
    models.Memo,
    models.Document,
    models.MemoTwin,
    models.DocumentTwin,
    models.Report,
    models.Paper,
    models.ReportTwin,
    models.PaperTwin,
)

#: The folder and the shelf that rows lie in where their deletion is the write.
CONTAINER = 1

#: Ids that no sequence reaches.
FIRST_ID = 1_000_000


def empty() -> None:
    """Leave nothing behind, neither rows nor what receivers could be called for."""
    _put_in_place(schema.EMPTY)


def fill(model: type[Model], rows: Iterable[Row]) -> None:
    """Make these the rows of the model's table and of its twin's, and no others anywhere."""
    listed = list(rows)
    containers = [
        f"INSERT INTO {container._meta.db_table} (id) VALUES ({CONTAINER})"
        for container in (models.Folder, models.FolderTwin, models.Shelf)
    ]
    tables = [
        table
        for twin in (model, models.TWINS[model])
        for table in (*reversed(twin._meta.get_parent_list()), twin)
    ]
    inserts = [_insert(table, [_local(table, row) for row in listed]) for table in tables if listed]
    _put_in_place([*containers, *inserts])


def _put_in_place(statements: list[str]) -> None:
    """Empty all tables and run the statements, with no trigger firing."""
    deletes = [f"DELETE FROM {model._meta.db_table}" for model in ALL]
    script = ["SET LOCAL session_replication_role = replica", *deletes, *statements]
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("; ".join(script))


def _insert(table: type[Model], rows: list[Row]) -> str:
    name = sql.Identifier(table._meta.db_table)
    statement = sql.SQL(
        "INSERT INTO {table} ({names}) "
        "SELECT {names} FROM jsonb_populate_recordset(NULL::{table}, {rows})"
    ).format(
        table=name,
        names=sql.SQL(", ").join(map(sql.Identifier, rows[0])),
        rows=sql.Literal(json.dumps(rows)),
    )
    return statement.as_string()


def _local(table: type[Model], row: Row) -> Row:
    """The part of the row that lies in this table, with its id."""
    fields = table._meta.local_fields
    ids = {field.attname: FIRST_ID + row["key"] for field in fields if _is_id(field)}
    return {f.attname: row.get(f.attname, f.get_default()) for f in fields} | ids


def _is_id(field: Any) -> bool:
    return field.primary_key and field.name != "key"


def snapshot(model: type[Model]) -> list[Row]:
    """All rows with all columns but the ids, which a refused insert uses up."""
    names = [f.attname for f in model._meta.concrete_fields if not _is_id(f) and f.name != "id"]
    return list(model._default_manager.order_by("key").values(*names))


def write_per_row(twin: type[Model], steps: Iterable[Step]) -> None:
    """The same change as Django's documentation has it: one ``save()`` or ``delete()`` a row."""
    for step in steps:
        if step.operation is Operation.INSERT:
            twin(**step.values).save()
        elif step.operation is Operation.DELETE:
            twin._default_manager.get(key=step.key).delete()
        else:
            instance = twin._default_manager.get(key=step.key)
            for name, value in step.values.items():
                setattr(instance, name, value)
            instance.save()


def check_instances(instances: Any, model: type[Model]) -> None:
    """What the path leaves in the caller's hands has the stored computed values, or none."""
    stored = {row["key"]: row for row in snapshot(model)}
    for instance in instances or ():
        for name in COMPUTED:
            known = {stored[instance.key][name], None if instance.pk is None else ...}
            assert getattr(instance, name) in known


@contextmanager
def disabled(model: type[Model], rule: str) -> Iterator[None]:
    """One invariant without its triggers."""
    trigger = next(t for t in model._meta.triggers if t.name == rule).compile(model)
    with connection.cursor() as cursor:
        cursor.execute(trigger.disable_sql)
        try:
            yield
        finally:
            cursor.execute(trigger.enable_sql)
