"""``m2m_changed`` as Django sends it: its arguments, and what becomes of changes to ``pk_set``."""

import inspect

import django
import pytest
from django.core import serializers
from django.db import connection, models, transaction
from django.db.models.fields import related_descriptors
from django.db.models.signals import m2m_changed

from tests.apps.mirrors.models import CriticalEntry as Entry
from tests.apps.mirrors.models import CriticalTag as Tag
from tests.apps.mirrors.models import PlainEntry, PlainTag
from tests.integration import inline, reception
from tests.unit.declaring import declare, isolated, tables

pytestmark = pytest.mark.django_db

Link = Entry.tags.through


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        yield


@pytest.fixture
def entry(only_these_receivers):
    Tag.objects.bulk_create(Tag(number=number) for number in range(1, 6))
    PlainTag.objects.bulk_create(PlainTag(number=number) for number in range(1, 6))
    PlainEntry.objects.create(number=1)
    return Entry.objects.create(number=1)


def execute(text, *params):
    with connection.cursor() as cursor:
        cursor.execute(text, params)


def linked(model=Entry):
    return sorted(
        model.tags.through.objects.values_list(
            f"{model.tags.field.m2m_reverse_field_name()}_id", flat=True
        )
    )


# Arguments.


def arguments_of(send, sender):
    """What Django passes to a receiver of its own."""
    found = []

    def receive(**kwargs):
        found.append(kwargs)

    m2m_changed.connect(receive, sender=sender)
    try:
        send()
    finally:
        m2m_changed.disconnect(receive, sender=sender)
    return found


def raw_of(kwargs):
    return kwargs.get("raw", "missing")


def test_the_arguments_of_a_write_past_the_manager_are_those_of_add(entry):
    plain = PlainEntry.objects.get()
    wanted = arguments_of(lambda: plain.tags.add(1), PlainEntry.tags.through)
    found = inline.critical(m2m_changed, Link)
    Link.objects.bulk_create([Link(criticalentry=entry, criticaltag_id=1)])

    assert [{*call, "event_id", "context"} for call in wanted] == [set(call) for call in found]
    assert list(map(raw_of, found)) == list(map(raw_of, wanted))
    assert raw_of(found[0]) == (False if django.VERSION >= (6, 1) else "missing")


def test_the_arguments_after_the_commit(entry):
    plain = PlainEntry.objects.get()
    wanted = arguments_of(lambda: plain.tags.add(1), PlainEntry.tags.through)
    calls = reception.listen(m2m_changed, Link)
    entry.tags.add(1)

    (call,) = calls.delivered()
    assert set(call) == {*wanted[-1], "event_id", "context"}
    assert raw_of(call) == raw_of(wanted[-1])


def test_a_fixture(entry):
    """Django says so, as for ``post_save``; since 6.1 of links, too."""
    entry.tags.add(1)
    text = serializers.serialize("json", [entry])
    entry.tags.clear()
    found = inline.critical(m2m_changed, Link)
    for each in serializers.deserialize("json", text):
        each.save()

    assert linked() == [1]
    assert [call["action"] for call in found] == ["pre_add", "post_add"]
    wanted = True if django.VERSION >= (6, 1) else "missing"
    assert [raw_of(call) for call in found] == [wanted, wanted]


@pytest.mark.parametrize(
    "write",
    [
        lambda entry: entry.tags.clear(),
        lambda entry: entry.tags.set([2], clear=True),
        lambda entry: entry.tags.set([2]),
        lambda entry: entry.tags.remove(1),
    ],
    ids=["clear", "set with clear", "set", "remove"],
)
def test_only_django_signals_links_removed_by_a_manager(entry, write):
    plain = PlainEntry.objects.get()
    plain.tags.add(1)
    entry.tags.add(1)
    wanted = arguments_of(lambda: write(plain), PlainEntry.tags.through)
    found = inline.critical(m2m_changed, Link)
    write(entry)

    def announced(calls):
        return [(c["action"], c["pk_set"], raw_of(c)) for c in calls]

    assert announced(found) == announced(wanted)


def test_the_methods_that_send_are_those_of_this_version():
    """If it fails, look at compat.M2M_CHANGED_SENDERS."""
    source = inspect.getsource(related_descriptors.create_forward_many_to_many_manager)
    senders = [
        part.split("(")[0]
        for part in source.split("        def ")[1:]
        if "m2m_changed.send" in part
    ]
    clear = "_clear_base" if django.VERSION >= (6, 1) else "clear"
    assert sorted(senders) == sorted(["_add_items", "_remove_items", clear])


# Changes to pk_set.


def editing(add=(), drop=(), action="pre_add"):
    """A receiver that changes what is written."""
    received = []

    def edit(pk_set, **kwargs):
        received.append((kwargs["action"], pk_set and sorted(pk_set)))
        if kwargs["action"] == action:
            pk_set.update(add)
            pk_set.difference_update(drop)

    return edit, received


def entries_of(model):
    """The manager of the entries of a tag."""
    tag = model.objects.get(number=1)
    return tag.plainentry_set if model is PlainTag else tag.criticalentry_set


MANAGER = {
    "add": lambda entry: entry.tags.add(1, 2),
    "add with defaults": lambda entry: entry.tags.add(1, 2, through_defaults={}),
    "set": lambda entry: entry.tags.set([1, 2]),
    "set with clear": lambda entry: entry.tags.set([1, 2], clear=True),
    "from the other side": lambda entry: (
        type(entry)
        .tags.field.related_model.objects.get(number=1)
        .__getattribute__(f"{type(entry).__name__.lower()}_set")
        .add(entry)
    ),
    "create": lambda entry: entry.tags.create(number=8),
    "get_or_create": lambda entry: entry.tags.get_or_create(number=8),
    "update_or_create": lambda entry: entry.tags.update_or_create(number=8),
}


