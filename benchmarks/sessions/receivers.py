"""Receivers that touch nothing but the instance."""

from __future__ import annotations

from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

import bulksafe
from benchmarks.sessions.models import (
    CriticalOld,
    CriticalPost,
    CriticalPre,
    PlainOld,
    PlainPost,
    PlainPre,
)


def look(instance, **kwargs):
    if instance.amount < 0:
        raise ValueError("The amount is less than zero.")


def compare(instance, old=None, **kwargs):
    if old is not None and instance.amount < 0 < old.amount:
        raise ValueError("The amount is less than zero.")


def fill_note(instance, **kwargs):
    instance.note = f"{instance.amount} of {instance.owner}"


#: What is connected to which signals, for which table and for which twin.
RECEIVERS = [
    ((post_save, post_delete), look, CriticalPost, PlainPost),
    ((post_save, post_delete), compare, CriticalOld, PlainOld),
    ((pre_save,), fill_note, CriticalPre, PlainPre),
    ((pre_delete,), look, CriticalPre, PlainPre),
]

for signals, function, critical, plain in RECEIVERS:
    for number, signal in enumerate(signals):
        uid = f"{critical.__name__}.{function.__name__}.{number}"
        bulksafe.critical(signal, sender=critical, dispatch_uid=uid)(function)
        signal.connect(function, sender=plain)
