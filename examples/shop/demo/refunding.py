"""Counts the calls and refusals of in-transaction receivers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from decimal import Decimal
from enum import StrEnum
from types import ModuleType
from typing import Any

from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Max, QuerySet, Sum
from psycopg import sql

import bulksafe
from examples.shop import data, models
from examples.shop.demo.bars import Stages
from examples.shop.demo.errors import DemoError
from examples.shop.demo.paths import PsqlError, other_program, run_psql
from examples.shop.demo.tally import Tally, tally
from examples.shop.refunds import ASKED_FOR, CHANGED, WITHDRAWN
from examples.shop_signals import models as twin

#: The database's error for a write that bypassed Django.
NOT_RUN = "critical receivers have not run"

#: What every order that is refunded is worth at least, and what the refunds are that must be there.
_WORTH, _FIRST = Decimal(50), Decimal(1)


class Verdict(StrEnum):
    """What came of a write in which something is wrong."""

    STORED = "stored"
    REFUSED = "refused"
    """Neither the write nor its receivers' effects are stored."""
    ERROR = "error"
    """A different error: the attempt has no result."""


@dataclass(frozen=True)
class RefundPath:
    """A way to write refunds.

    Attributes:
        name: what ``--only`` calls it.
        title: what the tables call it.
        action: what the history says of the refunds afterwards.
        write: writes them, with an amount.
        elsewhere: whether another program does.
    """

    name: str
    title: str
    action: str
    write: Callable[[Refunds, Decimal], object]
    elsewhere: bool = False


@dataclass(frozen=True)
class Outcome:
    """The result of a write in one of the shops.

    Attributes:
        rows: the number of refunds written.
        seconds: how long the write took, to the end of its transaction.
        refusal: the text of the refusal; empty if the write succeeded.
        calls: the results of each receiver's calls.
    """

    rows: int
    seconds: float
    refusal: str
    calls: Sequence[Tally]

    @property
    def due(self) -> int:
        return sum(one.due for one in self.calls)

    @property
    def made(self) -> int:
        return sum(one.made for one in self.calls)

    @property
    def skipped(self) -> int:
        return self.due - self.made

    @property
    def twice(self) -> int:
        return sum(one.twice for one in self.calls)


@dataclass(frozen=True)
class Attempt:
    """What came of a write in which something is wrong.

    Attributes:
        rows: how many rows are wrong after it.
        message: the text of the refusal or error.
    """

    verdict: Verdict
    rows: int
    message: str


@dataclass(frozen=True)
class Side:
    """The results of one write path in one of the shops."""

    right: Outcome
    wrong: Attempt


@dataclass(frozen=True)
class Tried:
    """One write path, with the same receivers on both sides.

    Attributes:
        path: its name.
        title: what the tables call it.
        rows: the number of refunds to write.
        elsewhere: whether another program writes.
        mistake: the mistake in the write to be refused.
        plain: where the receivers are connected to Django's signals.
        critical: where they are critical ones.
    """

    path: str
    title: str
    rows: int
    elsewhere: bool
    mistake: str
    plain: Side
    critical: Side

    @property
    def problems(self) -> Iterator[str]:
        if self.plain.wrong.verdict is Verdict.ERROR:
            yield f"Without bulksafe, {self.mistake}: {self.plain.wrong.message}"
        if self.plain.right.refusal:
            yield f"Without bulksafe: {self.plain.right.refusal}"
        yield from self._of_the_right_write()
        match self.critical.wrong.verdict:
            case Verdict.STORED:
                yield f"{self.mistake}, and the write was stored."
            case Verdict.ERROR:
                yield f"{self.mistake}: {self.critical.wrong.message}"

    def _of_the_right_write(self) -> Iterator[str]:
        right = self.critical.right
        if self.elsewhere:
            if NOT_RUN not in right.refusal:
                yield right.refusal or f"{right.rows:,} refunds were stored without the receivers."
            return
        if right.refusal:
            yield right.refusal
        elif right.rows != self.rows:
            yield f"{right.rows:,} refunds were written, not {self.rows:,}."
        for one in right.calls:
            yield from one.problems


@dataclass(frozen=True)
class Refunding:
    """The results of the third part of the demo."""

    tried: Sequence[Tried]

    @property
    def problems(self) -> list[str]:
        """Reasons why it did not show that no receiver is skipped."""
        return [f"{one.title}: {text}" for one in self.tried for text in one.problems]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def chosen(only: Sequence[str]) -> list[RefundPath]:
    """The write paths with one of these names; all without names."""
    return [path for path in _paths() if not only or path.name in only]


