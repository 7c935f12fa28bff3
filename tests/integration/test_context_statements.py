"""Which writes carry which context: a trigger keeps what it finds set, whatever the statement."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import tempfile
import threading
import weakref
from contextlib import contextmanager

import psycopg
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import (
    DatabaseError,
    IntegrityError,
    connection,
    connections,
    transaction,
)
from django.db.models.signals import post_save, pre_save
from django.test.utils import CaptureQueriesContext
from psycopg import sql

import bulksafe
from bulksafe import call_stack, testing
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalTag as Tag
from tests.apps.practice.models import Log
from tests.integration import inline, reception
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
    raw,
)

pytestmark = pytest.mark.django_db(databases=["default", "other"])

BOTH = ("default", "other")

SCHEMA = """
CREATE SCHEMA carried;
CREATE TABLE carried.row (name text, other text);
CREATE TABLE carried.seen (id serial, name text, context text);
CREATE FUNCTION carried.see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO carried.seen (name, context)
    VALUES (NEW.name, NULLIF(current_setting('bulksafe.context', true), ''));
    RETURN NEW;
END $$;
CREATE TRIGGER see AFTER INSERT OR UPDATE ON carried.row
    FOR EACH ROW EXECUTE FUNCTION carried.see();
CREATE FUNCTION carried.write(name text DEFAULT 'function') RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO carried.row VALUES (name);
    RETURN name;
END $$;
CREATE PROCEDURE carried.commits() LANGUAGE plpgsql AS $$
BEGIN
    COMMIT;
    INSERT INTO carried.row VALUES ('commits');
END $$;
CREATE TABLE carried.deferred (name text);
CREATE FUNCTION carried.defer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO carried.row VALUES (NEW.name);
    RETURN NEW;
