"""The shop's rules, declared where the model is. Its columns are in ``tables.py``.

What happens after a change is committed is in ``receivers.py``.
"""

import pgtrigger
from django.db.models import Case, F, Q, When
from django.db.models.functions import Lower, Trim

import bulksafe
from examples.shop import tables
from examples.shop.signals import order_fulfilled


class Customer(tables.CustomerTable):
    class Meta:
        triggers = [
            bulksafe.Check(
                Q(credit_limit__gte=0),
                name="credit_limit_not_negative",
                message="A credit limit is not negative.",
            ),
            bulksafe.Compute("email_key", Lower(Trim("email"))),
        ]


class Product(tables.ProductTable):
    class Meta:
        triggers = [
            bulksafe.Check(Q(price__gt=0), name="price_positive", message="A price is positive."),
            bulksafe.Check(
                Q(stock__gte=0),
                name="stock_not_negative",
                message="There are not that many in stock.",
            ),
            bulksafe.Immutable("sku"),
        ]


class Order(tables.OrderTable):
    class Meta:
        triggers = [
            bulksafe.Check(
                Q(discount__gte=0, discount__lte=F("amount")),
                name="discount_within_amount",
                message="A discount lies between zero and the amount.",
            ),
            bulksafe.Check(
                ~Q(status="shipped") | Q(shipped_at__isnull=False),
                name="shipped_has_date",
                message="A shipped order says when it was shipped.",
            ),
            bulksafe.Compute("net", F("amount") - F("discount")),
            bulksafe.Immutable("number"),
            bulksafe.Transition(
                "status",
                {"draft": ["paid", "cancelled"], "paid": ["shipped"]},
                initial=["draft"],
            ),
            bulksafe.Check(
                Q(old__status="draft"),
                operation=pgtrigger.Delete,
                name="only_drafts_deleted",
                message="Only a draft can be deleted; cancel the order instead.",
            ),
            bulksafe.Emit(
                order_fulfilled,
                when=Q(new__status="shipped") & ~Q(old__status="shipped"),
                name="fulfilled",
                argument="order",
            ),
        ]


class OrderLine(tables.OrderLineTable):
    class Meta:
        triggers = [
            bulksafe.Check(
                Q(quantity__gt=0), name="quantity_positive", message="A line has a quantity."
            ),
            bulksafe.Compute("total", F("quantity") * F("unit_price")),
            bulksafe.Immutable("order", "product"),
        ]


class LedgerEntry(tables.LedgerEntryTable):
    class Meta(tables.LedgerEntryTable.Meta):
        triggers = [
            bulksafe.Check(
                Q(amount__gt=0), name="amount_positive", message="An amount is positive."
            ),
            bulksafe.Compute(
                "signed_amount", Case(When(kind="credit", then=F("amount")), default=-F("amount"))
            ),
            bulksafe.Immutable("account", "kind", "amount", "reference", "booked_at"),
            bulksafe.Check(
                Q(old__closed=False),
                operation=pgtrigger.Delete,
                name="closed_entry_kept",
                message="An entry of a closed period stays.",
            ),
        ]


class Refund(tables.RefundTable):
    """Its rules are receivers, in ``refunds.py``."""


class RefundTotal(tables.RefundTotalTable):
    """What a customer has got back."""


class AuditLog(tables.AuditLogTable):
    class Meta(tables.AuditLogTable.Meta):
        triggers = [
            bulksafe.Immutable("entity", "entity_id", "action", "detail", "at"),
        ]
