"""Which plans PostgreSQL keeps, and for how long."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.db import DatabaseError, connection, transaction

from bulksafe.outbox.planned import ON_REQUEST, Planned

pytestmark = pytest.mark.django_db(transaction=True)

QUERY = "SELECT %(number)s::int + 1"
MANY = 100_000


@pytest.fixture
def planned():
    """On a new connection that is set up as that of a worker."""
    connection.close()
    connection.ensure_connection()
    connection.connection.prepare_threshold = ON_REQUEST
    yield Planned("default")
    connection.close()


def kept():
    """The statements that this session keeps, and how often each was executed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT statement, generic_plans + custom_plans FROM pg_prepared_statements "
            "ORDER BY prepare_time"
        )
        return cursor.fetchall()


def test_a_repeated_query_is_planned_once(planned):
    found = [planned.rows(QUERY, {"number": 1}, events=0) for _ in range(4)]

    assert found == [[(2,)]] * 4
    ((statement, runs),) = kept()
    assert "1::int + 1" in statement
    assert runs == 3


def test_each_set_of_parameters_has_a_plan(planned):
    found = [planned.rows(QUERY, {"number": n}, events=0) for n in (1, 2, 1, 2)]

    assert found == [[(2,)], [(3,)], [(2,)], [(3,)]]
    assert [runs for _, runs in kept()] == [1, 1]


def test_a_percent_sign_in_a_parameter_is_kept(planned):
    for _ in range(3):
        assert planned.rows("SELECT %(text)s", {"text": "100% %s é"}, events=0) == [("100% %s é",)]


def test_other_queries_of_the_connection_are_not_prepared(planned):
    planned.rows(QUERY, {"number": 1}, events=0)
    for _ in range(10):
        connection.connection.execute("SELECT 1")

    assert kept() == []


def test_a_connection_without_the_threshold_keeps_nothing(planned):
    connection.connection.prepare_threshold = None

    for _ in range(4):
        planned.rows(QUERY, {"number": 1}, events=0)

    assert kept() == []


def test_nothing_is_kept_where_another_process_answers(planned, monkeypatch):
    """A pooler has process numbers of its own."""
    pooled = SimpleNamespace(backend_pid=connection.connection.info.backend_pid + 1)
    monkeypatch.setattr(type(connection.connection), "info", pooled)

    for _ in range(4):
        planned.rows(QUERY, {"number": 1}, events=0)

    assert kept() == []


def test_a_new_connection_prepares_its_own(planned):
    for _ in range(3):
        planned.rows(QUERY, {"number": 1}, events=0)
    connection.close()
    connection.ensure_connection()
    connection.connection.prepare_threshold = ON_REQUEST

    for _ in range(3):
        planned.rows(QUERY, {"number": 1}, events=0)

    assert [runs for _, runs in kept()] == [2]


def test_a_deallocated_statement_is_prepared_again(planned):
    for lose in ("DEALLOCATE ALL", "DISCARD ALL"):
        for _ in range(3):
            assert planned.rows(QUERY, {"number": 1}, events=0) == [(2,)]
        with connection.cursor() as cursor:
            cursor.execute(lose)
        assert planned.rows(QUERY, {"number": 1}, events=0) == [(2,)]


def test_a_statement_deallocated_by_a_function_fails_a_single_transaction(planned):
    """psycopg does not notice it. A worker repeats the batch, without a new connection."""
    for _ in range(3):
        planned.rows(QUERY, {"number": 1}, events=0)
    with connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")

    with pytest.raises(DatabaseError, match="prepared statement"), transaction.atomic():
        planned.rows(QUERY, {"number": 1}, events=0)

    for _ in range(3):
        assert planned.rows(QUERY, {"number": 1}, events=0) == [(2,)]


def test_few_plans_are_kept(planned):
    for generation in range(20):
        for _ in range(3):
            planned.rows(QUERY, {"number": 1}, events=generation * MANY)

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
def test_a_plan_for_a_small_table_is_not_kept_when_there_are_many_events(planned, growing, is_new):
    query = "SELECT number FROM growing WHERE number = %(number)s"
    for _ in range(3):
        planned.rows(query, {"number": 1}, events=0)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO growing SELECT generate_series(1, %s)", [MANY])

        before = scans(cursor)
        found = planned.rows(query, {"number": 1}, events=MANY if is_new else 0)

        assert found == [(1,)]
        assert scans(cursor) - before == (0 if is_new else 1)


def scans(cursor):
    cursor.execute("SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'growing'")
    ((number,),) = cursor.fetchall()
    return number
