"""Tables that have lost a column: PostgreSQL keeps its place, and other columns follow."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models.signals import post_delete, post_save

from tests.apps.edges.models import Low, Stamped, Top
from tests.integration import inline, reception

pytestmark = pytest.mark.django_db

#: The columns behind the dropped one, of other types than the one before theirs.
TABLES = {
    "edges_stamped": "number integer NOT NULL DEFAULT 0",
    "edges_top": "name varchar(20) NOT NULL DEFAULT ''",
    "edges_low": "depth integer NOT NULL DEFAULT 0",
}


@pytest.fixture(autouse=True)
def dropped():
    """Each table loses a column and gets it again, behind two others."""
    with connection.cursor() as cursor:
        for table, column in TABLES.items():
            cursor.execute(f"ALTER TABLE {table} ADD lost jsonb, ADD kept text")
            cursor.execute(f"ALTER TABLE {table} DROP COLUMN {column.split()[0]}")
            cursor.execute(f"ALTER TABLE {table} DROP COLUMN lost, ADD {column}")
    with inline.only_these():
        yield


def test_receivers_in_the_transaction():
    seen = []

    def note(instance, old, changed, **kwargs):
        seen.append((old and (old.code, old.number), instance.code, instance.number, changed))

    inline.critical([post_save, post_delete], Stamped, note)
    Stamped.objects.bulk_create([Stamped(code="a", number=1)])
    Stamped.objects.update(number=2)
    Stamped.objects.get().delete()
    assert seen == [
        (None, "a", 1, {"id", "code", "number", "created"}),
        (("a", 1), "a", 2, {"number"}),
        (("a", 2), "a", 2, set()),
    ]


def test_the_parts_of_a_child():
    seen = []

    def note(instance, old, changed, **kwargs):
        seen.append((old.name, old.depth, instance.name, instance.depth, changed))

    low = Low.objects.create(name="a", depth=1)
    inline.critical(post_save, Low, note)
    Low.objects.update(name="b", depth=2)
    Low.objects.update(depth=3)
    Top.objects.filter(pk=low.pk).update(name="c")
    assert seen == [
        ("a", 1, "b", 2, {"name", "depth"}),
        ("b", 2, "b", 3, {"depth"}),
        ("b", 3, "c", 3, {"name"}),
    ]


def test_receivers_after_the_commit():
    calls = reception.listen([post_save, post_delete], Stamped)
    Stamped.objects.bulk_create([Stamped(code="a", number=1), Stamped(code="b", number=2)])
    Stamped.objects.filter(code="a").update(number=5)
    Stamped.objects.filter(code="b").delete()
    assert [(call["instance"].code, call["instance"].number) for call in calls.delivered()] == [
        ("a", 1),
        ("b", 2),
        ("a", 5),
        ("b", 2),
    ]
