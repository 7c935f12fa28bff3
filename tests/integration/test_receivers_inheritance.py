"""Concurrent changes to rows of several tables: events contain the row as it was."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from itertools import pairwise

import psycopg
import pytest
from django.db import connection, models, transaction
from django.db.models import Q
from django.db.models.signals import post_delete, post_save
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from bulksafe import testing
from bulksafe.declarations.receivers import lanes
from bulksafe.dispatch.amending import Amendment
from bulksafe.dispatch.worker import Worker
from bulksafe.outbox.store import Store
from examples.server import database_url
from tests.integration import reception
from tests.unit.declaring import declare, isolated, tables

pytestmark = pytest.mark.django_db(transaction=True)

#: The models of a row, the eldest first, and the column that each adds.
COLUMNS = {"Base": "a", "Mid": "b", "Leaf": "c"}


@pytest.fixture(scope="module")
def leaf(django_db_setup, django_db_blocker):
    """A model whose rows lie in three tables, which all sessions see."""
    with django_db_blocker.unblock(), isolated():
        found = []
        for name, column in COLUMNS.items():
            bases = (found[-1],) if found else (models.Model,)
            field = models.IntegerField(default=0)
            found.append(declare(class_name=name, bases=bases, **{column: field}))
        with tables(*found):
            try:
                yield found[-1]
            finally:
                with connection.schema_editor() as editor:
                    for model in reversed(found):
                        editor.delete_model(model)


@pytest.fixture
def _django_db_helper(leaf):
    """Stands in for what pytest-django does to a test that is marked ``django_db``."""


def lineage(leaf):
    return [*reversed(leaf._meta.all_parents), leaf]


def execute(text, *params):
    with connection.cursor() as cursor:
        cursor.execute(text, params)


@contextmanager
def listening(leaf, **options):
    """A receiver of the rows in three tables, one such row, and nothing that waits."""
    with reception.only_these(), emptied(leaf):
        calls = reception.declare([post_save, post_delete], leaf, **options)
        reception.capture(*lineage(leaf))
        Store("default").create_cursors(lanes())
        with Observed(leaf, calls) as row:
            yield row


@contextmanager
def emptied(leaf):
    known = Store("default").lanes()
    try:
        yield
    finally:
        with transaction.atomic():
            execute("SET LOCAL session_replication_role = replica")
            tables_of_row = [model._meta.db_table for model in lineage(leaf)]
            for table in ("bulksafe_outbox", "bulksafe_parked", *tables_of_row):
                execute(f"DELETE FROM {table}")
            for queue, atomic in Store("default").lanes() - known:
                execute(
                    "DELETE FROM bulksafe_cursor WHERE queue = %s AND atomic = %s", queue, atomic
                )


class Unwritten:
    """A journal of batches of which each is finished."""

    def starting(self, cursors):
        return nullcontext()


class Observed:
    """A row, sessions that write it, and what the receiver was called with, in order."""

    def __init__(self, leaf, calls):
        self.leaf = leaf
        self.calls = calls
        self.stack = ExitStack()
        self.worker = Worker("default", ["default"], Unwritten())
        self.pk = leaf.objects.create().pk
        self.drain()
        calls.clear()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stack.close()

    def sessions(self, number):
        url = database_url(connection.settings_dict)
        # A test that waits for itself fails.
        options = "-c lock_timeout=5s"
        return [
            self.stack.enter_context(psycopg.connect(url, options=options)) for _ in range(number)
        ]

    def drain(self):
        while self.worker.has_work():
            self.worker.work()

    def update(self, session, column, value=None):
        """One table's part of the row; whether it was free and is as the session sees it."""
        model = self.leaf._meta.get_field(column).model
        table, key = model._meta.db_table, model._meta.pk.column
        # Begins the transaction, so that the block is a savepoint.
        session.execute("SELECT")
        try:
            with session.transaction():
                session.execute(
                    f"SELECT FROM {table} WHERE {key} = %s FOR NO KEY UPDATE NOWAIT", [self.pk]
                )
                session.execute(
                    f"UPDATE {table} SET {column} = COALESCE(%s, {column} + 1) WHERE {key} = %s",
                    [value, self.pk],
                )
        except psycopg.errors.LockNotAvailable:
            return False
        except psycopg.errors.SerializationFailure:
            session.rollback()
            return False
        return True

    @property
    def seen(self):
        """(old, new) of each call; None for no row."""
        return [
            (
                call["old"] and values(call["old"]),
                None if call["signal"] is post_delete else values(call["instance"]),
            )
            for call in self.calls
        ]

    def check(self, first=(0, 0, 0)):
        """Each change begins where the one before it ended, and the last one with the row."""
        states = self.seen
        assert all(one[1] == other[0] for one, other in pairwise(states)), states
        row = self.leaf.objects.filter(pk=self.pk).first()
        if states:
            assert states[0][0] == first
            assert states[-1][1] == (row and values(row)), states
        for call in self.calls:
            if call["signal"] is post_save and not call["created"]:
                assert call["changed"] == {
                    column
                    for column in COLUMNS.values()
                    if getattr(call["old"], column) != getattr(call["instance"], column)
                }


