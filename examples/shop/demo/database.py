"""Sets the demo's database up: its tables, and the same realistic rows in both shops."""

from __future__ import annotations

import os
from collections.abc import Callable

from django.apps import apps
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Model

import bulksafe
from bulksafe.declarations import declared
from examples.shop import data, models


class NotEmptyError(Exception):
    """The shop of a database that was not started here holds rows already."""


def prepare(
    size: data.Size, replace: bool, advance: Callable[[int], None] = lambda rows: None
) -> None:
    """Migrate, and fill both shops with the same rows.

    What the shops held before is replaced. In a database that ``DATABASE_URL`` names, that takes
    ``replace``.
    """
    call_command("migrate", verbosity=0)
    if "DATABASE_URL" in os.environ and not replace and _has_rows():
        raise NotEmptyError("The shop's tables hold rows already.")
    with transaction.atomic():
        _empty()
        # The receivers are for what happens from now on.
        with bulksafe.muted("shop.Order:bulksafe_capture"):
            data.load(models, size, advance)
        _fill_twin(advance)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def rows() -> int:
    """How many rows the shop has."""
    return sum(model._default_manager.count() for model in _tables("shop"))


def server_version() -> str:
    """The server's version, like "18.6"."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return str(cursor.fetchone()[0]).split()[0]


def _tables(label: str) -> list[type[Model]]:
    return list(apps.get_app_config(label).get_models())


def _has_rows() -> bool:
    return any(
        model._default_manager.exists()
        for app in ("shop", "shop_signals")
        for model in _tables(app)
    )


def _empty() -> None:
    """TRUNCATE is a deletion too, and some rows must not be deleted: those rules are muted."""
    both = [*_tables("shop"), *_tables("shop_signals")]
    listed = ", ".join(connection.ops.quote_name(model._meta.db_table) for model in both)
    rules = [item.label for item in declared() if item.model in both]
    with bulksafe.muted(*rules), connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {listed} RESTART IDENTITY")


def _fill_twin(advance: Callable[[int], None]) -> None:
    """Copy the shop's rows: in the twin, no bulk write could have computed its columns."""
    quote = connection.ops.quote_name
    with connection.cursor() as cursor:
        for model in _tables("shop"):
            twin = apps.get_model("shop_signals", model.__name__)._meta.db_table
            columns = ", ".join(quote(field.column) for field in model._meta.concrete_fields)
            cursor.execute(
                f"INSERT INTO {quote(twin)} ({columns}) "
                f"SELECT {columns} FROM {quote(model._meta.db_table)}"
            )
            advance(cursor.rowcount)
            cursor.execute(
                "SELECT setval(pg_get_serial_sequence(%s, 'id'), max(id)) "
                f"FROM {quote(twin)} HAVING max(id) IS NOT NULL",
                [quote(twin)],
            )
