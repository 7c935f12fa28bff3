"""Cases of docs/per-row.md that need more than a write and its per-row equivalent.

Known failures are strict, with the letter of the case as the reason.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import django
import pytest
from django.db.models.signals import post_save, pre_save
from django.db.models.sql import compiler

from bulksafe.writer import conflicts, unstored
from bulksafe.writer.relations import Relations
from tests.acceptance.committed import _django_db_helper  # noqa: F401
from tests.acceptance.pairs import sides
from tests.acceptance.pairs.case import Case
from tests.acceptance.test_pairs import clean, committed  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def m():
    return sides.side("critical")


def receivers(m, *declared):
    return sides.critical_receivers(Case("special", lambda side: list(declared)), m)


@pytest.mark.parametrize("signal", [pre_save, post_save])
def test_set_order_calls_receivers_with_the_stored_row_and_its_new_order(m, signal):
    """Case s: Django itself passes an instance that has nothing but the key and the order."""
    group = m.Group.objects.create(name="group")
    steps = [m.Step.objects.create(name=f"step {n}", group=group) for n in range(3)]

    def note(sender, instance, **kwargs):
        m.calls.append((instance.name, instance.group_id, instance._order))

    with receivers(m, (signal, m.Step, note)):
        group.set_step_order([step.pk for step in reversed(steps)])

    assert m.calls == [(f"step {n}", group.pk, 2 - n) for n in (2, 1, 0)]


@pytest.fixture
def query_cache(monkeypatch) -> Iterator[dict]:
    """Answers a query that was asked before, until Django writes: as django-cachalot does."""
    cached = {}
    select, insert, update = (
        getattr(compiler, name).execute_sql
        for name in ("SQLCompiler", "SQLInsertCompiler", "SQLUpdateCompiler")
    )

    def cached_select(self, *args, **kwargs):
        if type(self) is not compiler.SQLCompiler:
            return select(self, *args, **kwargs)
        key = str(self.as_sql()), args
        if key not in cached:
            answer = select(self, *args, **kwargs)
            cached[key] = list(answer) if isinstance(answer, Iterator) else answer
        return cached[key]

    def forgetting(write):
        def execute(self, *args, **kwargs):
            cached.clear()
            try:
                return write(self, *args, **kwargs)
            finally:
                cached.clear()

        return execute

    monkeypatch.setattr(compiler.SQLCompiler, "execute_sql", cached_select)
    monkeypatch.setattr(compiler.SQLInsertCompiler, "execute_sql", forgetting(insert))
    monkeypatch.setattr(compiler.SQLUpdateCompiler, "execute_sql", forgetting(update))
    return cached


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(
            "bulk_create()",
            marks=pytest.mark.xfail(django.VERSION >= (6,), reason="case t", strict=True),
        ),
        "update()",
    ],
)
def test_a_query_cache_in_front_of_a_receiver_s_query(m, write, query_cache):
    """Case t."""

    def make_slug(sender, instance, **kwargs):
        number = 1
        while sender.objects.filter(slug=f"slug-{number}").exclude(pk=instance.pk).exists():
            number += 1
        instance.slug = f"slug-{number}"

    items = [m.Item(name=f"row {n}") for n in range(4)]
    if write == "update()":
        m.Item.objects.bulk_create(items)
    with receivers(m, (pre_save, m.Item, make_slug)):
        if write == "update()":
            m.Item.objects.update(price=1)
        else:
            m.Item.objects.bulk_create(items)
    query_cache.clear()

    assert sorted(m.Item.objects.values_list("slug", flat=True)) == [
        f"slug-{n}" for n in range(1, 5)
    ]


@pytest.mark.parametrize("write", ["save()", "update()", "bulk_create()"])
def test_receivers_that_stamp_each_other_s_rows_converge(m, write):
    """Case u: with plain signals, ``update()`` inside a receiver calls no other receiver."""
    # From one on: zero is already stored, and a no-op write calls no receiver.
    clock = itertools.count(1)

    def stamp_parts(sender, instance, **kwargs):
        m.Part.objects.filter(item=instance).update(code=next(clock))

    def stamp_item(sender, instance, **kwargs):
        m.Item.objects.filter(pk=instance.item_id).update(position=next(clock))

    item = m.Item.objects.create(name="item")
    m.Part.objects.create(name="part", item=item)
    with receivers(m, (post_save, m.Item, stamp_parts), (post_save, m.Part, stamp_item)):
        if write == "save()":
            item.save()
        elif write == "update()":
            m.Item.objects.update(price=1)
        else:
            m.Part.objects.bulk_create([m.Part(name="further part", item=item)])

    assert next(clock) > 2


def test_a_field_that_bulk_update_does_not_name_is_warned_of_once(m, caplog, monkeypatch):
    """Case r: as ``save(update_fields=…)``, it stores no other field."""
    monkeypatch.setattr(unstored, "_named", set())

    def multiply(sender, instance, **kwargs):
        instance.total = instance.price * 2

    items = m.Item.objects.bulk_create([m.Item(name=f"row {n}") for n in range(3)])
    with (
        receivers(m, (pre_save, m.Item, multiply)),
        caplog.at_level(logging.WARNING, logger="bulksafe"),
    ):
        for _ in range(2):
            for item in items:
                item.price += 1
            m.Item.objects.bulk_update(items, ["price"])

    assert set(m.Item.objects.values_list("price", "total")) == {(2, 0)}
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "total" in warnings[0]
    assert "receiver 0" in warnings[0]


def test_rows_are_stored_in_turn_where_the_catalogs_are_older_than_the_table(m, monkeypatch):
    monkeypatch.setattr(conflicts, "relations_of", lambda connection: Relations([]))

    def number(sender, instance, **kwargs):
        instance.position = sender.objects.count()

    with receivers(m, (pre_save, m.Item, number)):
        m.Item.objects.bulk_create([m.Item(name=f"row {n}") for n in range(3)])

    assert sorted(m.Item.objects.values_list("position", flat=True)) == [0, 1, 2]
