"""The rules of ``Guarded``, one for one, in plain signal receivers on the twins.

They hold for ``save()`` and ``delete()`` only: that is what the other twin is compared with.
"""

from contextlib import contextmanager

from django.db import IntegrityError, transaction
from django.db.models.signals import post_save, pre_delete, pre_save

from tests.apps.twins.models import (
    INITIAL,
    TRANSITIONS,
    DocumentTwin,
    EntryTwin,
    MemoTwin,
    ParcelTwin,
    ReportTwin,
)

SENDERS = (DocumentTwin, EntryTwin, MemoTwin, ParcelTwin, ReportTwin)


class RefusedError(IntegrityError):
    """A receiver refuses the write. Its only argument is the name of the rule."""


def refuse_unless(holds, rule):
    if not holds:
        raise RefusedError(rule)


def check_row(instance, **kwargs):
    refuse_unless(instance.discount <= instance.amount, "discount_within_amount")
    refuse_unless(
        instance.ceiling is None or instance.amount <= instance.ceiling, "amount_within_ceiling"
    )


def compute_columns(instance, **kwargs):
    instance.net = instance.amount - instance.discount
    instance.double_net = instance.net * 2


def check_change(sender, instance, **kwargs):
    old = sender.objects.filter(key=instance.key).first()
    if old is None:
        refuse_unless(instance.state in INITIAL, "transition_state")
        return
    refuse_unless(instance.price <= old.price * 2, "price_at_most_doubles")
    refuse_unless(instance.number == old.number, "immutable_number")
    refuse_unless(
        instance.state == old.state or instance.state in TRANSITIONS.get(old.state, ()),
        "transition_state",
    )


def keep_locked(sender, instance, **kwargs):
    refuse_unless(not sender.objects.get(key=instance.key).locked, "locked_is_kept")


#: The rows that a deferred rule looks at when the transaction ends, as (model, key).
to_check_at_commit = set()


def note_for_commit(sender, instance, **kwargs):
    to_check_at_commit.add((sender, instance.key))


def check_at_commit():
    """What the end of a transaction is to a deferred rule. Django has no signal for it."""
    for model, key in sorted(to_check_at_commit, key=lambda row: (row[0].__name__, row[1])):
        for row in model.objects.filter(key=key):
            refuse_unless(row.debit == row.credit, "balanced")


@contextmanager
def whole_transaction():
    """A transaction at whose end the deferred rule is checked."""
    to_check_at_commit.clear()
    with transaction.atomic(durable=True):
        yield
        check_at_commit()


for sender in SENDERS:
    for receiver in (check_row, check_change, compute_columns):
        pre_save.connect(receiver, sender=sender)
    post_save.connect(note_for_commit, sender=sender)
    pre_delete.connect(keep_locked, sender=sender)
