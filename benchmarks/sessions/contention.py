"""Serialization failures of writers that never touch each other's rows, at SERIALIZABLE."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from django.db import OperationalError, connection, transaction
from django.db.models import F
from psycopg import IsolationLevel

from benchmarks.sessions import models
from benchmarks.sessions.database import fill
from benchmarks.sessions.models import Row

#: By title: the tables with plain and with critical receivers.
KINDS: dict[str, tuple[type[Row], type[Row]]] = {
    "post_save": (models.PlainPost, models.CriticalPost),
    "post_save with old": (models.PlainOld, models.CriticalOld),
    "pre_save": (models.PlainPre, models.CriticalPre),
}
#: The number of rows of each writer, and that one transaction writes.
OWN, MANY = 1_000, 5

_SERIALIZATION_FAILURE = "40001"


@dataclass(frozen=True)
class Writer:
    """Writes to rows of its own.

    Attributes:
        model: the table.
        number: the writer's number, from 0.
    """

    model: type[Row]
    number: int

    def keys(self, turn: int) -> list[int]:
        """Other rows in each turn."""
        first = self.number * OWN + turn * MANY % OWN
        return [first + place + 1 for place in range(MANY)]

    def save(self, turn: int) -> None:
        found = self.model._base_manager.get(pk=self.keys(turn)[0])
        found.amount += 1
        found.save()

    def bulk_create(self, turn: int) -> None:
        self.model._base_manager.bulk_create(
            self.model(owner=self.number, amount=turn) for _ in range(MANY)
        )

    def update(self, turn: int) -> None:
        rows = self.model._base_manager.filter(pk__in=self.keys(turn))
        rows.update(amount=F("amount") + 1)

    def delete(self, turn: int) -> None:
        self.model._base_manager.filter(pk__in=self.keys(turn)).delete()


DEEDS: dict[str, Callable[[Writer, int], None]] = {
    "save()": Writer.save,
    "bulk_create()": Writer.bulk_create,
    "update()": Writer.update,
    "delete()": Writer.delete,
}


@dataclass(frozen=True)
class Contention:
    """The serialization failures of one deed, of all transactions of all writers.

    Attributes:
        kind: the title of the receivers.
        deed: the title of what each transaction does.
        transactions: their number.
        plain, critical: the failures with plain and with critical receivers.
    """

    kind: str
    deed: str
    transactions: int
    plain: int
    critical: int


def measure(writers: int, transactions: int) -> list[Contention]:
    """Let writers commit at the same time.

    Args:
        writers: the number of processes.
        transactions: the number of transactions of each.
    """
    return [
        Contention(
            kind,
            deed,
            writers * transactions,
            *(_failures(model, deed, writers, transactions) for model in pair),
        )
        for kind, pair in KINDS.items()
        for deed in DEEDS
    ]


def _failures(model: type[Row], deed: str, writers: int, transactions: int) -> int:
    # The rows of all writers, and as many that fill the last page of the index of keys.
    fill(model, (writers + 1) * OWN, OWN)
    # Each process needs a connection of its own.
    connection.close()
    context = get_context("fork")
    results = context.Queue()
    shared = context.Barrier(writers), results
    processes = [
        context.Process(target=_write, args=(Writer(model, n), deed, transactions, *shared))
        for n in range(writers)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    wrong = [one for one in found if isinstance(one, str)]
    if wrong:
        raise RuntimeError(f"A writer of {model.__name__} ended with: {wrong[0]}")
    return sum(found)


def _write(writer: Writer, deed: str, transactions: int, barrier: Any, results: Any) -> None:
    try:
        connection.settings_dict["OPTIONS"] = {"isolation_level": IsolationLevel.SERIALIZABLE}
        connection.ensure_connection()
        barrier.wait(60)
        results.put(sum(_has_failed(writer, deed, turn) for turn in range(transactions)))
    except BaseException as error:
        results.put(repr(error))
        raise
    finally:
        connection.close()


def _has_failed(writer: Writer, deed: str, turn: int) -> bool:
    try:
        with transaction.atomic():
            DEEDS[deed](writer, turn)
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != _SERIALIZATION_FAILURE:
            raise
        return True
    return False
