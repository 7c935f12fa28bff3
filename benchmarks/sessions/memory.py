"""The memory of the Python process in which one statement writes many rows."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from django.db import connection
from django.db.models import F

from benchmarks.sessions import models
from benchmarks.sessions.database import fill
from benchmarks.sessions.models import Row


def update(model: type[Row]) -> None:
    model._base_manager.update(amount=F("amount") + 1)


def insert(model: type[Row]) -> None:
    table = model._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} (owner, amount, note) SELECT owner, amount, note FROM {table}"
        )


def delete(model: type[Row]) -> None:
    model._base_manager.all().delete()


@dataclass(frozen=True)
class Write:
    """A statement for many rows.

    Attributes:
        title: what it is, with its receivers.
        run: executes it.
        plain, critical: the tables without receivers for it, and with critical ones.
    """

    title: str
    run: Callable[[type[Row]], None]
    plain: type[Row]
    critical: type[Row]


WRITES = [
    Write("update(), post_save", update, models.Bare, models.CriticalPost),
    Write("update(), post_save with old", update, models.Bare, models.CriticalOld),
    Write("INSERT … SELECT, post_save", insert, models.Bare, models.CriticalPost),
    Write("update(), pre_save", update, models.Bare, models.CriticalPre),
    Write("delete(), post_delete", delete, models.Bare, models.CriticalPost),
]


@dataclass(frozen=True)
class Peak:
    """The peak memory of a process, in MiB, and the time of its write, in seconds."""

    memory: float
    seconds: float


@dataclass(frozen=True)
class Memory:
    """One write without and with receivers."""

    title: str
    plain: Peak
    critical: Peak

    @property
    def added(self) -> float:
        """MiB."""
        return self.critical.memory - self.plain.memory


def measure(rows: int) -> list[Memory]:
    return [
        Memory(one.title, _peak(one.run, one.plain, rows), _peak(one.run, one.critical, rows))
        for one in WRITES
    ]


def _peak(run: Callable[[type[Row]], None], model: type[Row], rows: int) -> Peak:
    # The first write shows which tables the receivers touch.
    fill(model, 10)
    run(model)
    fill(model, rows)
    # A process of its own has a peak of its own.
    connection.close()
    context = get_context("fork")
    results = context.Queue()
    process = context.Process(target=_run, args=(run, model, results))
    process.start()
    found: Peak | str = results.get(timeout=3600)
    process.join()
    if isinstance(found, str):
        raise RuntimeError(f"The write to {model.__name__} ended with: {found}")
    return found


def _run(run: Callable[[type[Row]], None], model: type[Row], results: Any) -> None:
    try:
        begun = time.monotonic()
        run(model)
        seconds = time.monotonic() - begun
        # In KiB on Linux.
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        results.put(Peak(memory, seconds))
    except BaseException as error:
        results.put(repr(error))
        raise
    finally:
        connection.close()
