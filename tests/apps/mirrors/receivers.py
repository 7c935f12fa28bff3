"""The receivers of the mirrored library: the same functions for either side.

Each records its call before it does its work, and refuses the row if ``refusal`` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from tests.apps.mirrors import models
from tests.apps.mirrors.between import between_rows

FIELDS = [
    "number",
    "name",
    "slug",
    "position",
    "state",
    "amount",
    "version",
    "data",
    "shelf_id",
    "box_id",
]


class RefusedError(Exception):
    """A receiver refuses a row."""


@dataclass
class Side:
    """The models of one side, its calls, and what its receivers refuse.

    Attributes:
        calls: the receiver's name, the row as it got it, what else it got, and the row that the
            database showed just then.
        refusal: a receiver's name, and whether it refuses rows with an odd amount, or an even one.
    """

    name: str
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    refusal: tuple[str, bool] | None = None

    def __post_init__(self) -> None:
        self.Entry = getattr(models, f"{self.name}Entry")
        self.Shelf = getattr(models, f"{self.name}Shelf")
        self.Stock = getattr(models, f"{self.name}Stock")
        self.Tag = getattr(models, f"{self.name}Tag")
        self.Link = self.Entry.tags.through

    def record_call(self, receiver: str, instance: Any, *more: Any) -> Any:
        """Note a call; returns the row that is stored."""
        stored = self.stored(instance)
        self.calls.append((receiver, self.row(instance), *more, stored))
        self.refuse(receiver, instance)
        return stored

    def refuse(self, receiver: str, instance: Any) -> None:
        if self.refusal == (receiver, bool(getattr(instance, "amount", 0) % 2)):
            raise RefusedError(receiver)

    def row(self, instance: Any) -> tuple[Any, ...] | None:
        if instance is None:
            return None
        names = (
            FIELDS if type(instance) is self.Entry else [f.attname for f in instance._meta.fields]
        )
        return tuple(_as_text(getattr(instance, name)) for name in names)

    def stored(self, instance: Any) -> tuple[Any, ...] | None:
        if instance.pk is None:
            return None
        return self.row(type(instance).objects.filter(pk=instance.pk).first())

    def differing(
        self, before: tuple[Any, ...] | None, after: tuple[Any, ...] | None
    ) -> frozenset[str]:
        """The names of an entry's fields that differ; all of them for a new one."""
        names = [self.Entry._meta.get_field(name).name for name in FIELDS]
        if before is None:
            return frozenset(names) | {"id"}
        pairs = zip(before, after or (), strict=True)
        return frozenset(
            name for name, (one, other) in zip(names, pairs, strict=True) if one != other
        )

    def note(self, text: str) -> None:
        models.Note.objects.create(side=self.name, text=text)

    def count(self, shelf_id: int | None, by: int) -> None:
        """Keep the count of a shelf."""
        if shelf_id is not None:
            shelf = self.Shelf.objects.get(pk=shelf_id)
            shelf.entries += by
            shelf.save()


def _as_text(value: Any) -> str:
    """Keys have the order of their assignment, or that of PostgreSQL."""
    return repr(sorted(value.items()) if isinstance(value, dict) else value)


Declared = list[tuple[str, Any, Any, Any]]


def declare(m: Side) -> Declared:
    """The receivers of one side in their order: name, signal, sender, function."""
    return [
        (function.__name__, signal, sender, function)
        for make in (before_saves, after_saves, around_deletions, of_others, between_rows)
        for signal, sender, function in make(m)
    ]


def before_saves(m: Side) -> list[tuple[Any, Any, Any]]:
    def normalise(sender, instance, **kwargs):
        m.record_call("normalise", instance)
        instance.name = instance.name.strip().lower()
        instance.data["seen"] = instance.data.get("seen", 0) + 1

    def count_versions(sender, instance, **kwargs):
        m.record_call("count_versions", instance)
        instance.version += 1

    def compare(sender, instance, update_fields, old=None, **kwargs):
        stored = m.record_call("compare", instance, update_fields)
        if m.name == "Critical":
            assert m.row(old) == stored
        instance._before = sender.objects.filter(pk=instance.pk).first() if instance.pk else None
        if instance._before and instance._before.state == "final" and instance.state == "draft":
            instance.state = "reopened"

    def find_slug(sender, instance, **kwargs):
        m.record_call("find_slug", instance)
        base = slug = instance.name or "entry"
        number = 1
        while sender.objects.filter(slug=slug).exclude(pk=instance.pk).exists():
            number += 1
            slug = f"{base}-{number}"
        instance.slug = slug

    def find_position(sender, instance, **kwargs):
        m.record_call("find_position", instance)
        if not instance.position:
            instance.position = sender.objects.count() + 1

    functions = (normalise, count_versions, compare, find_slug, find_position)
    return [(pre_save, m.Entry, function) for function in functions]


