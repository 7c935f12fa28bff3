"""Parsing the text of a writing statement."""

from __future__ import annotations

import pytest

from bulksafe.writer.sql_text import Statement, names_only, parse, writes_once
from bulksafe.writer.sql_tokens import tokens


def statement(verb, table, **others):
    usual = {
        "schema": "",
        "alias": "",
        "assigned": (),
        "inserted": (),
        "returning": "",
        "has_source": False,
        "has_conflict": False,
    }
    return Statement(verb=verb, table=table, **{**usual, **others})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'UPDATE "shop_order" SET "net" = %s, "tax" = ("shop_order"."net" * 2) '
            'WHERE "shop_order"."id" IN (SELECT U0."id" FROM "shop_line" U0) RETURNING "id"',
            statement("UPDATE", "shop_order", assigned=("net", "tax"), returning='"id"'),
        ),
        (
            "update only public.t as x set (a, b) = (select 1, 2 from z where a = ','), "
            "c[1] = 'WHERE, x', d = default from other where true -- ; \n;",
            statement(
                "UPDATE",
                "t",
                schema="public",
                alias="x",
                assigned=("a", "b", "c", "d"),
                has_source=True,
            ),
        ),
        (
            "UPDATE t SET a = CASE WHEN b THEN 1 WHEN c THEN 2 ELSE d END, b = 2 WHERE true",
            statement("UPDATE", "t", assigned=("a", "b")),
        ),
        ("UPDATE t x SET a = 1", statement("UPDATE", "t", alias="x", assigned=("a",))),
        (
            'UPDATE "odd ""name" SET "a,b" = $$ WHERE , c = $$, c = 2',
            statement("UPDATE", 'odd "name', assigned=("a,b", "c")),
        ),
        ("DELETE FROM Shop.T * WHERE a", statement("DELETE", "t", schema="shop")),
        (
            "DELETE FROM t USING s WHERE t.id = s.id RETURNING s.*",
            statement("DELETE", "t", has_source=True, returning="s.*"),
        ),
        (
            "INSERT INTO t AS y (a) VALUES (%s) ON CONFLICT (a) DO UPDATE SET b = 1 RETURNING y.b",
            statement(
                "INSERT",
                "t",
                alias="y",
                assigned=("b",),
                inserted=("a",),
                has_conflict=True,
                returning="y.b",
            ),
        ),
        ("INSERT INTO t DEFAULT VALUES", statement("INSERT", "t")),
        ("INSERT INTO t SELECT * FROM s", statement("INSERT", "t", inserted=None, has_source=True)),
        (
            "/* a; b */ MERGE INTO t AS t USING s ON s.a = t.a "
            "WHEN MATCHED AND s.x THEN UPDATE SET a = s.a, b = 2 WHEN MATCHED THEN DELETE "
            "WHEN NOT MATCHED THEN INSERT (a) VALUES (1)",
            statement(
                "MERGE", "t", alias="t", assigned=("a", "b"), inserted=("a",), has_source=True
            ),
        ),
    ],
)
def test_what_a_statement_says(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "SELECT 1",
        "UPDATE t SET a = 1; DELETE FROM t",
        "WITH x AS (SELECT 1) UPDATE t SET a = 1",
        "COPY t FROM STDIN",
        "UPDATE",
        "UPDATE (SELECT 1) SET a = 1",
        "TRUNCATE t",
        f"INSERT INTO t VALUES {', '.join(['(1)'] * 40_000)}",
    ],
)
def test_what_is_no_single_statement_of_these(text):
    assert parse(text) is None


@pytest.mark.parametrize(
    "text",
    ["'a''b'", "E'a\\'b'", "$$a'b$$", "$tag$ $$ ; $tag$", '"a""b"', "/* a\n ; */ x", "-- a\nx"],
)
def test_one_piece(text):
    assert len(tokens(text)) == 1


def test_depth():
    found = {token.text: token.depth for token in tokens("a (b (c) d) e")}
    assert (found["A"], found["B"], found["C"], found["D"], found["E"]) == (0, 1, 2, 1, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("UPDATE t SET a = 1;", True),
        ("WITH a AS (SELECT 1 FOR UPDATE) UPDATE t SET a = 1", True),
        ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a ON CONFLICT DO NOTHING", True),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1", True),
        ("-- DELETE\nUPDATE t SET a = 'DELETE; x', \"update\" = 2", True),
        ("MERGE INTO t USING s ON true WHEN MATCHED THEN UPDATE SET a = 1", True),
        ("WITH a AS (DELETE FROM s RETURNING *) INSERT INTO t SELECT * FROM a", False),
        ("UPDATE t SET a = 1; UPDATE t SET a = 2", False),
        ("SELECT f()", False),
        ("", False),
    ],
)
def test_whether_a_text_writes_once(text, expected):
    assert writes_once(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id", True),
        ('t.id, "t"."Odd name" AS x, lower(name)', True),
        ("t.*", True),
        ("*", False),
        ("id, other.name", False),
        ("new.id", False),
        ("count(*)", False),
        ("secret", False),
    ],
)
def test_whether_expressions_name_columns_of_one_table(text, expected):
    assert names_only(text, ["t"], ["id", "name", "Odd name"]) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INSERT INTO t (id, a) VALUES (1, 2)", True),
        ("INSERT INTO t (a) VALUES (2)", False),
        ("INSERT INTO t (id, a) VALUES (DEFAULT, 2)", False),
        ("INSERT INTO t VALUES (1, 2)", True),
        ("INSERT INTO t (SELECT id FROM s)", True),
        ("INSERT INTO t DEFAULT VALUES", False),
        ("MERGE INTO t USING s ON true WHEN NOT MATCHED THEN INSERT (a) VALUES (1)", False),
        ("MERGE INTO t USING s ON true WHEN NOT MATCHED THEN INSERT (a, id) VALUES (1, 2)", True),
    ],
)
def test_detects_whether_an_insert_sets_the_key(text, expected):
    assert parse(text).inserts(["id"]) is expected
