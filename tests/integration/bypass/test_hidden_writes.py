"""Statements that write to a table without naming it."""

# ruff: noqa: PT012  (transactions have several statements)

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save, pre_save

from bulksafe.exceptions import ReceiversNotRun
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.integration import inline_committed as inline
from tests.integration.bypass.writes import _COLUMNS, _VALUES, refuse, seen, stored
from tests.integration.inline_committed import (
    ARTICLES,
    execute,
    insert,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True)


WITHOUT_ITS_NAME = {
    "a SQL function": ("SELECT bypass.in_sql()", ["function"]),
    "a PL/pgSQL function": ("SELECT bypass.in_plpgsql()", ["function"]),
    "DO": ("DO $$ BEGIN PERFORM bypass.in_sql(); END; $$", ["function"]),
    "DO with EXECUTE": (f"DO $$ BEGIN EXECUTE $q$ {insert()} $q$; END $$", ["raw"]),
    "CALL": ("CALL bypass.procedure()", ["procedure"]),
    "a trigger of someone else's": ("INSERT INTO bypass.other VALUES (2), (3)", ["trigger"] * 2),
    "a rule of someone else's": ("INSERT INTO bypass.ruled VALUES (1)", ["rule"]),
    "a view": (insert("view", table="bypass.seen"), ["view"]),
    "EXPLAIN ANALYZE": (f"EXPLAIN ANALYZE {insert()}", ["raw"]),
    "several statements": (f"SELECT 1; {insert('one')}; {insert('two')}", ["one", "two"]),
    "several statements that write": (f"{insert('one')}; {insert('two')}", ["one", "two"]),
    "a table in Unicode escapes": (
        insert(table='U&"practice_criticalarticl\\0065"'),
        ["raw"],
    ),
    "MERGE": (
        f"MERGE INTO {ARTICLES} AS a USING (SELECT 1) AS s ON false "
        f"WHEN NOT MATCHED THEN INSERT ({_COLUMNS}) VALUES ({_VALUES})",
        ["row"],
    ),
}


@pytest.mark.parametrize("way", WITHOUT_ITS_NAME)
@pytest.mark.parametrize("early", [False, True], ids=["after", "before"])
class TestThroughDjangosCursor:
    """Delivered, whatever the statement looks like."""

    @pytest.fixture
    def received(self, clean, early, way):
        if way == "MERGE" and connection.pg_version < 150000:
            pytest.skip("MERGE came with PostgreSQL 15")
        signals = [pre_save, post_save] if early else [post_save]
        return {signal: inline.critical(signal, Article) for signal in signals}

    def check(self, received, expected):
        assert titles() == sorted(expected)
        for calls in received.values():
            assert seen(calls) == expected

    def test_in_autocommit(self, received, way):
        statement, expected = WITHOUT_ITS_NAME[way]
        execute(statement)
        self.check(received, expected)

    def test_in_atomic(self, received, way):
        statement, expected = WITHOUT_ITS_NAME[way]
        with transaction.atomic():
            execute(statement)
            self.check(received, expected)


@pytest.mark.parametrize("early", [False, True])
def test_executemany(early, calls):
    before = inline.critical(pre_save, Article) if early else []
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO bypass.other VALUES (%s)", [(1,), (2,), (3,)])
        cursor.executemany(insert("%s").replace("'%s'", "%s"), [("a",), ("b",)])
        with transaction.atomic():
            cursor.executemany("INSERT INTO bypass.other VALUES (%s)", [(4,)])

    assert seen(calls) == ["trigger", "trigger", "a", "b", "trigger"]
    assert seen(before) == (seen(calls) if early else [])


class TestRefusedByAReceiverAfterTheStatement:
    """The statement ran in a transaction that continues, and cannot be undone alone."""

    @pytest.fixture(autouse=True)
    def refusing(self, clean):
        inline.critical(post_save, Article, refuse)

    def write(self):
        Shelf.objects.create(name="before")
        with pytest.raises(ValueError, match="no"):
            execute("SELECT bypass.in_sql()")
        Shelf.objects.create(name="after")

    def test_catching_the_error_does_not_allow_a_commit(self):
        with pytest.raises(ReceiversNotRun), transaction.atomic():
            self.write()

        assert (stored(), Shelf.objects.count()) == ([], 0)

    def test_catching_the_error_in_a_savepoint_does_not_allow_a_commit(self):
        with pytest.raises(ReceiversNotRun), transaction.atomic():
            with transaction.atomic():
                self.write()
            Shelf.objects.create(name="and on")

        assert (stored(), Shelf.objects.count()) == ([], 0)

    def test_rolling_back_to_a_savepoint_undoes_the_write(self):
        with transaction.atomic():
            Shelf.objects.create(name="before")
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                execute("SELECT bypass.in_sql()")
            Shelf.objects.create(name="after")

        assert (stored(), Shelf.objects.count()) == ([], 2)

    def test_in_autocommit_there_is_nothing_to_roll_back(self):
        with pytest.raises(ValueError, match="no"):
            execute("SELECT bypass.in_sql()")

        assert stored() == []


def test_prepare_and_execute(calls):
    execute(f"PREPARE way AS {insert()}")
    execute("EXECUTE way")
    with transaction.atomic():
        execute("EXECUTE way")
    execute("DEALLOCATE way")

    assert seen(calls) == titles() == ["raw", "raw"]


def test_a_deferred_trigger_of_another_application_is_refused(calls):
    """It writes during the commit, when no receiver can be called any more."""
    with pytest.raises(ReceiversNotRun):
        execute("INSERT INTO bypass.deferred VALUES (1)")
    with pytest.raises(ReceiversNotRun), transaction.atomic():
        execute("INSERT INTO bypass.deferred VALUES (1)")

    assert stored() == []
    assert execute("SELECT count(*) FROM bypass.deferred") == [(0,)]


def test_a_deferred_trigger_that_is_forced_to_fire_early(calls):
    with transaction.atomic():
        execute("INSERT INTO bypass.deferred VALUES (1)")
        execute("SET CONSTRAINTS bypass.deferred IMMEDIATE")
        assert seen(calls) == ["trigger"]
    execute("DELETE FROM bypass.deferred")

    assert titles() == ["trigger"]


def test_a_procedure_that_commits(calls):
    """It cannot be repeated inside a transaction."""
    with pytest.raises(ReceiversNotRun):
        execute("CALL bypass.committing()")
    assert execute("DELETE FROM bypass.other RETURNING id") == [(1,)]

    assert stored() == []


def test_a_string_with_a_commit_inside_is_not_run_twice(calls):
    for start, end in [("BEGIN;", "COMMIT"), ("", "COMMIT"), ("BEGIN;", "END")]:
        with pytest.raises(ReceiversNotRun):
            execute(f"{start} INSERT INTO bypass.other VALUES (1); {end}; SELECT bypass.in_sql()")
        assert execute("DELETE FROM bypass.other RETURNING id") == [(1,)]

    assert stored() == []


@pytest.mark.parametrize(
    "statement",
    [
        f"{insert()}; COMMIT",
        "SELECT bypass.in_sql(); COMMIT",
        f"BEGIN; {insert()}; COMMIT",
    ],
)
def test_a_string_that_commits_undelivered_changes(statement, calls):
    with pytest.raises(ReceiversNotRun):
        execute(statement)

    assert stored() == []
