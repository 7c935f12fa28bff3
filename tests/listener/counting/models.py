"""A row's version says how often it was changed: what was lost, doubled or swapped shows in it."""

from django.db import models


class Counter(models.Model):
    version = models.IntegerField(default=0)


class Seen(models.Model):
    """A call of the receiver; ids go up in the order of the calls."""

    counter = models.BigIntegerField()
    old = models.IntegerField(null=True)
    new = models.IntegerField()
    event_id = models.TextField()
