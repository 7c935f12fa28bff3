"""What the shop does when an order has changed, whoever wrote it and whatever way the write took.

``manage.py bulksafe listen`` runs these after the commit. ``examples.shop_signals.receivers`` has
the first two as Django's own receivers.
"""

from django.db.models import F, Q
from django.db.models.signals import post_save
from django.dispatch import receiver

import bulksafe
from examples.shop import warehouse
from examples.shop.models import AuditLog, Order
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
    queue="warehouse",  # its delays keep nobody else waiting
    atomic=False,  # no transaction is held open during the request
    dispatch_uid="shop.request_picking",
)
def request_picking(sender, instance, event_id, **kwargs):
    """An effect outside the database, which a crash can repeat: the key tells it apart."""
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
