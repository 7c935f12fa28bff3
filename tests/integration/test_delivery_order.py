"""A worker's priorities: the longest-waiting cursors and the longest-due calls first."""

from __future__ import annotations

import pytest
from django.db.models.signals import post_save

from bulksafe.outbox import parking
from bulksafe.outbox.failures import UNTRIED
from bulksafe.outbox.known import Known
from bulksafe.outbox.parking import Parking
from tests.apps.columns.models import Nullable
from tests.integration import reception
from tests.integration.test_leases import RECEIVER, execute, source, store, take  # noqa: F401

pytestmark = pytest.mark.django_db

LANE = ("turns", True)


def claimed(store, limit):  # noqa: F811
    start = store.claim(Known(lanes={LANE: ()}), atomic=True, limit=limit, stale=0)
    return {cursor.bucket for cursor in start.cursors}


def test_the_least_recently_served_cursors_are_claimed_first(store):  # noqa: F811
    """Otherwise a busy bucket would keep the others waiting."""
    store.create_cursors([LANE])
    execute(
        "UPDATE bulksafe_cursor SET served_at = now() - interval '1 hour' "
        "* (mod(bucket * 7, 16) + 1) WHERE queue = 'turns'"
    )

    longest = {bucket for bucket in range(16) if bucket * 7 % 16 >= 13}
    assert claimed(store, 3) == longest
    execute("UPDATE bulksafe_cursor SET served_at = now() WHERE bucket = ANY (%s)", list(longest))
    assert claimed(store, 3) == {bucket for bucket in range(16) if 10 <= bucket * 7 % 16 < 13}


def make_alone(waits):
    """Let the parked calls be calls of their own, due since so many seconds."""
    execute("UPDATE bulksafe_parked SET call = NULL, leads = true")
    for seq, seconds in waits.items():
        execute(
            "UPDATE bulksafe_parked SET due = now() - %s * interval '1 second' WHERE seq = %s",
            *(seconds, seq),
        )


@pytest.mark.parametrize("waits", [{1: 10, 2: 90}, {1: 90, 2: 10}], ids=str)
def test_the_longest_due_call_is_taken_first(store, source, waits):  # noqa: F811
    make_alone(waits)
    first, second = sorted(waits, key=waits.__getitem__, reverse=True)

    assert [event.seq for event in take(store, source, 60).events] == [first]
    assert [event.seq for event in take(store, source, 60).events] == [second]


@pytest.mark.parametrize("waits", [{1: 10, 2: 90}, {1: 90, 2: 10}], ids=str)
def test_calls_taken_together_run_in_that_order(store, source, waits):  # noqa: F811
    make_alone(waits)
    listed = parking.take(store, "default", Known([(RECEIVER, source)]), 10, 60)

    found = [taken.events[0].seq for taken in listed]
    assert found == sorted(waits, key=waits.__getitem__, reverse=True)


def test_the_events_of_one_call_keep_the_order_of_the_writes(store, source):  # noqa: F811
    assert [event.seq for event in take(store, source, 60).events] == [1, 2]


def test_an_event_for_every_receiver_is_unfolded_in_their_order(store, source):  # noqa: F811
    make_alone({})
    names = ["last", "first", "middle"]
    parking.unfold(store, take(store, source, 60), names)

    found = execute("SELECT receiver FROM bulksafe_parked WHERE seq = 1 ORDER BY id")
    assert [name for (name,) in found] == names


def test_events_are_parked_in_the_given_order(store):  # noqa: F811
    """The number of a parked event is its place in the order of its row."""
    with reception.only_these():
        reception.listen(post_save, Nullable)
        Nullable.objects.bulk_create(Nullable(n=n) for n in range(3))
        events = store.own_events(0)
        for listed in (events, events[::-1]):
            parkings = [Parking(RECEIVER, event, UNTRIED) for event in listed]
            ids = parking.park(store, "default", atomic=True, parkings=parkings)

            assert ids == sorted(ids)
            found = execute("SELECT seq FROM bulksafe_parked WHERE id = ANY (%s) ORDER BY id", ids)
            assert [seq for (seq,) in found] == [event.seq for event in listed]


def test_lanes_get_their_cursors_in_one_order(store, monkeypatch):  # noqa: F811
    """Two listeners that start at once would deadlock over the same new cursors."""
    found = []
    monkeypatch.setattr(
        type(store), "rows", lambda self, name, parameters: found.append(parameters)
    )
    store.create_cursors([("b", False), ("a", True), ("b", True)])
    store.create_cursors([("b", True), ("b", False), ("a", True)])

    assert found == [{"queues": ["a", "b", "b"], "atomics": [True, False, True]}] * 2