def values(instance):
    return instance.a, instance.b, instance.c


@pytest.mark.parametrize("order", ["the child's first", "the parent's first"])
@pytest.mark.parametrize("looks", ["once", "between"])
def test_two_transactions_change_two_parts_of_a_row(leaf, order, looks):
    """The last event had the part that the other transaction changed as it was before."""
    with listening(leaf) as row:
        one, other = row.sessions(2)
        row.update(one, "a")
        row.update(other, "c")
        for session in (other, one) if order == "the child's first" else (one, other):
            session.commit()
            if looks == "between":
                row.drain()
        row.drain()

        assert len(row.calls) == 2
        row.check()


def test_one_transaction_writes_before_and_after_another(leaf):
    """It is one change, that comes after what it had to wait for."""
    with listening(leaf) as row:
        one, other = row.sessions(2)
        row.update(one, "a")
        row.update(other, "c")
        other.commit()
        row.update(one, "c")
        one.commit()
        row.drain()

        assert row.seen == [((0, 0, 0), (0, 0, 1)), ((0, 0, 1), (1, 0, 2))]


@pytest.mark.parametrize("size", [4, 8])
def test_pages_that_end_within_a_transaction(leaf, size):
    with listening(leaf) as row, override_settings(BULKSAFE={"BATCH_SIZE": size}):
        one, other = row.sessions(2)
        row.update(one, "a")
        row.update(one, "b")
        row.update(other, "c")
        other.commit()
        row.update(one, "c")
        one.commit()
        row.drain()

        assert row.seen == [((0, 0, 0), (0, 0, 1)), ((0, 0, 1), (1, 1, 2))]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.sampled_from([*COLUMNS.values(), "commit"])),
        st.just("look"),
    ),
    max_size=25,
)


@contextmanager
def triggers(leaf):
    """A change of ``a`` changes ``c``, and one of ``c`` or ``a`` may change the same part again."""
    base, _, last = (model._meta.db_table for model in lineage(leaf))
    key = leaf._meta.pk.column
    writes = {
        "others": (base, "a", f"UPDATE {last} SET c = c + 1 WHERE {key} = NEW.id", "% 2 = 1"),
        "itself": (base, "a", f"UPDATE {base} SET a = a + 1 WHERE id = NEW.id", "% 3 = 2"),
        "again": (last, "c", f"UPDATE {last} SET c = c + 1 WHERE {key} = NEW.{key}", "% 3 = 2"),
    }
    for name, (table, column, text, condition) in writes.items():
        execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN {text}; RETURN NULL; END $$"
        )
        execute(
            f"CREATE TRIGGER {name} AFTER UPDATE OF {column} ON {table} FOR EACH ROW "
            f"WHEN (NEW.{column} {condition}) EXECUTE FUNCTION {name}()".replace("%", "%%")
        )
    try:
        yield
    finally:
        for name in writes:
            execute(f"DROP FUNCTION {name}() CASCADE")


@pytest.mark.parametrize("surroundings", [nullcontext, triggers], ids=["", "triggers"])
@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize("size", [4, 12, 1000])
@settings(max_examples=20, deadline=None)
@given(steps=STEPS)
def test_any_interleaving_of_three_transactions(leaf, isolation, size, surroundings, steps):
    with (
        listening(leaf) as row,
        override_settings(BULKSAFE={"BATCH_SIZE": size}),
        surroundings(leaf),
    ):
        sessions = row.sessions(3)
        for session in sessions:
            session.execute(f"SET default_transaction_isolation = '{isolation}'")
            session.execute("SET lock_timeout = '20ms'")
            session.commit()
        for step in steps:
            if step == "look":
                row.worker.work()
                continue
            number, what = step
            if what == "commit":
                sessions[number].commit()
            else:
                row.update(sessions[number], what)
        for session in sessions:
            session.commit()
        row.drain()

        row.check()


