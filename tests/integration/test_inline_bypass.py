"""Nothing gets past: whoever writes without Django's wrappers is told at the commit, or refused."""

# ruff: noqa: PT012  (transactions have several statements)

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress

import psycopg
import pytest
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.db.models.expressions import RawSQL
from django.db.models.signals import post_delete, post_save, pre_save

from bulksafe.exceptions import BrokenTransaction, ReceiversNotRun
from bulksafe.outbox import own
from bulksafe.writer.conflicts import Conflicts
from examples import server
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalBook as Book
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import (  # noqa: F401
    ARTICLES,
    TICKET,
    _django_db_helper,
    clean,
    committed,
    execute,
    insert,
    raw,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True)


def write_muted():
    with transaction.atomic():
        execute("SET LOCAL bulksafe.muted = '{*}'")
        execute(insert("there"))


BOOKS = Book._meta.db_table
SHELVES = Shelf._meta.db_table

#: What other programs find in a database. %s is an INSERT of an article.
SCENERY = f"""
    CREATE SCHEMA bypass;
    CREATE TABLE bypass.other (id bigint);
    CREATE TABLE bypass.deferred (id bigint);
    CREATE TABLE bypass.ruled (id bigint);
    CREATE VIEW bypass.seen AS SELECT * FROM {ARTICLES};
    CREATE FUNCTION bypass.in_sql() RETURNS void LANGUAGE sql AS $f$ {insert("function")} $f$;
    CREATE FUNCTION bypass.in_plpgsql() RETURNS int LANGUAGE plpgsql AS $f$
        BEGIN
            {insert("function")};
            RETURN 1;
        END
    $f$;
    CREATE PROCEDURE bypass.procedure() LANGUAGE plpgsql AS $f$
        BEGIN
            {insert("procedure")};
        END
    $f$;
    CREATE PROCEDURE bypass.committing() LANGUAGE plpgsql AS $f$
        BEGIN
            INSERT INTO bypass.other VALUES (1);
            COMMIT;
            {insert("after its commit")};
        END
    $f$;
    CREATE FUNCTION bypass.on_other() RETURNS trigger LANGUAGE plpgsql AS $f$
        BEGIN
            {insert("trigger")};
            RETURN NULL;
        END
    $f$;
    CREATE TRIGGER other AFTER INSERT ON bypass.other
        FOR EACH ROW WHEN (new.id > 1) EXECUTE FUNCTION bypass.on_other();
    CREATE CONSTRAINT TRIGGER deferred AFTER INSERT ON bypass.deferred
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION bypass.on_other();
    CREATE RULE ruled AS ON INSERT TO bypass.ruled DO ALSO {insert("rule")};
"""


@pytest.fixture(scope="module", autouse=True)
def scenery(committed) -> Iterator[None]:  # noqa: F811
    execute(SCENERY)
    yield
    connections.close_all()
    execute("DROP SCHEMA bypass CASCADE")


@pytest.fixture
def calls(clean):  # noqa: F811
    """The calls of a receiver of saved articles, and of one of deleted ones."""
    execute("DELETE FROM bypass.other")
    return inline.critical([post_save, post_delete], Article, dispatch_uid="warehouse")


def stored() -> list[tuple]:
    return execute(f"SELECT id, title FROM {ARTICLES} ORDER BY id")


_VERBOSE = re.compile(
    r"ERROR: +(?P<sqlstate>\w{5}): (?P<message>.*?)^DETAIL: +(?P<detail>.*?)^HINT: +(?P<hint>.*?)"
    r"^(?:CONTEXT.*?)?SCHEMA NAME: +(?P<schema>\S+)$.*^TABLE NAME: +(?P<table>\S+)$.*"
    r"^CONSTRAINT NAME: +(?P<constraint>\S+)$",
    re.DOTALL | re.MULTILINE,
)


def check_words(message, detail, hint, change="INSERT", receiver="warehouse.post_save"):
    """A refusal names the table and the receiver, and says what to do."""
    assert change in message
    assert ARTICLES in message
    assert receiver in message
    assert "written past it" in detail
    assert "Write through Django" in hint
    assert 'otherwise="after_commit"' in hint


@pytest.fixture
def refused_in_psql(psql, calls):
    """Runs a script in psql and expects that the database refuses it, whole."""

    def run(script, **words):
        connections.close_all()
        before = stored()
        done = psql(f"\\set VERBOSITY verbose\n{script}")
        assert done.returncode == 3, (done.stdout, done.stderr)
        found = _VERBOSE.search(done.stderr)
        assert found, done.stderr
        assert found["sqlstate"] == "23000"
        assert (found["table"], found["constraint"]) == (ARTICLES, TICKET)
        check_words(found["message"], found["detail"], found["hint"], **words)
        assert stored() == before
        assert calls == []
        return done

    return run


def check_refusal(error, **words):
    """The driver's error."""
    assert error.sqlstate == "23000"
    assert error.diag.constraint_name == TICKET
    assert error.diag.table_name == ARTICLES
    check_words(
        error.diag.message_primary, error.diag.message_detail, error.diag.message_hint, **words
    )


# psql.

