"""A statement for many rows is delivered in chunks: the same calls and rows as all at once."""

from __future__ import annotations

import logging
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from bulksafe.exceptions import EndlessWrites
from bulksafe.writer import buffer, chunked_delivery, collected
from tests.apps.columns.trying import rolled_back
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import Log
from tests.integration import inline

pytestmark = pytest.mark.django_db

ARTICLES = Article._meta.db_table
ROWS, CHUNK = 35, 10


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        yield


@pytest.fixture
def in_chunks(monkeypatch):
    """A function that makes statements for more than twenty rows large from then on."""

    def shrink():
        for module in (buffer, collected):
            monkeypatch.setattr(module, "CHUNK", CHUNK)
        for module in (chunked_delivery, collected):
            monkeypatch.setattr(module, "MANY", 2 * CHUNK)

    return shrink


def execute(text, params=None):
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        return cursor.fetchall() if cursor.description else cursor.rowcount


def fill(count=ROWS):
    """The rows lie in the table in an order that is not that of their keys.

    A MERGE is delivered in the order of its plan, which must not change from one write to the next:
    without these, its only plan fetches each row by its ctid, in the order of the subquery.
    """
    execute(
        "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; "
        "SET LOCAL enable_seqscan = off"
    )
    Article.objects.bulk_create(
        Article(pk=number, title=str(number), amount=number)
        for number in sorted(range(1, count + 1), key=lambda number: number * 17 % count)
    )
    # Its lock also keeps autovacuum from changing the statistics in between.
    execute(f"ANALYZE {ARTICLES}")


def insert():
    names = ", ".join(
        one.column for one in Article._meta.local_concrete_fields if not one.primary_key
    )
    return execute(
        f"INSERT INTO {ARTICLES} (id, {names}) "
        f"SELECT id + 1000, {names} FROM {ARTICLES} ORDER BY id DESC RETURNING id"
    )


WRITES = {
    "update()": lambda: Article.objects.update(amount=F("amount") + 1),
    "UPDATE": lambda: execute(f"UPDATE {ARTICLES} SET amount = amount + 1"),
    "UPDATE … RETURNING": lambda: sorted(
        execute(f"UPDATE {ARTICLES} SET amount = amount + 1 RETURNING id, amount, notes")
    ),
    "UPDATE of keys": lambda: execute(f"UPDATE {ARTICLES} SET id = 500 - id"),
    "INSERT … SELECT": insert,
    "delete()": lambda: Article.objects.filter(pk__gt=2).delete(),
    "DELETE": lambda: execute(f"DELETE FROM {ARTICLES} WHERE id > 2"),
    "MERGE": lambda: execute(
        f"MERGE INTO {ARTICLES} AS a USING (SELECT ctid, id FROM {ARTICLES} ORDER BY title) AS b "
        "ON a.ctid = b.ctid "
        "WHEN MATCHED AND b.id > 30 THEN DELETE WHEN MATCHED THEN UPDATE SET amount = 7"
    ),
    "ON CONFLICT": lambda: execute(
        f"INSERT INTO {ARTICLES} SELECT * FROM {ARTICLES} "
        "ON CONFLICT (id) DO UPDATE SET amount = EXCLUDED.amount + 1"
    ),
    "WITH": lambda: execute(
        f"WITH b AS (SELECT id FROM {ARTICLES}) "
        f"UPDATE {ARTICLES} AS a SET amount = a.amount + 1 FROM b WHERE a.id = b.id"
    ),
}


class Receivers:
    """What a set of receivers was called with, each receiver's calls in their order."""

    def __init__(self):
        self.calls = {}

    def note(self, name, *found):
        self.calls.setdefault(name, []).append(found)

    def post(self, instance, created=None, update_fields=None, **kwargs):
        self.note("post", instance.pk, instance.amount, instance.notes, created, update_fields)

    def post_with_old(self, instance, old, changed, **kwargs):
        self.note("old", instance.pk, old and old.amount, instance.amount, changed)

    def pre(self, instance, **kwargs):
        self.note("pre", instance.pk, instance.amount)
        instance.notes = f"{instance.title} {instance.amount}"

    def pre_delete(self, instance, **kwargs):
        self.note("pre_delete", instance.pk, instance.amount)

    def declare(self, *names):
        signals = {
            "post": [post_save, post_delete],
            "post_with_old": [post_save, post_delete],
            "pre": [pre_save],
            "pre_delete": [pre_delete],
        }
        for name in names:
            for signal in signals[name]:
                inline.critical(signal, Article, getattr(self, name))


@pytest.mark.parametrize(
    "names",
    [("post",), ("post_with_old",), ("pre", "pre_delete", "post"), ("pre", "pre_delete")],
    ids=" ".join,
)
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_the_calls_and_the_rows_are_those_of_all_at_once(write, names, in_chunks):
    seen = Receivers()
    seen.declare(*names)
    fill()
    # Until the receivers are known, each row is written by itself.
    with rolled_back():
        write()
    with rolled_back():
        seen.calls.clear()
        expected = write(), list(Article.objects.order_by("pk").values()), dict(seen.calls)
    seen.calls.clear()
    in_chunks()

    result = write()
    assert (result, list(Article.objects.order_by("pk").values()), seen.calls) == expected
    assert execute("SELECT count(*) FROM bulksafe_staged") == [(0,)]
    assert execute("SELECT count(*) FROM bulksafe_buffer") == [(0,)]


