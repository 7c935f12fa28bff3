"""Prepared transactions, other processes and other connections."""

# ruff: noqa: PT012  (transactions have several statements)

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from contextlib import closing, suppress

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction

from bulksafe.exceptions import ReceiversNotRun
from tests.apps.practice.models import CriticalArticle as Article
from tests.integration.bypass.writes import check_refusal, seen, stored, url
from tests.integration.inline_committed import (
    ARTICLES,
    TICKET,
    execute,
    insert,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_prepared_transaction(psql, refused_in_psql):
    if execute("SHOW max_prepared_transactions") == [("0",)]:
        pytest.skip("the server has max_prepared_transactions = 0")

    refused_in_psql(f"BEGIN; {insert()}; PREPARE TRANSACTION 'bypass';\n")

    assert execute("SELECT count(*) FROM pg_prepared_xacts") == [(0,)]


def test_a_prepared_transaction_through_the_driver(calls):
    if execute("SHOW max_prepared_transactions") == [("0",)]:
        pytest.skip("the server has max_prepared_transactions = 0")
    with closing(psycopg.connect(url())) as other:
        other.tpc_begin(other.xid(1, "bypass", "bypass"))
        other.execute(insert())
        with pytest.raises(psycopg.IntegrityError) as refusal:
            other.tpc_prepare()
        check_refusal(refusal.value)

    assert stored() == []


def test_another_process_with_psycopg(calls):
    script = """
        import sys
        import psycopg
        with psycopg.connect(sys.argv[1]) as connection:
            connection.execute(sys.argv[2])
            try:
                connection.commit()
            except psycopg.IntegrityError as error:
                print(error.sqlstate, error.diag.constraint_name, error.diag.table_name)
                print(error.diag.message_primary)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), url(), insert()],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    first, message = done.stdout.splitlines()
    assert first == f"23000 {TICKET} {ARTICLES}"
    assert f"an INSERT of public.{ARTICLES} (1 row): warehouse.post_save" in message
    assert stored() == []


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_connection_of_the_application_beside_django_s(calls, autocommit):
    with psycopg.connect(url(), autocommit=autocommit) as other:
        with pytest.raises(psycopg.IntegrityError) as refusal:
            other.execute(insert())
            other.commit()
        check_refusal(refusal.value)

    assert stored() == []


@pytest.mark.parametrize("prepare", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("calls_function", ["bypass.in_sql()", "bypass.in_plpgsql()"])
def test_a_cursor_whose_query_runs_at_the_commit(calls_function, prepare, calls):
    """In the extended protocol there is no statement then."""
    with closing(psycopg.connect(url(), autocommit=True)) as other, suppress(psycopg.Error):
        other.execute(f"DECLARE held CURSOR WITH HOLD FOR SELECT {calls_function}", prepare=prepare)

    assert stored() == []


def test_a_django_cursor_whose_query_runs_at_the_commit(calls):
    with pytest.raises(ReceiversNotRun), connection.chunked_cursor() as cursor:
        cursor.execute("SELECT bypass.in_plpgsql() FROM generate_series(1, 3)")
    connection.close()
    assert stored() == []

    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute("SELECT bypass.in_plpgsql() FROM generate_series(1, 3)")
        assert len(cursor.fetchall()) == 3

    assert [call["instance"].title for call in calls] == ["function"] * 3


@pytest.mark.parametrize("prepare", [False, True], ids=["simple", "extended"])
def test_a_deferred_trigger_at_the_commit_of_a_statement(prepare, calls):
    with closing(psycopg.connect(url(), autocommit=True)) as other, suppress(psycopg.Error):
        other.execute("INSERT INTO bypass.deferred VALUES (1)", prepare=prepare)

    assert stored() == []
    assert execute("SELECT count(*) FROM bypass.deferred") == [(0,)]


def test_a_copy_of_django_s_connection(calls):
    """It is none of ``django.db.connections``."""
    copied = connection.copy()
    try:
        with pytest.raises(ReceiversNotRun), copied.cursor() as cursor:
            cursor.execute(insert())
    finally:
        copied.close()

    assert stored() == []


@pytest.mark.parametrize("extension", ["dblink", "postgres_fdw"])
def test_a_connection_of_the_database_s_own(extension, calls):
    found = execute(f"SELECT 1 FROM pg_available_extensions WHERE name = '{extension}'")
    if not found:
        pytest.skip(f"the server has no {extension}")
    settings = connection.settings_dict
    execute("CREATE EXTENSION IF NOT EXISTS " + extension)
    try:
        if extension == "dblink":
            statement = (
                f"SELECT dblink_exec('host={settings['HOST']} port={settings['PORT']} "
                f"user={settings['USER']} dbname={settings['NAME']}', $s$ {insert()} $s$)"
            )
        else:
            execute(
                "CREATE SERVER bypass FOREIGN DATA WRAPPER postgres_fdw OPTIONS "
                f"(host '{settings['HOST']}', port '{settings['PORT']}', "
                f"dbname '{settings['NAME']}')"
            )
            execute(
                "CREATE USER MAPPING FOR CURRENT_USER SERVER bypass OPTIONS "
                f"(user '{settings['USER']}')"
            )
            execute(
                f"IMPORT FOREIGN SCHEMA public LIMIT TO ({ARTICLES}) FROM SERVER bypass INTO bypass"
            )
            sequence = f"{ARTICLES}_id_seq"
            statement = (
                insert(table=f"bypass.{ARTICLES}")
                .replace("(", "(id, ", 1)
                .replace("VALUES (", f"VALUES (nextval('{sequence}'), ")
            )
        with pytest.raises(IntegrityError, match=r"warehouse\.post_save"):
            execute(statement)
        with pytest.raises(IntegrityError, match=r"warehouse\.post_save"), transaction.atomic():
            execute(statement)
    finally:
        execute(f"DROP EXTENSION {extension} CASCADE")

    assert stored() == []
    assert calls == []


# Two at a time.


def test_another_writer_at_the_same_time(calls):
    """Each answers for its own changes only."""
    wrote, delivered = threading.Event(), threading.Event()
    refusals = []

    def write_past():
        with psycopg.connect(url()) as other:
            other.execute(insert("past"))
            wrote.set()
            delivered.wait(30)
            try:
                other.commit()
            except psycopg.IntegrityError as error:
                refusals.append(error.diag.constraint_name)

    thread = threading.Thread(target=write_past)
    thread.start()
    assert wrote.wait(30)
    Article.objects.bulk_create([Article(title="delivered")])
    delivered.set()
    thread.join(30)

    assert refusals == [TICKET]
    assert seen(calls) == titles() == ["delivered"]
