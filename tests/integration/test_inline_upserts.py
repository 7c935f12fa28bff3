"""``bulk_create(update_conflicts=True)`` finds the rows that the database conflicts with."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from decimal import Decimal

import psycopg
import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save, pre_save

from examples import server
from tests.apps.columns.apps import HAS_ICU
from tests.apps.edges.models import Keyed, Placed, Stamped
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
    execute,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["before", "after", "both"])
def calls(request):
    """What the receivers of both models see."""
    found = []

    def before(instance, update_fields, **kwargs):
        found.append((instance.name, instance.number, update_fields is None))

    def after(instance, created, **kwargs):
        found.append((instance.name, instance.number, created))

    if request.param != "after":
        inline.critical(pre_save, [Keyed, Placed], before)
    if request.param != "before":
        inline.critical(post_save, [Keyed, Placed], after)
    return found


#: The stored value of a unique field, and a different value that the database treats as equal.
SAME = {
    "words": (["a", "b"], ["a", "b"]),
    "price": (Decimal("1.00"), Decimal("1.004")),
    "blob": (b"\x00x", memoryview(b"\x00x")),
    "lower": ("tea", "TEA"),
    "backwards": ("tea", "tea"),
    "folded": ("tea", "TEA"),
}


@pytest.mark.parametrize("field", SAME)
def test_receivers_get_the_row_that_conflicts(field, calls):
    if field == "folded" and execute(HAS_ICU) == [(False,)]:
        pytest.skip("the server has no such collations")
    stored, given = SAME[field]
    Keyed.objects.create(name="stored", **{field: stored})
    calls.clear()
    Keyed.objects.bulk_create(
        [Keyed(name="given", number=5, **{field: given}), Keyed(name="new", number=6)],
        update_conflicts=True,
        unique_fields=[field],
        update_fields=["number"],
    )
    assert set(calls) == {("stored", 5, False), ("new", 6, True)}
    rows = Keyed.objects.order_by("number").values_list("name", "number", field)
    assert [row[:2] for row in rows] == [("stored", 5), ("new", 6)]
    kept = rows[0][2]
    assert (bytes(kept) if field == "blob" else kept) == stored


@pytest.mark.skipif(
    "not connection.features.supports_nulls_distinct_unique_constraints",
    reason="the server takes no nulls for equal",
)
def test_nulls_that_conflict(calls):
    for area, shelf in ((None, 1), (1, None), (None, None)):
        Placed.objects.create(name=f"{area} {shelf}", area=area, shelf=shelf)
    calls.clear()
    places = [(None, 1), (1, None), (None, None), (1, 1), (None, 2)]
    Placed.objects.bulk_create(
        [Placed(name="new", number=n, area=a, shelf=s) for n, (a, s) in enumerate(places, 1)],
        update_conflicts=True,
        unique_fields=["area", "shelf"],
        update_fields=["number"],
    )
    assert set(calls) == {
        ("None 1", 1, False),
        ("1 None", 2, False),
        ("None None", 3, False),
        ("new", 4, True),
        ("new", 5, True),
    }
    assert Placed.objects.count() == 5


@pytest.fixture
def second():
    """A session of its own."""
    url = server.database_url(connection.settings_dict)
    with psycopg.connect(url, autocommit=True) as session:
        yield session


def repeatedly(codes):
    Stamped.objects.bulk_create(
        [Stamped(code=code, number=number) for number, code in enumerate(codes, 1)],
        update_conflicts=True,
        unique_fields=["code"],
        update_fields=["number"],
    )


@pytest.mark.parametrize("signals", [[pre_save], [post_save], [pre_save, post_save]], ids=len)
@pytest.mark.parametrize("is_known", [False, True])
def test_several_objects_for_one_row_update_it_in_turn(signals, is_known):
    found = []

    def before(instance, **kwargs):
        found.append(("before", instance.code, instance.number))

    def after(instance, created, **kwargs):
        found.append(("after", instance.code, instance.number, created))

    for signal in signals:
        inline.critical(signal, Stamped, before if signal is pre_save else after)
    if is_known:
        repeatedly(["x", "y"])
    Stamped.objects.create(code="there")
    found.clear()
    repeatedly(["there", "new", "there", "other", "new", "there"])
    rows = Stamped.objects.filter(code__in=["there", "new", "other"])
    assert dict(rows.values_list("code", "number")) == {"there": 6, "new": 5, "other": 4}
    if pre_save in signals:
        assert [one[1:] for one in found if one[0] == "before"] == [
            ("there", 1),
            ("new", 2),
            ("there", 3),
            ("other", 4),
            ("new", 5),
            ("there", 6),
        ]
    if post_save in signals:
        assert [one[1:] for one in found if one[0] == "after"] == [
            ("there", 1, False),
            ("new", 2, True),
            ("there", 3, False),
            ("other", 4, True),
            ("new", 5, False),
            ("there", 6, False),
        ]


def test_a_receiver_tells_equal_objects_apart():
    def give_code(instance, **kwargs):
        instance.code = f"{instance.code}-{instance.number}"

    inline.critical(pre_save, Stamped, give_code)
    repeatedly(["", "", ""])
    assert set(Stamped.objects.values_list("code", flat=True)) == {"-1", "-2", "-3"}


def test_the_rows_are_locked_before_receivers_see_them(second):
    def add(instance, **kwargs):
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute(f"SELECT FROM {Stamped._meta.db_table} FOR NO KEY UPDATE NOWAIT")
        instance.number += 1

    Stamped.objects.create(code="there")
    inline.critical(pre_save, Stamped, add)
    repeatedly(["there"])
    assert Stamped.objects.get().number == 2


WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND NOT granted)"


@pytest.mark.parametrize("surroundings", [nullcontext, transaction.atomic], ids=["", "atomic()"])
def test_a_deadlock_begins_the_write_again(surroundings):
    """The stored row is locked before the new one is stored; the other session goes that way."""
    Stamped.objects.create(code="b", number=0)
    calls = []

    def before(instance, **kwargs):
        calls.append((instance.code, instance.number))

    inline.critical(pre_save, Stamped, before)
    table = Stamped._meta.db_table
    url = server.database_url(connection.settings_dict)
    with psycopg.connect(url) as other, psycopg.connect(url, autocommit=True) as watching:
        # PostgreSQL ends the write of the session that notices the deadlock.
        other.execute("SET deadlock_timeout = '10min'; SET session_replication_role = replica")
        other.execute(f"INSERT INTO {table} (code, number, created) VALUES ('a', 1, now())")
        pid = connection.connection.info.backend_pid

        def meet():
            while not watching.execute(WAITS, [pid]).fetchone()[0]:
                pass
            other.execute(f"UPDATE {table} SET number = 2 WHERE code = 'b'")
            other.commit()

        meeting = threading.Thread(target=meet)
        meeting.start()
        rows = [Stamped(code="a", number=5), Stamped(code="b", number=6)]
        with surroundings():
            Stamped.objects.bulk_create(
                rows, update_conflicts=True, unique_fields=["code"], update_fields=["number"]
            )
        meeting.join()

    assert dict(Stamped.objects.values_list("code", "number")) == {"a": 5, "b": 6}
    assert calls[-2:] == [("a", 5), ("b", 6)]
    assert len(calls) > 2