_COLUMNS, _VALUES = re.match(r"INSERT INTO \w+ \((.*)\) VALUES \((.*)\)", insert("row")).groups()

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
    "nobody listens": f"SET client_min_messages = error; {insert()}",
    "what was told is forged": (
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
def test_psql_may_not_change_rows_either(change, statement, refused_in_psql, calls):
    Article.objects.create(title="there")
    calls.clear()
    if "MERGE" in statement and connection.pg_version < 150000:
        pytest.skip("MERGE came with PostgreSQL 15")
    name = "warehouse.post_delete" if change == "DELETE" else "warehouse.post_save"

    refused_in_psql(statement, change=change, receiver=name)


def test_psql_may_not_delete_along(psql, calls):
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


def test_psql_may_take_it_back(psql, calls):
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


def test_receivers_that_the_database_does_not_know_by_name(psql, calls):
    execute("DELETE FROM bulksafe_receiver")

    done = psql(insert())

    assert done.returncode == 3
    assert "run “manage.py migrate” for their names" in done.stderr


# Roles, schemas, settings.


@pytest.fixture
def clerk(committed) -> Iterator[str]:  # noqa: F811
    """A role that may write articles, and that the settings name as one of the application's."""
    execute("CREATE ROLE bypass_clerk")
    execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {ARTICLES} TO bypass_clerk")
    execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO bypass_clerk")
    execute("REVOKE ALL ON SEQUENCE bulksafe_outbox_seq, bulksafe_outbox_slot FROM bypass_clerk")
    execute(f"GRANT EXECUTE ON FUNCTION {', '.join(own.WRITING)} TO bypass_clerk")
    yield "bypass_clerk"
    connections.close_all()
    execute("DROP OWNED BY bypass_clerk")
    execute("DROP ROLE bypass_clerk")


def test_a_role_without_rights_on_bulksafe_s_tables(refused_in_psql, clerk):
    refused_in_psql(f"SET ROLE {clerk}; {insert()};\n")


@pytest.mark.parametrize("table", ["bulksafe_buffer", "bulksafe_ticket", "bulksafe_receiver"])
@pytest.mark.parametrize("what", ["SELECT FROM", "DELETE FROM", "TRUNCATE"])
def test_such_a_role_may_not_look_or_tamper(table, what, psql, clerk, calls):
    done = psql(f"SET ROLE {clerk}; {what} {table}")

    assert done.returncode == 3
    assert "permission denied" in done.stderr


def test_such_a_role_writes_through_django(clerk, calls):
    execute(f"SET ROLE {clerk}")
    try:
        Article.objects.create(title="one")
        with transaction.atomic():
            Article.objects.bulk_create([Article(title="two")])
            Article.objects.update(title="three")
        Article.objects.all().delete()
    finally:
        execute("RESET ROLE")

    assert len(calls) == 6
    assert stored() == []


def test_a_hostile_search_path(psql, refused_in_psql):
    """Functions, operators and tables of the names that are used, in front of all others."""
    try:
        refused_in_psql(
            "CREATE SCHEMA trap; CREATE TABLE trap.bulksafe_ticket (xid xid8);"
            "CREATE TABLE trap.bulksafe_buffer (LIKE public.bulksafe_buffer);"
            "CREATE FUNCTION trap.pg_current_xact_id() RETURNS xid8 LANGUAGE sql "
            "AS $$ SELECT '3'::xid8 $$;"
            "CREATE FUNCTION trap.pg_trigger_depth() RETURNS int LANGUAGE sql AS $$ SELECT 7 $$;"
            "CREATE FUNCTION trap.current_setting(text, boolean) RETURNS text LANGUAGE sql "
            "AS $$ SELECT '{*}' $$;"
            "CREATE FUNCTION trap.eq(xid8, xid8) RETURNS boolean LANGUAGE sql "
            "AS $$ SELECT false $$;"
            "CREATE OPERATOR trap.= (LEFTARG = xid8, RIGHTARG = xid8, FUNCTION = trap.eq);"
            f"SET search_path = trap, pg_catalog, public; {insert(table='public.' + ARTICLES)};\n"
        )
    finally:
        execute("DROP SCHEMA trap CASCADE")


@pytest.mark.parametrize("way", ["bulk", "raw"])
def test_a_search_path_that_would_lead_django_astray(way, calls):
    """Another ``bulksafe_take`` in front is not called: the trigger names the schema of ours."""
    execute(
        "CREATE SCHEMA trap; "
        'CREATE FUNCTION trap.bulksafe_take(oid, "char", bigint) '
        "RETURNS SETOF public.bulksafe_buffer LANGUAGE sql "
        "AS $$ SELECT * FROM public.bulksafe_buffer WHERE false $$; "
        "CREATE FUNCTION trap.bulksafe_prefix() RETURNS text LANGUAGE sql RETURN 'trap'"
    )
    try:
        execute("SET search_path = trap, public")
        if way == "bulk":
            Article.objects.bulk_create([Article(title="kept")])
        else:
            execute(insert("kept"))
    finally:
        execute("SET search_path = public")
        execute("DROP SCHEMA trap CASCADE")
    assert titles() == ["kept"]
    (call,) = calls
    assert not (call["event_id"] or "").startswith("trap")


def test_triggers_that_are_off_are_the_way_past(psql, calls):
    """As for all triggers, and documented: a superuser may."""
    done = psql(f"SET session_replication_role = replica; {insert('replicated')}")

    assert done.returncode == 0, done.stderr
    assert titles() == ["replicated"]
    assert calls == []


def test_triggers_that_are_off_at_the_commit_only(refused_in_psql):
    refused_in_psql(f"BEGIN; {insert()}; SET LOCAL session_replication_role = replica; COMMIT;\n")


def test_muting_is_the_way_past_on_purpose(psql, calls):
    label = "practice.CriticalArticle:bulksafe_capture"
    done = psql(f"BEGIN; SET LOCAL bulksafe.muted = '{{{label}}}'; {insert('muted')}; COMMIT")

    assert done.returncode == 0, done.stderr
    assert titles() == ["muted"]
    assert calls == []


# Two-phase commit.


def test_a_prepared_transaction(psql, refused_in_psql):
    if execute("SHOW max_prepared_transactions") == [("0",)]:
        pytest.skip("the server has max_prepared_transactions = 0")

    refused_in_psql(f"BEGIN; {insert()}; PREPARE TRANSACTION 'bypass';\n")

    assert execute("SELECT count(*) FROM pg_prepared_xacts") == [(0,)]


def test_a_prepared_transaction_of_the_driver(calls):
    if execute("SHOW max_prepared_transactions") == [("0",)]:
        pytest.skip("the server has max_prepared_transactions = 0")
    with closing(psycopg.connect(url())) as other:
        other.tpc_begin(other.xid(1, "bypass", "bypass"))
        other.execute(insert())
        with pytest.raises(psycopg.IntegrityError) as refusal:
            other.tpc_prepare()
        check_refusal(refusal.value)

    assert stored() == []


# Other connections.


def url(**options):
    return server.database_url(connection.settings_dict)


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
def test_a_connection_beside_django_s(calls, autocommit):
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


def test_such_a_cursor_of_django_s(calls):
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


# Over Django's connection, past its cursors.


def seen(calls):
    """What the receivers were called for, in order."""
    return [call["instance"].title for call in calls]


def copied(title="copied"):
    return f"COPY {ARTICLES} ({_COLUMNS}) FROM STDIN (FORMAT csv, QUOTE '''')", _VALUES.replace(
        "'row'", f"'{title}'"
    )


def by_raw_cursor():
    with raw().cursor() as cursor:
        cursor.execute(insert())


def by_raw_connection():
    raw().execute(insert())


def by_prepared_statement():
    raw().execute(insert(), prepare=True)


def by_server_side_binding():
    with psycopg.RawCursor(raw()) as cursor:
        cursor.execute(insert().replace("'raw'", "$1"), ["raw"])


def by_executemany():
    with raw().cursor() as cursor:
        cursor.executemany(insert("%s").replace("'%s'", "%s"), [("raw",)])


def by_stream():
    with raw().cursor() as cursor:
        list(cursor.stream(f"{insert()} RETURNING id"))


def by_copy():
    statement, row = copied("raw")
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(row + "\n")


def by_copy_of_the_driver():
    statement, row = copied("raw")
    with raw().cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(row + "\n")


def by_function():
    raw().execute("SELECT bypass.in_sql()")
    raw().execute(f"UPDATE {ARTICLES} SET title = 'raw'")


PAST_DJANGO = [
    by_raw_cursor,
    by_raw_connection,
    by_prepared_statement,
    by_server_side_binding,
    by_executemany,
    by_stream,
    by_copy,
    by_copy_of_the_driver,
]


@pytest.mark.parametrize("write", PAST_DJANGO)
class TestPastDjangosCursors:
    def test_in_autocommit_it_is_refused(self, write, calls):
        if write in {by_executemany, by_stream}:
            # psycopg reads the rows, and not what comes after them; and it loses count of the
            # results where the end of a pipeline fails.
            with suppress(psycopg.Error, IndexError):
                write()
            connection.close()
        else:
            with pytest.raises(psycopg.IntegrityError) as refusal:
                write()
            check_refusal(refusal.value)

        assert stored() == []
        assert calls == []

    def test_in_atomic_it_is_delivered_at_the_commit(self, write, calls):
        with transaction.atomic():
            write()
            assert calls == []

        assert seen(calls) == titles() == ["raw"]
        assert calls[0]["created"] is True
        assert calls[0]["old"] is None

    def test_in_atomic_the_next_statement_tells(self, write, calls):
        with transaction.atomic():
            write()
            Shelf.objects.count()
            assert seen(calls) == ["raw"]

        assert seen(calls) == ["raw"]

    def test_without_autocommit_it_is_delivered_at_the_commit(self, write, calls):
        transaction.set_autocommit(False)
        try:
            write()
            transaction.commit()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

        assert seen(calls) == titles() == ["raw"]

    def test_a_receiver_that_refuses_it_at_the_commit(self, write):
        inline.critical(post_save, Article, refuse)

        with pytest.raises(ValueError, match="no"), transaction.atomic():
            Shelf.objects.create(name="goes, too")
            write()

        assert stored() == []
        assert Shelf.objects.count() == 0


def refuse(**kwargs):
    raise ValueError("no")


def test_several_tables_are_told_in_the_order_of_the_writes(clean):  # noqa: F811
    """On a connection that has told nothing yet: it finds the tables out then."""
    order = []
    inline.critical(post_save, Article, lambda **kwargs: order.append("article"))
    inline.critical(post_save, Shelf, lambda **kwargs: order.append("shelf"))
    connections.close_all()

    with transaction.atomic():
        raw().execute(insert())
        raw().execute(f"INSERT INTO {SHELVES} (name, books, pages) VALUES ('s', 0, 0)")
        raw().execute(insert())

    assert order == ["article", "shelf", "article"]


def test_old_and_changed_come_from_the_database(calls):
    article = Article.objects.create(title="before")
    calls.clear()

    with transaction.atomic():
        raw().execute(f"UPDATE {ARTICLES} SET title = 'after'")
        raw().execute(f"DELETE FROM {ARTICLES}")

    updated, deleted = calls
    assert (updated["old"].title, updated["instance"].title) == ("before", "after")
    assert updated["changed"] == {"title"}
    assert updated["created"] is False
    assert (deleted["signal"], deleted["instance"].pk) == (post_delete, article.pk)
    assert deleted["instance"].title == "after"


def test_a_receiver_before_the_write_is_late_but_called(clean):  # noqa: F811
    titles_stored = []

    def note(instance, **kwargs):
        titles_stored.append((instance.title, titles()))

    inline.critical(pre_save, Article, note, dispatch_uid="early")
    with transaction.atomic():
        raw().execute(insert())

    assert titles_stored == [("raw", ["raw"])]


class TestSavepoints:
    def test_what_was_written_before_one_that_is_rolled_back(self, calls):
        with transaction.atomic():
            raw().execute(insert())
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                Article.objects.create(title="gone")
                raise ValueError("no")

        assert titles() == ["raw"]
        assert seen(calls) == ["raw", "gone"]

    def test_what_was_written_inside_one_that_is_rolled_back(self, calls):
        with transaction.atomic():
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                raw().execute(insert())
                raise ValueError("no")
            raw().execute(insert("kept"))

        assert seen(calls) == titles() == ["kept"]

    def test_by_hand(self, calls):
        with transaction.atomic():
            execute("SAVEPOINT by_hand")
            raw().execute(insert("gone"))
            raw().execute("ROLLBACK TO SAVEPOINT by_hand")
            raw().execute(insert("kept"))
            execute("RELEASE SAVEPOINT by_hand")

        assert seen(calls) == titles() == ["kept"]

    def test_of_the_driver_s(self, calls):
        """They pass Django by: what cannot be told any more is refused."""
        with pytest.raises(ReceiversNotRun), transaction.atomic():
            raw().execute(insert())
            with raw().transaction(force_rollback=True):
                Article.objects.create(title="gone")

        assert stored() == []

    def test_of_the_driver_s_around_django_s_write(self, calls):
        with transaction.atomic():
            with raw().transaction(force_rollback=True):
                Article.objects.create(title="gone")
            with raw().transaction():
                Article.objects.create(title="kept")

        assert titles() == ["kept"]
        assert seen(calls) == ["gone", "kept"]


class TestTransactionsByHand:
    """Those that Django knows nothing of."""

    def test_of_django_s_cursor(self, calls):
        execute("BEGIN")
        Article.objects.create(title="saved")
        execute("SELECT bypass.in_sql()")
        raw().execute(insert())
        assert seen(calls) == ["saved", "function"]
        execute("COMMIT")

        assert seen(calls) == ["saved", "function", "raw"]
        assert titles() == ["function", "raw", "saved"]

    def test_one_that_is_rolled_back(self, calls):
        execute("BEGIN")
        raw().execute(insert())
        execute("ROLLBACK")
        Article.objects.create(title="kept")

        assert seen(calls) == titles() == ["kept"]

    def test_a_write_that_a_receiver_refuses(self, clean):  # noqa: F811
        inline.critical(post_save, Article, refuse)
        execute("BEGIN")
        Shelf.objects.create(name="stays")
        with pytest.raises(ValueError, match="no"):
            Article.objects.create(title="saved")
        execute("COMMIT")

        assert stored() == []
        assert Shelf.objects.count() == 1

    def test_a_function_s_write_that_a_receiver_refuses(self, clean):  # noqa: F811
        """It is in the transaction already, which cannot be committed any more."""
        inline.critical(post_save, Article, refuse)
        execute("BEGIN")
        with pytest.raises(ValueError, match="no"):
            execute("SELECT bypass.in_sql()")
        with pytest.raises(ReceiversNotRun):
            execute("COMMIT")

        assert stored() == []

    def test_the_same_without_autocommit(self, clean):  # noqa: F811
        inline.critical(post_save, Article, refuse)
        transaction.set_autocommit(False)
        try:
            with pytest.raises(ValueError, match="no"):
                execute("SELECT bypass.in_sql()")
            with pytest.raises(ReceiversNotRun):
                transaction.commit()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

        assert stored() == []

    def test_of_the_driver_s(self, calls):
        with raw().transaction():
            Article.objects.create(title="saved")
            Article.objects.update(title="updated")
        assert seen(calls) == ["saved", "updated"]

        with pytest.raises(psycopg.IntegrityError) as refusal, raw().transaction():
            raw().execute(insert())
        check_refusal(refusal.value)
        assert titles() == ["updated"]

    def test_callbacks_for_the_commit(self, clean):  # noqa: F811
        """Django runs them at once where it knows of no transaction."""
        done = []

        def later(**kwargs):
            transaction.on_commit(lambda: done.append("now"))

        inline.critical(post_save, Article, later)
        with raw().transaction():
            Article.objects.create(title="saved")
            assert done == ["now"]

        assert titles() == ["saved"]


# Statements that do not name the table, and others that a look at the text does not tell.

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
    def heard(self, clean, early, way):  # noqa: F811
        if way == "MERGE" and connection.pg_version < 150000:
            pytest.skip("MERGE came with PostgreSQL 15")
        signals = [pre_save, post_save] if early else [post_save]
        return {signal: inline.critical(signal, Article) for signal in signals}

    def check(self, heard, expected):
        assert titles() == sorted(expected)
        for calls in heard.values():
            assert seen(calls) == expected

    def test_in_autocommit(self, heard, way):
        statement, expected = WITHOUT_ITS_NAME[way]
        execute(statement)
        self.check(heard, expected)

    def test_in_atomic(self, heard, way):
        statement, expected = WITHOUT_ITS_NAME[way]
        with transaction.atomic():
            execute(statement)
            self.check(heard, expected)


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
    """The statement has been made in a transaction that goes on, and cannot be taken back alone."""

    @pytest.fixture(autouse=True)
    def refusing(self, clean):  # noqa: F811
        inline.critical(post_save, Article, refuse)

    def write(self):
        Shelf.objects.create(name="before")
        with pytest.raises(ValueError, match="no"):
            execute("SELECT bypass.in_sql()")
        Shelf.objects.create(name="after")

    def test_who_catches_that_cannot_commit(self):
        with pytest.raises(ReceiversNotRun), transaction.atomic():
            self.write()

        assert (stored(), Shelf.objects.count()) == ([], 0)

    def test_who_catches_that_in_a_savepoint_cannot_commit_either(self):
        with pytest.raises(ReceiversNotRun), transaction.atomic():
            with transaction.atomic():
                self.write()
            Shelf.objects.create(name="and on")

        assert (stored(), Shelf.objects.count()) == ([], 0)

    def test_a_savepoint_takes_it_back(self):
        with transaction.atomic():
            Shelf.objects.create(name="before")
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                execute("SELECT bypass.in_sql()")
            Shelf.objects.create(name="after")

        assert (stored(), Shelf.objects.count()) == ([], 2)

    def test_in_autocommit_there_is_nothing_to_take_back(self):
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


def test_a_deferred_trigger_of_someone_else_s_is_refused(calls):
    """It writes during the commit, when nobody can be called any more."""
    with pytest.raises(ReceiversNotRun):
        execute("INSERT INTO bypass.deferred VALUES (1)")
    with pytest.raises(ReceiversNotRun), transaction.atomic():
        execute("INSERT INTO bypass.deferred VALUES (1)")

    assert stored() == []
    assert execute("SELECT count(*) FROM bypass.deferred") == [(0,)]


def test_such_a_trigger_that_is_made_to_fire_before(calls):
    with transaction.atomic():
        execute("INSERT INTO bypass.deferred VALUES (1)")
        execute("SET CONSTRAINTS bypass.deferred IMMEDIATE")
        assert seen(calls) == ["trigger"]
    execute("DELETE FROM bypass.deferred")

    assert titles() == ["trigger"]


def test_a_procedure_that_commits_by_itself(calls):
    """It cannot be made once more inside a transaction."""
    with pytest.raises(ReceiversNotRun):
        execute("CALL bypass.committing()")
    assert execute("DELETE FROM bypass.other RETURNING id") == [(1,)]

    assert stored() == []


def test_a_string_that_commits_on_its_way_is_not_run_twice(calls):
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
def test_a_string_that_commits_what_nobody_was_told(statement, calls):
    with pytest.raises(ReceiversNotRun):
        execute(statement)

    assert stored() == []


# Constraints that are checked at once.


@pytest.mark.parametrize("constraints", ["ALL", TICKET])
class TestImmediateConstraints:
    def test_before_the_write(self, constraints, calls):
        with transaction.atomic():
            execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")
            Article.objects.create(title="saved")
            Article.objects.update(title="updated")
            execute("SELECT bypass.in_sql()")
            raw().execute(insert())

        assert seen(calls) == ["saved", "updated", "function", "raw"]

    def test_after_the_write(self, constraints, calls):
        with transaction.atomic():
            Article.objects.create(title="saved")
            execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")
            Article.objects.create(title="later")
            with transaction.atomic():
                Article.objects.create(title="in a savepoint")
                execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")

        assert seen(calls) == ["saved", "later", "in a savepoint"]

    def test_after_a_write_that_nobody_was_told(self, constraints, calls):
        with pytest.raises(ReceiversNotRun), transaction.atomic():
            raw().execute(insert())
            execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")

        assert stored() == []

    def test_a_receiver_that_wants_them_so(self, constraints, clean):  # noqa: F811
        def hurry(instance, **kwargs):
            execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")
            if instance.title == "first":
                Article.objects.create(title="second")

        inline.critical(post_save, Article, hurry)
        Article.objects.create(title="first")

        assert titles() == ["first", "second"]

    def test_a_savepoint_takes_back_that_it_was_checked(self, constraints, calls):
        with transaction.atomic():
            Article.objects.create(title="saved")
            with pytest.raises(ValueError, match="no"), transaction.atomic():
                execute(f"SET CONSTRAINTS {constraints} IMMEDIATE")
                raise ValueError("no")

        assert titles() == ["saved"]


# Connections that are lost, and what hangs on them.


def test_a_connection_that_was_closed_and_opened_again(calls):
    for number in range(3):
        connection.close()
        Article.objects.bulk_create([Article(title=f"{number}")])
        connection.close()
        with transaction.atomic():
            raw().execute(insert(f"{number} raw"))

    assert seen(calls) == ["0", "0 raw", "1", "1 raw", "2", "2 raw"]


def lose_connection():
    with psycopg.connect(url(), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [raw().info.backend_pid])


@pytest.mark.parametrize(
    "write",
    [
        lambda: Article(title="lost").save(),
        lambda: Article.objects.bulk_create([Article(title="lost")]),
        lambda: execute(insert("lost")),
    ],
)
def test_a_connection_that_is_lost_in_the_middle(write, clean):  # noqa: F811
    lose = [True]
    heard = []

    def lose_once(instance, **kwargs):
        if lose:
            lose.clear()
            lose_connection()
            execute("SELECT 1")
        heard.append(instance.title)

    inline.critical(post_save, Article, lose_once)
    with pytest.raises(OperationalError):
        write()
    connection.close()
    assert inline.waiting() == (0, 0)
    with transaction.atomic():
        raw().execute(insert("after"))
    Article.objects.create(title="and on")

    assert heard == ["after", "and on"]
    assert titles() == ["after", "and on"]


def test_a_receiver_that_hides_that_the_connection_is_lost(clean):  # noqa: F811
    def lose(**kwargs):
        lose_connection()
        with pytest.raises(OperationalError):
            execute("SELECT 1")

    inline.critical(post_save, Article, lose)
    with pytest.raises((BrokenTransaction, OperationalError)):
        Article.objects.create(title="lost")
    connection.close()

    assert stored() == []


def test_a_connection_that_is_lost_between(calls):
    Article.objects.create(title="before")
    lose_connection()
    with pytest.raises(OperationalError):
        Article.objects.create(title="lost")
    connection.close()
    Article.objects.create(title="after")

    assert seen(calls) == ["before", "after"]


class TestTheNoticeHandlerIsLost:
    """Then nobody hears that changes wait, and the database refuses them."""

    @pytest.fixture(autouse=True)
    def lost(self, calls):
        driver = raw()
        kept = list(driver._notice_handlers)
        driver._notice_handlers.clear()
        yield
        driver._notice_handlers.extend(kept)

    @pytest.mark.parametrize(
        "write",
        [
            lambda: Article.objects.bulk_create([Article(title="lost")]),
            lambda: Article.objects.update(title="lost"),
            lambda: execute(insert("lost")),
            lambda: execute("SELECT bypass.in_sql()"),
        ],
    )
    @pytest.mark.parametrize("is_atomic", [False, True])
    def test_bulk_writes(self, write, is_atomic, calls):
        write_muted()
        before = stored()
        with pytest.raises(ReceiversNotRun):
            if is_atomic:
                with transaction.atomic():
                    write()
            else:
                write()

        assert stored() == before

    def test_past_django_s_cursors(self, calls):
        with pytest.raises(ReceiversNotRun), transaction.atomic():
            raw().execute(insert())

        assert stored() == []

    def test_a_new_connection_has_its_own(self, calls):
        connection.close()
        Article.objects.bulk_create([Article(title="heard")])

        assert seen(calls) == titles() == ["heard"]


class TestWrappersAreGone:
    @pytest.fixture(autouse=True)
    def gone(self, calls):
        connection.ensure_connection()
        kept = list(connection.execute_wrappers)
        connection.execute_wrappers.clear()
        yield
        connection.execute_wrappers[:] = kept

    @pytest.mark.parametrize("early", [False, True])
    def test_what_django_s_own_ways_write_is_delivered(self, early, calls):
        before = inline.critical(pre_save, Article) if early else []
        article = Article(title="saved")
        article.save()
        Article.objects.bulk_create([Article(title="bulk")])
        Article.objects.filter(title="bulk").update(title="updated")
        article.delete()

        assert seen(calls) == ["saved", "bulk", "updated", "saved"]
        assert seen(before) == (["saved", "bulk", "updated"] if early else [])

    def test_a_statement_in_autocommit_is_refused(self, calls):
        for statement in (insert(), "SELECT bypass.in_sql()"):
            with pytest.raises(ReceiversNotRun):
                execute(statement)

        assert stored() == []

    def test_a_statement_in_atomic_is_delivered_at_the_commit(self, calls):
        with transaction.atomic():
            execute(insert())
            execute("SELECT bypass.in_sql()")
            assert calls == []

        assert seen(calls) == ["raw", "function"]

    def test_a_new_connection_has_them_again(self, calls):
        connection.close()
        execute(insert())

        assert seen(calls) == ["raw"]


class TestAWrapperOfTheUser:
    def test_it_sees_the_statements(self, calls):
        statements = []

        def note(execute, sql, params, many, context):
            statements.append(sql)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            Article.objects.bulk_create([Article(title="bulk")])
            execute("SELECT bypass.in_sql()")

        assert seen(calls) == ["bulk", "function"]
        assert any("INSERT INTO" in text for text in statements)
        assert not any("bulksafe_take" in text for text in statements)

    def test_it_writes_something_else(self, calls):
        def replace(execute, sql, params, many, context):
            return execute(insert("replaced") if sql == "SELECT 1" else sql, params, many, context)

        with connection.execute_wrapper(replace):
            execute("SELECT 1")
            with transaction.atomic():
                execute("SELECT 1")

        assert seen(calls) == titles() == ["replaced", "replaced"]

    def test_it_writes_by_itself(self, calls):
        def audit(execute, sql, params, many, context):
            if sql == "SELECT 1":
                Article.objects.bulk_create([Article(title="audit")])
            return execute(sql, params, many, context)

        with connection.execute_wrapper(audit):
            execute("SELECT 1")

        assert seen(calls) == titles() == ["audit"]

    def test_it_refuses(self, calls):
        def block(execute, sql, params, many, context):
            if sql.startswith("INSERT"):
                raise PermissionError
            return execute(sql, params, many, context)

        with connection.execute_wrapper(block), pytest.raises(PermissionError):
            Article.objects.bulk_create([Article(title="blocked")])
        Article.objects.bulk_create([Article(title="heard")])

        assert seen(calls) == titles() == ["heard"]


# What Django stores of instances in hand is not buffered, where it tells the receivers by itself.


class _Marks:
    """What marks are looked at with."""

    @pytest.fixture(autouse=True)
    def known(self, monkeypatch):
        """As if the receivers had been called before: the first row teaches nothing any more."""
        monkeypatch.setattr(Conflicts, "has_unknown", False)

    @pytest.fixture
    def seen(self, clean):  # noqa: F811
        """The titles of articles that were told, by a receiver that looks at nothing else."""
        return self.noting(post_save, "look")

    @staticmethod
    def noting(signal, uid):
        found = []

        def look(instance, **kwargs):
            found.append(instance.title)

        inline.critical(signal, Article, look, dispatch_uid=uid)
        return found

    @pytest.fixture
    def statements(self):
        """What Django has executed, as the driver got it."""
        found = []

        def note(execute, sql, params, many, context):
            found.append((sql, params))
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            yield found

    @staticmethod
    def marked(statements):
        return [(sql, params) for sql, params in statements if sql.endswith(" */")]


class TestInHand(_Marks):
    """The mark that says so is good for Django's own statement only."""

    def test_it_is_behind_what_django_stores(self, seen, statements):
        article = Article.objects.create(title="one")
        article.title = "two"
        article.save()
        article.save(update_fields=["title"])
        Article.objects.bulk_create([Article(title="three"), Article(pk=77, title="four")])

        Article.objects.update(title="five")
        Article.objects.all().delete()

        assert seen == ["one", "two", "two", "three", "four", *(3 * ["five"])]
        found = [
            (sql.split()[0], re.search(r"bulksafe: (\w+ \w+) ", sql)[1])
            for sql, _ in self.marked(statements)
        ]
        assert found == [
            ("INSERT", "in hand"),
            ("UPDATE", "in hand"),
            ("UPDATE", "in hand"),
            ("INSERT", "answer to"),
            ("INSERT", "answer to"),
            ("UPDATE", "answer to"),
        ]
        end = f" {raw().info.backend_pid} {ARTICLES} */"
        assert all(sql.endswith(end) for sql, _ in self.marked(statements))

    def test_the_database_keeps_nothing(self, seen):
        notices = []
        raw().add_notice_handler(lambda notice: notices.append(notice.sqlstate))
        article = Article.objects.create(title="one")
        article.save()
        assert notices == []
        Article.objects.bulk_create([Article(title="two")])
        assert notices == ["BS002"]
        Article.objects.update(title="three")
        assert notices == ["BS002", "BS002"]
        execute(f"UPDATE {ARTICLES} SET title = 'four'")
        assert notices == ["BS002", "BS002", "BS001"]

        assert len(seen) == 7

    @pytest.mark.parametrize("name", ["in_sql", "in_plpgsql"])
    @pytest.mark.parametrize("store", ["create", "save", "bulk_create"])
    def test_a_function_writes_in_an_expression(self, name, store, seen):
        """To the table that Django stores to."""
        title = RawSQL(f"COALESCE(bypass.{name}()::text, 'own')", [])
        own = Article.objects.create(title="there")
        seen.clear()
        match store:
            case "create":
                Article.objects.create(title=title)
            case "save":
                own.title = title
                own.save()
            case "bulk_create":
                Article.objects.bulk_create([Article(title=title)])

        assert len(seen) == 2
        assert "function" in seen

    def test_a_function_writes_in_a_default(self, seen):
        """Of a column that the model does not know."""
        execute(
            "CREATE FUNCTION bypass.note() RETURNS int LANGUAGE plpgsql AS $$ BEGIN "
            f"UPDATE {ARTICLES} SET version = 1 WHERE title = 'other'; RETURN 1; END $$"
        )
        Article.objects.create(title="other")
        execute(f"ALTER TABLE {ARTICLES} ADD COLUMN noted int")
        execute(f"ALTER TABLE {ARTICLES} ALTER COLUMN noted SET DEFAULT bypass.note()")
        seen.clear()
        try:
            Article.objects.create(title="own")
            Article.objects.bulk_create([Article(title="own")])
        finally:
            execute(f"ALTER TABLE {ARTICLES} DROP COLUMN noted")
            execute("DROP FUNCTION bypass.note")

        assert sorted(seen) == ["other", "other", "own", "own"]

    def test_it_is_behind_nothing_else(self, seen, statements):
        Article.objects.create(title="one")
        statements.clear()
        article = Article.objects.get()
        Article.objects.bulk_update([article], ["title"])
        Article.objects.bulk_create([article], ignore_conflicts=True)
        execute(insert())
        execute(f"UPDATE {ARTICLES} SET version = 1 WHERE title = 'raw'")
        Article.objects.all().delete()

        assert self.marked(statements) == []
        assert seen == ["one", "one", "raw", "raw"]

    def test_a_receiver_that_sees_more_needs_the_buffer(self, seen, statements):
        inline.critical(post_save, Article, dispatch_uid="sees more")
        Article.objects.create(title="one")

        assert self.marked(statements) == []

    def test_a_statement_from_a_log_is_refused(self, seen, statements, psql):
        Article.objects.create(title="one")
        ((sql, params),) = self.marked(statements)
        logged = psycopg.ClientCursor(raw()).mogrify(sql, params)
        assert psql(logged).returncode == 3
        with psycopg.connect(url(), autocommit=True) as other:
            with pytest.raises(psycopg.IntegrityError) as refusal:
                other.execute(logged)
            check_refusal(refusal.value, receiver="look")

        assert titles() == ["one"]

    def test_a_mark_for_another_table(self, seen):
        mark = f"/* bulksafe: in hand {raw().info.backend_pid} {SHELVES} */"
        with pytest.raises(psycopg.IntegrityError):
            raw().execute(f"{insert()} {mark}")

        assert titles() == []

    def test_a_rule_writes_to_another_table(self, seen):
        shelves = []

        def look(instance, **kwargs):
            shelves.append(instance.name)

        inline.critical(post_save, Shelf, look, dispatch_uid="shelves")
        execute(
            f"CREATE RULE also AS ON INSERT TO {ARTICLES} DO ALSO "
            f"INSERT INTO {SHELVES} (name, books, pages) VALUES ('rule', 0, 0)"
        )
        try:
            Article(title="one").save()
            Article.objects.bulk_create([Article(title="two")])
        finally:
            execute(f"DROP RULE also ON {ARTICLES}")

        assert shelves == ["rule", "rule"]
        assert seen == ["one", "two"]

    def test_a_trigger_writes_to_the_same_table(self, seen):
        Article.objects.create(title="other")
        execute(
            f"CREATE FUNCTION bypass.more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"UPDATE {ARTICLES} SET version = version + 1 WHERE title = 'other'; RETURN NULL; "
            f"END $$; CREATE TRIGGER more AFTER INSERT ON {ARTICLES} "
            "FOR EACH ROW EXECUTE FUNCTION bypass.more()"
        )
        seen.clear()
        try:
            Article(title="one").save()
            Article.objects.bulk_create([Article(title="two")])
        finally:
            execute(f"DROP TRIGGER more ON {ARTICLES}")
            execute("DROP FUNCTION bypass.more")

        assert sorted(seen) == ["one", "other", "other", "two"]

    @pytest.mark.parametrize("way", ["update", "one row", "SQL", "save", "bulk_create"])
    @pytest.mark.parametrize("store", ["create", "save", "bulk_create"])
    def test_a_field_writes_while_it_is_stored(self, way, store, seen, monkeypatch):
        """As fields of positions do, which make room among the other rows."""
        other = Article.objects.create(title="other")
        own = Article.objects.create(title="own")
        seen.clear()
        field, busy = Article._meta.get_field("position"), []

        def write():
            match way:
                case "update":
                    Article.objects.filter(title="other").update(version=1)
                case "one row":
                    Article.objects.filter(pk=other.pk).update(version=1)
                case "SQL":
                    execute(f"UPDATE {ARTICLES} SET version = 1 WHERE id = %s", other.pk)
                case "save":
                    Article.objects.get(pk=other.pk).save()
                case "bulk_create":
                    Article.objects.bulk_create([Article(title="other")])

        def make_room(instance, add):
            if not busy:
                busy.append(True)
                write()
            return instance.position

        monkeypatch.setattr(field, "pre_save", make_room)
        match store:
            case "create":
                Article.objects.create(title="own")
            case "save":
                own.save()
            case "bulk_create":
                Article.objects.bulk_create([Article(title="own")])

        assert sorted(seen) == ["other", "own"]


class TestReturned(_Marks):
    """An update() or delete() of many rows returns them, if the receivers see nothing else."""

    @pytest.fixture
    def gone(self, seen):
        """The titles of deleted articles."""
        return self.noting(post_delete, "gone")

    @pytest.fixture
    def three(self, seen, gone):
        Article.objects.bulk_create([Article(title=title) for title in "abc"])
        seen.clear()

    def test_update_and_delete(self, three, seen, gone, statements):
        assert Article.objects.filter(title__in="ab").update(title="d") == 2
        assert seen == ["d", "d"]
        assert Article.objects.all().delete() == (3, {Article._meta.label: 3})
        assert sorted(gone) == ["c", "d", "d"]
        assert [sql.split()[0] for sql, _ in self.marked(statements)] == ["UPDATE", "DELETE"]

    def test_nothing_found(self, three, seen, gone):
        assert Article.objects.filter(title="x").update(title="d") == 0
        assert Article.objects.none().update(title="d") == 0
        assert Article.objects.filter(title="x").delete() == (0, {})
        assert seen == gone == []

    def test_the_values_are_those_of_a_query(self, three, seen):
        found = []

        def look(instance, **kwargs):
            found.append(instance.__dict__ | {"_state": None})

        inline.critical(post_save, Article, look, dispatch_uid="values")
        Article.objects.update(title="d", version=RawSQL("version + %s", [3]))

        assert found == [one.__dict__ | {"_state": None} for one in Article.objects.order_by("pk")]

    @pytest.mark.parametrize("muted", ["bulksafe.muted", "pgtrigger.ignore"])
    def test_muted(self, three, seen, gone, muted):
        """Whoever mutes the capture writes past the receivers."""
        label = f"{Article._meta.label}:bulksafe_capture"
        with transaction.atomic():
            if muted == "bulksafe.muted":
                execute(f"SET LOCAL bulksafe.muted = '{{{label}}}'")
            else:
                (function,) = execute(
                    "SELECT tgname FROM pg_trigger "
                    f"WHERE tgrelid = '{ARTICLES}'::regclass AND tgname ~ 'capture' "
                    "AND tgtype & 4 > 0 AND tgname !~ '^!'"
                )
                execute(f"SET LOCAL pgtrigger.ignore = '{{{function[0]}}}'")
            Article.objects.bulk_create([Article(title="d")])
            if muted == "bulksafe.muted":
                Article.objects.update(title="e")
                Article.objects.all().delete()
        assert seen == gone == []

        Article.objects.bulk_create([Article(title="f")])
        Article.objects.filter(title="f").update(title="g")
        assert seen == ["f", "g"]

    @pytest.mark.parametrize("is_atomic", [False, True])
    @pytest.mark.parametrize("operation", ["UPDATE", "DELETE"])
    def test_a_trigger_changes_the_rows_once_more(self, is_atomic, operation, three, seen, gone):
        """And others: the write is made again, so that all is told as from the buffer."""
        execute(
            "CREATE FUNCTION bypass.more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF pg_trigger_depth() = 1 THEN UPDATE {ARTICLES} SET title = title || '!'; "
            "END IF; RETURN NULL; END $$; "
            f"CREATE TRIGGER more AFTER {operation} ON {ARTICLES} "
            "FOR EACH STATEMENT EXECUTE FUNCTION bypass.more()"
        )
        first = Article.objects.filter(title="a")
        try:
            for _ in range(2):
                with transaction.atomic() if is_atomic else nullcontext():
                    first.update(position=1) if operation == "UPDATE" else first.delete()
                if operation == "UPDATE":
                    # The two of the first row are one change, as in save().
                    assert sorted(seen) == ["a!", "b!", "c!"]
                else:
                    assert (sorted(seen), gone) == (["b!", "c!"], ["a"])
                with transaction.atomic():
                    execute("SET LOCAL bulksafe.muted = '{*}'")
                    execute(f"TRUNCATE {ARTICLES} CASCADE")
                Article.objects.bulk_create([Article(title=title) for title in "abc"])
                seen.clear()
                gone.clear()
        finally:
            execute(f"DROP TRIGGER more ON {ARTICLES}")
            execute("DROP FUNCTION bypass.more")

    @pytest.mark.parametrize("is_atomic", [False, True])
    def test_a_role_that_may_not_read_all_columns(self, is_atomic, three, seen, clerk):
        execute(f"REVOKE SELECT ON {ARTICLES} FROM {clerk}")
        execute(f"GRANT SELECT (id, title) ON {ARTICLES} TO {clerk}")
        execute(f"SET ROLE {clerk}")
        try:
            for title in ("d", "e"):
                with transaction.atomic() if is_atomic else nullcontext():
                    assert Article.objects.update(title=title) == 3
        finally:
            execute("RESET ROLE")

        assert seen == ["d", "d", "d", "e", "e", "e"]

    @pytest.mark.parametrize("is_atomic", [False, True])
    def test_a_policy_that_hides_the_new_rows(self, is_atomic, three, seen, clerk):
        execute(
            f"ALTER TABLE {ARTICLES} ENABLE ROW LEVEL SECURITY; "
            f"CREATE POLICY see ON {ARTICLES} FOR SELECT USING (title <> 'hidden'); "
            f"CREATE POLICY change ON {ARTICLES} FOR UPDATE USING (true)"
        )
        execute(f"SET ROLE {clerk}")
        try:
            with transaction.atomic() if is_atomic else nullcontext():
                assert Article.objects.update(title="hidden") == 3
        finally:
            execute("RESET ROLE")
            execute(f"DROP POLICY see ON {ARTICLES}; DROP POLICY change ON {ARTICLES}")
            execute(f"ALTER TABLE {ARTICLES} DISABLE ROW LEVEL SECURITY")

        assert seen == ["hidden", "hidden", "hidden"]

    def test_a_policy_that_hides_all_rows_from_a_receiver_that_looks(self, three, seen, clerk):
        found = []

        def look(sender, instance, **kwargs):
            found.append((instance.title, sender.objects.count()))

        inline.critical(pre_save, Article, look, dispatch_uid="looks")
        execute(
            f"ALTER TABLE {ARTICLES} ENABLE ROW LEVEL SECURITY; "
            f"CREATE POLICY change ON {ARTICLES} FOR UPDATE USING (true)"
        )
        execute(f"SET ROLE {clerk}")
        try:
            assert Article.objects.update(title="d") == 3
        finally:
            execute("RESET ROLE")
            execute(f"DROP POLICY change ON {ARTICLES}")
            execute(f"ALTER TABLE {ARTICLES} DISABLE ROW LEVEL SECURITY")

        assert found == [("d", 0)] * 3

    @pytest.mark.parametrize("operation", ["UPDATE", "DELETE"])
    def test_triggers_before_it_decide(self, operation, three, seen, gone):
        """Rows that one leaves out are told to nobody; values that one sets are told."""
        execute(
            "CREATE FUNCTION bypass.before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF OLD.title = 'b' THEN RETURN NULL; END IF; "
            "IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; "
            "NEW.title := NEW.title || '!'; RETURN NEW; END $$; "
            f"CREATE TRIGGER before BEFORE {operation} ON {ARTICLES} "
            "FOR EACH ROW EXECUTE FUNCTION bypass.before()"
        )
        try:
            if operation == "UPDATE":
                assert Article.objects.update(title="d") == 2
                assert (seen, gone) == (["d!", "d!"], [])
            else:
                assert Article.objects.all().delete()[0] == 2
                assert (seen, sorted(gone)) == ([], ["a", "c"])
        finally:
            execute(f"DROP TRIGGER before ON {ARTICLES}; DROP FUNCTION bypass.before")

    def test_a_rule_in_place_of_it(self, three, seen, gone):
        execute(f"CREATE RULE kept AS ON DELETE TO {ARTICLES} DO INSTEAD NOTHING")
        try:
            assert Article.objects.all().delete()[0] == 0
        finally:
            execute(f"DROP RULE kept ON {ARTICLES}")

        assert gone == []
        assert len(titles()) == 3

    def test_a_function_writes_in_an_expression_of_an_update(self, three, seen):
        title = RawSQL("COALESCE(bypass.in_plpgsql()::text, 'own')", [])
        Article.objects.filter(title="a").update(title=title)

        assert sorted(seen) == sorted(["function", Article.objects.earliest("pk").title])

    def test_a_receiver_that_raises(self, three, seen):
        def refuse(instance, **kwargs):
            raise ValueError(instance.title)

        inline.critical(post_save, Article, refuse, dispatch_uid="refuse")
        with pytest.raises(ValueError, match="d"):
            Article.objects.update(title="d")

        assert titles() == ["a", "b", "c"]

    def test_in_a_pipeline(self, three, seen):
        with raw().pipeline():
            Article.objects.update(title="d")

        assert seen == ["d", "d", "d"]

    def test_a_statement_that_fails(self, three, seen):
        with pytest.raises(IntegrityError):
            Article.objects.update(title=None)
        Article.objects.update(title="d")

        assert seen == ["d", "d", "d"]

    def test_after_what_waits_already(self, three, seen):
        with transaction.atomic():
            raw().execute(insert("raw"))
            Article.objects.filter(title="raw").update(title="d")

        assert seen == ["raw", "d"]

    def test_inside_another_receiver(self, three, seen, statements):
        def change(instance, **kwargs):
            Article.objects.filter(title="b").update(title="d")

        inline.critical(post_delete, Article, change, dispatch_uid="change")
        Article.objects.get(title="a").delete()

        assert seen == ["d"]


# Pipelines.


class TestPipelines:
    def test_past_django_s_cursors_in_atomic(self, calls):
        with transaction.atomic(), raw().pipeline():
            raw().execute(insert("one"))
            raw().execute(insert("two"))

        assert seen(calls) == ["one", "two"]

    def test_the_commit_is_in_the_pipeline(self, calls):
        with raw().pipeline(), transaction.atomic():
            raw().execute(insert("one"))
            raw().execute(insert("two"))

        assert seen(calls) == ["one", "two"]

    def test_django_s_writes(self, calls):
        with raw().pipeline():
            Article.objects.create(title="saved")
            Article.objects.bulk_create([Article(title="bulk")])
            Article.objects.filter(title="bulk").update(title="updated")
            with transaction.atomic():
                execute("SELECT bypass.in_sql()")
                Article.objects.filter(title="saved").delete()

        # When the database's word of the function's row comes in, nobody can say.
        assert sorted(seen(calls)) == ["bulk", "function", "saved", "saved", "updated"]

    def test_another_connection(self, calls):
        with psycopg.connect(url()) as other:
            with pytest.raises(psycopg.IntegrityError) as refusal, other.pipeline():
                other.execute(insert())
                other.commit()
            check_refusal(refusal.value)

        assert stored() == []

    def test_in_autocommit_it_is_refused(self, calls):
        # psycopg loses count of the results where the end of a pipeline fails.
        with pytest.raises((psycopg.Error, IndexError)), raw().pipeline():
            raw().execute(insert())
        connection.close()

        assert stored() == []


# Two at a time.


def test_another_writer_at_the_same_time(calls):
    """Each answers for its own changes only."""
    wrote, told = threading.Event(), threading.Event()
    refusals = []

    def write_past():
        with psycopg.connect(url()) as other:
            other.execute(insert("past"))
            wrote.set()
            told.wait(30)
            try:
                other.commit()
            except psycopg.IntegrityError as error:
                refusals.append(error.diag.constraint_name)

    thread = threading.Thread(target=write_past)
    thread.start()
    assert wrote.wait(30)
    Article.objects.bulk_create([Article(title="told")])
    told.set()
    thread.join(30)

    assert refusals == [TICKET]
    assert seen(calls) == titles() == ["told"]


# Which function takes the changes: the database says where it is.


@pytest.mark.parametrize("arguments", ["integer, text, integer", "bigint, text, bigint"])
def test_a_function_of_another_role_is_not_called(calls, arguments):
    """In the same schema, it would fit bare numbers better."""
    execute(
        f"CREATE FUNCTION public.bulksafe_take({arguments}) RETURNS SETOF bulksafe_buffer "
        "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked'; END $$"
    )
    try:
        Article.objects.bulk_create([Article(title="one")])
        execute(f"UPDATE {ARTICLES} SET title = 'two'")
    finally:
        execute(f"DROP FUNCTION public.bulksafe_take({arguments})")
    assert len(calls) == 2


def test_a_role_that_may_not_take_is_refused(calls):
    """And is shown nothing of the rows."""
    execute("CREATE ROLE bulksafe_clerk")
    try:
        execute(f"GRANT INSERT, SELECT, UPDATE ON {ARTICLES} TO bulksafe_clerk")
        execute(f"GRANT USAGE ON SEQUENCE {ARTICLES}_id_seq TO bulksafe_clerk")
        for write in (
            lambda: Article.objects.create(title="one"),
            lambda: Article.objects.bulk_create([Article(title="one")]),
            lambda: execute(insert("one")),
        ):
            refusal = pytest.raises(ReceiversNotRun, match=r'BULKSAFE."WRITER_ROLES".')
            with refusal, transaction.atomic():
                execute("SET LOCAL ROLE bulksafe_clerk")
                write()
    finally:
        execute("DROP OWNED BY bulksafe_clerk; DROP ROLE bulksafe_clerk")
    assert titles() == []