END $$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON carried.deferred
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION carried.defer();
"""


@pytest.fixture(autouse=True)
def carried(clean):  # noqa: F811
    for alias in BOTH:
        execute(SCHEMA, using=alias)
    try:
        yield
    finally:
        for alias in BOTH:
            connections[alias].close()
            execute("DROP SCHEMA carried CASCADE", using=alias)


def execute(statement, params=None, using="default"):
    with connections[using].cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


def read():
    execute("SELECT COUNT(*) FROM carried.row")


def write(name="row"):
    execute("INSERT INTO carried.row VALUES (%s)", [name])


def write_and_fail():
    write()
    raise ZeroDivisionError


def call():
    execute("SELECT carried.write('function')")


def copy(name="copy"):
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY carried.row (name) FROM STDIN") as rows,
    ):
        rows.write_row([name])


def by_the_driver():
    raw().execute("INSERT INTO carried.row VALUES ('driver')")


def seen(using="default"):
    """The name of each row that was written, with the context that it was written in."""
    found = execute("SELECT name, context FROM carried.seen ORDER BY id", using=using)
    return [(name, json.loads(context) if context else None) for name, context in found]


def users():
    return [context and context.get("user") for _, context in seen()]


@contextmanager
def round_trips(using="default"):
    """How often the driver asks the server; the block gets a list that is filled at its end."""
    connections[using].ensure_connection()
    pgconn = connections[using].connection.pgconn
    found = []
    with tempfile.TemporaryFile() as file:
        pgconn.trace(file.fileno())
        try:
            yield found
        finally:
            pgconn.untrace()
        file.seek(0)
        lines = file.read().decode(errors="replace").splitlines()
    found += [line for line in lines if "\tF\t" in line and ("Query" in line or "Sync" in line)]


# Transactions.


@pytest.mark.parametrize("first", [read, write, call, lambda: raw().execute("SELECT 1")])
@pytest.mark.parametrize("then", [write, call, copy])
def test_two_transactions_in_one_block(first, then):
    with bulksafe.context(user=1):
        with transaction.atomic():
            write()
        with transaction.atomic():
            first()
            then()

    assert set(users()) == {1}


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN"])
def test_transactions_that_are_ended_by_hand(end):
    with bulksafe.context(user=1):
        execute("BEGIN")
        write()
        execute(end)
        if not end.endswith("CHAIN"):
            execute("BEGIN")
        read()
        write("second")
        execute("COMMIT")

    assert seen()[-1] == ("second", {"user": 1})


def test_a_transaction_that_was_rolled_back():
    with bulksafe.context(user=1):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            write_and_fail()
        with transaction.atomic():
            read()
            write()

    assert users() == [1]


def test_a_transaction_that_could_not_be_committed():
    execute("ALTER TABLE carried.deferred ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
    with bulksafe.context(user=1):
        with pytest.raises(IntegrityError), transaction.atomic():
            execute("INSERT INTO carried.deferred VALUES ('a'), ('a')")
        with transaction.atomic():
            raw().execute("SELECT 1")
            write()

    assert users() == [1]


def test_a_connection_that_was_closed():
    with bulksafe.context(user=1):
        transaction.set_autocommit(False)
        write("lost")
        connection.close()
        with transaction.atomic():
            read()
            write()
    assert users() == [1]


def test_a_connection_that_is_gone_is_not_kept():
    kept = []

    def work():
        with bulksafe.context(user=1):
            write()
        kept.append(weakref.ref(connection.connection))

    in_a_thread(work)
    gc.collect()

    assert kept[0]() is None


def test_blocks_in_transactions_of_two_databases():
    with transaction.atomic(), transaction.atomic(using="other"):
        with bulksafe.context(user=1):
            write()
        with bulksafe.context(user=2):
            execute("SELECT 1", using="other")
            execute("INSERT INTO carried.row VALUES ('other')", using="other")
        raw().execute("INSERT INTO carried.row VALUES ('driver')")
        connections["other"].connection.execute("INSERT INTO carried.row VALUES ('driver')")

    assert seen() == [("row", {"user": 1}), ("driver", None)]
    assert seen("other") == [("other", {"user": 2}), ("driver", None)]


# Statements.

WRITING = {
    "SELECT f()": "SELECT carried.write('x')",
    "comment": "-- SELECT 1\n/* x */ SELECT 1, carried.write('x')",
    "VALUES": "VALUES (carried.write('x'))",
    "parentheses": "(SELECT carried.write('x'))",
    "WHERE": "SELECT 1 FROM generate_series(1, 1) AS n(i) WHERE carried.write('x') = 'x'",
    "search_path": "SELECT write('x')",
    "quoted": """SELECT "carried"."write" ('x')""",
    "WITH": "WITH x AS (SELECT carried.write('x')) SELECT * FROM x",
    "EXPLAIN ANALYZE": "EXPLAIN (COSTS OFF, ANALYZE) INSERT INTO carried.row VALUES ('x')",
    "EXPLAIN ANALYSE": "explain analyse select carried.write('x')",
    "MERGE": "MERGE INTO carried.row AS r USING (VALUES (1)) AS v ON false "
    "WHEN NOT MATCHED THEN INSERT VALUES ('x', NULL)",
    "CREATE TABLE AS": "CREATE TABLE carried.made AS SELECT carried.write('x')",
    "CREATE MATERIALIZED VIEW": "CREATE MATERIALIZED VIEW carried.made AS "
    "SELECT carried.write('x') AS name",
    "DO": "DO $$ BEGIN INSERT INTO carried.row VALUES ('x'); END $$",
    "several": "SELECT 1; INSERT INTO carried.row VALUES ('x')",
    "Composable": sql.SQL("SELECT {}('x')").format(sql.Identifier("carried", "write")),
    "bytes": b"SELECT carried.write('x')",
}


@pytest.mark.parametrize("statement", WRITING.values(), ids=WRITING)
@pytest.mark.parametrize("is_open", [False, True], ids=["autocommit", "atomic"])
def test_statements_that_write(statement, is_open):
    execute("SET search_path = public, carried")
    with bulksafe.context(user=1):
        if is_open:
            with transaction.atomic():
                read()
                execute(statement)
        else:
            execute(statement)
    # And none of that is left.
    execute(b"INSERT INTO carried.row VALUES ('after')")

    assert seen() == [("x", {"user": 1}), ("after", None)]


@pytest.mark.parametrize("statement", WRITING.values(), ids=WRITING)
def test_statements_that_write_after_the_block(statement):
    execute("SET search_path = public, carried")
    with transaction.atomic():
        with bulksafe.context(user=1):
            write()
        execute(statement)

    assert users() == [1, None]


@pytest.mark.parametrize(
    "prepared",
    [
        ("PREPARE later AS INSERT INTO carried.row VALUES ('x')", "EXECUTE later"),
        (
            "CREATE MATERIALIZED VIEW carried.made AS SELECT carried.write('x') WITH NO DATA",
            "REFRESH MATERIALIZED VIEW carried.made",
        ),
        (
            "DECLARE later CURSOR WITH HOLD FOR SELECT carried.write('x')",
            "FETCH ALL FROM later",
        ),
        ("INSERT INTO carried.deferred VALUES ('x')", "SET CONSTRAINTS ALL IMMEDIATE"),
    ],
    ids=lambda pair: pair[1],
)
def test_statements_that_run_what_was_prepared(prepared):
    with transaction.atomic():
        execute(prepared[0])
        with bulksafe.context(user=1):
            execute(prepared[1])

    assert users() == [1]


@pytest.mark.parametrize("binding", [False, True], ids=["client-side", "server-side"])
@pytest.mark.parametrize("is_open", [False, True], ids=["autocommit", "atomic"])
def test_parameters(binding, is_open):
    options = connection.settings_dict["OPTIONS"]
    connection.close()
    before = options.pop("server_side_binding", None)
    options["server_side_binding"] = binding
    try:
        execute("SET search_path = public, carried")
        with bulksafe.context(user=1):
            if is_open:
                transaction.set_autocommit(False)
                read()
            write()
            execute("SELECT carried.write(%s)", ["f"])
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO carried.row VALUES (%s)", [("a",), ("b",)])
                cursor.executemany("SELECT carried.write(%s)", [("c",), ("d",)])
                cursor.callproc("write", ["proc"])
            copy()
            if is_open:
                transaction.commit()
                transaction.set_autocommit(True)
    finally:
        connection.close()
        del options["server_side_binding"]
        if before is not None:
            options["server_side_binding"] = before

    assert seen() == [(name, {"user": 1}) for name in "row f a b c d proc copy".split()]


@pytest.mark.parametrize(
    "statement", ["CALL carried.commits()", "DO $$ BEGIN CALL carried.commits(); END $$"]
)
def test_a_procedure_that_commits(statement):
    """No transaction can be opened for it, and so it has no context; but it runs."""
    with bulksafe.context(user=1):
        execute(statement)
        write()

    assert seen() == [("commits", None), ("row", {"user": 1})]


@pytest.mark.parametrize(
    "statement",
    [
        "VACUUM carried.row",
        "CREATE INDEX CONCURRENTLY ON carried.row (name)",
        "REINDEX TABLE CONCURRENTLY carried.row",
        "ALTER SYSTEM RESET work_mem",
    ],
)
def test_statements_that_no_transaction_may_hold(statement):
    with bulksafe.context(user=1):
        execute(statement)


@pytest.mark.parametrize("is_open", [False, True], ids=["autocommit", "atomic"])
def test_a_stream(is_open):
    """In autocommit it would have to stay open until all rows are read."""

    def work():
        with connection.cursor() as cursor:
            list(cursor.stream("INSERT INTO carried.row VALUES ('stream') RETURNING name"))

    with bulksafe.context(user=1):
        if is_open:
            with transaction.atomic():
                work()
        else:
            work()

    assert users() == [1 if is_open else None]


# The end of a block.


@pytest.mark.parametrize("bypass", [copy, call, by_the_driver])
class TestAfterTheBlock:
    def test_in_the_same_transaction(self, bypass):
        with transaction.atomic():
            with bulksafe.context(user=1):
                write()
            bypass()

        assert users() == [1, None]

    def test_the_outer_block_is_in_force_again(self, bypass):
        with transaction.atomic(), bulksafe.context(user=1):
            with bulksafe.context(user=2):
                write()
            bypass()

        assert users() == [2, 1]

    def test_after_an_error(self, bypass):
        with transaction.atomic():
            with pytest.raises(ZeroDivisionError), bulksafe.context(user=1):
                write_and_fail()
            bypass()

        assert users() == [1, None]

    def test_in_a_transaction_that_has_failed_and_was_rolled_back_to_a_savepoint(self, bypass):
        with transaction.atomic():
            with bulksafe.context(user=1):
                write()
                savepoint = connection.savepoint()
                with pytest.raises(DatabaseError):
                    execute("SELECT nothing")
            transaction.savepoint_rollback(savepoint)
            bypass()

        assert users() == [1, None]

    def test_rolling_back_to_a_savepoint_does_not_restore_the_context(self, bypass):
        with transaction.atomic():
            with bulksafe.context(user=1):
                write()
                savepoint = connection.savepoint()
            transaction.savepoint_rollback(savepoint)
            bypass()

        assert users() == [1, None]

    def test_what_deferred_triggers_write(self, bypass):
        with transaction.atomic():
            with bulksafe.context(user=1):
                execute("INSERT INTO carried.deferred VALUES ('later')")
            bypass()

        assert users() == [None, None]

    def test_of_a_block_in_another_place_of_the_transaction(self, bypass):
        with transaction.atomic():
            with bulksafe.context(user=1):
                read()
            with bulksafe.context(user=2):
                write()
            with bulksafe.context(user=3):
                read()
            bypass()

        assert users() == [2, None]


def test_the_block_ends_in_a_transaction_that_has_ended():
    with bulksafe.context(user=1):
        transaction.set_autocommit(False)
        write()
        transaction.commit()
        transaction.set_autocommit(True)
    by_the_driver()

    assert users() == [1, None]


def test_the_block_ends_where_the_transaction_has_failed():
    @bulksafe.context(user=1)
    def fail():
        write()
        execute("SELECT nothing")

    with pytest.raises(DatabaseError, match="nothing"), transaction.atomic():
        fail()
    write()

    assert users() == [None]


def test_the_block_ends_while_rows_are_copied():
    with transaction.atomic():
        block = bulksafe.context(user=1)
        block.__enter__()
        write()
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY carried.row (name) FROM STDIN") as rows,
        ):
            block.__exit__(None, None, None)
            rows.write_row(["copy"])
        call()

    assert users()[::2] == [1, None]


@pytest.mark.parametrize(
    "statement",
    [
        "RESET ALL",
        "reset bulksafe.context",
        "SET LOCAL bulksafe.context = ''",
        "DO 'BEGIN RESET ALL; END'",
    ],
)
@pytest.mark.parametrize("then", [write, call, copy])
def test_what_resets_settings(statement, then):
    with bulksafe.context(user=1), transaction.atomic():
        write()
        execute(statement)
        then()

    assert users() == [1, 1]


def test_a_context_set_by_hand_outside_all_blocks_stays():
    """The means for psql, and for what no wrapper sees."""
    by_hand = "SELECT set_config('bulksafe.context', '{\"user\": 3}', true)"
    with transaction.atomic():
        with bulksafe.context(user=1):
            write()
        execute(by_hand)
        for bypass in (write, call, copy, by_the_driver):
            bypass()
        with bulksafe.context(user=1):
            execute("SELECT set_config(%s, %s, true)", ["bulksafe.context", '{"user": 4}'])
            write()

    assert users() == [1, 3, 3, 3, 3, 1]


def test_savepoints_inside_a_block():
    with bulksafe.context(user=1), transaction.atomic():
        for is_kept in (True, False, False):
            with transaction.atomic():
                write("kept" if is_kept else "gone")
                transaction.set_rollback(not is_kept)
            by_the_driver()
            copy()

    assert users() == [1] * 7


# Copying.


@pytest.mark.parametrize("is_open", [False, True], ids=["autocommit", "atomic"])
def test_copy_comes_first_in_a_block(is_open):
    with bulksafe.context(user=1):
        if is_open:
            with transaction.atomic():
                copy()
        else:
            copy()
    copy("after")

    assert seen() == [("copy", {"user": 1}), ("after", None)]


def test_copy_comes_first_in_an_inner_block():
    with transaction.atomic(), bulksafe.context(user=1):
        write()
        with bulksafe.context(user=2):
            copy()
        copy()

    assert users() == [1, 2, 1]


def test_a_copy_that_fails_leaves_nothing():
    with bulksafe.context(user=1):
        with (
            pytest.raises(psycopg.Error),
            connection.cursor() as cursor,
            cursor.copy("COPY carried.nothing FROM STDIN") as rows,
        ):
            rows.write_row(["x"])
        copy()

    assert users() == [1]


def test_receivers_of_rows_that_were_copied_get_the_context_of_the_block():
    calls = inline.critical(post_save, Tag)
    with transaction.atomic():
        with (
            bulksafe.context(user=1),
            connection.cursor() as cursor,
            cursor.copy(f"COPY {Tag._meta.db_table} (name, used) FROM STDIN") as rows,
        ):
            rows.write_row(["copied", 0])
        assert [call["context"] for call in calls] == [{"user": 1}]


def test_cursors_of_other_databases_pass_it_on():
    with connections["lite"].cursor() as cursor:
        assert not hasattr(cursor, "copy")
        assert not hasattr(cursor, "stream")


# Costs.


def test_reads_in_a_block_cost_nothing():
    def work():
        read()
        list(Article.objects.order_by("pk")[:3])
        Article.objects.filter(title__icontains="x").exists()
        execute("SELECT COALESCE(MAX(id), 0)::numeric(10, 2) FROM carried.seen")
        execute("SHOW work_mem")

    def in_a_transaction():
        with transaction.atomic():
            work()

    for run in (work, in_a_transaction):
        with round_trips() as without:
            run()
        with bulksafe.context(user=1), round_trips() as within:
            run()
        assert len(within) == len(without)


def test_a_block_in_which_nothing_is_written_costs_nothing():
    def work():
        with transaction.atomic(), bulksafe.context(user=1):
            write()
            for number in range(3):
                with bulksafe.context(number=number):
                    read()

    def without_blocks():
        with transaction.atomic(), bulksafe.context(user=1):
            write()
            for _ in range(3):
                read()

    with round_trips() as found:
        work()
    with round_trips() as expected:
        without_blocks()
    # The outer block ends before the transaction does: it is cleared once.
    assert len(found) == len(expected)


def test_writes_of_one_block_share_what_is_set():
    def work():
        with transaction.atomic():
            for _ in range(5):
                read()
                write()
                call()

    with round_trips() as without:
        work()
    with bulksafe.context(user=1), round_trips() as within:
        work()

    assert len(within) == len(without) + 1


# Whose writes are whose.


def test_the_key_of_the_receivers_names_is_refused():
    with pytest.raises(ValueError, match=r"“bulksafe\.written_by” is reserved"):
        bulksafe.context(**{"bulksafe.written_by": ["another receiver"]})


def in_a_thread(function):
    """Run it in a thread with a copy of the context."""
    error = []

    def work():
        try:
            function()
        except BaseException as raised:
            error.append(raised)
        finally:
            connections.close_all()

    thread = threading.Thread(target=contextvars.copy_context().run, args=[work])
    thread.start()
    thread.join()
    if error:
        raise error[0]


def test_a_context_reaches_a_thread():
    with bulksafe.context(user=1):
        in_a_thread(write)

    assert users() == [1]


def test_writes_of_another_thread_in_the_listener_are_not_the_receiver_s_own():
    handed = []

    def hand_on(instance, **kwargs):
        received.append(instance.title)
        if instance.title == "first":
            in_a_thread(lambda: handed.append(call_stack.running()))
            in_a_thread(lambda: Article.objects.create(title="thread"))
            Article.objects.create(title="own")

    received: list[str] = []
    bulksafe.critical(post_save, sender=Article, run="after_commit", dispatch_uid="hand on")(
        hand_on
    )
    reception.capture(Article)
    testing.deliver()
    Article.objects.create(title="first")
    testing.deliver()

    assert handed == [()]
    assert received == ["first", "thread"]


def test_writes_of_another_thread_in_the_writer_s_transaction_are_not_the_receiver_s_own():
    received = []

    def hand_on(instance, **kwargs):
        received.append(instance.title)
        if instance.title == "first":
            in_a_thread(lambda: Article.objects.bulk_create([Article(title="thread")]))
            Article.objects.bulk_create([Article(title="own")])

    inline.critical(post_save, Article, hand_on)
    Article.objects.create(title="first")

    assert received == ["first", "thread"]


def test_writes_in_the_context_of_an_ended_call_are_not_its_own():
    kept = []
    calls = []

    def keep(instance, **kwargs):
        calls.append(instance.title)
        kept.append(contextvars.copy_context())

    inline.critical(post_save, Article, keep)
    Article.objects.create(title="first")
    kept[0].run(lambda: Article.objects.bulk_create([Article(title="later")]))

    assert calls == ["first", "later"]


def test_asynchronous_work_of_a_receiver_is_its_own():
    """Django's asynchronous methods run in the thread that waits for them, on its connection."""
    calls = []

    async def work(instance):
        calls.append(instance.title)
        await Article.objects.abulk_create([Article(title="own")])
        await asyncio.gather(*[sync_to_async(Article.objects.create)(title=x) for x in ("a", "b")])

    def react(instance, **kwargs):
        names.append(call_stack.running())
        if instance.title == "first":
            async_to_sync(work)(instance)

    names: list[tuple[str, ...]] = []
    bulksafe.critical(post_save, sender=Article, run="after_commit", dispatch_uid="react")(react)
    reception.capture(Article)
    testing.deliver()
    Article.objects.create(title="first")
    testing.deliver()

    assert calls == ["first"]
    assert names == [("react",)]


