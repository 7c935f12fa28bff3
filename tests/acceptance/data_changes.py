"""Data changes for each kind of invariant: one that keeps it and one that would break it.

A change says what happens to which rows. How it is written is the business of a write path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from tests.apps.twins.models import Columns

Row = dict[str, Any]

COMPUTED = ("net", "double_net")
#: On both sides of the border between the partitions.
KEYS = (1, 2, 1003)
BYSTANDER = 9
NEWCOMER = 4


class Operation(StrEnum):
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


@dataclass(frozen=True)
class Kind:
    """A kind of invariant, and the one of ``Guarded`` that stands for it."""

    title: str
    rule: str


CHECK = Kind("Check", "discount_within_amount")
NULLABLE = Kind("Check, NULL", "amount_within_ceiling")
OLD_NEW = Kind("Check, old/new", "price_at_most_doubles")
ON_DELETE = Kind("Check, on delete", "locked_is_kept")
DEFERRED = Kind("Check, deferred", "balanced")
COMPUTE = Kind("Compute", "compute_net")
CHAINED = Kind("Compute of a Compute", "compute_double_net")
IMMUTABLE = Kind("Immutable", "immutable_number")
TRANSITION = Kind("Transition", "transition_state")
KINDS = (
    CHECK,
    NULLABLE,
    OLD_NEW,
    ON_DELETE,
    DEFERRED,
    COMPUTE,
    CHAINED,
    IMMUTABLE,
    TRANSITION,
)


@dataclass(frozen=True)
class Step:
    """What a change does to one row."""

    operation: Operation
    key: int
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """A change of several rows that is written as one.

    Attributes:
        before: the rows in the table; the bystander is there in addition.
        rows: for an insert, what is given for each new row.
        values: for an update, what every row of ``before`` is set to.
        illegal: whether it tries to break the invariant. A ``Compute`` overrules that, every other
            kind refuses it.
    """

    kind: Kind
    operation: Operation
    before: tuple[Row, ...] = ()
    rows: tuple[Row, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    illegal: bool = False

    def __str__(self) -> str:
        return f"{self.operation}-{self.kind.title}-{'illegal' if self.illegal else 'legal'}"

    @property
    def refused(self) -> bool:
        return self.illegal and self.kind not in (COMPUTE, CHAINED)

    @property
    def keys(self) -> list[int]:
        return [row["key"] for row in self.rows or self.before]

    def steps(self) -> list[Step]:
        if self.operation is Operation.INSERT:
            return [Step(self.operation, row["key"], row) for row in self.rows]
        return [Step(self.operation, key, self.values) for key in self.keys]

    def with_columns(self, values: Mapping[str, Any]) -> Change:
        """The same change to rows that have these ``values`` beside."""
        return replace(self, before=tuple(row | values for row in self.before))


def new_row(**values: Any) -> Row:
    """A whole row as a writer gives it: a computed column only where ``values`` has it."""
    defaults = {
        f.attname: f.get_default() for f in Columns._meta.fields if f.attname not in COMPUTED
    }
    return defaults | values


def stored_row(**values: Any) -> Row:
    """A whole row as it lies in the table."""
    row = new_row(**values)
    net = row["amount"] - row["discount"]
    return row | {"net": net, "double_net": net * 2} | values


def _broken_before() -> Iterator[Change]:
    """Updates of three rows, the second of which breaks the rule already."""
    yield from _update(CHECK, {}, {}, {"discount": 500})
    yield from _update(CHECK, {"discount": 600}, {"amount": 1000}, {"discount": 500})
    yield from _update(CHECK, {"discount": 20}, {}, {"discount": 500})
    yield from _update(NULLABLE, {}, {}, {"ceiling": 50})
    yield from _update(NULLABLE, {"amount": 110}, {}, {"ceiling": 50})
    yield from _update(DEFERRED, {}, {}, {"debit": 5})
    yield from _update(DEFERRED, {"debit": 7}, {"credit": 7, "debit": 7}, {"debit": 5})
    yield from _update(COMPUTE, {}, {}, {"net": 999})
    yield from _update(COMPUTE, {"amount": 70}, {}, {"net": 999})
    yield from _update(COMPUTE, {"net": 90}, {}, {"net": 999})
    yield from _update(COMPUTE, {"net": 888}, {}, {"net": 999}, illegal=True)
    yield from _update(CHAINED, {}, {}, {"double_net": 999})
    yield from _update(CHAINED, {"discount": 30}, {}, {"double_net": 999})
    yield from _update(TRANSITION, {}, {}, {"state": "odd"})
    yield from _update(TRANSITION, {"state": "paid"}, {}, {"state": "odd"})
    yield from _update(
        TRANSITION, {"state": "odder"}, {"state": "odder"}, {"state": "odd"}, illegal=True
    )


def _insert(kind: Kind, good: Row, bad: Row | None = None) -> Iterator[Change]:
    """Three good rows; and one bad row between two good ones."""
    batches = [(good, good, good)] + ([(good, bad, good)] if bad else [])
    for batch in batches:
        rows = tuple({"key": key} | values for key, values in zip(KEYS, batch, strict=True))
        yield Change(kind, Operation.INSERT, rows=rows, illegal=bad in batch)


def _update(kind: Kind, values: Row, *before: Row, illegal: bool = False) -> Iterator[Change]:
    """Set ``values`` on three rows. If that is illegal, it is so for the second of them."""
    values = values | {"seen": True}
    first, second = before or ({}, {})
    rows = tuple(
        stored_row(key=key, **row) for key, row in zip(KEYS, (first, second, first), strict=True)
    )
    yield Change(kind, Operation.UPDATE, before=rows, values=values, illegal=illegal)


def _delete(kind: Kind, second: Row, illegal: bool) -> Iterator[Change]:
    rows = tuple(
        stored_row(key=key, **row) for key, row in zip(KEYS, ({}, second, {}), strict=True)
    )
    yield Change(kind, Operation.DELETE, before=rows, illegal=illegal)


def _all() -> Iterator[Change]:
    yield from _insert(CHECK, {"discount": 20}, {"discount": 200})
    yield from _insert(NULLABLE, {"ceiling": 100}, {"ceiling": 50})
    yield from _insert(OLD_NEW, {"price": 999})
    yield from _insert(ON_DELETE, {"locked": True})
    yield from _insert(DEFERRED, {"debit": 5, "credit": 5}, {"debit": 5})
    yield from _insert(COMPUTE, {"amount": 70}, {"net": 999})
    yield from _insert(CHAINED, {"discount": 30}, {"double_net": 999})
    yield from _insert(IMMUTABLE, {"number": "M"})
    yield from _insert(TRANSITION, {"state": "draft"}, {"state": "paid"})

    yield from _update(CHECK, {"discount": 15})
    yield from _update(CHECK, {"discount": 50}, {}, {"amount": 20}, illegal=True)
    yield from _update(NULLABLE, {"amount": 110})
    yield from _update(NULLABLE, {"amount": 150}, {"ceiling": 200}, {"ceiling": 120}, illegal=True)
    yield from _update(OLD_NEW, {"price": 4})
    yield from _update(OLD_NEW, {"price": 20}, {}, {"price": 2}, illegal=True)
    yield from _update(ON_DELETE, {"locked": True})
    yield from _update(DEFERRED, {"debit": 7, "credit": 7})
    yield from _update(DEFERRED, {"debit": 5}, {"debit": 5, "credit": 5}, {}, illegal=True)
    yield from _update(COMPUTE, {"amount": 70})
    yield from _update(COMPUTE, {"net": 999}, illegal=True)
    yield from _update(CHAINED, {"discount": 30})
    yield from _update(CHAINED, {"double_net": 999}, illegal=True)
    yield from _update(IMMUTABLE, {"number": "M"}, {"number": "M"}, {"number": "M"})
    yield from _update(IMMUTABLE, {"number": "M"}, {"number": "M"}, {"number": "N"}, illegal=True)
    yield from _update(TRANSITION, {"state": "shipped"}, {"state": "paid"}, {"state": "shipped"})
    yield from _update(
        TRANSITION, {"state": "shipped"}, {"state": "paid"}, {"state": "draft"}, illegal=True
    )

    # No other kind has anything to say to a delete.
    yield from _delete(ON_DELETE, {}, illegal=False)
    yield from _delete(ON_DELETE, {"locked": True}, illegal=True)


CHANGES = tuple(_all())
BROKEN_BEFORE = tuple(_broken_before())