def after_saves(m: Side) -> list[tuple[Any, Any, Any]]:
    def log_save(sender, instance, created, old=None, changed=None, **kwargs):
        stored = m.record_call("log_save", instance, created)
        if m.name == "Critical":
            assert changed == m.differing(m.row(old), stored)
        m.note(f"{created} {m.row(before(instance))} -> {m.row(instance)}")

    def count_on_shelf(sender, instance, created, **kwargs):
        m.record_call("count_on_shelf", instance, created)
        was = before(instance)
        if was is not None and was.shelf_id != instance.shelf_id:
            m.count(was.shelf_id, -1)
            m.count(instance.shelf_id, 1)
        elif created:
            m.count(instance.shelf_id, 1)

    def approve(sender, instance, **kwargs):
        """Saves the row that it is called for: it is not called for that again, or does no more."""
        if instance.state == "new":
            instance.state = "approved"
            instance.save()

    def record_save(sender, instance, created, update_fields, **kwargs):
        m.record_call("record_save", instance, created, update_fields)

    def before(instance):
        return getattr(instance, "_before", None)

    functions = (log_save, count_on_shelf, approve, record_save)
    return [(post_save, m.Entry, function) for function in functions]


def around_deletions(m: Side) -> list[tuple[Any, Any, Any]]:
    def announce(sender, instance, **kwargs):
        m.record_call("announce", instance)
        m.note(f"going {instance.number}")

    def keep_one(sender, instance, **kwargs):
        m.record_call("keep_one", instance)
        if instance.state == "final":
            others = sender.objects.filter(state="final").exclude(pk=instance.pk)
            if not others.exists():
                raise RefusedError("keep_one")

    def count_off_shelf(sender, instance, **kwargs):
        m.record_call("count_off_shelf", instance)
        if m.Shelf.objects.filter(pk=instance.shelf_id).exists():
            m.count(instance.shelf_id, -1)

    return [
        (pre_delete, m.Entry, announce),
        (pre_delete, m.Entry, keep_one),
        (post_delete, m.Entry, count_off_shelf),
    ]


def of_others(m: Side) -> list[tuple[Any, Any, Any]]:
    def cap_shelf(sender, instance, **kwargs):
        m.record_call("cap_shelf", instance)
        instance.amount = min(instance.amount, 7)

    def record_shelf_save(sender, instance, created, **kwargs):
        m.record_call("record_shelf_save", instance, created)

    def record_shelf_delete(sender, instance, **kwargs):
        m.record_call("record_shelf_delete", instance)

    def count_tags(sender, instance, action, reverse, pk_set, **kwargs):
        tags = sorted(instance.tags.values_list("pk", flat=True)) if not reverse else None
        number = instance.pk if reverse else instance.number
        m.calls.append(("count_tags", number, action, reverse, keys(reverse, pk_set), tags))
        m.refuse("count_tags", instance)
        step = {"post_add": 1, "post_remove": -1}.get(action, 0)
        if reverse or not step:
            return
        for tag in m.Tag.objects.filter(pk__in=pk_set).order_by("pk"):
            tag.used += step
            tag.save()

    def keys(reverse, pk_set):
        if reverse and pk_set:
            pk_set = m.Entry.objects.filter(pk__in=pk_set).values_list("number", flat=True)
        return None if pk_set is None else tuple(sorted(pk_set))

    return [
        (pre_save, m.Shelf, cap_shelf),
        (post_save, m.Shelf, record_shelf_save),
        (post_delete, m.Shelf, record_shelf_delete),
        (m2m_changed, m.Link, count_tags),
    ]


#: The names of all of them, in their order.
NAMES = [name for name, *_ in declare(Side("Plain"))]
