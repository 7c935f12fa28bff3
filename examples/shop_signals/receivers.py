"""The rules of ``examples.shop.models`` and most of the receivers there, in signal receivers.

They hold for ``save()`` and for an instance's ``delete()``, and for no other write.
"""

from django.db import IntegrityError, transaction
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.dispatch import receiver

from examples.shop import refunds, warehouse
from examples.shop_signals.models import (
    AuditLog,
    Customer,
    LedgerEntry,
    Order,
    OrderLine,
    Product,
    Refund,
)

STATUS_TRANSITIONS = {"draft": {"paid", "cancelled"}, "paid": {"shipped"}}


class RuleBrokenError(IntegrityError):
    """A receiver refused a write."""


def refuse_unless(holds, message):
    if not holds:
        raise RuleBrokenError(message)


def stored(instance):
    """The row as it is before the save, or None for a new one."""
    return type(instance).objects.filter(pk=instance.pk).first() if instance.pk else None


def refuse_changes(old, new, *fields):
    for field in fields:
        refuse_unless(
            old is None or getattr(old, field) == getattr(new, field), f"{field} cannot change."
        )


@receiver(pre_save, sender=Customer)
def customer_rules(sender, instance, **kwargs):
    refuse_unless(instance.credit_limit >= 0, "A credit limit is not negative.")
    instance.email_key = instance.email.strip(" ").lower()


@receiver(pre_save, sender=Product)
def product_rules(sender, instance, **kwargs):
    refuse_unless(instance.price > 0, "A price is positive.")
    refuse_unless(instance.stock >= 0, "There are not that many in stock.")
    refuse_changes(stored(instance), instance, "sku")


@receiver(pre_save, sender=Order)
def order_rules(sender, instance, **kwargs):
    refuse_unless(
        0 <= instance.discount <= instance.amount, "A discount lies between zero and the amount."
    )
    refuse_unless(
        instance.status != "shipped" or instance.shipped_at is not None,
        "A shipped order says when it was shipped.",
    )
    instance.net = instance.amount - instance.discount
    old = stored(instance)
    refuse_changes(old, instance, "number")
    refuse_status(old, instance)
    instance.status_before = old and old.status


@receiver(post_save, sender=Order)
def keep_history(sender, instance, **kwargs):
    if instance.status != instance.status_before:
        AuditLog.objects.create(
            entity="order",
            entity_id=instance.pk,
            action=f"became {instance.status}",
            detail={"number": instance.number},
        )


@receiver(post_save, sender=Order)
def request_picking(sender, instance, **kwargs):
    """It is forgotten when the process dies between the commit and the request."""
    if instance.status == "paid" != instance.status_before:
        key = f"{instance.number}-paid"
        transaction.on_commit(lambda: warehouse.request_picking(instance.number, key))


def refuse_status(old, new):
    if old is None:
        refuse_unless(new.status == "draft", f"An order does not start as {new.status}.")
    elif old.status != new.status:
        refuse_unless(
            new.status in STATUS_TRANSITIONS.get(old.status, ()),
            f"An order does not go from {old.status} to {new.status}.",
        )


@receiver(pre_delete, sender=Order)
def order_deletion(sender, instance, **kwargs):
    refuse_unless(
        stored(instance).status == "draft",
        "Only a draft can be deleted; cancel the order instead.",
    )


@receiver(pre_save, sender=OrderLine)
def order_line_rules(sender, instance, **kwargs):
    refuse_unless(instance.quantity > 0, "A line has a quantity.")
    instance.total = instance.quantity * instance.unit_price
    refuse_changes(stored(instance), instance, "order_id", "product_id")


@receiver(pre_save, sender=LedgerEntry)
def ledger_entry_rules(sender, instance, **kwargs):
    refuse_unless(instance.amount > 0, "An amount is positive.")
    instance.signed_amount = instance.amount if instance.kind == "credit" else -instance.amount
    refuse_changes(
        stored(instance), instance, "account", "kind", "amount", "reference", "booked_at"
    )


@receiver(pre_delete, sender=LedgerEntry)
def ledger_entry_deletion(sender, instance, **kwargs):
    refuse_unless(not stored(instance).closed, "An entry of a closed period stays.")


@receiver(pre_save, sender=AuditLog)
def audit_log_rules(sender, instance, **kwargs):
    refuse_changes(stored(instance), instance, "entity", "entity_id", "action", "detail", "at")


# The same functions as in the other shop.
pre_save.connect(refunds.keep_the_rules, sender=Refund)
pre_save.connect(refunds.give_number, sender=Refund)
post_save.connect(refunds.keep_history, sender=Refund)
post_save.connect(refunds.keep_total, sender=Refund)
post_delete.connect(refunds.keep_total, sender=Refund)
pre_delete.connect(refunds.refuse_approved, sender=Refund)
post_delete.connect(refunds.note_withdrawal, sender=Refund)
