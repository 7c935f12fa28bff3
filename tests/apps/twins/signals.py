"""What receivers are called with: critical ones of the guarded models, plain ones of the twins.

Both note their calls in the same way, so that a test can compare them.
"""

from dataclasses import dataclass

from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

import bulksafe
from tests.apps.twins.models import TWINS

NAMES = {post_save: "post_save", post_delete: "post_delete"}


@dataclass(frozen=True)
class Called:
    """One call of a receiver.

    Attributes:
        model: the model that Django's ``sender`` is, by the name that both twins share.
        created: None where the signal has no such argument.
        instance: its column values without the ids, as pairs.
        old: the same of the row before; None where there is none.
        changed: the names of the fields that differ, without the ids.
    """

    signal: str
    model: str
    created: bool | None
    instance: tuple
    old: tuple | None
    changed: frozenset[str]

    @property
    def key(self):
        return dict(self.instance)["key"]


#: The calls of the critical receivers and those of the plain ones.
of_critical: list[Called] = []
of_plain: list[Called] = []


def fields_of(model):
    """All but the ids: they come from two sequences, and a refused insert uses them up."""
    return [
        field
        for field in model._meta.concrete_fields
        if field.name == "key" or not field.primary_key
        if field.name != "id"
    ]


def row_of(instance):
    return instance and tuple(
        (field.attname, getattr(instance, field.attname)) for field in fields_of(type(instance))
    )


def called(signal, sender, instance, *, old, changed, created=None):
    ids = {field.name for field in sender._meta.concrete_fields} - {
        field.name for field in fields_of(sender)
    }
    return Called(
        NAMES[signal],
        sender.__name__.removesuffix("Twin"),
        created,
        row_of(instance),
        row_of(old),
        frozenset(changed) - ids,
    )


# The critical ones.

GUARDED = list(TWINS)


@bulksafe.critical(post_save, sender=GUARDED, run="after_commit")
def note_save(signal, sender, instance, *, created, old, changed, **kwargs):
    of_critical.append(called(signal, sender, instance, old=old, changed=changed, created=created))


@bulksafe.critical(post_delete, sender=GUARDED, run="after_commit")
def note_delete(signal, sender, instance, *, old, changed, **kwargs):
    of_critical.append(called(signal, sender, instance, old=old, changed=changed))


# The plain ones. Django passes no old row: they ask for it before the write.


def remember(sender, instance, **kwargs):
    instance.row_before = sender.objects.filter(key=instance.key).first()


def note_plain_save(signal, sender, instance, *, created, **kwargs):
    old = instance.row_before
    changed = {
        field.name
        for field in fields_of(sender)
        if old is None or getattr(old, field.attname) != getattr(instance, field.attname)
    }
    of_plain.append(called(signal, sender, instance, old=old, changed=changed, created=created))


def note_plain_delete(signal, sender, instance, **kwargs):
    of_plain.append(called(signal, sender, instance, old=instance.row_before, changed=()))


for twin in TWINS.values():
    pre_save.connect(remember, sender=twin)
    pre_delete.connect(remember, sender=twin)
    post_save.connect(note_plain_save, sender=twin)
    post_delete.connect(note_plain_delete, sender=twin)
