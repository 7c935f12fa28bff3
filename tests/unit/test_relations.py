"""The tables that statements touch, according to the catalogs."""

import pytest

from bulksafe.writer.relations import Relations, Touched

DEFINITIONS = [
    ("schema", "public", ""),
    ("schema", "sales", ""),
    *[("table", name, "") for name in ("shop_order", "shop_line", "shop_customer", "Log", "part")],
    ("table", "part_2024", ""),
    ("table", "group", ""),
    ("sequence", "numbers", ""),
    ("view", "open_orders", "SELECT * FROM shop_order o JOIN shop_customer c ON true"),
    ("view", "latest", "SELECT * FROM open_orders"),
    (
        "function",
        "balance",
        "LANGUAGE sql SELECT sum(n) FROM shop_line",
    ),
    (
        "function",
        "note",
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        '$$BEGIN INSERT INTO "Log" SELECT balance(); RETURN NULL; END$$',
    ),
    (
        "function",
        "dynamic",
        "LANGUAGE plpgsql BEGIN EXECUTE query; END",
    ),
    ("function", "native", "LANGUAGE c native"),
    ("trigger", "shop_customer", "note"),
    ("action", "shop_order", "shop_line"),
    ("partition", "part", "part_2024"),
]


@pytest.mark.parametrize(
    ("text", "reads", "writes"),
    [
        (
            'SELECT "shop_order"."id" FROM "shop_order" WHERE "shop_order"."id" = %s',
            "shop_order",
            "",
        ),
        ("SELECT * FROM sales.shop_order", "shop_order", ""),
        ('SELECT * FROM "public"."shop_order"', "shop_order", ""),
        ("SELECT * FROM shop_orders, my_shop_order, shop_order2", "", ""),
        ('SELECT "x"."group" FROM x', "", ""),
        ('SELECT 1 FROM "group"', "group", ""),
        ("SELECT * FROM LATEST", "latest open_orders shop_order shop_customer", ""),
        ("SELECT balance()", "balance shop_line", ""),
        ('INSERT INTO "shop_order" (a) VALUES (%s)', "", "shop_order shop_line"),
        ("UPDATE shop_line SET n = 1 FROM shop_order", "shop_order", "shop_line"),
        ("DELETE FROM ONLY part", "part part_2024", "part part_2024"),
        ("UPDATE shop_customer SET x = 1", "note shop_line", "shop_customer log balance"),
        ("SELECT nextval('numbers')", "numbers", "numbers"),
        ("WITH a AS (UPDATE shop_line SET n = 1) SELECT 1", "", "shop_line"),
        ("TRUNCATE shop_line", "", "shop_line"),
        ("SELECT 1", "", ""),
    ],
)
def test_what_a_statement_touches(text, reads, writes):
    found = Relations(DEFINITIONS).touched(text)
    assert found.reads >= set(reads.split())
    assert found.writes == set(writes.split())
    assert found.reads <= set(reads.split()) | set(writes.split())
    assert not found.is_opaque


@pytest.mark.parametrize("text", ["SELECT dynamic()", "SELECT native()", "CALL dynamic()"])
def test_a_function_that_may_touch_anything(text):
    assert Relations(DEFINITIONS).touched(text).is_opaque


def test_a_database_without_relations():
    assert Relations([]).touched("SELECT * FROM shop_order") == Touched()


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("SELECT * FROM shop_line", "SELECT * FROM shop_line", False),
        ("SELECT * FROM shop_line", "UPDATE shop_line SET n = 1", True),
        ("UPDATE shop_line SET n = 1", "UPDATE shop_line SET n = 2", True),
        ("SELECT * FROM latest", "UPDATE shop_order SET n = 1", True),
        ("SELECT balance()", "DELETE FROM shop_order", True),
        ("SELECT * FROM part_2024", "INSERT INTO part VALUES (1)", True),
        ('SELECT * FROM "Log"', "UPDATE shop_customer SET n = 1", True),
        ("SELECT 1", "SELECT dynamic()", True),
        ("SELECT * FROM shop_line", "UPDATE shop_customer SET n = 1", False),
        ("SELECT * FROM part", "UPDATE shop_line SET n = 1", False),
    ],
)
def test_conflicts(one, other, conflict):
    relations = Relations(DEFINITIONS)
    pair = relations.touched(one), relations.touched(other)
    assert pair[0].conflicts_with(pair[1]) is conflict
    assert pair[1].conflicts_with(pair[0]) is conflict
