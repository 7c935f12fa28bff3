"""The rules of ``Guarded``, one for one, in plain signal receivers on the twins.

They hold for ``save()`` and ``delete()`` only: that is what the other twin is compared with.
"""

from contextlib import contextmanager

from django.db import IntegrityError, transaction
from django.db.models.signals import pre_delete, pre_save

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


#: The modes of rules that are not enforced.
modes = {}


def refuse_unless(holds, rule, held_before=True):
    """
    Args:
        held_before: whether the row kept the rule before the change; True for a new row.
    """
    mode = modes.get(rule, "enforce")
    if not holds and mode != "observe" and (held_before or mode != "new"):
        raise RefusedError(rule)


def stored(instance):
    return type(instance).objects.filter(key=instance.key).first()


def is_within_amount(row):
    return row.discount <= row.amount


def is_within_ceiling(row):
    return row.ceiling is None or row.amount <= row.ceiling


def check_row(instance, **kwargs):
    old = stored(instance)
    for keeps, rule in (
        (is_within_amount, "discount_within_amount"),
        (is_within_ceiling, "amount_within_ceiling"),
    ):
        refuse_unless(keeps(instance), rule, old is None or keeps(old))


def compute_columns(instance, **kwargs):
    old = stored(instance)
    compute(instance, old, "net", ["amount", "discount"], instance.amount - instance.discount)
    compute(instance, old, "double_net", ["net"], instance.net * 2)


def compute(instance, old, column, inputs, value):
    mode = modes.get(f"compute_{column}", "enforce")
    is_touched = old is None or any(
        getattr(old, name) != getattr(instance, name) for name in (column, *inputs)
    )
    if mode == "enforce" or (mode == "new" and is_touched):
        setattr(instance, column, value)


def check_change(sender, instance, **kwargs):
    old = stored(instance)
    if old is None:
        refuse_unless(instance.state in INITIAL, "transition_state")
        return
    refuse_unless(instance.price <= old.price * 2, "price_at_most_doubles")
    refuse_unless(instance.number == old.number, "immutable_number")
    listed = {*INITIAL, *TRANSITIONS, *(s for after in TRANSITIONS.values() for s in after)}
    refuse_unless(
        instance.state == old.state or instance.state in TRANSITIONS.get(old.state, ()),
        "transition_state",
        old.state in listed or instance.state not in listed,
    )


def keep_locked(sender, instance, **kwargs):
    refuse_unless(not sender.objects.get(key=instance.key).locked, "locked_is_kept")


#: The rows that a deferred rule looks at when the transaction ends, as (model, key): whether each
#: kept the rule before the transaction.
to_check_at_commit = {}


def note_for_commit(sender, instance, **kwargs):
    old = stored(instance)
    is_balanced = old is None or old.debit == old.credit
    to_check_at_commit.setdefault((sender, instance.key), is_balanced)


def check_at_commit():
    """What the end of a transaction is to a deferred rule. Django has no signal for it."""
    for model, key in sorted(to_check_at_commit, key=lambda row: (row[0].__name__, row[1])):
        for row in model.objects.filter(key=key):
            kept = to_check_at_commit[model, key]
            refuse_unless(row.debit == row.credit, "balanced", kept)


@contextmanager
def whole_transaction():
    """A transaction at whose end the deferred rule is checked."""
    to_check_at_commit.clear()
    with transaction.atomic(durable=True):
        yield
        check_at_commit()


for sender in SENDERS:
    for receiver in (note_for_commit, check_row, check_change, compute_columns):
        pre_save.connect(receiver, sender=sender)
    pre_delete.connect(keep_locked, sender=sender)
