"""A process that has lost the lease of a parked call to a second process changes nothing of it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.db import connection

from bulksafe.outbox import parking, queries
from bulksafe.outbox.failures import Failure
from bulksafe.outbox.known import Known
from bulksafe.outbox.store import Store

pytestmark = pytest.mark.django_db

RECEIVER = "ship"
FAILURE = Failure(1, error="no", delay=60.0)


def named(taken, **more):
    return {"id": taken.id, "ids": taken.ids, "epoch": taken.epoch, **more}


def renew(store, taken):
    leases = {"ids": taken.ids, "epochs": [taken.epoch] * len(taken.ids)}
    store.rows("renew", {**leases, "lease": 3600})


#: Each query that a holder of a lease sends, and what sends it.
QUERIES = {
    "begin": lambda store, taken: parking.begin(store, taken, 3600),
    "release": lambda store, taken: parking.release(store, [taken]),
    "lock_taken": parking.hold,
    "renew": renew,
    "done": parking.done,
    "failed": lambda store, taken: parking.failed(store, taken, FAILURE),
    "split": parking.split,
    "died": lambda store, taken: parking.died(store, (taken.id, taken.epoch), 1, None, "killed"),
    "give_back": lambda store, taken: store.rows("give_back", named(taken)),
    "unfold": lambda store, taken: parking.unfold(store, taken, ["ship", "bill"]),
}
#: What they return says whether the lease is still held.
SAYING = {"begin", "lock_taken", "done", "failed"}


@pytest.fixture
def store(db):
    return Store("default")


def execute(text, *params):
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def source(db):
    ((oid,),) = execute("SELECT %s::regclass::oid::bigint", Group._meta.db_table)
    for seq in (1, 2):
        execute(
            "INSERT INTO bulksafe_parked "
            "(queue, atomic, bucket, receiver, seq, at, source, operation, key, new, call, leads) "
            "VALUES ('default', false, 0, %s, %s, now(), %s, 'I', %s, '{}', 7, %s)",
            *(RECEIVER, seq, oid, str(seq), seq == 1),
        )
    return oid


def take(store, source, lease):
    (taken,) = parking.take(store, "default", Known([(RECEIVER, source)]), 1, lease)
    return taken


def stored():
    return execute("SELECT to_jsonb(p) FROM bulksafe_parked AS p ORDER BY id")


def begun(store, source, lease):
    """A call that is being made, so that nothing about it is as it was when it was parked."""
    return parking.begin(store, take(store, source, lease), lease)


@pytest.mark.parametrize("name", QUERIES)
def test_only_the_process_that_holds_the_lease_changes_the_call(name, store, source):
    lost = begun(store, source, -1)
    held = begun(store, source, 60)
    before = stored()

    answer = QUERIES[name](store, lost)
    assert stored() == before
    if name in SAYING:
        assert not answer

    answer = QUERIES[name](store, held)
    if name in SAYING:
        assert answer
    if name != "lock_taken":
        assert stored() != before


def test_every_query_that_names_a_lease_is_tried():
    """A query of a new name belongs in the list above."""
    texts = {name: queries.query(name) for name in queries._all()}
    assert set(QUERIES) == {name for name, text in texts.items() if "%(epoch" in text}


def test_taking_over_a_lease_increases_its_number(store, source):
    first, second = begun(store, source, -1), begun(store, source, -1)

    assert first.ids == second.ids
    assert first.epoch < second.epoch
    assert (first.attempts, second.attempts) == (1, 2)


def test_no_process_takes_a_call_with_a_live_lease(store, source):
    take(store, source, 60)

    assert parking.take(store, "default", Known([(RECEIVER, source)]), 1, 60) == []