def test_the_receivers_before_and_after_the_write_take_turns(in_chunks):
    fill()
    order = []
    inline.critical(pre_save, Article, lambda instance, **kwargs: order.append("pre"))
    inline.critical(post_save, Article, lambda instance, **kwargs: order.append("post"))
    with rolled_back():
        Article.objects.update(amount=1)
    order.clear()
    in_chunks()
    Article.objects.update(amount=1)

    chunks = [CHUNK, CHUNK, CHUNK, ROWS - 3 * CHUNK]
    assert order == [name for size in chunks for name in ["pre"] * size + ["post"] * size]


def test_one_instance_serves_all_receivers_of_a_row(in_chunks):
    fill()
    seen = {}

    def before(instance, **kwargs):
        seen[instance.pk] = instance

    def after(instance, **kwargs):
        assert seen.pop(instance.pk) is instance

    inline.critical(pre_save, Article, before)
    inline.critical(post_save, Article, after)
    in_chunks()
    assert Article.objects.update(amount=1) == ROWS
    assert seen == {}


def test_batches_are_chunks(in_chunks):
    fill()
    sizes = []

    def count(instances, **kwargs):
        sizes.append([one.pk for one in instances])

    inline.critical(post_save, Article, count, batch=True)
    in_chunks()
    Article.objects.update(amount=1)

    assert list(map(len, sizes)) == [CHUNK, CHUNK, CHUNK, ROWS - 3 * CHUNK]
    assert [key for keys in sizes for key in keys] == list(range(1, ROWS + 1))


@pytest.mark.parametrize("signal", [pre_save, post_save])
@pytest.mark.parametrize("write", ["update()", "UPDATE", "INSERT … SELECT"])
def test_an_error_in_a_later_chunk_takes_everything_back(write, signal, in_chunks):
    fill()

    def refuse(instance, **kwargs):
        Log.objects.create(text=instance.title)
        if instance.title == "17":
            raise ValueError("no")

    inline.critical(signal, Article, refuse, row_by_row=False)
    before = list(Article.objects.order_by("pk").values())
    in_chunks()
    with transaction.atomic():
        with pytest.raises(ValueError, match="no"):
            WRITES[write]()
        assert list(Article.objects.order_by("pk").values()) == before
        assert not Log.objects.exists()
        # The next write is not in the way of a cursor that is left.
        Article.objects.filter(pk=1).update(title="after")


@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_a_receiver_that_shows_late_that_the_order_matters(signal, in_chunks, caplog):
    """It looks at the table for one row of a later chunk only."""
    fill()
    sums = []

    def look(sender, instance, **kwargs):
        if instance.pk == 25:
            sums.append(sum(sender.objects.values_list("amount", flat=True)))

    inline.critical(signal, Article, look)
    with rolled_back():
        Article.objects.filter(pk=1).update(amount=1)
    in_chunks()
    with caplog.at_level(logging.WARNING, "bulksafe"):
        assert Article.objects.update(amount=1000) == ROWS

    written = 24 if signal is pre_save else 25
    assert sums[-1] == 1000 * written + sum(range(written + 1, ROWS + 1))
    assert set(Article.objects.values_list("amount", flat=True)) == {1000}


def test_a_large_write_of_a_receiver_of_a_large_write(in_chunks):
    fill()

    def write(sender, instance, **kwargs):
        if instance.pk in {5, 25}:
            sender.objects.update(price=instance.pk)

    inline.critical(post_save, Article, write, row_by_row=False)
    after = inline.critical(post_save, Article)
    in_chunks()
    Article.objects.update(status="x")

    assert set(Article.objects.values_list("price", flat=True)) == {Decimal(25)}
    assert len(after) == 3 * ROWS


def test_receivers_without_end_are_stopped(in_chunks):
    fill()

    def count_up(sender, instance, **kwargs):
        sender.objects.exclude(pk=instance.pk).update(amount=F("amount") + 1)

    for _ in range(2):
        inline.critical(post_save, Article, count_up, row_by_row=False)
    in_chunks()
    with pytest.raises(EndlessWrites):
        Article.objects.update(status="x")


def test_the_rows_of_a_trigger_are_delivered_together(in_chunks):
    """It writes to each row again: the two changes are one."""
    fill()
    execute(f"""
        CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE {ARTICLES} SET version = NEW.version + 1 WHERE id = NEW.id;
            RETURN NULL;
        END $$;
        CREATE TRIGGER zz_again AFTER UPDATE OF amount ON {ARTICLES}
        FOR EACH ROW EXECUTE FUNCTION again();
    """)
    seen = Receivers()
    seen.declare("post_with_old")
    in_chunks()
    Article.objects.update(amount=F("amount") + 1)

    assert sorted(seen.calls["old"]) == [
        (number, number, number + 1, frozenset({"amount", "version"}))
        for number in range(1, ROWS + 1)
    ]


def test_more_rows_than_a_statement_returns():
    """The database refuses to return them: the write is repeated, and its rows are buffered."""
    count = 20_001
    fill(count)
    keys = []
    inline.critical(post_save, Article, lambda instance, **kwargs: keys.append(instance.pk))
    inline.critical(post_delete, Article, lambda instance, **kwargs: keys.append(instance.pk))
    with rolled_back():
        Article.objects.filter(pk=1).update(amount=1)
    keys.clear()
    assert Article.objects.update(amount=1) == count
    assert keys == list(range(1, count + 1))
    keys.clear()
    assert Article.objects.all().delete()[0] == count
    assert keys == list(range(1, count + 1))


def test_no_cursor_is_left_open(in_chunks):
    fill()
    inline.critical(post_save, Article, lambda **kwargs: None)
    in_chunks()
    Article.objects.update(amount=1)
    assert execute("SELECT name FROM pg_cursors WHERE name LIKE 'bulksafe%%'", []) == []
