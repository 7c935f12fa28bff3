"""The five rules in a signal receiver, which looks the stored row up once for all of them."""

from django.db import IntegrityError
from django.db.models.signals import pre_save
from django.dispatch import receiver

from benchmarks.models import Signals

FOLLOWERS = {"draft": {"paid", "cancelled"}, "paid": {"shipped"}}


def refuse_if(broken, rule):
    if broken:
        raise IntegrityError(f"broken rule: {rule}")


@receiver(pre_save, sender=Signals)
def order_rules(sender, instance, **kwargs):
    refuse_if(not 0 <= instance.discount <= instance.amount, "discount")
    refuse_if(instance.status == "shipped" and instance.shipped_at is None, "shipped")
    instance.net = instance.amount - instance.discount
    if instance.pk is None:
        refuse_if(instance.status != "draft", "initial")
        return
    old = sender.objects.get(pk=instance.pk)
    refuse_if(instance.number != old.number, "number")
    refuse_if(
        instance.status != old.status and instance.status not in FOLLOWERS.get(old.status, ()),
        "status",
    )