def test_rows_stored_early_in_a_listener_s_call_are_the_receiver_s_own():
    """The receiver before the write counts rows: each is stored before the next one is counted."""
    received = []

    def add(instance, **kwargs):
        received.append(instance.title)
        if instance.title == "first":
            Article.objects.bulk_create([Article(title=title) for title in "abc"])

    def count(sender, **kwargs):
        sender.objects.count()

    bulksafe.critical(post_save, sender=Article, run="after_commit", dispatch_uid="add")(add)
    inline.critical(pre_save, Article, count)
    reception.capture(Article)
    testing.deliver()
    Article.objects.create(title="first")
    for _ in range(3):
        testing.deliver()

    assert received == ["first"]


def test_a_listener_s_call_that_changes_no_value_calls_no_receiver():
    received = []

    def write_again(instance, **kwargs):
        Article.objects.filter(pk=instance.pk).update(amount=instance.amount)
        Article.objects.all().update(amount=7)

    def receive(instance, **kwargs):
        received.append(instance.amount)

    bulksafe.critical(post_save, sender=Article, run="after_commit", dispatch_uid="again")(
        write_again
    )
    inline.critical(post_save, Article, receive)
    reception.capture(Article)
    testing.deliver()
    Article.objects.create(title="first", amount=1)
    testing.deliver()

    assert received == [1, 7]


