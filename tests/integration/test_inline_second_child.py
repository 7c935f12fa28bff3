"""Objects in hand whose row is also a row of a second child in multi-table inheritance."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models.signals import post_save, pre_save

from tests.apps.edges.models import Beside, Low
from tests.apps.practice.models import Log
from tests.integration import inline

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        yield


@pytest.fixture
def low(db):
    row = Low.objects.create(name="old", depth=1)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {Beside._meta.db_table} (top_ptr_id, width) VALUES (%s, 1)", [row.pk]
        )
    return row


def save(row):
    row.save()


def bulk_update(row):
    Low.objects.bulk_update([row], ["name", "depth"])


@pytest.mark.parametrize("write", [save, bulk_update])
@pytest.mark.parametrize("early", [pre_save, None], ids=["early", "late only"])
@pytest.mark.parametrize("is_looking", [False, True])
def test_a_receiver_of_the_other_child_changes_nothing_of_the_object(write, early, is_looking, low):
    """The receiver before it sees the row between the two statements, with the old depth."""
    seen = []

    def note(instance, **kwargs):
        if is_looking:
            Log.objects.exists()
        seen.append((type(instance), instance.name))

    if early is not None:
        inline.critical(pre_save, Low, lambda **kwargs: None)
    inline.critical(pre_save, Beside, note)
    inline.critical(post_save, Low, lambda instance, old, **kwargs: seen.append(instance.depth))
    low.name, low.depth = "new", 7
    write(low)

    assert seen == [(Beside, "new"), 7]
    assert (low.name, low.depth) == ("new", 7)
    assert Low.objects.values_list("name", "depth").get() == ("new", 7)


@pytest.mark.parametrize("write", [save, bulk_update])
@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_only_the_other_child_has_a_receiver(write, signal, low):
    """The object's own model has none, and yet its write is theirs."""
    seen = []
    inline.critical(
        signal, Beside, lambda instance, **kwargs: seen.append((instance.pk, instance.name))
    )
    low.name = "new"
    write(low)

    assert seen == [(low.pk, "new")]
    assert Low.objects.values_list("name", "depth").get() == ("new", 1)
