"""Rows of every kind, and what happens to them, before receivers in the writer's transaction."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models.signals import m2m_changed, pre_save

from tests.apps.mirrors.models import CriticalEntry, CriticalShelf, CriticalTag
from tests.integration import inline

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        yield


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
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {link._meta.db_table}")

    assert seen == [
        ("pre_add", {1, 2}, set()),
        ("post_add", {1, 2}, {1, 2}),
        ("pre_remove", {1}, {1, 2}),
        ("post_remove", {1}, {2}),
        ("pre_remove", {2}, {2}),
        ("post_remove", {2}, set()),
    ]
