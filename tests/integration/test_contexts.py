"""``bulksafe.context`` and its middleware: what travels with an event."""

import json

import pytest
from django.db import connection, transaction

import bulksafe
from tests.apps.twins.models import Folder


def transaction_context():
    """The context that the database has in the current transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('bulksafe.context', true)")
        found = cursor.fetchone()[0]
    return json.loads(found) if found else {}


def write():
    Folder.objects.create()


@pytest.mark.django_db
class TestInATransaction:
    def test_it_is_set_before_the_first_write(self):
        with bulksafe.context(user=7):
            assert transaction_context() == {}
            write()
            assert transaction_context() == {"user": 7}

    def test_blocks_nest_and_add_to_each_other(self):
        with bulksafe.context(user=7, request_id="a"):
            with bulksafe.context(request_id="b", job=True):
                write()
                assert transaction_context() == {"user": 7, "request_id": "b", "job": True}
            write()
            assert transaction_context() == {"user": 7, "request_id": "a"}

    def test_writes_after_the_block_have_no_context(self):
        with bulksafe.context(user=7):
            write()
        write()
        assert transaction_context() == {}

    def test_the_context_is_set_again_after_a_savepoint_is_rolled_back(self):
        with bulksafe.context(user=7):
            with transaction.atomic():
                write()
                transaction.set_rollback(True)
            write()
            assert transaction_context() == {"user": 7}

    def test_a_savepoint_that_is_rolled_back_by_hand(self):
        with bulksafe.context(user=7):
            with connection.cursor() as cursor:
                cursor.execute("SAVEPOINT by_hand")
                write()
                cursor.execute("ROLLBACK TO SAVEPOINT by_hand")
            write()
            assert transaction_context() == {"user": 7}

    def test_raw_sql_and_executemany(self):
        with bulksafe.context(user=7), connection.cursor() as cursor:
            cursor.executemany("INSERT INTO twins_folder (id) VALUES (%s)", [(1001,), (1002,)])
            assert transaction_context() == {"user": 7}

    @pytest.mark.parametrize(
        "statement",
        [
            "insert into twins_folder default values",
            "  -- a comment\n INSERT INTO twins_folder DEFAULT VALUES",
            "/* a comment */ WITH x AS (SELECT 1) INSERT INTO twins_folder DEFAULT VALUES",
            "DO 'BEGIN END'",
        ],
    )
    def test_statements_that_write(self, statement):
        with bulksafe.context(user=7), connection.cursor() as cursor:
            cursor.execute(statement)
            assert transaction_context() == {"user": 7}


@pytest.mark.django_db(transaction=True)
def test_outside_a_transaction_it_ends_with_the_statement():
    with bulksafe.context(user=7):
        write()
        assert transaction_context() == {}
        with connection.cursor() as cursor:
            cursor.execute(
                "WITH new AS (INSERT INTO twins_folder DEFAULT VALUES RETURNING id) "
                "SELECT current_setting('bulksafe.context', true) FROM new"
            )
            assert json.loads(cursor.fetchone()[0]) == {"user": 7}


@pytest.mark.django_db(transaction=True)
def test_the_next_transaction_begins_without():
    with bulksafe.context(user=7), transaction.atomic():
        write()
    with transaction.atomic():
        write()
        assert transaction_context() == {}
    with bulksafe.context(user=8), transaction.atomic():
        write()
        assert transaction_context() == {"user": 8}
