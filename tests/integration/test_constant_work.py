"""What each write looks up does not grow with the receivers of other models.

The instructions of the interpreter are counted, not the time: of the same write with the receivers
of few models and of many.
"""

import sys
from contextlib import contextmanager

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.db.models import F
from django.db.models.signals import post_delete, post_save, pre_save

import bulksafe
from bulksafe.declarations import receivers
from bulksafe.patches.signals import connect_critical, disconnect_critical
from bulksafe.writer import connecting, vocabulary
from tests.apps.practice.models import CriticalTag as Tag
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
)

pytestmark = pytest.mark.django_db(transaction=True)

FEW, MANY = 2, 250


def new():
    return [Tag(name=f"new {n}", used=1) for n in range(3)]


def delete_one():
    Tag.objects.order_by("pk").first().delete()


def execute_many():
    with connection.cursor() as cursor:
        cursor.executemany(f"UPDATE {Log._meta.db_table} SET id = id WHERE id = %s", [(1,), (2,)])


WRITES = {
    "save()": lambda: Tag(name="new", used=1).save(),
    "save() of a stored object": lambda: Tag.objects.order_by("pk").first().save(),
    "delete() of an object": delete_one,
    "bulk_create()": lambda: Tag.objects.bulk_create(new()),
    "update()": lambda: Tag.objects.update(used=F("used") + 1),
    "delete() of a queryset": lambda: Tag.objects.filter(name="none").delete(),
    "SQL": lambda: inline.execute(f"UPDATE {Tag._meta.db_table} SET used = used + 1"),
    "executemany() elsewhere": execute_many,
    "update() elsewhere": lambda: Log.objects.update(side=F("side")),
}


def see(**kwargs):
    """Does nothing."""


@contextmanager
def receivers_elsewhere(count):
    """Receivers of other models, which these writes do not concern."""
    spared = {Tag, Log, *(field.related_model for field in Tag._meta.related_objects)}
    others = [one for one in apps.get_models() if one not in spared and not one._meta.proxy]
    others = [one for one in others if one._meta.concrete_model is one and not one._meta.parents]
    assert len(others) * 2 >= count
    begun = len(receivers.receivers)
    for number in range(count):
        signal = (post_save, pre_save)[number * 2 // count]
        model = others[number % len(others)]
        bulksafe.critical(signal, sender=model, dispatch_uid=f"elsewhere {number}")(see)
    added = receivers.receivers[begun:]
    for receiver in added:
        connect_critical(receiver)
    try:
        yield
    finally:
        for receiver in added:
            disconnect_critical(receiver)
            receivers.receivers.remove(receiver)
        connecting.note_change()


def instructions(write):
    """How many instructions the interpreter executes for a write that was made before."""
    for _ in range(3):
        write()
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        write()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("signal", [None, post_save, pre_save, post_delete])
def test_work_does_not_grow(signal):
    if signal is not None:
        inline.critical(signal, Tag, see)
    counted = []
    for count in (FEW, MANY):
        with receivers_elsewhere(count):
            # The rows that are deleted, one for each time.
            Tag.objects.bulk_create(Tag(name=f"tag {n}", used=0) for n in range(10))
            counted.append({name: instructions(write) for name, write in WRITES.items()})
            with transaction.atomic():
                inside = {f"{name}, inside": instructions(write) for name, write in WRITES.items()}
            counted[-1] |= inside
            Tag.objects.all()._raw_delete("default")
    few, many = counted
    # A look at each of the many receivers takes more than a thousand.
    grown = {n: (few[n], many[n]) for n in few if many[n] > few[n] + 1000}
    assert grown == {}


def test_receivers_that_are_declared_while_the_catalogs_are_read(clean, monkeypatch):  # noqa: F811
    """The next write knows them: what was read is not taken for complete."""
    extend = vocabulary.Vocabulary.and_others

    def declare_meanwhile(self, connection):
        found = extend(self, connection)
        monkeypatch.undo()
        inline.critical(post_save, Log, see)
        return found

    inline.critical(post_save, Tag, see)
    vocabulary.forget("default")
    monkeypatch.setattr(vocabulary.Vocabulary, "and_others", declare_meanwhile)
    inline.execute(f"UPDATE {Tag._meta.db_table} SET used = 1")
    assert vocabulary.known_vocabulary_of("default") is None

    inline.execute(f"INSERT INTO {Log._meta.db_table} (side, text) VALUES ('', 'new')")
    assert vocabulary.known_vocabulary_of("default").by_name.keys() >= {Log._meta.db_table}
