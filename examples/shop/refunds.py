"""What holds for refunds, in signal receivers as Django projects write them.

They are plain functions. ``examples.shop.receivers`` declares them with ``bulksafe.critical``, and
``examples.shop_signals.receivers`` connects the very same ones to Django's signals.
"""

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Max, Sum

ASKED_FOR, CHANGED, WITHDRAWN = "was asked for", "was changed", "was withdrawn"


def keep_the_rules(sender, instance, **kwargs):
    """Before a save: money goes back once it has come, not more of it, and for good."""
    order = instance.order
    if order.status not in {order.Status.PAID, order.Status.SHIPPED}:
        raise ValidationError("Nothing was paid for this order.")
    if not 0 < instance.amount <= order.net:
        raise ValidationError("A refund is at most what was paid for its order.")
    before = sender.objects.filter(pk=instance.pk).first()
    if before and before.order_id != instance.order_id:
        raise ValidationError("A refund stays with its order.")
    if before and before.approved and before.amount != instance.amount:
        raise ValidationError("An approved refund does not change.")


def give_number(sender, instance, **kwargs):
    """Before a save: the next number.

    It depends on the refunds before it, so that those of a ``bulk_create()`` are stored one by one.
    Of two transactions that come to the same number, the unique constraint refuses one.
    """
    if not instance.number:
        last = sender.objects.aggregate(last=Max("number"))["last"] or "R-000000"
        instance.number = f"R-{int(last[2:]) + 1:06}"


def keep_history(sender, instance, created, **kwargs):
    """After a save."""
    _note(sender, instance, ASKED_FOR if created else CHANGED)


def keep_total(sender, instance, **kwargs):
    """After a save, and after a deletion: what the order's customer has got back."""
    customer = instance.order.customer_id
    # One at a time for each customer: a sum does not see what others have not committed.
    with transaction.atomic():
        _sibling(sender, "Customer").objects.select_for_update().get(pk=customer)
        refunds = sender.objects.filter(order__customer=customer)
        _sibling(sender, "RefundTotal").objects.update_or_create(
            customer_id=customer,
            defaults={"amount": refunds.aggregate(total=Sum("amount"))["total"] or 0},
        )


def refuse_approved(sender, instance, **kwargs):
    """Before a deletion."""
    if instance.approved:
        raise ValidationError("An approved refund stays.")


def note_withdrawal(sender, instance, **kwargs):
    """After a deletion."""
    _note(sender, instance, WITHDRAWN)


def _note(sender, instance, action):
    _sibling(sender, "AuditLog").objects.create(
        entity="refund",
        entity_id=instance.pk,
        action=action,
        detail={"number": instance.number, "amount": str(instance.amount)},
    )


def _sibling(sender, name):
    """Another model of the same shop."""
    return sender._meta.app_config.get_model(name)