def test_a_trigger_continues_a_change_beyond_the_page(leaf):
    """The trigger's change has the lower number: it all began with the other one's old state."""
    with listening(leaf) as row, triggers(leaf), override_settings(BULKSAFE={"BATCH_SIZE": 4}):
        one, other = row.sessions(2)
        execute("UPDATE unit_base SET a = 1")
        row.drain()
        first = row.seen[-1][1]
        row.calls.clear()
        row.update(other, "c")
        other.commit()
        row.update(one, "a")
        one.commit()
        row.drain()

        row.check(first)


def test_a_trigger_of_the_insertion_changes_the_parent(leaf):
    base, _, last = (model._meta.db_table for model in lineage(leaf))
    execute(
        "CREATE FUNCTION begin_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"UPDATE {base} SET a = a + 1 WHERE id = NEW.mid_ptr_id; RETURN NULL; END $$"
    )
    execute(
        f"CREATE TRIGGER begin_row AFTER INSERT ON {last} FOR EACH ROW EXECUTE FUNCTION begin_row()"
    )
    try:
        with listening(leaf) as row:
            row.calls.clear()
            row.pk = leaf.objects.create().pk
            row.drain()

            assert row.seen == [(None, (0, 0, 0)), ((0, 0, 0), (1, 0, 0))]
    finally:
        execute("DROP FUNCTION begin_row() CASCADE")


def test_a_trigger_writes_again_after_a_concurrent_change_to_a_different_part(leaf):
    """The images of the transaction's writes lead from one to the next in its own part only."""
    with listening(leaf) as row, triggers(leaf):
        one, other = row.sessions(2)
        row.update(one, "c")
        row.update(other, "b")
        other.commit()
        row.update(one, "c")
        one.commit()
        row.drain()

        row.check()
        assert len(row.calls) == 4


# Ends and beginnings of rows.


def delete(session, leaf, pk, *models_of_row):
    for model in models_of_row:
        table, key = model._meta.db_table, model._meta.pk.column
        session.execute(f"DELETE FROM {table} WHERE {key} = %s", [pk])


@pytest.mark.parametrize("looks", ["once", "between"])
def test_a_row_is_deleted_after_two_transactions_changed_it(leaf, looks):
    base, mid, last = lineage(leaf)
    with listening(leaf) as row:
        one, other, third = row.sessions(3)
        row.update(one, "a")
        row.update(other, "c")
        other.commit()
        if looks == "between":
            row.drain()
        one.commit()
        delete(third, leaf, row.pk, last, mid, base)
        third.commit()
        row.drain()

        assert row.seen[-1] == ((1, 0, 1), None)
        row.check()


def test_a_child_is_deleted_while_its_parent_is_changed(leaf):
    """The deletion could not see the parent's change, which is delivered before it."""
    with listening(leaf) as row:
        one, other = row.sessions(2)
        row.update(one, "a")
        delete(other, leaf, row.pk, leaf)
        one.commit()
        other.commit()
        row.drain()

        assert row.seen == [((0, 0, 0), (1, 0, 0)), ((1, 0, 0), None)]


def test_a_parent_that_is_kept_and_changed_after_the_deletion(leaf):
    """The row has ended: what becomes of its parent is no part of it."""
    with listening(leaf) as row:
        (one,) = row.sessions(1)
        row.update(one, "c")
        one.commit()
        delete(one, leaf, row.pk, leaf)
        one.commit()
        row.update(one, "a", 77)
        one.commit()
        row.drain()

        assert row.seen == [((0, 0, 0), (0, 0, 1)), ((0, 0, 1), None)]


def test_a_child_that_is_deleted_and_inserted_again(leaf):
    *_, last = lineage(leaf)
    with listening(leaf) as row:
        (one,) = row.sessions(1)
        row.update(one, "c")
        one.commit()
        delete(one, leaf, row.pk, last)
        one.commit()
        row.update(one, "a", 77)
        one.commit()
        one.execute(f"INSERT INTO {last._meta.db_table} VALUES (%s, 5)", [row.pk])
        one.commit()
        row.update(one, "b", 88)
        one.commit()
        row.drain()

        assert row.seen == [
            ((0, 0, 0), (0, 0, 1)),
            ((0, 0, 1), None),
            (None, (77, 0, 5)),
            ((77, 0, 5), (77, 88, 5)),
        ]


