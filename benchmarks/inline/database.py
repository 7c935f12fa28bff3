"""The tables of this benchmark, and their upkeep between measurements."""

from __future__ import annotations

from typing import Any

from django.db import connection, transaction

from benchmarks.database import tidy
from benchmarks.inline.models import OrderTable

_MUTE = "SELECT set_config('bulksafe.muted', '{*}', true)"
_BUFFERS = ("bulksafe_buffer", "bulksafe_ticket")


def empty(model: type[OrderTable]) -> None:
    """Empty the table. The capture of deletions, which would refuse this, is not for us."""
    with transaction.atomic():
        _run(_MUTE)
        _run(f"TRUNCATE {model._meta.db_table} RESTART IDENTITY")


def fill(model: type[OrderTable], rows: int) -> None:
    """Let the table hold so many rows and nothing dead. No receiver is called."""
    empty(model)
    with transaction.atomic():
        _run(_MUTE)
        _run(
            f"INSERT INTO {model._meta.db_table} "
            "(number, status, quantity, amount, is_locked, placed_at, note) "
            "SELECT 'SO-' || n, 'draft', 1, 100 + n %% 900, false, now(), '' "
            "FROM generate_series(1, %s) AS n",
            [rows],
        )
    tidy(model)


def tidy_buffers() -> None:
    """What autovacuum does to the tables that all transactions with receivers share."""
    for table in _BUFFERS:
        _run(f"VACUUM ANALYZE {table}")


def _run(statement: str, parameters: Any = None) -> None:
    """Past Django's cursors, which call receivers."""
    connection.ensure_connection()
    connection.connection.execute(statement, parameters)
