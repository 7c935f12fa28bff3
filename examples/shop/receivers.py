"""The shop's receivers for changes of orders and refunds, on every write path.

``manage.py bulksafe listen`` runs the order receivers after the commit, on every write path. Refund
receivers run in the writer's transaction. ``examples.shop_signals.receivers`` has the first two of
orders, and all of refunds, as Django's own receivers.
"""

from django.db.models import F, Q
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.dispatch import receiver

import bulksafe
from examples.shop import refunds, warehouse
from examples.shop.models import AuditLog, Order, Refund
from examples.shop.signals import order_fulfilled


@bulksafe.critical(
    post_save,
    sender=Order,
    run="after_commit",
    when=~Q(old__status=F("new__status")),  # new orders too: they have no old row
    dispatch_uid="shop.keep_history",
)
def keep_history(sender, instance, old, event_id, context, **kwargs):
    """An effect in the database: it and the progress of the listener commit together."""
    AuditLog.objects.create(
        entity="order",
        entity_id=instance.pk,
        action=f"became {instance.status}",
        detail={"number": instance.number, "event_id": event_id, **context},
    )


@bulksafe.critical(
    post_save,
    sender=Order,
    run="after_commit",
    when=Q(new__status=Order.Status.PAID) & ~Q(old__status=Order.Status.PAID),
    queue="warehouse",  # its delays affect no other queue
    atomic=False,  # no transaction is held open during the request
    dispatch_uid="shop.request_picking",
)
def request_picking(sender, instance, event_id, **kwargs):
    """An effect outside the database, which a crash can repeat: the key identifies repeats."""
    warehouse.request_picking(instance.number, key=event_id)


@receiver(order_fulfilled)
def note_fulfilment(sender, order, event_id, **kwargs):
    """An ordinary receiver: ``Emit`` in the model's Meta says when the signal is sent."""
    AuditLog.objects.create(
        entity="order",
        entity_id=order.pk,
        action="was fulfilled",
        detail={"number": order.number, "event_id": event_id},
    )


# Money must be right when the write commits. These are in another module, for the other shop has
# the same; otherwise "@bulksafe.critical(pre_save, sender=Refund)" stands above the function.
bulksafe.critical(pre_save, sender=Refund, dispatch_uid="shop.refund_rules")(refunds.keep_the_rules)
bulksafe.critical(pre_save, sender=Refund, dispatch_uid="shop.refund_number")(refunds.give_number)
bulksafe.critical(post_save, sender=Refund, dispatch_uid="shop.refund_history")(
    refunds.keep_history
)
bulksafe.critical([post_save, post_delete], sender=Refund, dispatch_uid="shop.refund_total")(
    refunds.keep_total
)
bulksafe.critical(pre_delete, sender=Refund, dispatch_uid="shop.refund_stays")(
    refunds.refuse_approved
)
bulksafe.critical(post_delete, sender=Refund, dispatch_uid="shop.refund_withdrawn")(
    refunds.note_withdrawal
)