def written_by():
    return [
        (name, tuple((context or {}).get("bulksafe.written_by", ()))) for name, context in seen()
    ]


@pytest.mark.parametrize("bypass", [call, copy, by_the_driver])
@pytest.mark.parametrize("run", ["in_transaction", "after_commit"])
def test_rows_written_by_one_receiver_do_not_carry_the_name_of_another(run, bypass):
    def x(**kwargs):
        write("x")

    def y(**kwargs):
        bypass()

    for receiver in (x, y):
        uid = receiver.__name__
        if run == "in_transaction":
            inline.critical(post_save, Article, receiver, dispatch_uid=uid)
        else:
            bulksafe.critical(post_save, sender=Article, run=run, dispatch_uid=uid)(receiver)
    reception.capture(Article)
    testing.deliver()
    with transaction.atomic():
        Article.objects.bulk_create([Article(title="a"), Article(title="b")])
        by_the_driver()
    testing.deliver()

    found = written_by()
    assert ("driver", ()) in found
    of_x = {names for name, names in found if name == "x"}
    of_y = {names for name, names in found if name not in {"x", "driver"}}
    assert of_x == {("x",)}
    assert of_y <= {("y",)}
    assert sum(names == ("x",) for _, names in found) == 2


def test_deferred_triggers_write_on_behalf_of_no_receiver():
    inline.critical(post_save, Article, lambda **kwargs: write("x"), dispatch_uid="x")
    with transaction.atomic():
        execute("INSERT INTO carried.deferred VALUES ('later')")
        Article.objects.create(title="a")
    execute("INSERT INTO carried.deferred VALUES ('later')")

    assert written_by() == [("x", ("x",)), ("later", ()), ("later", ())]


