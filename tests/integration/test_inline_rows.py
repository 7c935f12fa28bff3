"""Rows of every kind, and what happens to them, before receivers in the writer's transaction."""

from __future__ import annotations

import uuid

import pytest
from django.db import connection
from django.db.models import F, JSONField, Value
from django.db.models.functions import Concat
from django.db.models.signals import m2m_changed, post_save, pre_save

from tests.apps.mirrors.models import (
    CriticalEntry,
    CriticalShelf,
    CriticalTag,
    Place,
    Sample,
    Ware,
)
from tests.integration import inline

pytestmark = pytest.mark.django_db

ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        yield


def execute(text, params=None):
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        return cursor.fetchall() if cursor.description else None


def test_rows_that_a_deletion_sets_null_are_rehearsed_beside_rows_that_it_deletes():
    CriticalShelf.objects.create(number=1)
    CriticalEntry.objects.create(number=1, shelf_id=1)
    CriticalEntry.objects.create(number=2, box_id=1)
    stored = []

    def look(sender, instance, **kwargs):
        stored.append((instance.box_id, sender.objects.get(pk=instance.pk).box_id))
        instance.version += 1

    inline.critical(pre_save, CriticalEntry, look)
    CriticalShelf.objects.filter(number=1).delete()

    assert stored == [(None, 1)]
    assert CriticalEntry.objects.values_list("number", "version").get() == (2, 1)


def test_links_that_are_written_past_the_manager_are_announced_once():
    link = CriticalEntry.tags.through
    entry = CriticalEntry.objects.create(number=1)
    for number in (1, 2):
        CriticalTag.objects.create(number=number)
    seen = []

    def look(instance, action, pk_set, **kwargs):
        stored = set(instance.tags.values_list("pk", flat=True))
        seen.append((action, pk_set, stored))

    inline.critical(m2m_changed, link, look)
    link.objects.bulk_create(link(criticalentry=entry, criticaltag_id=n) for n in (1, 2))
    link.objects.filter(criticaltag=1).delete()
    execute(f"DELETE FROM {link._meta.db_table}")

    assert seen == [
        ("pre_add", {1, 2}, set()),
        ("post_add", {1, 2}, {1, 2}),
        ("pre_remove", {1}, {1, 2}),
        ("post_remove", {1}, {2}),
        ("pre_remove", {2}, {2}),
        ("post_remove", {2}, set()),
    ]


def test_generated_columns_change_along_where_rows_are_stored_one_by_one():
    Sample.objects.bulk_create(Sample(id=key) for key in (ONE, TWO))
    seen = []

    def look(sender, instance, **kwargs):
        instance.height = sender.objects.filter(width=5).count() + 1

    inline.critical(pre_save, Sample, look)
    inline.critical(post_save, Sample, lambda instance, **kwargs: seen.append(instance.area))
    Sample.objects.update(width=5)

    assert list(Sample.objects.order_by("id").values_list("area", flat=True)) == [5, 10]
    assert seen == [5, 10]


def test_only_what_was_assigned_to_a_row_is_stored_of_it():
    """A null of JSON and one of SQL are the same to Python."""
    Sample.objects.create(id=ONE, data=Value(None, JSONField()))
    Sample.objects.create(id=TWO, data={})

    def assign(instance, **kwargs):
        if instance.data is None:
            instance.name = "none"
        else:
            instance.data["n"] = 1

    inline.critical(pre_save, Sample, assign)
    Sample.objects.update(height=4)

    rows = execute("SELECT data::text FROM mirrors_sample ORDER BY id")
    assert rows == [("null",), ('{"n": 1}',)]
    assert list(Sample.objects.order_by("id").values_list("name", flat=True)) == ["none", ""]


def test_an_expression_that_a_receiver_assigns_is_no_write_of_its_own():
    Ware.objects.create(code="a")
    calls = []

    def assign(instance, **kwargs):
        calls.append(instance.count)
        instance.count = F("count") + 1

    inline.critical(pre_save, Ware, assign)
    after = inline.critical(post_save, Ware)
    Ware.objects.update(count=5)

    assert calls == [5]
    assert [call["instance"].count for call in after] == [6]
    assert Ware.objects.get().count == 6


@pytest.mark.parametrize("looks", [False, True])
def test_the_key_of_a_row_changes(looks):
    for code in ("a", "b"):
        Ware.objects.create(code=code)
    keys = []

    def before(sender, instance, old, **kwargs):
        keys.append((old.pk, instance.pk))
        instance.count += sender.objects.filter(name="").count() if looks else 2

    inline.critical(pre_save, Ware, before)
    after = inline.critical(post_save, Ware)
    Ware.objects.update(code=Concat("code", Value("2")))

    assert keys == [("a", "a2"), ("b", "b2")]
    assert sorted(Ware.objects.values_list("code", "count")) == [("a2", 2), ("b2", 2)]
    assert [call["instance"].count for call in after] == [2, 2]


def test_a_receiver_assigns_the_key():
    inline.critical(pre_save, Ware, lambda instance, **kwargs: upper(instance))
    after = inline.critical(post_save, Ware)
    execute("INSERT INTO mirrors_ware (code, name, count) VALUES ('a', '', 0), ('b', '', 0)")

    assert sorted(Ware.objects.values_list("code", flat=True)) == ["A", "B"]
    assert [call["instance"].pk for call in after] == ["A", "B"]


def upper(ware):
    ware.code = ware.code.upper()


@pytest.mark.parametrize("looks", [False, True])
def test_keys_of_two_columns(looks):
    def before(sender, instance, **kwargs):
        instance.count += 1
        if looks:
            instance.name = str(sender.objects.filter(count__gt=0).count())

    inline.critical(pre_save, Place, before)
    after = inline.critical(post_save, Place)
    Place.objects.bulk_create(Place(row=1, column=column) for column in "ab")
    Place.objects.update(row=2)
    execute("UPDATE mirrors_place SET row = row + 1 WHERE \"column\" = 'a'")
    Place.objects.bulk_create(
        [Place(row=3, column=column, count=10) for column in "ac"],
        update_conflicts=True,
        unique_fields=["row", "column"],
        update_fields=["count"],
    )

    assert sorted(Place.objects.values_list("pk", "count")) == [
        ((2, "b"), 2),
        ((3, "a"), 11),
        ((3, "c"), 11),
    ]
    assert [(call["instance"].pk, call["created"]) for call in after] == [
        ((1, "a"), True),
        ((1, "b"), True),
        ((2, "a"), False),
        ((2, "b"), False),
        ((3, "a"), False),
        ((3, "a"), False),
        ((3, "c"), True),
    ]
