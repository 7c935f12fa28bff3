"""Receivers that read the whole table: directly, through a manager, a view or a function."""

from django.db import connection
from django.db.models import F, Sum
from django.db.models.signals import post_save, pre_save

from tests.acceptance.pairs.case import CREATE, UPDATE, case
from tests.acceptance.pairs.cases.siblings import one_group

GROUPED = {
    "letter": "e",
    "setup": one_group,
    "row": lambda m, n: {"name": f"row {n}", "group_id": 1 + n % 3 % 2, "price": n},
    "values": {"price": F("price") + 3},
    "kinds": (CREATE, UPDATE),
}


@case("the only row so far", **GROUPED)
def the_only_row(m):
    def note(sender, instance, **kwargs):
        if sender.objects.count() == 1:
            m.log(f"{instance.name} is the only one")

    return [(post_save, m.Item, note)]


@case("a running balance", **GROUPED)
def running_balance(m):
    def balance(sender, instance, **kwargs):
        total = sender.objects.filter(group_id=instance.group_id).aggregate(t=Sum("price"))["t"]
        m.log(f"{instance.name}: {total}")

    return [(post_save, m.Item, balance)]


@case("the first row of its group", **GROUPED)
def first_of_its_group(m):
    def note(sender, instance, created, **kwargs):
        others = sender.objects.filter(group_id=instance.group_id).exclude(pk=instance.pk)
        if created and not others.exists():
            sender.objects.filter(pk=instance.pk).update(note="the first")

    return [(post_save, m.Item, note)]


@case("a share of what the siblings have", **GROUPED)
def share(m):
    def note(sender, instance, **kwargs):
        siblings = sender.objects.filter(group_id=instance.group_id)
        sender.objects.filter(pk=instance.pk).update(
            total=siblings.aggregate(total=Sum("price"))["total"]
        )

    return [(post_save, m.Item, note)]


@case("a method of a related manager", **GROUPED)
def through_a_manager(m):
    def note(sender, instance, **kwargs):
        m.log(f"{instance.name}: {instance.group.items.order_by('-pk').first().name}")

    return [(post_save, m.Item, note)]


def _objects(m):
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE OR REPLACE VIEW {m.label}_seen AS SELECT * FROM {m.label}_item; "
            f"CREATE OR REPLACE FUNCTION {m.label}_sum(bigint) RETURNS bigint LANGUAGE sql STABLE "
            f"AS 'SELECT coalesce(sum(price), 0) FROM {m.label}_item WHERE group_id = $1'"
        )


def _asked(text, *params):
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        return cursor.fetchone()[0]


@case("a view of the table, after the write", prepare=_objects, **GROUPED)
def through_a_view(m):
    def note(sender, instance, **kwargs):
        m.log(f"{instance.name}: {_asked(f'SELECT count(*) FROM {m.label}_seen')}")

    return [(post_save, m.Item, note)]


@case("a view of the table, before the write", prepare=_objects, **GROUPED)
def through_a_view_before(m):
    def count(sender, instance, **kwargs):
        instance.position = _asked(f"SELECT count(*) FROM {m.label}_seen WHERE price < 6")

    return [(pre_save, m.Item, count)]


@case("a function over the table, after the write", prepare=_objects, **GROUPED)
def through_a_function(m):
    def note(sender, instance, **kwargs):
        total = _asked(f"SELECT {m.label}_sum(%s)", instance.group_id)
        m.log(f"{instance.name}: {total}")

    return [(post_save, m.Item, note)]


@case("a function over the table, before the write", prepare=_objects, **GROUPED)
def through_a_function_before(m):
    def add(sender, instance, **kwargs):
        instance.total = _asked(f"SELECT {m.label}_sum(%s)", instance.group_id)

    return [(pre_save, m.Item, add)]