@pytest.mark.parametrize(
    "edit", [{"add": [4]}, {"drop": [1, 8]}, {"add": [4], "drop": [1, 2, 8]}], ids=str
)
@pytest.mark.parametrize("name", MANAGER)
def test_a_manager_writes_the_pk_set_that_receivers_changed(entry, name, edit):
    """As Django does. From the other side the keys are keys of entries; there is one entry."""
    if name == "from the other side":
        edit = {"drop": [entry.pk, PlainEntry.objects.get().pk]}
    plain = PlainEntry.objects.get()
    theirs, expected = editing(**edit)
    m2m_changed.connect(theirs, sender=PlainEntry.tags.through)
    try:
        MANAGER[name](plain)
    finally:
        m2m_changed.disconnect(theirs, sender=PlainEntry.tags.through)
    ours, received = editing(**edit)
    inline.critical(m2m_changed, Link, ours)
    after_commit = reception.listen(m2m_changed, Link, name="listener")
    MANAGER[name](entry)

    assert linked() == linked(PlainEntry)
    assert [action for action, _ in received] == [action for action, _ in expected]
    if name != "from the other side":
        assert received == expected
        assert {pk for call in after_commit.delivered() for pk in call["pk_set"]} == set(linked())


def test_a_manager_removes_the_pk_set_that_receivers_changed(entry):
    entry.tags.add(1, 2, 3)
    edit, received = editing(add=[3], drop=[1], action="pre_remove")
    inline.critical(m2m_changed, Link, edit)
    entry.tags.remove(1, 2)

    assert linked() == [1]
    assert received == [("pre_remove", [1, 2]), ("post_remove", [2, 3])]


def test_a_field_that_is_symmetrical(entry):
    with isolated():
        person = declare(class_name="Person", friends=models.ManyToManyField("self"))
        with tables(person):
            through = person.friends.through
            edit, _ = editing(drop=[2])
            inline.critical(m2m_changed, through, edit)
            one, _, _ = (person.objects.create(id=number) for number in (1, 2, 3))
            one.friends.add(2, 3)

            # Django writes the mirrored link without a signal.
            pairs = set(through.objects.values_list("from_person_id", "to_person_id"))
            assert pairs == {(1, 3), (2, 1), (3, 1)}


def insert(entry, *tags):
    values = ", ".join(f"({entry.pk}, {tag})" for tag in tags)
    return f"INSERT INTO {Link._meta.db_table} (criticalentry_id, criticaltag_id) VALUES {values}"


def links(entry, *tags):
    return [Link(criticalentry=entry, criticaltag_id=tag) for tag in tags]


def with_driver_cursor(text):
    """Receivers run at the next statement, and take the transaction along."""
    with transaction.atomic():
        connection.connection.execute(text)
        execute("SELECT 1")


PAST_THE_MANAGER = {
    "save": lambda entry: links(entry, 1)[0].save(),
    "create": lambda entry: Link.objects.create(criticalentry=entry, criticaltag_id=1),
    "bulk_create": lambda entry: Link.objects.bulk_create(links(entry, 1, 2)),
    "bulk_create that ignores": lambda entry: Link.objects.bulk_create(
        links(entry, 1, 2), ignore_conflicts=True
    ),
    "bulk_create in parts": lambda entry: Link.objects.bulk_create(
        links(entry, 1, 2), batch_size=1
    ),
    "raw SQL": lambda entry: execute(insert(entry, 1, 2)),
    "INSERT … SELECT": lambda entry: execute(
        f"{insert(entry, 1).partition('VALUES')[0]} SELECT {entry.pk}, number FROM "
        f"{Tag._meta.db_table} WHERE number < 3"
    ),
    "the driver's cursor": lambda entry: with_driver_cursor(insert(entry, 1, 2)),
}


@pytest.mark.parametrize("edit", [{"add": [4]}, {"drop": [1]}, {"add": [4], "drop": [1]}], ids=str)
@pytest.mark.parametrize("name", PAST_THE_MANAGER)
def test_a_write_that_bypasses_the_manager_refuses_changes_of_pk_set(entry, name, edit):
    inline.critical(m2m_changed, Link, editing(**edit)[0], dispatch_uid="edit")

    with pytest.raises(ValueError, match=r"edit.* changed pk_set in pre_add, but the write names"):
        PAST_THE_MANAGER[name](entry)
    assert linked() == []


@pytest.mark.parametrize(
    "write",
    [
        lambda: Link.objects.filter(criticaltag=1).delete(),
        lambda: Link.objects.get(criticaltag=1).delete(),
        lambda: execute(f"DELETE FROM {Link._meta.db_table} WHERE criticaltag_id = 1"),
    ],
    ids=["a queryset", "an instance", "raw SQL"],
)
def test_a_deletion_that_bypasses_the_manager_refuses_changes_of_pk_set(entry, write):
    entry.tags.add(1, 2)
    inline.critical(m2m_changed, Link, editing(drop=[1], action="pre_remove")[0])

    with pytest.raises(ValueError, match="changed pk_set in pre_remove"):
        write()
    assert linked() == [1, 2]


def test_changing_pk_set_afterwards_has_no_effect(entry):
    """As with Django: the links are written."""
    inline.critical(m2m_changed, Link, editing(drop=[1], action="post_add")[0])
    Link.objects.bulk_create(links(entry, 1, 2))

    assert linked() == [1, 2]


def test_a_receiver_that_returns_the_same_pk_set_is_not_refused(entry):
    def edit(pk_set, **kwargs):
        pk_set.discard(1)
        pk_set.add(1)

    inline.critical(m2m_changed, Link, edit)
    Link.objects.bulk_create(links(entry, 1, 2))

    assert linked() == [1, 2]
