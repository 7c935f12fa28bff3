"""The write paths. Each prepares what it needs and returns the write itself, which is then timed.

It imports no model, so that the command can list the paths before Django is set up.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.db import connection
from psycopg import sql

from examples import server

if TYPE_CHECKING:
    from examples.shop.demo.breaches import Target

INSERT, UPDATE, DELETE = "INSERT", "UPDATE", "DELETE"

Write = Callable[[], object]


@dataclass(frozen=True)
class WritePath:
    """A way to write rows.

    Attributes:
        name: what ``--only`` calls it.
        title: what the table calls it.
        operations: what it can do to rows.
        prepare: makes the write for some rows.
        commits: whether it writes on its own connection, so it cannot be rolled back.
        since: the first version of PostgreSQL that has it.
    """

    name: str
    title: str
    operations: frozenset[str]
    prepare: Callable[[Target], Write]
    commits: bool = False
    since: int = 14


class PsqlError(Exception):
    """psql ended with an error; the text is what it printed."""


PATHS: list[WritePath] = []


def _path(
    name: str, title: str, *operations: str, **options: Any
) -> Callable[[Callable[[Target], Write]], Callable[[Target], Write]]:
    def register(prepare: Callable[[Target], Write]) -> Callable[[Target], Write]:
        PATHS.append(WritePath(name, title, frozenset(operations), prepare, **options))
        return prepare

    return register


@_path("save", "save()", UPDATE)
def _save(target: Target) -> Write:
    instances = target.changed()

    def write() -> None:
        for instance in instances:
            instance.save()

    return write


@_path("bulk_create", "bulk_create()", INSERT)
def _bulk_create(target: Target) -> Write:
    instances = target.new()
    return lambda: target.model.objects.bulk_create(instances)


@_path("abulk_create", "abulk_create()", INSERT)
def _abulk_create(target: Target) -> Write:
    instances = target.new()

    async def write() -> None:
        await target.model.objects.abulk_create(instances)

    # It runs the queries in this thread, and so in this transaction.
    return async_to_sync(write)


@_path("upsert", "ON CONFLICT", INSERT, UPDATE)
def _upsert(target: Target) -> Write:
    instances = target.changed()
    return lambda: target.model.objects.bulk_create(
        instances,
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=list(target.breach.values),
    )


@_path("bulk_update", "bulk_update()", UPDATE)
def _bulk_update(target: Target) -> Write:
    instances = target.changed()
    return lambda: target.model.objects.bulk_update(instances, list(target.breach.values))


@_path("update", "update(value)", UPDATE)
def _update(target: Target) -> Write:
    return lambda: target.rows.update(**target.breach.values)


@_path("update-f", "update(F())", UPDATE)
def _update_f(target: Target) -> Write:
    return lambda: target.rows.update(**target.breach.expressions)


@_path("delete", "delete()", DELETE)
def _delete(target: Target) -> Write:
    return target.rows.delete


@_path("raw_delete", "_raw_delete()", DELETE)
def _raw_delete(target: Target) -> Write:
    return lambda: target.rows._raw_delete(connection.alias)


@_path("sql", "raw SQL", UPDATE, DELETE)
def _raw_sql(target: Target) -> Write:
    return lambda: _execute(_statement(target))


@_path("executemany", "executemany()", UPDATE, DELETE)
def _executemany(target: Target) -> Write:
    action = "DELETE FROM {table}" if target.breach.deletes else "UPDATE {table} SET {changes}"
    query = _compose(target, f"{action} WHERE id = %s")
    parameters = [(pk,) for pk in target.pks]

    def write() -> None:
        with connection.cursor() as cursor:
            cursor.executemany(query, parameters)

    return write


@_path("insert-select", "INSERT … SELECT", INSERT)
def _insert_select(target: Target) -> Write:
    given = next(target.new_values())
    own = {"number": sql.SQL("'N-' || number"), "customer_id": sql.Identifier("customer_id")}
    values = [own.get(column) or sql.Literal(value) for column, value in given.items()]
    query = sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM {table} WHERE id = ANY({pks})"
    )
    text = query.format(
        table=sql.SQL(target.table),
        columns=sql.SQL(", ").join(map(sql.Identifier, given)),
        values=sql.SQL(", ").join(values),
        pks=sql.Literal(target.pks),
    ).as_string()
    return lambda: _execute(text)


@_path("cte", "WITH … UPDATE", UPDATE, DELETE)
def _writable_cte(target: Target) -> Write:
    text = f"WITH written AS ({_statement(target)} RETURNING *) SELECT count(*) FROM written"
    return lambda: _execute(text)


@_path("merge", "MERGE", UPDATE, DELETE, since=15)
def _merge(target: Target) -> Write:
    text = _compose(
        target,
        "MERGE INTO {table} AS t USING unnest({pks}::bigint[]) AS s(id) ON t.id = s.id "
        "WHEN MATCHED THEN " + ("DELETE" if target.breach.deletes else "UPDATE SET {changes}"),
    )
    return lambda: _execute(text)


@_path("copy", "COPY", INSERT)
def _copy(target: Target) -> Write:
    rows = [list(values.values()) for values in target.new_values()]
    columns = ", ".join(next(target.new_values()))

    def write() -> None:
        # Django translates the errors of execute() and of no other method of psycopg's cursor.
        with (
            connection.wrap_database_errors,
            connection.cursor() as cursor,
            cursor.copy(f"COPY {target.table} ({columns}) FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)

    return write


@_path("truncate", "TRUNCATE", DELETE)
def _truncate(target: Target) -> Write:
    return lambda: _execute(f"TRUNCATE {target.table}")


@_path("psql", "psql", UPDATE, DELETE, commits=True)
def _psql(target: Target) -> Write:
    statement = _statement(target)
    return lambda: run_psql(statement)


#: A replacement for psql: a program without Django.
_PSYCOPG = """\
import sys, psycopg
try:
    with psycopg.connect(sys.argv[1]) as connection:
        connection.execute(sys.stdin.read())
except psycopg.Error as error:
    sys.exit(f"{error.diag.severity or 'ERROR'}:  {error}")
"""


def other_program() -> str:
    """What ``run_psql`` runs: psql, or a process with psycopg where there is none."""
    return "psql" if shutil.which("psql") else "psycopg"


def run_psql(statement: str) -> None:
    """Execute a statement as another program does, on a connection of its own."""
    url = server.database_url(connection.settings_dict)
    command = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-", url]
    if other_program() != "psql":
        command = [sys.executable, "-c", _PSYCOPG, url]
    ended = subprocess.run(
        command, input=statement, capture_output=True, text=True, check=False, timeout=60
    )
    if ended.returncode:
        raise PsqlError(ended.stderr)


def _statement(target: Target) -> str:
    """The plain statement that breaks the rule."""
    action = "DELETE FROM {table}" if target.breach.deletes else "UPDATE {table} SET {changes}"
    return _compose(target, f"{action} WHERE id = ANY({{pks}})")


def _compose(target: Target, template: str) -> str:
    return (
        sql.SQL(template)
        .format(
            table=sql.SQL(target.table),
            changes=sql.SQL(", ").join(_assignments(target)),
            pks=sql.Literal(target.pks),
        )
        .as_string()
    )


def _assignments(target: Target) -> Sequence[sql.Composed]:
    return [
        sql.SQL("{} = {}").format(sql.Identifier(column), sql.Literal(value))
        for column, value in target.breach.values.items()
    ]


def _execute(text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(text)