def test_a_child_is_inserted_while_its_parent_is_changed(leaf):
    """Neither sees the other: the insertion is the row's only event."""
    *_, last = lineage(leaf)
    with listening(leaf) as row:
        one, other = row.sessions(2)
        delete(one, leaf, row.pk, last)
        one.commit()
        row.drain()
        row.calls.clear()
        row.update(one, "a", 77)
        other.execute(f"INSERT INTO {last._meta.db_table} VALUES (%s, 5)", [row.pk])
        other.commit()
        one.commit()
        row.drain()

        assert row.seen == [(None, (77, 0, 5))]


# Ways to receivers.


def crossed(row):
    """The child's change is delivered with a parent's part that another transaction has changed."""
    one, other = row.sessions(2)
    row.update(one, "a")
    row.update(other, "c")
    one.commit()
    other.commit()


WAYS = {
    "leased": {"atomic": False},
    "in a batch": {"batch": True},
    "coalesced": {"coalesce": True},
}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_every_kind_of_receiver(leaf, options):
    with listening(leaf, **options) as row:
        crossed(row)
        row.drain()

        changes = row.calls[-1].get("events") or [row.calls[-1]]
        last = changes[-1] if isinstance(changes[-1], dict) else vars_of(changes[-1])
        assert values(last["instance"]) == (1, 0, 1)
        assert values(last["old"]) == ((0, 0, 0) if "coalesce" in options else (1, 0, 0))


def vars_of(change):
    return {"instance": change.instance, "old": change.old}


@pytest.mark.parametrize("options", [{}, {"coalesce": True}, {"atomic": False}], ids=str)
def test_events_that_are_parked_and_tried_again(leaf, options):
    """By then the event that knew is gone, and the row has changed."""
    with listening(leaf, **options) as row, override_settings(BULKSAFE={"RETRY_DELAY": 0.0}):
        crossed(row)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reception.Calls, "__call__", fail)
            for _ in range(2):
                row.worker.work()
        execute("TRUNCATE bulksafe_outbox")
        execute("UPDATE unit_base SET a = 99")
        execute("UPDATE bulksafe_parked SET due = now()")
        row.drain()

        wanted = [((0, 0, 0), (1, 0, 0)), ((1, 0, 0), (1, 0, 1)), ((1, 0, 1), (99, 0, 1))]
        if "coalesce" in options:
            wanted[:2] = [((0, 0, 0), (1, 0, 1))]
        assert row.seen == wanted


def fail(*args, **kwargs):
    raise ValueError("not today")


def test_conditions_evaluated_when_a_parent_s_change_is_delivered(leaf):
    """The child's column was still 0 to the parent's transaction."""
    with listening(leaf, when=Q(new__c=1) & Q(old__c=1)) as row:
        one, other = row.sessions(2)
        row.update(one, "b")
        row.update(other, "c")
        other.commit()
        row.drain()
        one.commit()
        row.drain()

        assert row.seen == [((0, 0, 1), (0, 1, 1))]


def test_testing_deliver(leaf):
    with listening(leaf) as row:
        crossed(row)
        testing.deliver()

        assert len(row.calls) == 2
        row.check()


def test_writes_of_consecutive_transactions_keep_their_images(leaf):
    """Nothing was at once: each event's own images are right, and are not touched."""
    with listening(leaf) as row, pytest.MonkeyPatch.context() as patch:
        amended = []
        original = Amendment._with_texts
        patch.setattr(
            Amendment,
            "_with_texts",
            lambda self, events, found: amended.extend(events) or original(self, events, found),
        )
        row.leaf.objects.filter(pk=row.pk).update(a=5, c=6)
        instance = row.leaf.objects.get(pk=row.pk)
        instance.b = 7
        instance.save()
        row.leaf.objects.update(c=8)
        instance.delete()
        row.drain()

        assert row.seen == [
            # Django writes table by table, each in a transaction of its own.
            ((0, 0, 0), (0, 0, 6)),
            ((0, 0, 6), (5, 0, 6)),
            ((5, 0, 6), (5, 7, 6)),
            ((5, 7, 6), (5, 7, 8)),
            ((5, 7, 8), None),
        ]
        assert amended == []


def test_models_without_parents_send_no_query(leaf):
    base = lineage(leaf)[0]
    with reception.only_these(), emptied(leaf):
        reception.listen(post_save, base)
        base.objects.create()
        base.objects.update(a=1)
        with CaptureQueriesContext(connection) as queries:
            testing.deliver()

    assert not [query for query in queries if "first_xid" in query["sql"]]
    assert not [query for query in queries if "AS known JOIN" in query["sql"]]
