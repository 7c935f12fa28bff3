"""Receivers that read rows written by receivers of earlier rows, in a second table."""

from django.core.exceptions import ValidationError
from django.db.models import F, Sum
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_save

from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, case
from tests.acceptance.pairs.cases.siblings import one_group


def little_stock(m):
    m.Group.objects.create(pk=1, name="group", stock=3)


def _stock(m, take_one):
    def refuse(sender, instance, **kwargs):
        if instance.state == "booked" and m.Group.objects.get(pk=instance.group_id).stock < 1:
            raise ValidationError(f"No stock is left for {instance.name}.")

    def take(sender, instance, **kwargs):
        if instance.state == "booked":
            take_one(m.Group, instance.group_id)

    return [(pre_save, m.Item, refuse), (post_save, m.Item, take)]


def _by_update(model, key):
    model.objects.filter(pk=key).update(stock=F("stock") - 1)


def _by_save(model, key):
    group = model.objects.get(pk=key)
    group.stock -= 1
    group.save()


@case(
    "stock that earlier rows have used up",
    letter="d",
    setup=little_stock,
    row=lambda m, n: {"name": f"row {n}", "group_id": 1, "state": "booked"},
    only=("save()", "bulk_create()", "bulk_create(), keys given", "INSERT", "INSERT … SELECT"),
)
def stock_of_new_rows(m):
    return _stock(m, _by_update)


@case(
    "seats that earlier rows have taken",
    letter="d",
    setup=little_stock,
    row=lambda m, n: {"name": f"row {n}", "group_id": 1},
    values={"state": "booked"},
    new=lambda n: {"state": "booked"},
    kinds=(CREATE, UPDATE),
)
def stock_of_changed_rows(m):
    return _stock(m, _by_update)


@case(
    "rooms, the room itself being saved",
    letter="d",
    setup=little_stock,
    row=lambda m, n: {"name": f"row {n}", "group_id": 1},
    values={"state": "booked"},
    new=lambda n: {"state": "booked"},
    kinds=(CREATE, UPDATE),
)
def rooms(m):
    return _stock(m, _by_save)


@case(
    "the parent's total from its items",
    letter="e",
    setup=one_group,
    row=lambda m, n: {"name": f"row {n}", "group_id": 1 + n % 2, "price": n},
    values={"price": F("price") + 1},
    kinds=(CREATE, UPDATE, DELETE),
)
def parent_total(m):
    def add_up(sender, instance, **kwargs):
        group = m.Group.objects.get(pk=instance.group_id)
        group.total = group.items.aggregate(total=Sum("price"))["total"] or 0
        group.count = group.items.count()
        group.note += f"{group.count} "
        group.save()

    return [(post_save, m.Item, add_up), (post_delete, m.Item, add_up)]


def chain(m):
    part = None
    for n in range(120):
        part = m.Part.objects.create(name=f"part {n}", parent=part)


@case(
    "a chain of saves, 120 deep",
    letter="p",
    setup=chain,
    kinds=(CREATE, UPDATE),
    sizes=(1, 2),
)
def long_chain(m):
    def begin(sender, instance, **kwargs):
        m.Part.objects.get(name="part 0").save()

    def go_on(sender, instance, **kwargs):
        m.calls.append(instance.name)
        following = m.Part.objects.filter(parent=instance).first()
        if following is not None:
            following.save()

    return [(post_save, m.Item, begin), (post_save, m.Part, go_on)]


def tags(m):
    m.Item.objects.bulk_create([m.Item(pk=n, name=f"item {n}") for n in (1, 2)])
    m.Tag.objects.bulk_create([m.Tag(pk=n, name=f"tag {n}") for n in range(1, 101)])


def links(path, size):
    """One call before and one after, for each item, with the tags."""
    for item in {1 + n % 2 for n in range(size)}:
        keys = tuple(1 + n for n in range(size) if 1 + n % 2 == item)
        yield from (("pre_add", f"item {item}", keys), ("post_add", f"item {item}", keys))


@case(
    "links that are created in bulk",
    letter="q",
    model="Tagging",
    setup=tags,
    row=lambda m, n: {"item_id": 1 + n % 2, "tag_id": 1 + n},
    only=("bulk_create()", "INSERT", "INSERT … SELECT"),
    expected=links,
)
def linked(m):
    def note(sender, instance, action, pk_set, **kwargs):
        m.calls.append((action, instance.name, tuple(sorted(pk_set))))

    return [(m2m_changed, m.Tagging, note)]