def refund(paths: Sequence[RefundPath], rows: int, stages: Stages) -> Refunding:
    """Write refunds in both shops and count the receivers' effects.

    Args:
        rows: how many of them each path writes.
        stages: shows what is being done.

    Raises:
        DemoError: no order can be refunded.
    """
    shops = [Refunds(twin, rows), Refunds(models, rows)]
    with _cleared(shops):
        found = []
        for number, path in enumerate(paths, start=2):
            stages.begin(f"Refunds by {path.title}")
            amount = _FIRST * number  # a value that no earlier path has set
            plain = Side(_write(path, shops[0], amount), _attempt(path, shops[0]))
            stages.share(0.5)
            critical = Side(_write(path, shops[1], amount), _attempt(path, shops[1]))
            found.append(_tried(path, shops[0].size, plain, critical))
        return Refunding(found)


def _tried(path: RefundPath, rows: int, plain: Side, critical: Side) -> Tried:
    wrong = "approved" if path.action == WITHDRAWN else "too large"
    mistake = f"one of {rows:,} is {wrong}"
    return Tried(path.name, path.title, rows, path.elsewhere, mistake, plain, critical)


class Refunds:
    """The refunds of one of the two shops: one for each of some orders that were paid.

    Attributes:
        orders: the orders.
        too_much: an amount that is too large for the cheapest of them, and for no other.
    """

    def __init__(self, shop: ModuleType, size: int) -> None:
        self.shop = shop
        self.model = shop.Refund
        paid = shop.Order.objects.filter(status__in=["paid", "shipped"], net__gte=_WORTH)
        self.orders = list(paid.order_by("pk")[:size])
        if not self.orders:
            raise DemoError("The shop has no paid order to refund.")
        self.too_much = min(order.net for order in self.orders) + Decimal("0.01")

    @property
    def size(self) -> int:
        return len(self.orders)

    @property
    def table(self) -> sql.Identifier:
        return sql.Identifier(self.model._meta.db_table)

    @property
    def rows(self) -> QuerySet[Any]:
        """The refunds to change and delete: one for each order."""
        return self.model.objects.filter(pk__in=self.pks)

    @property
    def pks(self) -> list[int]:
        return list(self.model.objects.order_by("pk").values_list("pk", flat=True)[: self.size])

    @property
    def customers(self) -> set[int]:
        return {order.customer_id for order in self.orders}

    def new(self, amount: Decimal) -> list[Any]:
        return [self.model(order=order, amount=amount) for order in self.orders]

    def make_sure_of_rows(self) -> None:
        if len(self.pks) < self.size:
            _save(self, _FIRST)

    def last(self) -> tuple[int, int]:
        """The last refund and the last line of the history, by primary key."""
        found = (
            model.objects.aggregate(last=Max("pk"))["last"] or 0
            for model in (self.model, self.shop.AuditLog)
        )
        return next(found), next(found)

    def history(self, after: int) -> list[tuple[int, str]]:
        """The refund and the action of each line that is new."""
        lines = self.shop.AuditLog.objects.filter(entity="refund", pk__gt=after)
        return list(lines.values_list("entity_id", "action"))

    def right_totals(self) -> set[int]:
        """The customers whose total is the sum of their refunds."""
        mine = self.model.objects.filter(order__customer__in=self.customers)
        sums = dict(mine.values_list("order__customer").annotate(Sum("amount")))
        kept = dict(self.shop.RefundTotal.objects.values_list("customer", "amount"))
        return {one for one in self.customers if kept.get(one) == sums.get(one, Decimal(0))}

    def state(self) -> list[list[Any]]:
        """Everything that a write of refunds can change."""
        return [
            list(self.model.objects.order_by("pk").values_list()),
            list(self.shop.RefundTotal.objects.order_by("pk").values_list()),
            self.history(after=0),
        ]

    def forget(self, after: int = 0) -> None:
        """Delete the refunds after one, past all receivers."""
        with bulksafe.muted("shop.Refund:bulksafe_capture"):
            self.model.objects.filter(pk__gt=after)._raw_delete(connection.alias)

    def forget_all(self) -> None:
        self.forget()
        self.shop.RefundTotal.objects.all()._raw_delete(connection.alias)
        self.shop.AuditLog.objects.filter(entity="refund")._raw_delete(connection.alias)


@contextmanager
def _cleared(shops: Sequence[Refunds]) -> Iterator[None]:
    """All refunds are deleted."""
    try:
        yield
    finally:
        for refunds in shops:
            refunds.forget_all()


# Expected and actual effects.


