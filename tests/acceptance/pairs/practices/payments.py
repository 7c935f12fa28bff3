"""Payments: their effect on the invoice and on the account."""

from decimal import Decimal

from django.core.exceptions import ValidationError
from django.db.models import F, Sum
from django.db.models.signals import post_delete, post_save, pre_save
from django.utils import timezone

from tests.acceptance.pairs.case import UPDATE, practice
from tests.acceptance.pairs.practices.invoices import two_invoices

OF_PAYMENTS = {
    "model": "Payment",
    "setup": lambda m: [two_invoices(m), m.Invoice.objects.update(gross=20, status="sent")],
    "row": lambda m, n: {"invoice_id": 101 + n % 2, "amount": Decimal(5 + n)},
    "values": {"amount": F("amount") * 2},
    "new": lambda n: {"amount": Decimal(2 + n)},
}


@practice("an invoice is paid when payments cover it", **OF_PAYMENTS)
def paid(m):
    def settle(sender, instance, **kwargs):
        invoice = m.Invoice.objects.select_for_update().get(pk=instance.invoice_id)
        total = invoice.payments.filter(is_settled=True).aggregate(total=Sum("amount"))["total"]
        covered = (total or 0) >= invoice.gross
        if covered and invoice.status == "sent":
            invoice.status, invoice.paid_at = "paid", timezone.now()
            invoice.save(update_fields=["status", "paid_at"])
        elif not covered and invoice.status == "paid":
            invoice.status, invoice.paid_at = "sent", None
            invoice.save(update_fields=["status", "paid_at"])

    def noted(sender, instance, created, **kwargs):
        m.log(f"{instance.pk} {instance.status}")

    return [
        (post_save, m.Payment, settle),
        (post_delete, m.Payment, settle),
        (post_save, m.Invoice, noted),
    ]


@practice("the balance of the account, by the difference", **OF_PAYMENTS)
def balance(m):
    def remember(sender, instance, **kwargs):
        old = sender.objects.filter(pk=instance.pk).first() if instance.pk else None
        instance._paid_before = old.amount if old else Decimal(0)

    def book(sender, instance, **kwargs):
        account = m.Account.objects.filter(pk=instance.invoice.account_id)
        account.update(balance=F("balance") + instance.amount - instance._paid_before)

    def take_back(sender, instance, **kwargs):
        account = instance.invoice.account
        account.balance -= instance.amount
        account.save(update_fields=["balance"])

    return [
        (pre_save, m.Payment, remember),
        (post_save, m.Payment, book),
        (post_delete, m.Payment, take_back),
    ]


@practice("no more is paid than is due", **OF_PAYMENTS | {"kinds": (UPDATE,)})
def overpaid(m):
    def refuse(sender, instance, **kwargs):
        others = instance.invoice.payments.exclude(pk=instance.pk)
        total = (others.aggregate(total=Sum("amount"))["total"] or 0) + instance.amount
        if total > 60:
            raise ValidationError(f"{total} of 60 would be paid.")

    return [(pre_save, m.Payment, refuse)]


@practice("one function for several senders", **OF_PAYMENTS)
def several_senders(m):
    def track(sender, instance, **kwargs):
        m.log(f"{sender.__name__} {kwargs['signal'] is post_save} {kwargs.get('created')}")

    def touch(sender, instance, **kwargs):
        instance.invoice.days_to_pay += 1
        instance.invoice.save()

    tracked = [
        (s, model, track) for s in (post_save, post_delete) for model in (m.Payment, m.Invoice)
    ]
    return [*tracked, (post_save, m.Payment, touch, {"row_by_row": True})]


@practice("a version for all children of an abstract base", **OF_PAYMENTS)
def abstract_base(m):
    def count(sender, instance, **kwargs):
        instance.version += 1

    stamped = m.Payment.__bases__[0]
    children = [m.Payment, m.Invoice] if m.label == "plain" else [stamped]
    return [(pre_save, sender, count) for sender in children]
