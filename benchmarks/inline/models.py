"""One table of orders for each role. They differ in nothing but who is called for their rows.

Like those of the other benchmarks they have a primary key and no other index or foreign key: the
cheapest table to write to, and so the one on which a receiver costs most in proportion.
"""

from django.db import models
from django.utils import timezone


class OrderTable(models.Model):
    number = models.CharField(max_length=20)
    status = models.CharField(max_length=10, default="draft")
    quantity = models.IntegerField(default=1)
    amount = models.DecimalField(max_digits=12, decimal_places=2, default=100)
    is_locked = models.BooleanField(default=False)
    placed_at = models.DateTimeField(default=timezone.now)
    note = models.TextField(default="")

    class Meta:
        abstract = True

    def __str__(self):
        return self.number


class Plain(OrderTable):
    """No receivers: checks are made by hand."""


class Elsewhere(OrderTable):
    """No receivers; only the measurement of statements on such tables uses it."""


class CriticalAfter(OrderTable):
    """A critical ``post_save`` receiver."""


class SignalAfter(OrderTable):
    """The same function as a plain ``post_save`` receiver."""


class CriticalBefore(OrderTable):
    """A critical ``pre_save`` receiver."""


class SignalBefore(OrderTable):
    """The same function as a plain ``pre_save`` receiver."""


class CriticalChanged(OrderTable):
    """A critical ``post_save`` receiver that compares the row with what was stored before."""


class CriticalInTurn(OrderTable):
    """A critical ``post_save`` receiver that reads other rows: each row is written by itself."""


class SignalInTurn(OrderTable):
    """The same function as a plain ``post_save`` receiver."""


class CriticalDeleted(OrderTable):
    """A critical ``post_delete`` receiver."""


class SignalDeleted(OrderTable):
    """The same function as a plain ``post_delete`` receiver."""
