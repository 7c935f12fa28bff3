"""Every way to write to a table of a Django project, as functions that write the same change."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path as FilePath
from typing import Any

from asgiref.sync import async_to_sync
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.management import call_command
from django.db import connection
from django.db.models import Case, F, Model, QuerySet, Value, When
from django.urls import reverse
from psycopg import sql

from tests.acceptance.data_changes import (
    BYSTANDER,
    CHANGES,
    COMPUTED,
    NEWCOMER,
    Change,
    Operation,
    Row,
    Step,
    new_row,
)
from tests.acceptance.twin_tables import CONTAINER
from tests.apps.twins.models import Entry, Folder, Memo, Parcel, Report, Shelf

INSERT, UPDATE, DELETE = Operation


@dataclass(frozen=True)
class Write:
    """One change, to be written to the table of one model.

    Attributes:
        psql: runs a script in a psql process; raises ``SqlRefusal``.
        browser: a test client, logged in to the admin.
    """

    model: type[Model]
    change: Change
    psql: Callable[[str], None] | None = None
    browser: Any = None

    @property
    def operation(self) -> Operation:
        return self.change.operation

    @property
    def values(self) -> Mapping[str, Any]:
        return self.change.values

    @property
    def queryset(self) -> QuerySet[Any]:
        return self.model._default_manager.filter(key__in=self.change.keys)

    def new(self) -> list[Any]:
        return [self.model(**row) for row in self.change.rows]

    def assigned(self) -> list[Any]:
        """The rows as instances that carry the new values, not saved."""
        instances = list(self.queryset.order_by("key"))
        for instance in instances:
            for name, value in self.values.items():
                setattr(instance, name, value)
        return instances


class SqlRefusal(Exception):  # noqa: N818  (named as the thing it stands for)
    """A refusal as a client other than Django shows it."""

    def __init__(self, sqlstate: str, table: str, constraint: str) -> None:
        super().__init__(sqlstate, table, constraint)
        self.sqlstate, self.table, self.constraint = sqlstate, table, constraint


Run = Callable[[Write], Iterable[Any] | None]


def unprepared(change: Change) -> Change:
    return change


@dataclass(frozen=True)
class Path:
    """A write path.

    Attributes:
        title: as the documentation calls it.
        run: writes; returns the instances that it leaves in the caller's hands, if any.
        operations: the operations that it can do.
        model: the guarded model that it writes to.
        many_statements: whether the batch takes several statements, which are one transaction then.
        in_django: whether the error comes through Django.
        connects: whether it writes on a connection of its own, which sees committed rows only.
        prepare: the change with what the rows need beside, such as the folder that they lie in.
        steps: what the path does to which rows, where that is more than the change says.
    """

    title: str
    run: Run
    operations: tuple[Operation, ...]
    model: type[Model] = Entry
    many_statements: bool = False
    in_django: bool = True
    connects: bool = False
    prepare: Callable[[Change], Change] = unprepared
    steps: Callable[[Change], list[Step]] = Change.steps

    def __str__(self) -> str:
        return self.title

    def changes(self) -> Iterator[Change]:
        return (change for change in CHANGES if change.operation in self.operations)


PATHS: list[Path] = []


def path(title: str, *operations: Operation, **attributes: Any) -> Callable[[Run], Run]:
    def add(run: Run) -> Run:
        PATHS.append(Path(title, run, operations, **attributes))
        return run

    return add


def awaited(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    async def call() -> Any:
        return await method(*args, **kwargs)

    return async_to_sync(call)()


# Instances.


@path("`save()` of a new instance", INSERT, many_statements=True)
def save_insert(write: Write) -> Iterable[Any]:
    instances = write.new()
    for instance in instances:
        instance.save()
    return instances


@path("`save()` of a stored instance", UPDATE, many_statements=True)
def save_update(write: Write) -> Iterable[Any]:
    instances = write.assigned()
    for instance in instances:
        instance.save()
    return instances


@path("`save(update_fields=…)`", UPDATE, many_statements=True)
def save_update_fields(write: Write) -> Iterable[Any]:
    instances = write.assigned()
    for instance in instances:
        instance.save(update_fields=list(write.values))
    return instances


@path("`asave()`", INSERT, UPDATE, many_statements=True)
def asave(write: Write) -> Iterable[Any]:
    instances = write.new() if write.operation is INSERT else write.assigned()
    for instance in instances:
        awaited(instance.asave)
    return instances


@path("`create()`", INSERT, many_statements=True)
def create(write: Write) -> Iterable[Any]:
    return [write.model._default_manager.create(**row) for row in write.change.rows]


@path("`acreate()`", INSERT, many_statements=True)
def acreate(write: Write) -> Iterable[Any]:
    manager = write.model._default_manager
    return [awaited(manager.acreate, **row) for row in write.change.rows]


def _or_create(method: str, write: Write, row: Row) -> Any:
    run = getattr(write.model._default_manager, method)
    if method.startswith("a"):
        run = partial(awaited, run)
    defaults = {name: value for name, value in row.items() if name != "key"}
    return run(key=row["key"], defaults=defaults)[0]


def get_or_create(write: Write, method: str) -> Iterable[Any]:
    return [_or_create(method, write, row) for row in write.change.rows]


def update_or_create(write: Write, method: str) -> Iterable[Any]:
    if write.operation is INSERT:
        return get_or_create(write, method)
    return [_or_create(method, write, write.values | {"key": key}) for key in write.change.keys]


for name in ("get_or_create", "aget_or_create"):
    path(f"`{name}()`", INSERT, many_statements=True)(partial(get_or_create, method=name))
for name in ("update_or_create", "aupdate_or_create"):
    path(f"`{name}()`", INSERT, UPDATE, many_statements=True)(
        partial(update_or_create, method=name)
    )


# Batches.


@path("`bulk_create()`", INSERT)
def bulk_create(write: Write) -> Iterable[Any]:
    return write.model._default_manager.bulk_create(write.new())


@path("`bulk_create(batch_size=2)`", INSERT)
def bulk_create_in_batches(write: Write) -> Iterable[Any]:
    return write.model._default_manager.bulk_create(write.new(), batch_size=2)


@path("`abulk_create()`", INSERT)
def abulk_create(write: Write) -> Iterable[Any]:
    return awaited(write.model._default_manager.abulk_create, write.new())


#: A row that is there already, and that breaks the rules as it is given.
CONFLICTING = new_row(key=BYSTANDER, discount=500, state="shipped", debit=1)


@path("`bulk_create(ignore_conflicts=True)`", INSERT)
def bulk_create_ignore_conflicts(write: Write) -> Iterable[Any]:
    instances = [write.model(**CONFLICTING), *write.new()]
    return write.model._default_manager.bulk_create(instances, ignore_conflicts=True)


def upserted(change: Change) -> list[Row]:
    """Rows to upsert: the rows of the change, and one for the other half of the upsert."""
    if change.operation is INSERT:
        stored = [{"key": BYSTANDER, "wish": "seen"}]
        return _whole([*change.rows, *stored])
    rows = [{"key": key} | change.values for key in change.keys]
    return _whole([*rows, {"key": NEWCOMER}], before=change.before)


def _whole(rows: Iterable[Row], before: Iterable[Row] = ()) -> list[Row]:
    stored = {row["key"]: {n: v for n, v in row.items() if n not in COMPUTED} for row in before}
    return same_columns(stored.get(row["key"], new_row()) | row for row in rows)


def upserted_fields(change: Change) -> list[str]:
    return ["wish"] if change.operation is INSERT else list(change.values)


def upserted_steps(change: Change) -> list[Step]:
    if change.operation is INSERT:
        return [*change.steps(), Step(UPDATE, BYSTANDER, {"wish": "seen"})]
    return [*change.steps(), Step(INSERT, NEWCOMER, {"key": NEWCOMER})]


@path("`bulk_create(update_conflicts=True)`", INSERT, UPDATE, steps=upserted_steps)
def bulk_create_update_conflicts(write: Write) -> Iterable[Any]:
    return write.model._default_manager.bulk_create(
        [write.model(**row) for row in upserted(write.change)],
        update_conflicts=True,
        unique_fields=["key"],
        update_fields=upserted_fields(write.change),
    )


@path("`bulk_update()`", UPDATE)
def bulk_update(write: Write) -> Iterable[Any]:
    instances = write.assigned()
    write.model._default_manager.bulk_update(instances, list(write.values))
    return instances


@path("`bulk_update(batch_size=2)`", UPDATE)
def bulk_update_in_batches(write: Write) -> Iterable[Any]:
    instances = write.assigned()
    write.model._default_manager.bulk_update(instances, list(write.values), batch_size=2)
    return instances


@path("`abulk_update()`", UPDATE)
def abulk_update(write: Write) -> Iterable[Any]:
    instances = write.assigned()
    awaited(write.model._default_manager.abulk_update, instances, list(write.values))
    return instances


# Querysets.


@path("`update()` with values", UPDATE)
def update(write: Write) -> None:
    write.queryset.update(**write.values)


@path("`aupdate()`", UPDATE)
def aupdate(write: Write) -> None:
    awaited(write.queryset.aupdate, **write.values)


def with_steps(change: Change) -> Change:
    """Rows whose ``step`` and ``wish`` lead to the new values."""
    numbers = {n: v for n, v in change.values.items() if type(v) is int}
    texts = [value for value in change.values.values() if isinstance(value, str)]
    staged = []
    for row in change.before:
        # One step is enough: where a change sets two numbers, both change by the same.
        (step,) = {value - row[name] for name, value in numbers.items()} or {0}
        staged.append(row | {"step": step, "wish": (texts or [""])[0]})
    return replace(change, before=tuple(staged))


def by_expression(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return ~F(name)
    return F(name) + F("step") if isinstance(value, int) else F("wish")


@path("`update()` with `F`", UPDATE, prepare=with_steps)
def update_f(write: Write) -> None:
    write.queryset.update(**{n: by_expression(n, value) for n, value in write.values.items()})


def case_steps(change: Change) -> list[Step]:
    """``update()`` of all rows writes the bystander too, with the values that it has."""
    return [*change.steps(), Step(UPDATE, BYSTANDER)]


@path("`update()` with `Case`", UPDATE, steps=case_steps)
def update_case(write: Write) -> None:
    def chosen(name: str, value: Any) -> Case:
        whens = [When(key=key, then=Value(value)) for key in write.change.keys]
        return Case(*whens, default=F(name))

    everything = write.model._default_manager.all()
    everything.update(**{name: chosen(name, value) for name, value in write.values.items()})


@path("`delete()` of an instance", DELETE, many_statements=True)
def delete_instance(write: Write) -> None:
    for instance in write.queryset:
        instance.delete()


@path("`delete()` of a queryset", DELETE)
def delete_queryset(write: Write) -> None:
    write.queryset.delete()


@path("`adelete()` of an instance", DELETE, many_statements=True)
def adelete_instance(write: Write) -> None:
    for instance in write.queryset:
        awaited(instance.adelete)


@path("`adelete()` of a queryset", DELETE)
def adelete_queryset(write: Write) -> None:
    awaited(write.queryset.adelete)


@path("`_raw_delete()`", DELETE)
def raw_delete(write: Write) -> None:
    write.queryset._raw_delete(write.queryset.db)


# Cascades.


def in_folder(change: Change) -> Change:
    return change.with_columns({"folder_id": CONTAINER})


def on_shelf(change: Change) -> Change:
    return change.with_columns({"shelf_id": CONTAINER})


@path("Cascade by Django", DELETE, prepare=in_folder)
def cascade_by_django(write: Write) -> None:
    Folder.objects.get(pk=CONTAINER).delete()


@path("Cascade by the database", DELETE, prepare=on_shelf)
def cascade_by_database(write: Write) -> None:
    Shelf.objects.filter(pk=CONTAINER)._raw_delete("default")


# Around the ORM.


@path("Admin, “delete selected”", DELETE)
def admin_delete_selected(write: Write) -> None:
    chosen = [instance.pk for instance in write.queryset]
    response = write.browser.post(
        reverse("admin:twins_entry_changelist"),
        {"action": "delete_selected", ACTION_CHECKBOX_NAME: chosen, "post": "yes"},
    )
    assert response.status_code == 302, response.content


@path("`loaddata`", INSERT, UPDATE)
def loaddata(write: Write) -> None:
    if write.operation is INSERT:
        pks: Iterable[Any] = [None] * len(write.change.rows)
        rows: list[Row] = list(write.change.rows)
    else:
        stored = {row.key: row.pk for row in write.queryset}
        pks = [stored[row["key"]] for row in write.change.before]
        rows = [row | write.values for row in write.change.before]
    objects = [
        {"model": write.model._meta.label_lower, "pk": pk, "fields": _serialized(write.model, row)}
        for pk, row in zip(pks, rows, strict=True)
    ]
    with tempfile.TemporaryDirectory() as directory:
        fixture = FilePath(directory) / "rows.json"
        fixture.write_text(json.dumps(objects))
        call_command("loaddata", fixture, verbosity=0)


def _serialized(model: type[Model], row: Row) -> Row:
    return {model._meta.get_field(name).name: value for name, value in row.items()}


# SQL. The text holds its values, so that psql runs the same statements.


def same_columns(rows: Iterable[Row]) -> list[Row]:
    """The rows with every column that one of them has. An observed computed column may be NULL in
    no row."""
    listed = list(rows)
    names = list(dict.fromkeys(name for row in listed for name in row))
    missing = dict.fromkeys(COMPUTED, 0)
    return [{name: row.get(name, missing.get(name)) for name in names} for row in listed]


def new_rows(write: Write) -> list[Row]:
    return same_columns(new_row() | row for row in write.change.rows)


def as_text(template: str, **parts: sql.Composable) -> str:
    return sql.SQL(template).format(**parts).as_string()


def name_list(names: Iterable[str], template: str = "{name}") -> sql.Composed:
    items = [sql.SQL(template).format(name=sql.Identifier(name)) for name in names]
    return sql.SQL(", ").join(items)


def literals(values: Iterable[Any]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Literal, values))


def assignments(values: Mapping[str, Any]) -> sql.Composed:
    return sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in values.items()
    )


def records(table: str, rows: list[Row]) -> sql.Composed:
    """The rows as a table, typed like the columns that they are for."""
    return sql.SQL("jsonb_populate_recordset(NULL::{}, {})").format(
        sql.Identifier(table), sql.Literal(json.dumps(rows))
    )


def insert_sql(table: str, rows: list[Row]) -> str:
    tuples = [sql.SQL("({})").format(literals(row.values())) for row in rows]
    return as_text(
        "INSERT INTO {table} ({columns}) VALUES {tuples}",
        table=sql.Identifier(table),
        columns=name_list(rows[0]),
        tuples=sql.SQL(", ").join(tuples),
    )


def update_sql(table: str, keys: Iterable[int], values: Mapping[str, Any]) -> str:
    return as_text(
        "UPDATE {table} SET {values} WHERE key IN ({keys})",
        table=sql.Identifier(table),
        values=assignments(values),
        keys=literals(keys),
    )


def delete_sql(table: str, keys: Iterable[int]) -> str:
    return as_text(
        "DELETE FROM {table} WHERE key IN ({keys})",
        table=sql.Identifier(table),
        keys=literals(keys),
    )


def statement(write: Write) -> str:
    table = write.model._meta.db_table
    if write.operation is INSERT:
        return insert_sql(table, new_rows(write))
    if write.operation is UPDATE:
        return update_sql(table, write.change.keys, write.values)
    return delete_sql(table, write.change.keys)


def execute(text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(text)


@path("Raw SQL", INSERT, UPDATE, DELETE)
def raw_sql(write: Write) -> None:
    execute(statement(write))


@path("`executemany()`", INSERT, UPDATE, DELETE, many_statements=True)
def executemany(write: Write) -> None:
    table = sql.Identifier(write.model._meta.db_table)
    names = list(new_rows(write)[0]) if write.operation is INSERT else list(write.values)
    places = sql.SQL(", ").join([sql.Placeholder()] * len(names))
    if write.operation is INSERT:
        text = as_text(
            "INSERT INTO {t} ({names}) VALUES ({v})", t=table, names=name_list(names), v=places
        )
        rows = [list(row.values()) for row in new_rows(write)]
    elif write.operation is UPDATE:
        text = as_text(
            "UPDATE {t} SET {v} WHERE key = %s", t=table, v=name_list(names, "{name} = %s")
        )
        rows = [[*write.values.values(), key] for key in write.change.keys]
    else:
        text = as_text("DELETE FROM {t} WHERE key = %s", t=table)
        rows = [[key] for key in write.change.keys]
    with connection.cursor() as cursor:
        cursor.executemany(text, rows)


@path("`INSERT … SELECT`", INSERT)
def insert_select(write: Write) -> None:
    table, rows = write.model._meta.db_table, new_rows(write)
    execute(
        as_text(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM {records}",
            table=sql.Identifier(table),
            columns=name_list(rows[0]),
            records=records(table, rows),
        )
    )


@path("Writable CTE", INSERT, UPDATE, DELETE)
def writable_cte(write: Write) -> None:
    execute(f"WITH written AS ({statement(write)} RETURNING key) SELECT count(*) FROM written")


MERGES = {
    INSERT: "WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({given})",
    UPDATE: "WHEN MATCHED THEN UPDATE SET {assignments}",
    DELETE: "WHEN MATCHED THEN DELETE",
}


def merged_steps(change: Change) -> list[Step]:
    return change.steps() if change.operation is DELETE else upserted_steps(change)


@path("`MERGE`", INSERT, UPDATE, DELETE, steps=merged_steps)
def merge(write: Write) -> None:
    table, change = write.model._meta.db_table, write.change
    deletes = write.operation is DELETE
    rows = [{"key": key} for key in change.keys] if deletes else upserted(change)
    actions = (DELETE,) if deletes else (INSERT, UPDATE)
    execute(
        as_text(
            "MERGE INTO {table} AS target USING {records} AS given ON target.key = given.key "
            + " ".join(MERGES[action] for action in actions),
            table=sql.Identifier(table),
            records=records(table, rows),
            columns=name_list(rows[0]),
            given=name_list(rows[0], "given.{name}"),
            assignments=name_list(upserted_fields(change), "{name} = given.{name}"),
        )
    )


@path("`INSERT … ON CONFLICT DO UPDATE`", INSERT, UPDATE, steps=upserted_steps)
def on_conflict_do_update(write: Write) -> None:
    insert = insert_sql(write.model._meta.db_table, upserted(write.change))
    excluded = name_list(upserted_fields(write.change), "{name} = EXCLUDED.{name}")
    execute(as_text(f"{_quoted(insert)} ON CONFLICT (key) DO UPDATE SET {{set}}", set=excluded))


def _quoted(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@path("`INSERT … ON CONFLICT DO NOTHING`", INSERT)
def on_conflict_do_nothing(write: Write) -> None:
    rows = same_columns([CONFLICTING, *new_rows(write)])
    execute(f"{insert_sql(write.model._meta.db_table, rows)} ON CONFLICT (key) DO NOTHING")


def copy_sql(write: Write) -> str:
    return as_text(
        "COPY {table} ({columns}) FROM STDIN",
        table=sql.Identifier(write.model._meta.db_table),
        columns=name_list(new_rows(write)[0]),
    )


@path("`COPY FROM` through psycopg", INSERT, in_django=False)
def copy_from(write: Write) -> None:
    with connection.cursor() as cursor, cursor.copy(copy_sql(write)) as copy:
        for row in new_rows(write):
            copy.write_row(tuple(row.values()))


@path("`COPY FROM` in psql", INSERT, in_django=False, connects=True)
def copy_in_psql(write: Write) -> None:
    lines = ["\t".join(map(_copied, row.values())) for row in new_rows(write)]
    write.psql("\n".join([f"{copy_sql(write)};", *lines, "\\.", ""]))


def _copied(value: Any) -> str:
    return r"\N" if value is None else str(value)


@path("psql, a process of its own", INSERT, UPDATE, DELETE, in_django=False, connects=True)
def psql(write: Write) -> None:
    write.psql(f"{statement(write)};\n")


# Tables that are more than one.


@path("Partitioned table", INSERT, UPDATE, DELETE, model=Parcel)
def partitioned(write: Write) -> Iterable[Any] | None:
    run = {INSERT: bulk_create, UPDATE: bulk_update, DELETE: delete_queryset}[write.operation]
    return run(write)


@path("Straight into a partition", INSERT, UPDATE, DELETE, model=Parcel, many_statements=True)
def straight_into_partition(write: Write) -> None:
    for partition in ("twins_parcel_low", "twins_parcel_high"):
        keys = [key for key in write.change.keys if partition_of(key) == partition]
        if write.operation is INSERT:
            execute(insert_sql(partition, [row for row in new_rows(write) if row["key"] in keys]))
        elif write.operation is UPDATE:
            execute(update_sql(partition, keys, write.values))
        else:
            execute(delete_sql(partition, keys))


def partition_of(key: int) -> str:
    return "twins_parcel_low" if key < 1000 else "twins_parcel_high"


def save(write: Write) -> Iterable[Any]:
    return save_insert(write) if write.operation is INSERT else save_update(write)


for child, which in ((Memo, "invariants of the parent"), (Report, "invariants of its own")):
    path(f"MTI child with {which}: `save()`", INSERT, UPDATE, model=child, many_statements=True)(
        save
    )
    path(f"MTI child with {which}: `bulk_update()`", UPDATE, model=child)(bulk_update)
    path(f"MTI child with {which}: `update()`", UPDATE, model=child)(update)
    path(f"MTI child with {which}: `delete()`", DELETE, model=child)(delete_queryset)


def operation_of_path(parameters: Mapping[str, Any]) -> tuple[str, Operation]:
    """What occurs in every sample of a matrix: each operation of each path."""
    return parameters["path"].title, parameters["change"].operation
