"""A fresh database with the tables of all variants, and their upkeep between measurements."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from django.apps import apps
from django.conf import settings
from django.core.management import call_command
from django.db import connection, models
from psycopg import sql

from benchmarks.variants import VARIANTS, Variant
from bulksafe.outbox import schema
from examples import server

SERVER_OPTIONS = {
    "autovacuum": "off",
    "shared_buffers": "2GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
}
"""No checkpoint and no autovacuum in the middle of a measurement."""

QUEUE_OPTIONS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "max_connections": "100",
}
"""No checkpoint within a measurement. ``autovacuum`` is on: tables that are queues need it."""

_REPORTED = [
    "fsync",
    "full_page_writes",
    "synchronous_commit",
    "autovacuum",
    "shared_buffers",
    "max_wal_size",
    "jit",
]


@contextmanager
def fresh_database(
    kind: str, options: Mapping[str, str] = SERVER_OPTIONS
) -> Iterator[server.Server]:
    """Start a server, or take that of ``DATABASE_URL``, and give Django a new database on it."""
    started = server.start(kind, options=options)
    name = sql.Identifier(f"bulksafe_benchmarks_{os.getpid()}")
    _execute(started.url, sql.SQL("CREATE DATABASE {}").format(name))
    # In place: Django's connections hold on to this very dictionary.
    settings.DATABASES["default"].update(
        server.database_settings(started.url) | {"NAME": name.as_string().strip('"')}
    )
    try:
        yield started
    finally:
        connection.close()
        _execute(started.url, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        started.stop()


def _execute(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True) as administrator:
        administrator.execute(statement)


def model_of(variant: Variant) -> type[models.Model]:
    return apps.get_model("benchmarks", variant.model)


def migrate() -> None:
    """Create all tables, as a project does."""
    call_command("migrate", run_syncdb=True, verbosity=0, interactive=False)


def create_tables() -> None:
    """Create the tables; pgtrigger's schema editor installs the triggers of ``Meta`` with them."""
    schema.create("default")
    with connection.schema_editor() as editor:
        for variant in VARIANTS:
            editor.create_model(model_of(variant))


def empty(model: type[models.Model]) -> None:
    _run(f'TRUNCATE "{model._meta.db_table}" RESTART IDENTITY')


def tidy(model: type[models.Model]) -> None:
    """Leave the table without dead rows and the server without work of its own."""
    _run(f'VACUUM ANALYZE "{model._meta.db_table}"')


def checkpoint() -> None:
    _run("CHECKPOINT")


def settings_in_force() -> dict[str, str]:
    """The settings of the server that matter here, as the server itself reports them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s)",
            [_REPORTED],
        )
        found = dict(cursor.fetchall())
    return {name: found[name] for name in _REPORTED}


def server_version() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return cursor.fetchone()[0].split()[0]


def _run(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
