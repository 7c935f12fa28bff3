"""Each receiver is seen to be called on each path before anything is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from benchmarks.inline import database
from benchmarks.inline.bulk import TABLES
from benchmarks.inline.models import (
    CriticalChanged,
    CriticalDeleted,
    CriticalInTurn,
    Plain,
    SignalDeleted,
    SignalInTurn,
)
from benchmarks.inline.orders import new_orders

ROWS = 3


class NotCalledError(RuntimeError):
    """A receiver was called where it should not be, or was not called where it should be."""


def prove() -> None:
    """Try all writes on all tables.

    Raises:
        NotCalledError: a table has other receivers than the benchmark says.
    """
    saves = {"save(), INSERT", "save(), UPDATE"}
    for critical, twin in (*TABLES.values(), (CriticalInTurn, SignalInTurn)):
        _expect(critical, refused={"bulk_create()", "update()", *saves})
        _expect(twin, refused=saves)
    _expect(CriticalChanged, refused={"bulk_create()", "update()", *saves})
    _expect(Plain, refused=set())
    _expect(CriticalDeleted, refused={"delete()"})
    _expect(SignalDeleted, refused={"delete()"})


def _expect(model: Any, refused: set[str]) -> None:
    for name, write in WRITES.items():
        database.fill(model, ROWS)
        was_refused = _is_refused(write, model)
        if was_refused != (name in refused):
            verb = "refused" if was_refused else "let pass"
            raise NotCalledError(f"{model.__name__} {verb} a bad {name}.")


def _is_refused(write: Callable[[Any], None], model: Any) -> bool:
    try:
        # What a plain receiver refuses in autocommit has been stored.
        with transaction.atomic():
            write(model)
    except ValidationError:
        return True
    return False


def _create_in_bulk(model: Any) -> None:
    orders = new_orders(model, ROWS)
    orders[-1].amount = -1
    model.objects.bulk_create(orders)


def _save_new(model: Any) -> None:
    model(number="bad", amount=-1).save()


def _save_stored(model: Any) -> None:
    order = model.objects.earliest("pk")
    order.amount = -1
    order.save()


def _delete_locked(model: Any) -> None:
    model.objects.filter(number="SO-2").update(is_locked=True)
    model.objects.all().delete()


WRITES: dict[str, Callable[[Any], None]] = {
    "bulk_create()": _create_in_bulk,
    "update()": lambda model: model.objects.update(amount=-1),
    "save(), INSERT": _save_new,
    "save(), UPDATE": _save_stored,
    "delete()": _delete_locked,
}
