"""Which plans PostgreSQL keeps, and for how long."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction

from bulksafe.outbox import kept_plans
from bulksafe.outbox.kept_plans import KeptPlans

pytestmark = pytest.mark.django_db(transaction=True)

QUERY = "SELECT %(number)s::int + 1"
MANY = 5_000


@pytest.fixture
def plans(monkeypatch):
    """On a new connection, and for as long as the test takes."""
    monkeypatch.setattr(kept_plans, "_SECONDS", inf)
    connection.close()
    connection.ensure_connection()
    yield KeptPlans("default")
    connection.close()


def kept():
    """The statements that this session keeps, and how often each was executed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT statement, generic_plans + custom_plans FROM pg_prepared_statements "
            "ORDER BY prepare_time"
        )
        return cursor.fetchall()


def test_a_repeated_query_is_planned_once(plans):
    found = [plans.rows(QUERY, {"number": 1}, events=0) for _ in range(4)]

    assert found == [[(2,)]] * 4
    ((statement, runs),) = kept()
    assert "1::int + 1" in statement
    assert runs == 3


def test_each_set_of_parameters_has_a_plan(plans):
    found = [plans.rows(QUERY, {"number": n}, events=0) for n in (1, 2, 1, 2)]

    assert found == [[(2,)], [(3,)], [(2,)], [(3,)]]
    assert [runs for _, runs in kept()] == [1, 1]


def test_a_percent_sign_in_a_parameter_is_kept(plans):
    for _ in range(3):
        assert plans.rows("SELECT %(text)s", {"text": "100% %s é"}, events=0) == [("100% %s é",)]


def test_statements_of_receivers_are_not_prepared(plans):
    """psycopg prepares executemany() wherever it may prepare, which a pooler may not support."""
    for _ in range(3):
        plans.rows(QUERY, {"number": 1}, events=0)
    cursor = psycopg.Cursor(connection.connection)
    for _ in range(10):
        cursor.execute("SELECT 2")
    cursor.executemany("SELECT %s::int", [(1,), (2,)])

    assert len(kept()) == 1


@pytest.mark.parametrize("threshold", [0, 5])
def test_nothing_is_kept_where_psycopg_prepares_by_itself(plans, threshold):
    """It would keep a hundred plans."""
    connection.connection.prepare_threshold = threshold

    for _ in range(4):
        plans.rows(QUERY, {"number": 1}, events=0)

    assert kept() == []
    assert connection.connection.prepare_threshold == threshold


def test_nothing_is_kept_where_another_process_answers(plans, monkeypatch):
    """A pooler has process numbers of its own."""
    pooled = SimpleNamespace(backend_pid=connection.connection.info.backend_pid + 1)
    monkeypatch.setattr(type(connection.connection), "info", pooled)

    for _ in range(4):
        plans.rows(QUERY, {"number": 1}, events=0)

    assert kept() == []


def test_a_new_connection_prepares_its_own(plans):
    for _ in range(3):
        plans.rows(QUERY, {"number": 1}, events=0)
    connection.close()

    for _ in range(3):
        plans.rows(QUERY, {"number": 1}, events=0)

    assert [runs for _, runs in kept()] == [3]


@pytest.mark.parametrize("lose", ["DEALLOCATE ALL", "DISCARD ALL"])
def test_a_lost_statement_fails_a_single_transaction(plans, lose):
    """A worker repeats its batch at once, without a new connection."""
    for _ in range(3):
        plans.rows(QUERY, {"number": 1}, events=0)
    with connection.cursor() as cursor:
        cursor.execute(lose)

    with pytest.raises(DatabaseError, match="prepared statement"), transaction.atomic():
        plans.rows(QUERY, {"number": 1}, events=0)

    for _ in range(3):
        assert plans.rows(QUERY, {"number": 1}, events=0) == [(2,)]


def test_a_rollback_to_a_savepoint_keeps_the_plan(plans):
    for _ in range(2):
        plans.rows(QUERY, {"number": 1}, events=0)
    with transaction.atomic():
        with pytest.raises(ValueError, match="again"), transaction.atomic():
            raise ValueError("again")
        plans.rows(QUERY, {"number": 1}, events=0)

    assert [runs for _, runs in kept()] == [2]


def test_a_plan_is_kept_for_some_seconds(plans, monkeypatch):
    monkeypatch.setattr(kept_plans, "_SECONDS", 10.0)
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=100.0)
    monkeypatch.setattr(kept_plans, "time", clock)
    for seconds in (100, 101, 109, 110, 111):
        clock.now = seconds
        plans.rows(QUERY, {"number": 1}, events=0)

    assert [runs for _, runs in kept()] == [2, 1]


def test_few_plans_are_kept(plans):
    for generation in range(20):
        for _ in range(3):
            plans.rows(QUERY, {"number": 1}, events=generation * MANY)

    assert len(kept()) <= 5


@pytest.fixture
def growing():
    """A table that is known to be empty, though it has grown since."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE growing (number int)")
        cursor.execute("ALTER TABLE growing SET (autovacuum_enabled = off)")
        cursor.execute("CREATE INDEX ON growing (number)")
        cursor.execute("VACUUM growing")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE growing")


@pytest.mark.parametrize("is_new", [True, False])
def test_a_plan_for_a_small_table_is_not_kept_when_there_are_many_events(plans, growing, is_new):
    query = "SELECT number FROM growing WHERE number = %(number)s"
    for _ in range(3):
        plans.rows(query, {"number": 1}, events=0)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO growing SELECT generate_series(1, %s)", [MANY])

        before = scans(cursor)
        found = plans.rows(query, {"number": 1}, events=MANY if is_new else 0)

        assert found == [(1,)]
        assert scans(cursor) - before == (0 if is_new else 1)


def scans(cursor):
    cursor.execute("SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'growing'")
    ((number,),) = cursor.fetchall()
    return number
