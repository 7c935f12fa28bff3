"""Rows of every kind, and what happens to them, before receivers in the writer's transaction."""

from __future__ import annotations

import pytest
from django.db.models.signals import pre_save

from tests.apps.mirrors.models import CriticalEntry, CriticalShelf
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
