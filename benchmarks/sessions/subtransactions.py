"""The throughput of other sessions while one transaction makes many saves.

Each savepoint that writes is a subtransaction with a number of its own. From the 65th of a
transaction on, the other sessions have to look up in a shared cache which transaction a row's
number belongs to.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from django.db import connection, transaction

from benchmarks.sessions import models
from benchmarks.sessions.database import fill
from benchmarks.sessions.models import Row

#: The rows, which the other sessions read and update, and the transaction saves.
ROWS = 10_000

#: By title: the tables with plain and with critical receivers.
KINDS: dict[str, tuple[type[Row], type[Row]]] = {
    "post_save": (models.PlainPost, models.CriticalPost),
    "post_save with old": (models.PlainOld, models.CriticalOld),
    "pre_save": (models.PlainPre, models.CriticalPre),
}


@dataclass(frozen=True)
class Crowd:
    """The statements per second of all other sessions together.

    Attributes:
        kind: the title of the receivers.
        idle: while nothing else runs.
        plain, critical: while one transaction has made its saves with plain or with critical
            receivers, and stays open.
    """

    kind: str
    idle: float
    plain: float
    critical: float

    @property
    def ratio(self) -> float:
        return self.critical / self.plain


def measure(sessions: int, saves: int, seconds: float) -> list[Crowd]:
    """Measure each kind of receivers.

    Args:
        sessions: the number of other sessions.
        saves: the number of saves in the one transaction.
        seconds: how long the others run each time.
    """
    found = []
    for kind, pair in KINDS.items():
        idle = _throughput(pair[0], sessions, 0, seconds)
        plain, critical = (_throughput(model, sessions, saves, seconds) for model in pair)
        found.append(Crowd(kind, idle, plain, critical))
    return found


def _throughput(model: type[Row], sessions: int, saves: int, seconds: float) -> float:
    fill(model, ROWS)
    # Each process needs a connection of its own.
    connection.close()
    context = get_context("fork")
    results = context.Queue()
    barrier = context.Barrier(sessions + 1)
    processes = [
        context.Process(
            target=_work, args=(Reader(model, number, saves), seconds, barrier, results)
        )
        for number in range(sessions)
    ]
    for process in processes:
        process.start()
    with transaction.atomic():
        for instance in model._base_manager.order_by("pk")[:saves]:
            instance.save()
        barrier.wait(60)
        found = [results.get(timeout=60 + seconds) for _ in processes]
    for process in processes:
        process.join()
    wrong = [one for one in found if isinstance(one, str)]
    if wrong:
        raise RuntimeError(f"A session ended with: {wrong[0]}")
    return sum(found) / seconds


@dataclass(frozen=True)
class Reader:
    """Reads the rows that the transaction has saved, which needs the numbers of their writers.

    Attributes:
        model: the table.
        number: the reader's number, from 0.
        saves: how many rows have been saved.
    """

    model: type[Row]
    number: int
    saves: int

    def read(self, cursor: Any, turn: int) -> None:
        first = (self.number * 100 + turn * 20) % max(self.saves, 1_000)
        cursor.execute(
            f"SELECT sum(amount) FROM {self.model._meta.db_table} WHERE id BETWEEN %s AND %s",
            [first, first + 20],
        )


def _work(reader: Reader, seconds: float, barrier: Any, results: Any) -> None:
    try:
        with connection.cursor() as cursor:
            barrier.wait(60)
            end, count = time.monotonic() + seconds, 0
            while time.monotonic() < end:
                reader.read(cursor, count)
                count += 1
        results.put(count)
    except BaseException as error:
        results.put(repr(error))
        raise
    finally:
        connection.close()
