"""One table of orders for each method of notification, and one for received changes."""

import pgtrigger
from django.db import models
from django.utils import timezone


class OrderTable(models.Model):
    number = models.CharField(max_length=20)
    status = models.CharField(max_length=10, default="draft")
    amount = models.DecimalField(max_digits=12, decimal_places=2, default=100)
    #: Which change of the row this is, to see whether they come in order.
    step = models.IntegerField(default=1)
    note = models.CharField(max_length=100, default="")
    placed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        abstract = True

    def __str__(self):
        return self.number


class Plain(OrderTable):
    """No notification."""


class PlainAgain(OrderTable):
    """The same once more: how far the two are apart is the machine's noise."""


class Captured(OrderTable):
    """A critical receiver that does nothing."""


class CapturedWriting(OrderTable):
    """A critical receiver that makes one ORM write."""


class CapturedWaiting(OrderTable):
    """A critical receiver that waits, outside a transaction."""


class Notifying(OrderTable):
    """A trigger that sends a NOTIFY for each row, and so in every transaction."""

    class Meta:
        triggers = [
            pgtrigger.Trigger(
                name="notify",
                operation=pgtrigger.Insert | pgtrigger.Update,
                when=pgtrigger.After,
                func="PERFORM pg_notify('benchmark', NEW.id::text); RETURN NULL;",
            )
        ]


class Published(OrderTable):
    """The trigger of django-pgpubsub, where that is installed; its listener does nothing."""


class PublishedWriting(OrderTable):
    """The same; its listener makes one ORM write."""


class Seen(models.Model):
    """What a receiver has written."""

    order = models.BigIntegerField()
    step = models.IntegerField()

    def __str__(self):
        return f"{self.order}: {self.step}"
