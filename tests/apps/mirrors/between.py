"""Receivers that depend on other rows: those of their own table, and of each other's.

Between the tables lie a view, an SQL function and totals that a trigger keeps. Each receiver
changes a row only if it is not right yet, so that all of them converge.
"""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

#: What lies between the tables of one side, which is named in lower case.
INSTALL = """
CREATE VIEW mirrors_{side}listing AS
SELECT name, count(*) AS entries FROM mirrors_{side}entry GROUP BY name;

CREATE FUNCTION mirrors_{side}worth(shelf int) RETURNS bigint LANGUAGE sql STABLE AS $$
SELECT coalesce(sum(amount), 0) FROM mirrors_{side}entry WHERE shelf_id = shelf
$$;

CREATE FUNCTION mirrors_{side}keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE mirrors_{side}stock SET entries = entries - 1, amount = amount - OLD.amount
        WHERE number = OLD.shelf_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE mirrors_{side}stock SET entries = entries + 1, amount = amount + NEW.amount
        WHERE number = NEW.shelf_id;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER keep AFTER INSERT OR UPDATE OR DELETE ON mirrors_{side}entry
FOR EACH ROW EXECUTE FUNCTION mirrors_{side}keep();
"""

UNINSTALL = """
DROP TRIGGER IF EXISTS keep ON mirrors_{side}entry;
DROP FUNCTION IF EXISTS mirrors_{side}keep;
DROP FUNCTION IF EXISTS mirrors_{side}worth;
DROP VIEW IF EXISTS mirrors_{side}listing;
"""

#: The totals of rows that were stored with no trigger firing.
FILL = """
INSERT INTO mirrors_{side}stock (number, entries, amount)
SELECT s.number, count(e.id), coalesce(sum(e.amount), 0)
FROM mirrors_{side}shelf AS s LEFT JOIN mirrors_{side}entry AS e ON e.shelf_id = s.number
GROUP BY s.number
"""


def between_rows(m: Any) -> list[tuple[Any, Any, Any]]:
    """Signal, sender and function of the receivers of one ``receivers.Side``."""
    return [*_reading(m), *_writing(m)]


def _asked(text: str, *params: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        row = cursor.fetchone()
        return row[0] if row else 0


def _reading(m: Any) -> list[tuple[Any, Any, Any]]:
    side = m.name.lower()

    def named_alike(name):
        return _asked(f"SELECT entries FROM mirrors_{side}listing WHERE name = %s", name)

    def rank_in_view(sender, instance, **kwargs):
        m.record_call("rank_in_view", instance)
        instance.data["rank"] = named_alike(instance.name)

    def ask_function(sender, instance, **kwargs):
        m.record_call("ask_function", instance)
        instance.data["worth"] = _asked(f"SELECT mirrors_{side}worth(%s)", instance.shelf_id)

    def read_stock(sender, instance, **kwargs):
        m.record_call("read_stock", instance)
        stock = m.Stock.objects.filter(pk=instance.shelf_id).first()
        instance.data["stock"] = stock and [stock.entries, stock.amount]

    def read_shelf(sender, instance, **kwargs):
        m.record_call("read_shelf", instance)
        shelf = m.Shelf.objects.filter(pk=instance.shelf_id).first()
        instance.data["shelf"] = shelf and [shelf.entries, shelf.amount]

    def note_total(sender, instance, **kwargs):
        m.record_call("note_total", instance)
        worth = _asked(f"SELECT mirrors_{side}worth(%s)", instance.shelf_id)
        m.note(f"total {instance.number}: {named_alike(instance.name)} {worth}")

    def note_stock(sender, instance, **kwargs):
        m.record_call("note_stock", instance)
        stock = m.Stock.objects.filter(pk=instance.shelf_id).first()
        m.note(f"stock {instance.number}: {stock and [stock.entries, stock.amount]}")

    def note_load(sender, instance, **kwargs):
        m.record_call("note_load", instance)
        m.note(f"load {instance.pk}: {_asked(f'SELECT mirrors_{side}worth(%s)', instance.pk)}")

    return [
        (pre_save, m.Entry, rank_in_view),
        (pre_save, m.Entry, ask_function),
        (pre_save, m.Entry, read_stock),
        (pre_save, m.Entry, read_shelf),
        (post_save, m.Entry, note_total),
        (pre_delete, m.Entry, note_stock),
        (pre_save, m.Shelf, note_load),
    ]


def _writing(m: Any) -> list[tuple[Any, Any, Any]]:
    def demote_before(sender, instance, **kwargs):
        m.record_call("demote_before", instance)
        demote(sender, instance)

    def demote_after(sender, instance, **kwargs):
        m.record_call("demote_after", instance)
        demote(sender, instance)

    def demote(sender, instance):
        """Of the entries of a name, one is final."""
        if instance.state == "final":
            others = sender.objects.filter(name=instance.name, state="final")
            for other in others.exclude(pk=instance.pk).order_by("pk"):
                other.state = "demoted"
                other.save()

    def lift_shelf(sender, instance, **kwargs):
        m.record_call("lift_shelf", instance)
        shelf = m.Shelf.objects.filter(pk=instance.shelf_id).first()
        if shelf is not None and shelf.amount < min(instance.amount, 7):
            shelf.amount = instance.amount
            shelf.save()

    def close_the_gap(sender, instance, **kwargs):
        m.record_call("close_the_gap", instance)
        behind = sender.objects.filter(position__gt=instance.position)
        for other in behind.order_by("pk"):
            other.position -= 1
            other.save()

    def spread_amount(sender, instance, **kwargs):
        m.record_call("spread_amount", instance)
        for entry in m.Entry.objects.filter(shelf_id=instance.pk).order_by("pk"):
            if entry.data.get("cap") != instance.amount:
                entry.data["cap"] = instance.amount
                entry.save()

    return [
        (pre_save, m.Entry, demote_before),
        (post_save, m.Entry, demote_after),
        (post_save, m.Entry, lift_shelf),
        (post_delete, m.Entry, close_the_gap),
        (post_save, m.Shelf, spread_amount),
    ]
