"""The tables of the listener's benchmark, and their upkeep between measurements."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import connection, models, transaction

from benchmarks.listener.receivers import NOTHING, WAIT, WRITE
from bulksafe.outbox.store import Store
from examples import server


def url() -> str:
    """The libpq URL of the benchmark's database."""
    return server.database_url(settings.DATABASES["default"])


def run(statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def truncate(tables: str) -> None:
    run(f"TRUNCATE {tables}")


def empty(*tables: type[models.Model]) -> None:
    """Empty the tables past the capture, whose refusal of TRUNCATE is not for us."""
    for model in tables:
        run(f'TRUNCATE "{model._meta.db_table}" RESTART IDENTITY')


def analyze(table: str) -> None:
    run(f"VACUUM ANALYZE {table}")


def checkpoint() -> None:
    run("CHECKPOINT")


def reset_outbox() -> None:
    """No events, no parked ones, and all queues begin now."""
    with transaction.atomic():
        run("TRUNCATE bulksafe_outbox, bulksafe_cursor, bulksafe_started, bulksafe_parked")
        lanes = [("default", True), (NOTHING, True), (WRITE, True), (WAIT, False)]
        Store("default").create_cursors(lanes)
    analyze("bulksafe_cursor")


def outbox_bytes() -> int:
    """The size of the outbox on disk, with its indexes."""
    return int(
        run(
            "SELECT sum(pg_total_relation_size('bulksafe_outbox_' || n)) "
            "FROM generate_series(0, 2) AS n"
        )[0][0]
    )
