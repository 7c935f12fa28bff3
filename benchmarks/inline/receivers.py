"""One cheap check in Python, as a critical receiver and as a plain one on a twin of the table."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db.models.signals import post_delete, post_save, pre_save

import bulksafe
from benchmarks.inline.models import (
    CriticalAfter,
    CriticalBefore,
    CriticalChanged,
    CriticalDeleted,
    CriticalInTurn,
    SignalAfter,
    SignalBefore,
    SignalDeleted,
    SignalInTurn,
)


def check_amount(instance, **kwargs):
    if instance.amount < 0:
        raise ValidationError("The amount is less than zero.")


def check_lock(instance, **kwargs):
    if instance.is_locked:
        raise ValidationError("The order is locked.")


def check_before(instance, **kwargs):
    """Refuses what ``check_amount`` does, and reads the row that was stored before this one."""
    before = type(instance).objects.filter(pk=instance.pk - 1).first()
    if instance.amount < 0 or (before is not None and before.amount < 0):
        raise ValidationError("The amount is less than zero.")


def check_change(instance, old=None, **kwargs):
    """Refuses what ``check_amount`` does, unless the row was like that before."""
    if instance.amount < 0 and (old is None or old.amount >= 0):
        raise ValidationError("The amount is less than zero.")


#: What is connected to which signal, for which table and for which twin.
RECEIVERS = [
    (post_save, check_amount, CriticalAfter, SignalAfter),
    (pre_save, check_amount, CriticalBefore, SignalBefore),
    (post_save, check_before, CriticalInTurn, SignalInTurn),
    (post_delete, check_lock, CriticalDeleted, SignalDeleted),
]

for signal, function, critical, plain in RECEIVERS:
    bulksafe.critical(signal, sender=critical, dispatch_uid=critical.__name__)(function)
    signal.connect(function, sender=plain)

# A signal gives no ``old``: there is no twin.
bulksafe.critical(post_save, sender=CriticalChanged)(check_change)