@pytest.mark.parametrize("is_reading", [False, True], ids=["", "reading"])
def test_receivers_that_write_cost_no_more_where_others_are_called_in_between(is_reading):
    inline.critical(post_save, Article, lambda **kwargs: write("x"), dispatch_uid="x")
    reads = read if is_reading else list
    inline.critical(post_save, Article, lambda **kwargs: reads(), dispatch_uid="y")
    # Of a text that the server has not parsed yet, the savepoint is a message of its own.
    Article.objects.bulk_create([Article(title="warm") for _ in range(4)])

    def count(rows):
        with round_trips() as found:
            Article.objects.bulk_create([Article(title="a") for _ in range(rows)])
        return len(found)

    assert count(20) - count(10) == 10 * (1 + is_reading)


def by_a_cursor_of_the_driver():
    with raw().cursor() as cursor:
        cursor.execute("INSERT INTO carried.row VALUES ('driver')")


def by_executemany_of_the_driver():
    with raw().cursor() as cursor:
        cursor.executemany("INSERT INTO carried.row VALUES (%s)", [("driver",)])


def by_copy_of_the_driver():
    with raw().cursor() as cursor, cursor.copy("COPY carried.row (name) FROM STDIN") as rows:
        rows.write_row(["driver"])


def by_stream_of_the_driver():
    with raw().cursor() as cursor:
        list(cursor.stream("INSERT INTO carried.row VALUES ('driver') RETURNING name"))


DRIVERS = [
    by_the_driver,
    by_a_cursor_of_the_driver,
    by_executemany_of_the_driver,
    by_copy_of_the_driver,
    by_stream_of_the_driver,
]


@pytest.mark.parametrize("bypass", DRIVERS)
def test_receivers_that_write_with_a_driver_cursor(bypass):
    inline.critical(post_save, Article, lambda **kwargs: write("x"), dispatch_uid="x")
    inline.critical(post_save, Article, lambda **kwargs: bypass(), dispatch_uid="y")
    Article.objects.create(title="a")

    assert written_by() == [("x", ("x",)), ("driver", ("y",))]


def test_a_cursor_of_another_class_after_the_write():
    inline.critical(post_save, Article, lambda **kwargs: write("x"), dispatch_uid="x")
    with transaction.atomic():
        Article.objects.create(title="a")
        psycopg.RawCursor(raw()).execute("INSERT INTO carried.row VALUES ('driver')")

    assert written_by() == [("x", ("x",)), ("driver", ())]


def test_queries_are_logged_as_without_a_block():
    with bulksafe.context(user=1), CaptureQueriesContext(connection) as captured:
        read()
    assert len(captured) == 1
    assert not Log.objects.exists()
