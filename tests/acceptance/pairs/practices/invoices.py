"""Invoices: numbers, totals, copied addresses, payments, closing."""

from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, Max
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from tests.acceptance.pairs.case import (
    CREATE,
    DELETE,
    UPDATE,
    TransitionNotAllowed,
    practice,
)
from tests.acceptance.pairs.practices.accounts import accounts


def two_invoices(m):
    accounts(m)
    for n in (101, 102):
        m.Address.objects.create(account_id=n, street=f"Street {n}", city="Bern", is_default=True)
        m.Product.objects.create(pk=n, name=f"Product {n}", price=Decimal("9.95") * n, stock=5)
        m.Invoice.objects.create(pk=n, account_id=n)


OF_INVOICES = {
    "model": "Invoice",
    "setup": two_invoices,
    "row": lambda m, n: {"account_id": (101, 102, None)[n % 3]},
    "values": {"days_to_pay": 30},
    "new": lambda n: {"days_to_pay": 20 + n},
}
OF_LINES = {
    "model": "Line",
    "setup": two_invoices,
    "row": lambda m, n: {
        "invoice_id": 101 + n % 2,
        "product_id": 101 + n % 3 % 2,
        "quantity": 1 + n,
        "price": Decimal("1.05"),
    },
    "values": {"quantity": F("quantity") + 1},
    "new": lambda n: {"quantity": 10 + n},
}


@practice("the next number of the year", **OF_INVOICES | {"kinds": (CREATE, UPDATE)})
def number(m):
    def assign(sender, instance, **kwargs):
        if not instance.number:
            year = f"{instance.day.year}-"
            last = sender.objects.filter(number__startswith=year).aggregate(n=Max("number"))["n"]
            instance.number = f"{year}{int(last[5:]) + 1 if last else 1:04}"

    return [(pre_save, m.Invoice, assign)]


@practice("the day when an invoice is due", **OF_INVOICES | {"kinds": (CREATE, UPDATE)})
def due(m):
    def compute(sender, instance, **kwargs):
        instance.due = instance.day + timedelta(days=instance.days_to_pay)

    return [(pre_save, m.Invoice, compute)]


@practice("the address of the account is copied", **OF_INVOICES | {"kinds": (CREATE, UPDATE)})
def copied_address(m):
    def copy(sender, instance, **kwargs):
        if instance._state.adding and instance.account_id and not instance.street:
            address = instance.account.addresses.filter(is_default=True).first()
            if address:
                instance.street, instance.city = address.street, address.city

    return [(pre_save, m.Invoice, copy)]


@practice("the custom save() of the parent adds up", **OF_LINES)
def totals(m):
    def multiply(sender, instance, **kwargs):
        amount = instance.price * instance.quantity * Decimal("0.975")
        instance.amount = amount.quantize(Decimal("0.01"), ROUND_HALF_UP)

    def add_up(sender, instance, **kwargs):
        if instance.invoice:
            instance.invoice.add_up()

    return [
        (pre_save, m.Line, multiply),
        (post_save, m.Line, add_up),
        (post_delete, m.Line, add_up),
    ]


@practice(
    "the price of the product is kept",
    **OF_LINES
    | {
        "kinds": (CREATE, UPDATE),
        "row": lambda m, n: {"invoice_id": 101, "product_id": 101 + n % 2},
        "values": {"price": None},
        "new": lambda n: {"price": (None, Decimal("3.00"))[n % 2]},
    },
)
def price(m):
    def snapshot(sender, instance, **kwargs):
        if instance.price is None:
            instance.price = instance.product.price

    return [(pre_save, m.Line, snapshot)]


@practice("the next position in the invoice", **OF_LINES | {"kinds": (CREATE,)})
def next_position(m):
    def place(sender, instance, **kwargs):
        if instance._state.adding:
            siblings = instance.invoice.lines.all()
            instance.position = (siblings.aggregate(last=Max("position"))["last"] or 0) + 1

    return [(pre_save, m.Line, place)]


@practice(
    "positions close up, by bulk_update()",
    **OF_LINES
    | {
        "row": lambda m, n: {"invoice_id": 101 + n % 2, "position": n},
        "kinds": (DELETE,),
    },
)
def close_up(m):
    def renumber(sender, instance, **kwargs):
        remaining = list(sender.objects.filter(invoice_id=instance.invoice_id).order_by("position"))
        for position, line in enumerate(remaining, start=1):
            line.position = position
        sender.objects.bulk_update(remaining, ["position"])
        m.log(f"{instance.invoice_id}: {len(remaining)} left")

    return [(post_delete, m.Line, renumber)]


@practice(
    "a sent invoice keeps its lines",
    **OF_LINES
    | {
        "setup": lambda m: [
            two_invoices(m),
            m.Invoice.objects.filter(pk=102).update(status="sent"),
        ],
        "row": lambda m, n: {"invoice_id": 101 + n // 5, "price": Decimal(n)},
        "kinds": (CREATE,),
        "new": lambda n: {"price": Decimal(5)},
        "only": (
            "save()",
            "bulk_create()",
            "bulk_create(), keys given",
            "INSERT",
            "INSERT … SELECT",
        ),
    },
)
def sent(m):
    def refuse(sender, instance, **kwargs):
        if instance.invoice and instance.invoice.status != "draft":
            raise ValidationError({"invoice": ["It is sent."]})

    return [(pre_save, m.Line, refuse), (pre_delete, m.Line, refuse)]


@practice(
    "states of an invoice, and a task after the commit",
    **OF_INVOICES
    | {
        "kinds": (UPDATE,),
        "values": {"status": "sent"},
        "new": lambda n: {"status": ("sent", "void")[n % 2]},
        "row": lambda m, n: {"status": "draft", "street": f"Street {n}"},
    },
)
def states(m):
    def check(sender, instance, **kwargs):
        stored = sender.objects.only("status").filter(pk=instance.pk).first()
        old = stored.status if stored else "draft"
        if (old, instance.status) in {("paid", "draft"), ("void", "sent")}:
            raise TransitionNotAllowed(old)
        instance.is_sent_now = old == "draft" and instance.status == "sent"

    def send(sender, instance, **kwargs):
        if instance.is_sent_now:
            transaction.on_commit(lambda: m.calls.append(("send", instance.street)))

    return [(pre_save, m.Invoice, check), (post_save, m.Invoice, send)]
