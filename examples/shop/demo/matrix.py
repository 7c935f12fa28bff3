"""Tries each write path on each rule in one of the two shops, and records the result."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from types import ModuleType

from django.db import DatabaseError, connection, transaction

import bulksafe
from bulksafe.declarations import declared
from examples.shop.demo.breaches import BREACHES, Breach, Target
from examples.shop.demo.paths import PsqlError, Write, WritePath
from examples.shop_signals.receivers import RuleBrokenError


class Verdict(StrEnum):
    """The result of an attempt to break a rule."""

    BROKE = "broke"
    """The write passed, and rows break the rule."""
    REFUSED = "refused"
    """The write was refused, and no row breaks the rule."""
    COMPUTED = "computed"
    """The write passed, and every row has the right value."""
    IMPOSSIBLE = "impossible"
    """The write path cannot break this rule, so it is not tried."""
    ERROR = "error"
    """A different error: the attempt has no result."""


HELD = {Verdict.REFUSED, Verdict.COMPUTED}


@dataclass(frozen=True)
class Cell:
    """The result of one write path and one rule.

    Attributes:
        path: the write path's name.
        rule: the invariant's label, ``"shop.Order:discount_within_amount"``.
        rows: the number of rows that break the rule after the write.
        seconds: how long the write itself took.
        message: the text of the refusal or error.
    """

    path: str
    rule: str
    verdict: Verdict
    rows: int = 0
    seconds: float = 0.0
    message: str = ""


def tried(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.verdict is not Verdict.IMPOSSIBLE]


def count(cells: Sequence[Cell], verdict: Verdict) -> int:
    return sum(cell.verdict is verdict for cell in cells)


def fill(
    shop: ModuleType, paths: Sequence[WritePath], rows: int, done: Callable[[], None]
) -> list[Cell]:
    """Try every path on every rule of ``shop``, with ``rows`` rows each."""
    targets = [Target(breach, shop, rows) for breach in BREACHES]
    cells = []
    for path in paths:
        for target in targets:
            cells.append(attempt(path, target))
            done()
    return cells


def size(paths: Sequence[WritePath]) -> int:
    """The number of cells for one shop."""
    return len(paths) * len(BREACHES)


def possible(path: WritePath, breach: Breach) -> bool:
    version: int = connection.pg_version
    return bool(path.operations & breach.operations) and version >= path.since * 10_000


def attempt(path: WritePath, target: Target) -> Cell:
    """Try one path on one rule, and leave the database as it was."""
    if not possible(path, target.breach):
        return Cell(path.name, target.breach.label, Verdict.IMPOSSIBLE)
    with _restored(target) if path.commits else _rolled_back():
        return _attempt(path, target)


def _attempt(path: WritePath, target: Target) -> Cell:
    seconds, error = _timed(path.prepare(target))
    broken = target.broken()
    verdict, message = _judge(target, error, broken)
    return Cell(path.name, target.breach.label, verdict, broken, seconds, message)


def _timed(write: Write) -> tuple[float, Exception | None]:
    """The duration of the write, and its exception; a savepoint undoes partial writes."""
    error = None
    started = time.perf_counter()
    try:
        with transaction.atomic():
            write()
    except (DatabaseError, PsqlError) as raised:
        error = raised
    return time.perf_counter() - started, error


def _judge(target: Target, error: Exception | None, broken: int) -> tuple[Verdict, str]:
    if error is not None:
        message = _refusal(error, target.breach)
        if message is None:
            return Verdict.ERROR, f"{type(error).__name__}: {error}"
        if target.touched():
            return Verdict.ERROR, f"refused, and changed rows all the same: {message}"
        return Verdict.REFUSED, message
    if broken:
        return Verdict.BROKE, ""
    if isinstance(target.breach.invariant, bulksafe.Compute) and target.touched():
        return Verdict.COMPUTED, ""
    return Verdict.ERROR, "The write passed and changed nothing."


def _refusal(error: Exception, breach: Breach) -> str | None:
    """The text of the refusal, or None if ``error`` is not from this rule."""
    match error:
        case bulksafe.InvariantViolation(invariant=breach.label):
            return error.message
        case RuleBrokenError():
            return str(error)
        case PsqlError() if f"Invariant {breach.label} refuses" in str(error):
            # The severity is in the server's language.
            return re.split(r":\s\s", str(error).splitlines()[0])[-1]
    return None


@contextmanager
def _rolled_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@contextmanager
def _restored(target: Target) -> Iterator[None]:
    """Restore the rows that another connection changed, with the rules muted."""
    labels = [item.label for item in declared() if item.model is target.model]
    try:
        yield
    finally:
        with bulksafe.muted(*labels) if labels else nullcontext(), transaction.atomic():
            target.rows._raw_delete(connection.alias)
            target.model.objects.bulk_create(target.model(**row) for row in target.before.values())
