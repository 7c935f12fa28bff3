"""One table of orders for each variant. They differ in nothing but their rules.

The table has a primary key and no other index or foreign key. It is the cheapest table to write to,
and so the one on which rules cost most in proportion.
"""

import copy

import pgtrigger
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

import bulksafe
from benchmarks import handwritten

DISCOUNT = bulksafe.Check(Q(discount__gte=0, discount__lte=F("amount")), name="discount")
SHIPPED = bulksafe.Check(~Q(status="shipped") | Q(shipped_at__isnull=False), name="shipped")
NET = bulksafe.Compute("net", F("amount") - F("discount"), name="net")
NUMBER = bulksafe.Immutable("number", name="number")
STATUS = bulksafe.Transition(
    "status",
    {"draft": ["paid", "cancelled"], "paid": ["shipped"]},
    initial=["draft"],
    name="status",
)


class OrderTable(models.Model):
    number = models.CharField(max_length=20)
    status = models.CharField(max_length=10, default="draft")
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    discount = models.DecimalField(max_digits=12, decimal_places=2)
    net = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    note = models.CharField(max_length=100, default="")
    placed_at = models.DateTimeField(default=timezone.now)
    shipped_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True

    def __str__(self):
        return self.number


class Plain(OrderTable):
    pass


class PlainAgain(OrderTable):
    pass


class FiveInvariants(OrderTable):
    class Meta:
        triggers = [DISCOUNT, SHIPPED, NET, NUMBER, STATUS]


class WithoutCompute(OrderTable):
    class Meta:
        triggers = [DISCOUNT, SHIPPED, NUMBER, STATUS]


def observed(declaration):
    """The same rule with ``mode="observe"``."""
    found = copy.copy(declaration)
    found.mode = "observe"
    return found


class Observed(OrderTable):
    class Meta:
        triggers = [observed(rule) for rule in (DISCOUNT, SHIPPED, NUMBER, STATUS)]


class DiscountOnly(OrderTable):
    class Meta:
        triggers = [DISCOUNT]


class ShippedOnly(OrderTable):
    class Meta:
        triggers = [SHIPPED]


class NetOnly(OrderTable):
    class Meta:
        triggers = [NET]


class NumberOnly(OrderTable):
    class Meta:
        triggers = [NUMBER]


class StatusOnly(OrderTable):
    class Meta:
        triggers = [STATUS]


class HandFunctions(OrderTable):
    class Meta:
        triggers = handwritten.functions()


class HandConditions(OrderTable):
    class Meta:
        triggers = handwritten.conditions()


class HandOneFunction(OrderTable):
    class Meta:
        triggers = handwritten.one_function()


class HandAfter(OrderTable):
    class Meta:
        triggers = handwritten.conditions(when=pgtrigger.After)


class Signals(OrderTable):
    """Its rules are in ``receivers.py``."""
