"""Facts read from the text of a statement."""

import pytest
from django.contrib.postgres import aggregates, functions, search  # noqa: F401
from django.db.models import Func
from django.db.models import functions as _  # noqa: F401

from bulksafe.statements import fits_in_transaction, may_undo_settings, may_write

READS = [
    "SELECT 1",
    "  -- f()\n/* f() */ (SELECT 1)",
    'SELECT COUNT(*) AS "__count" FROM "a" WHERE ("a"."id" IN (SELECT 1) AND NOT ("a"."b"))',
    "SELECT 'f()', E'it\\'s f()', $$f()$$, $x$f()$x$, \"f\" FROM \"it's\"",
    "SELECT x::numeric(10, 2), CAST(x AS character varying(10)), CAST(y AS geometry(Point)) FROM a",
    "SELECT pg_catalog.now(), \"lower\"('A'), ST_Distance(a.b, a.c), pg_backend_pid() FROM a",
    "SELECT row_number() OVER (PARTITION BY a ORDER BY b), MAX(c) FILTER (WHERE (d)) FROM e",
    "SELECT * FROM generate_series(1, 2) AS n(i) JOIN b USING (i) WHERE EXISTS(SELECT 1)",
    "SELECT (a.b AT TIME ZONE 'UTC')::date, EXTRACT(YEAR FROM c), DATE_TRUNC('day', d) FROM a",
    "SELECT 1 FROM a WHERE id IN (%s, %s) AND name = %(name)s FOR UPDATE OF a;",
    "VALUES (1), (lower('A'))",
    "TABLE a",
    "EXPLAIN SELECT f()",
    "EXPLAIN (COSTS OFF) UPDATE a SET b = f()",
    "SAVEPOINT s",
    "ROLLBACK TO SAVEPOINT s",
    "SET LOCAL statement_timeout = 5",
    "SHOW ALL",
]

WRITES = [
    "",
    "INSERT INTO a VALUES (1)",
    "SELECT f()",
    "select F (1)",
    "SELECT 1 WHERE x IN (SELECT my.lower(y))",
    'SELECT "my" . "lower" (1)',
    'SELECT "f"(1)',
    "SELECT * FROM f()",
    "SELECT * FROM LATERAL f(1) AS x(y)",
    "SELECT 'a' || f()",
    "SELECT E'it\\'s' || f() || 'x'",
    'SELECT "it\'s", f() AS "x\'s" FROM a',
    'SELECT "a--b", f() FROM a',
    "SELECT $$a$$, f(), $$b$$",
    "SELECT /* a /* b */ f() */ 1",
    "SELECT query_to_xml('DELETE FROM a', true, false, '')",
    "SELECT a, log('x') FROM b",
    "SELECT 1; DELETE FROM a",
    "SHOW all; SELECT f()",
    "VALUES (f())",
    "EXPLAIN ANALYZE DELETE FROM a",
    "EXPLAIN (VERBOSE, ANALYSE true) SELECT 1",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "COMMIT",
    "PREPARE TRANSACTION 'x'",
    "FETCH ALL FROM c",
    "MOVE ALL IN c",
    *(
        f"{command} x"
        for command in (
            "WITH COPY MERGE CALL DO EXECUTE REFRESH TRUNCATE CREATE ALTER VACUUM UPDATE DELETE"
        ).split()
    ),
]


@pytest.mark.parametrize("text", READS)
def test_plain_reads(text):
    assert not may_write(text)


@pytest.mark.parametrize("text", WRITES)
def test_what_may_write(text):
    assert may_write(text)


def _of_django(kind):
    for made in kind.__subclasses__():
        if made.__module__.startswith("django.") and ".gis." not in made.__module__:
            yield made
        yield from _of_django(made)


#: Functions that are no longer called so in PostgreSQL's dialect, one that many databases have
#: their own of, and what takes its name from elsewhere.
OTHERWISE = {"instr", "sha1", "collate", "log", ""}


def test_django_s_functions_are_marked_as_read_only():
    """A new release may bring others: each would cost a query in a context a round trip."""
    names = {(made.function or "").lower() for made in _of_django(Func)} - OTHERWISE
    assert {"count", "coalesce", "similarity", "to_tsvector"} <= names

    assert [name for name in sorted(names) if may_write(f"SELECT {name}(x)")] == []


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO a",
        "SELECT f()",
        "CREATE TEMP TABLE a AS SELECT 1",
        "CALL p()",
        "EXPLAIN SELECT",
    ],
)
def test_what_may_run_in_a_transaction_of_its_own(text):
    assert fits_in_transaction(text)


@pytest.mark.parametrize(
    "text",
    [
        "VACUUM a",
        "CREATE INDEX CONCURRENTLY",
        "CREATE DATABASE a",
        "BEGIN",
        "ALTER SYSTEM",
        "FETCH",
    ],
)
def test_what_may_not(text):
    assert not fits_in_transaction(text)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("ROLLBACK TO SAVEPOINT a", True),
        ("SELECT 1; RESET ALL", True),
        ("/* x */ discard plans", True),
        ("DO $$ BEGIN RESET ALL; END $$", True),
        ("COMMIT AND CHAIN", True),
        ("SELECT CASE WHEN a THEN 1 END", False),
        ("UPDATE a SET reset = 1", False),
        ("RELEASE SAVEPOINT a", False),
    ],
)
def test_what_may_undo_settings(text, may):
    assert may_undo_settings(text) is may