def _write(path: RefundPath, refunds: Refunds, amount: Decimal) -> Outcome:
    refunds.make_sure_of_rows()
    pks = refunds.pks
    last_refund, last_line = refunds.last()
    seconds, error = _timed(lambda: path.write(refunds, amount))
    if error is not None:
        return Outcome(0, seconds, _text(error), [])
    if path.action == ASKED_FOR:
        new = refunds.model.objects.filter(pk__gt=last_refund)
        pks = list(new.values_list("pk", flat=True))
    calls = [
        tally(
            "keep_history",
            "a line in the history",
            due=[(pk, path.action) for pk in pks],
            seen=refunds.history(last_line),
        ),
        tally(
            "keep_total",
            "what the customer has got back",
            due=refunds.customers,
            seen=refunds.right_totals(),
        ),
    ]
    if path.action == ASKED_FOR:
        numbered = new.filter(number__regex=r"^R-\d{6,}$").values_list("pk", flat=True)
        calls.insert(0, tally("give_number", "the refund's number", due=pks, seen=numbered))
    return Outcome(len(pks), seconds, "", calls)


def _attempt(path: RefundPath, refunds: Refunds) -> Attempt:
    """Write with a mistake, and leave the database as it was."""
    with _undone(refunds) if path.elsewhere else _rolled_back():
        refunds.make_sure_of_rows()
        approved = refunds.pks[0]
        if path.action == WITHDRAWN:
            refunds.model.objects.filter(pk=approved).update(approved=True)
        before = refunds.state()
        _, error = _timed(lambda: path.write(refunds, refunds.too_much))
        wrong = refunds.model.objects.filter(amount__gt=F("order__net")).count()
        if path.action == WITHDRAWN:
            wrong = 1 - refunds.model.objects.filter(pk=approved).count()
        return _judge(error, wrong, is_changed=refunds.state() != before)


def _judge(error: Exception | None, wrong: int, *, is_changed: bool) -> Attempt:
    if error is None:
        if wrong:
            return Attempt(Verdict.STORED, wrong, "")
        return Attempt(Verdict.ERROR, 0, "The write passed and changed nothing.")
    text = _text(error)
    if is_changed:
        return Attempt(Verdict.ERROR, wrong, f"refused, and changed rows all the same: {text}")
    is_refusal = isinstance(error, ValidationError) or NOT_RUN in text
    return Attempt(Verdict.REFUSED if is_refusal else Verdict.ERROR, 0, text)


def _timed(write: Callable[[], object]) -> tuple[float, Exception | None]:
    """The duration of the write including COMMIT or savepoint release, and its exception."""
    error: Exception | None = None
    started = time.perf_counter()
    try:
        with transaction.atomic():
            write()
    except (DatabaseError, ValidationError, PsqlError) as raised:
        error = raised
    return time.perf_counter() - started, error


def _text(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return " ".join(error.messages)
    return str(error).strip()


@contextmanager
def _rolled_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@contextmanager
def _undone(refunds: Refunds) -> Iterator[None]:
    """Delete the rows that another connection stored."""
    last, _ = refunds.last()
    try:
        yield
    finally:
        refunds.forget(after=last)


# The write paths.


def _save(refunds: Refunds, amount: Decimal) -> None:
    for one in refunds.new(amount):
        one.save()


def _bulk_create(refunds: Refunds, amount: Decimal) -> None:
    refunds.model.objects.bulk_create(refunds.new(amount))


def _bulk_update(refunds: Refunds, amount: Decimal) -> None:
    rows = list(refunds.rows)
    for one in rows:
        one.amount = amount
    refunds.model.objects.bulk_update(rows, ["amount"])


def _update(refunds: Refunds, amount: Decimal) -> None:
    refunds.rows.update(amount=amount)


def _raw_sql(refunds: Refunds, amount: Decimal) -> None:
    text = sql.SQL("UPDATE {} SET amount = %s WHERE id = ANY(%s)").format(refunds.table)
    with connection.cursor() as cursor:
        cursor.execute(text, [amount, refunds.pks])


def _delete(refunds: Refunds, amount: Decimal) -> None:
    refunds.rows.delete()


def _psql(refunds: Refunds, amount: Decimal) -> None:
    text = sql.SQL(
        "INSERT INTO {} (order_id, number, amount, reason, approved, created_at) "
        "SELECT id, '', {}, 'returned', false, {} FROM {} WHERE id = ANY({})"
    ).format(
        refunds.table,
        sql.Literal(amount),
        sql.Literal(data.OPENED),
        sql.Identifier(refunds.shop.Order._meta.db_table),
        sql.Literal([order.pk for order in refunds.orders]),
    )
    run_psql(text.as_string())


def _paths() -> list[RefundPath]:
    """In an order in which no path needs rows deleted by an earlier one."""
    return [
        RefundPath("save", "save()", ASKED_FOR, _save),
        RefundPath("bulk_create", "bulk_create()", ASKED_FOR, _bulk_create),
        RefundPath("bulk_update", "bulk_update()", CHANGED, _bulk_update),
        RefundPath("update", "update(value)", CHANGED, _update),
        RefundPath("sql", "raw SQL", CHANGED, _raw_sql),
        RefundPath("delete", "delete()", WITHDRAWN, _delete),
        RefundPath("psql", other_program(), ASKED_FOR, _psql, elsewhere=True),
    ]
