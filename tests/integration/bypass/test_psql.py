"""Writes from psql are refused at the commit."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models.signals import post_delete, post_save

from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalBook as Book
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.integration import inline_committed as inline
from tests.integration.bypass.writes import _COLUMNS, _VALUES, SHELVES, stored
from tests.integration.inline_committed import (
    ARTICLES,
    TICKET,
    execute,
    insert,
)

pytestmark = pytest.mark.django_db(transaction=True)


BOOKS = Book._meta.db_table

IN_PSQL = {
    "INSERT": insert(),
    "a transaction": f"BEGIN; {insert()}; COMMIT",
    "one string": f"{insert('one')} \\; {insert('two')}",
    "a savepoint that is released": f"BEGIN; SAVEPOINT s; {insert()}; RELEASE s; COMMIT",
    "one of two savepoints is rolled back": (
        f"BEGIN; SAVEPOINT s; {insert()}; SAVEPOINT t; {insert()}; ROLLBACK TO t; COMMIT"
    ),
    "written again after a savepoint took it back": (
        f"BEGIN; SAVEPOINT s; {insert()}; ROLLBACK TO s; {insert()}; COMMIT"
    ),
    "WITH": f"WITH new AS ({insert()} RETURNING id) SELECT id FROM new",
    "a SQL function": "SELECT bypass.in_sql()",
    "a PL/pgSQL function": "SELECT bypass.in_plpgsql()",
    "a function in WHERE": "SELECT 1 WHERE bypass.in_plpgsql() = 1",
    "DO": f"DO $$ BEGIN {insert()}; END $$",
    "DO with EXECUTE": f"DO $$ BEGIN EXECUTE $q$ {insert()} $q$; END $$",
    "CALL": "CALL bypass.procedure()",
    "CALL that commits": "CALL bypass.committing()",
    "PREPARE and EXECUTE": f"PREPARE way AS {insert()}; EXECUTE way",
    "a trigger of someone else's": "INSERT INTO bypass.other VALUES (2)",
    "a deferred trigger of someone else's": "INSERT INTO bypass.deferred VALUES (1)",
    "a rule of someone else's": "INSERT INTO bypass.ruled VALUES (1)",
    "a view": insert(table="bypass.seen"),
    "COPY": f"COPY {ARTICLES} ({_COLUMNS}) FROM STDIN (FORMAT csv, QUOTE '''');\n{_VALUES}\n\\.\n",
    "COPY in a transaction": (
        f"BEGIN;\nCOPY {ARTICLES} ({_COLUMNS}) FROM STDIN (FORMAT csv, QUOTE '''');\n"
        f"{_VALUES}\n\\.\nCOMMIT"
    ),
    "constraints immediate before": f"BEGIN; SET CONSTRAINTS ALL IMMEDIATE; {insert()}; COMMIT",
    "constraints immediate after": f"BEGIN; {insert()}; SET CONSTRAINTS ALL IMMEDIATE; COMMIT",
    "the constraint itself immediate": (
        f"BEGIN; SET CONSTRAINTS {TICKET} IMMEDIATE; {insert()}; "
        f"SET CONSTRAINTS {TICKET} DEFERRED; COMMIT"
    ),
    "the refusal is swallowed in PL/pgSQL": (
        f"BEGIN; {insert()}; DO $$ BEGIN SET CONSTRAINTS ALL IMMEDIATE; "
        "EXCEPTION WHEN OTHERS THEN NULL; END $$; COMMIT"
    ),
    "the refusal is swallowed by a savepoint": (
        f"BEGIN; {insert()}; SAVEPOINT s;\n\\set ON_ERROR_STOP 0\nSET CONSTRAINTS ALL IMMEDIATE;\n"
        "ROLLBACK TO s;\n\\set ON_ERROR_STOP 1\nCOMMIT"
    ),
    "a cursor that is held": (
        "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT bypass.in_plpgsql(); FETCH 1 FROM held; "
        "COMMIT"
    ),
    "REPEATABLE READ": f"BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1; {insert()}; COMMIT",
    "SERIALIZABLE": f"BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 1; {insert()}; COMMIT",
    "client messages are off": f"SET client_min_messages = error; {insert()}",
    "the delivery mark is forged": (
        f"BEGIN; SELECT set_config('bulksafe.notice', 'anything', false); {insert()}; COMMIT"
    ),
    "tables of the same names in front": (
        "CREATE TEMP TABLE bulksafe_ticket (xid xid8);"
        "CREATE TEMP TABLE bulksafe_buffer (xid xid8);"
        f"SET search_path = pg_temp, public, pg_catalog; {insert()}"
    ),
    "settings are put back": f"BEGIN; {insert()}; RESET ALL; {insert()}; COMMIT",
    "a savepoint puts settings back": (
        f"BEGIN; {insert()}; SAVEPOINT s; RESET ALL; {insert()}; ROLLBACK TO s; {insert()}; COMMIT"
    ),
    "EXPLAIN ANALYZE": f"EXPLAIN ANALYZE {insert()}",
    "a chained transaction": f"BEGIN; COMMIT AND CHAIN; {insert()}; COMMIT",
}


@pytest.mark.parametrize("way", IN_PSQL)
def test_psql_is_refused(way, refused_in_psql):
    refused_in_psql(f"{IN_PSQL[way]}\n;\n")


@pytest.mark.parametrize(
    ("change", "statement"),
    [
        ("UPDATE", f"UPDATE {ARTICLES} SET title = 'changed'"),
        ("DELETE", f"DELETE FROM {ARTICLES}"),
        (
            "UPDATE",
            f"MERGE INTO {ARTICLES} AS a USING (SELECT 1) AS s ON true "
            "WHEN MATCHED THEN UPDATE SET title = 'merged'",
        ),
        (
            "DELETE",
            f"MERGE INTO {ARTICLES} AS a USING (SELECT 1) AS s ON true WHEN MATCHED THEN DELETE",
        ),
        (
            "INSERT",
            f"MERGE INTO {ARTICLES} AS a USING (SELECT 1) AS s ON false "
            f"WHEN NOT MATCHED THEN INSERT ({_COLUMNS}) VALUES ({_VALUES})",
        ),
    ],
)
def test_psql_updates_and_deletes_are_refused(change, statement, refused_in_psql, calls):
    Article.objects.create(title="there")
    calls.clear()
    if "MERGE" in statement and connection.pg_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    name = "warehouse.post_delete" if change == "DELETE" else "warehouse.post_save"

    refused_in_psql(statement, change=change, receiver=name)


def test_a_cascade_from_psql_is_refused(psql, calls):
    """A cascade of the database's."""
    deleted = inline.critical(post_delete, Book, dispatch_uid="stocktaking")
    Shelf.objects.create(name="a").book_set.create(title="a")
    (key,) = execute(
        f"SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = '{BOOKS}'::regclass"
    )[0]
    execute(f"ALTER TABLE {BOOKS} DROP CONSTRAINT {key}")
    execute(
        f"ALTER TABLE {BOOKS} ADD CONSTRAINT {key} FOREIGN KEY (shelf_id) REFERENCES {SHELVES} "
        "ON DELETE CASCADE"
    )
    try:
        done = psql(f"DELETE FROM {SHELVES}")
        assert done.returncode == 3
        assert f"a DELETE of public.{BOOKS} (1 row): stocktaking" in done.stderr
        assert deleted == []
        assert (Shelf.objects.count(), Book.objects.count()) == (1, 1)
    finally:
        execute(f"ALTER TABLE {BOOKS} DROP CONSTRAINT {key}")
        execute(
            f"ALTER TABLE {BOOKS} ADD CONSTRAINT {key} FOREIGN KEY (shelf_id) "
            f"REFERENCES {SHELVES} DEFERRABLE INITIALLY DEFERRED"
        )


def test_psql_may_roll_back(psql, calls):
    """A transaction that leaves no change behind has nothing to answer for."""
    done = psql(
        f"BEGIN; SAVEPOINT s; {insert()}; ROLLBACK TO s; COMMIT;\nBEGIN; {insert()}; ROLLBACK;\n"
        f"UPDATE {ARTICLES} SET title = '' WHERE false;\n"
    )

    assert done.returncode == 0, done.stderr
    assert stored() == []


def test_many_rows_and_the_first_table_are_named(psql, calls):
    inline.critical(post_save, Shelf, dispatch_uid="stocktaking")

    done = psql(
        f"BEGIN; INSERT INTO {SHELVES} (name, books, pages) SELECT n, 0, 0 "
        f"FROM generate_series(1, 1000) AS n; {insert()}; COMMIT"
    )

    assert done.returncode == 3
    assert f"an INSERT of public.{SHELVES} (1000 rows): stocktaking" in done.stderr
    assert Shelf.objects.count() == 0
    assert stored() == []


def test_receivers_whose_names_are_not_stored_in_the_database(psql, calls):
    execute("DELETE FROM bulksafe_receiver")

    done = psql(insert())

    assert done.returncode == 3
    assert "run “manage.py migrate” for their names" in done.stderr
