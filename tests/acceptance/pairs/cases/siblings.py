"""Receivers that write to other rows of their own table."""

from django.db import connection
from django.db.models import F
from django.db.models.signals import post_delete, post_save, pre_save
from django.utils.text import slugify

from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, case


def one_group(m):
    m.Group.objects.create(pk=1, name="group")
    m.Group.objects.create(pk=2, name="other group")


def bystanders(m):
    one_group(m)
    for group in (1, 2):
        for position in (0, 1):
            m.Item.objects.bulk_create(
                [m.Item(name="bystander", group_id=group, position=position, is_default=True)]
            )


def _only_one(m):
    def unset_the_others(sender, instance, **kwargs):
        if instance.is_default:
            others = sender.objects.filter(group_id=instance.group_id).exclude(pk=instance.pk)
            others.update(is_default=False)

    return unset_the_others


ONLY_ONE = {
    "setup": bystanders,
    "row": lambda m, n: {"name": f"row {n}", "group_id": 1, "is_default": True},
    "values": {"is_default": True},
    "new": lambda n: {"is_default": True},
    "kinds": (CREATE, UPDATE),
}


@case("only one default, before the write", letter="a", **ONLY_ONE)
def only_one_before(m):
    return [(pre_save, m.Item, _only_one(m))]


@case("only one default, after the write", letter="a", **ONLY_ONE)
def only_one_after(m):
    return [(post_save, m.Item, _only_one(m))]


@case(
    "only the rows of even price are default",
    letter="a",
    setup=bystanders,
    row=lambda m, n: {"name": f"row {n}", "group_id": 1 + n % 2, "is_default": n % 3 == 0},
    values={"is_default": True, "group": 2},
    new=lambda n: {"is_default": n % 2 == 0},
    kinds=(CREATE, UPDATE),
)
def one_of_some(m):
    return [(pre_save, m.Item, _only_one(m))]


@case(
    "make room",
    letter="b",
    setup=bystanders,
    row=lambda m, n: {"name": f"row {n}", "group_id": 1, "position": n % 2},
    values={"position": 1},
    new=lambda n: {"position": n % 3},
    kinds=(CREATE, UPDATE),
    # update() of 100 rows takes minutes: each row shifts the others by a statement of its own.
    sizes=(1, 2, 7, 30),
)
def make_room(m):
    def shift(sender, instance, **kwargs):
        behind = sender.objects.filter(
            group_id=instance.group_id, position__gte=instance.position
        ).exclude(pk=instance.pk)
        behind.update(position=F("position") + 1)

    return [(pre_save, m.Item, shift)]


@case(
    "close the gap",
    letter="b",
    setup=bystanders,
    row=lambda m, n: {"name": f"row {n}", "group_id": 1, "position": n + 2},
    kinds=(DELETE,),
)
def close_the_gap(m):
    def shift(sender, instance, **kwargs):
        behind = sender.objects.filter(group_id=instance.group_id, position__gt=instance.position)
        behind.update(position=F("position") - 1)

    return [(post_delete, m.Item, shift)]


@case(
    "a write to the row before that has this row's key among its values",
    setup=one_group,
    row=lambda m, n: {"name": f"row {n}", "group_id": 1},
    only=("bulk_create(), keys given",),
)
def key_as_a_value(m):
    def note(sender, instance, **kwargs):
        table = f'"{m.label}_item"'
        with connection.cursor() as cursor:
            cursor.execute(
                f'UPDATE {table} SET position = %s WHERE {table}."id" = %s',
                [instance.pk, instance.pk + 1],
            )

    return [(pre_save, m.Item, note)]


@case(
    "a free slug",
    letter="k",
    row=lambda m, n: {"name": f"Name {n // 3}"},
    values={"name": "Renamed"},
    new=lambda n: {"name": f"Renamed {n // 2}"},
    kinds=(CREATE, UPDATE),
)
def free_slug(m):
    def make_slug(sender, instance, **kwargs):
        base, number = slugify(instance.name), 1
        instance.slug = base
        while sender.objects.filter(slug=instance.slug).exclude(pk=instance.pk).exists():
            number += 1
            instance.slug = f"{base}-{number}"

    return [(pre_save, m.Item, make_slug)]
