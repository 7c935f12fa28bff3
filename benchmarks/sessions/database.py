"""The rows of the measured tables."""

from __future__ import annotations

from django.db import connection, transaction

from benchmarks.database import tidy
from benchmarks.sessions.models import Row


def fill(model: type[Row], rows: int, own: int = 1_000) -> None:
    """Let the table hold so many rows and nothing dead. No receiver is called.

    Args:
        own: the number of rows of each owner.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('bulksafe.muted', '{*}', true)")
        cursor.execute(f"TRUNCATE {model._meta.db_table} RESTART IDENTITY")
        cursor.execute(
            f"INSERT INTO {model._meta.db_table} (owner, amount, note) "
            "SELECT (n - 1) / %s, 0, '' FROM generate_series(1, %s) AS n",
            [own, rows],
        )
    tidy(model)
