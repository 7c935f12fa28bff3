"""Ways to break the shop's rules, and the queries that count the rows which break them.

The rules are the declarations of ``examples.shop.models`` themselves: a declaration is an ORM
expression, so the ORM can be asked for the rows that break it, in the shop and in its twin alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import cached_property, singledispatch
from types import ModuleType
from typing import Any

from django.db import connection
from django.db.models import F, Max, Model, Q, QuerySet, Value
from django.db.models.functions import Concat, Replace

import bulksafe
from examples.shop import data, models
from examples.shop.demo.paths import DELETE, INSERT, UPDATE


@dataclass(frozen=True)
class Breach:
    """A rule of the shop, and changes that break it on many rows at once.

    Attributes:
        kind: the heading of the table's column.
        rule: the rule, in a few words.
        model: the model's name, in the shop and in its twin.
        name: the invariant's name.
        rows: the stored rows to change.
        values: the values to set, the same in each row.
        expressions: the values to set, as expressions over the row.
        new: the values to insert; None if no new row can break the rule.
        deletes: whether deleting the rows breaks the rule.
    """

    kind: str
    rule: str
    model: str
    name: str
    rows: Q = field(default_factory=Q)
    values: Mapping[str, Any] = field(default_factory=dict)
    expressions: Mapping[str, Any] = field(default_factory=dict)
    new: Mapping[str, Any] | None = None
    deletes: bool = False

    @property
    def label(self) -> str:
        return f"shop.{self.model}:{self.name}"

    @property
    def operations(self) -> frozenset[str]:
        """The operations that can break the rule."""
        if self.deletes:
            return frozenset({DELETE})
        return frozenset({UPDATE} if self.new is None else {INSERT, UPDATE})

    @property
    def invariant(self) -> Any:
        triggers = getattr(models, self.model)._meta.triggers
        return next(trigger for trigger in triggers if trigger.name == self.name)


BREACHES = [
    Breach(
        kind="Check",
        rule="an order's discount is at most its amount",
        model="Order",
        name="discount_within_amount",
        values={"discount": Decimal("99999.00")},
        expressions={"discount": F("amount") + 1},
        new={"amount": Decimal("100.00"), "discount": Decimal("150.00")},
    ),
    Breach(
        kind="Compute",
        rule="an order's net is its amount less its discount",
        model="Order",
        name="compute_net",
        values={"amount": Decimal("50000.00")},
        expressions={"amount": F("amount") + 100},
        new={"amount": Decimal("100.00"), "discount": Decimal("20.00")},
    ),
    Breach(
        kind="Immutable",
        rule="what was booked on an account stays there",
        model="LedgerEntry",
        name="immutable_account_kind_amount_reference_booked_at",
        values={"account": "elsewhere"},
        expressions={"account": Concat(F("account"), Value("-2"))},
    ),
    Breach(
        kind="Transition",
        rule="draft to paid or cancelled, paid to shipped; new as draft",
        model="Order",
        name="transition_status",
        rows=Q(status="cancelled"),
        values={"status": "paid"},
        expressions={"status": Replace(F("status"), Value("cancelled"), Value("paid"))},
        new={"amount": Decimal("100.00"), "status": "paid"},
    ),
    Breach(
        kind="Check on delete",
        rule="an entry of a closed period is not deleted",
        model="LedgerEntry",
        name="closed_entry_kept",
        rows=Q(closed=True),
        deletes=True,
    ),
]


class Target:
    """Rows of one of the two shops, as they are before an attempt to break a rule with them."""

    def __init__(self, breach: Breach, shop: ModuleType, size: int) -> None:
        self.breach = breach
        self.size = size
        self.model: type[Model] = getattr(shop, breach.model)
        rows = self.model.objects.filter(breach.rows).order_by("pk")[:size]
        self.before = {row["id"]: row for row in rows.values()}
        self.last_pk = self.model.objects.aggregate(last=Max("pk"))["last"]
        self._shop = shop

    @property
    def pks(self) -> list[int]:
        return list(self.before)

    @property
    def rows(self) -> QuerySet[Any]:
        return self.model.objects.filter(pk__in=self.pks)

    @property
    def added(self) -> QuerySet[Any]:
        """The new rows."""
        return self.model.objects.filter(pk__gt=self.last_pk)

    @property
    def table(self) -> str:
        return connection.ops.quote_name(self.model._meta.db_table)

    @cached_property
    def customers(self) -> list[int]:
        return list(self._shop.Customer.objects.values_list("pk", flat=True)[: self.size])

    def instances(self) -> list[Any]:
        return list(self.rows.order_by("pk"))

    def changed(self) -> list[Any]:
        """The stored rows as instances, changed and not saved."""
        instances = self.instances()
        for instance in instances:
            instance.__dict__.update(self.breach.values)
        return instances

    def new_values(self) -> Iterator[dict[str, Any]]:
        """The columns of new orders for writes that bypass the model's methods."""
        for number in range(1, self.size + 1):
            yield {
                "number": f"N-{number:08}",
                "customer_id": self.customers[number % len(self.customers)],
                "status": "draft",
                "amount": Decimal("100.00"),
                "discount": Decimal(0),
                "net": Decimal(0),
                "placed_at": data.OPENED + timedelta(days=400),
                **(self.breach.new or {}),
            }

    def new(self) -> list[Any]:
        return [self.model(**values) for values in self.new_values()]

    def broken(self) -> int:
        """The number of rows that break the rule now, by a query."""
        return count_broken(self.breach.invariant, self)

    def touched(self) -> int:
        """The number of changed rows."""
        now = {row["id"]: row for row in self.rows.values()}
        return self.added.count() + sum(now.get(pk) != row for pk, row in self.before.items())


@singledispatch
def count_broken(invariant: Any, target: Target) -> int:
    raise NotImplementedError(type(invariant).__name__)


@count_broken.register
def _(check: bulksafe.Check, target: Target) -> int:
    if target.breach.deletes:
        return len(target.pks) - target.rows.count()
    return target.model.objects.exclude(check.condition).count()


@count_broken.register
def _(compute: bulksafe.Compute, target: Target) -> int:
    return target.model.objects.exclude(**{compute.field: compute.expression}).count()


@count_broken.register
def _(immutable: bulksafe.Immutable, target: Target) -> int:
    return sum(
        any(target.before[row["id"]][name] != value for name, value in row.items())
        for row in target.rows.values("id", *immutable.fields)
    )


@count_broken.register
def _(transition: bulksafe.Transition, target: Target) -> int:
    edges, status = transition.edges(), transition.field
    moved = [
        (target.before[pk][status], now)
        for pk, now in target.rows.values_list("pk", status)
        if target.before[pk][status] != now
    ]
    wrong = sum(now not in edges.get(before, ()) for before, now in moved)
    return wrong + target.added.exclude(**{f"{status}__in": transition.initial}).count()
