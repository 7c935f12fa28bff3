"""Receivers of the kinds that public Django projects have, unchanged but for what declares them.

Each is a *practice*: receivers, the rows that it is tried on, and what is done to them. A practice
is made for one side, with its models: ``Plain`` ones for Django's signals and per-row writes,
``Critical`` ones for critical receivers and bulk writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_init,
    post_save,
    pre_delete,
    pre_save,
)
from django.utils.text import slugify

from tests.apps.practice import models


def side(prefix: str) -> SimpleNamespace:
    """The models of one side."""
    names = ("Article", "Shelf", "Book", "Tag", "Node")
    found = {name: getattr(models, f"{prefix}{name}") for name in names}
    return SimpleNamespace(prefix=prefix, Log=models.Log, **found)


@dataclass
class Practice:
    """One kind of receiver.

    Attributes:
        name: what it does.
        declare: makes the receivers of one side, as (signal, sender, function, options).
        model: whose rows are written.
        row: the values of the nth new row.
        values: what all rows are updated to, or a function of the side.
        setup: makes what has to be there before.
        plain: connects what is no critical receiver, such as one of ``post_init``.
        steps: which of ``create``, ``update``, ``delete`` are tried, in this order.
    """

    name: str
    declare: Callable[[Any], list[tuple]]
    model: str = "Article"
    row: Callable[[Any, int], dict] = lambda m, n: {"title": f"Title {n % 3}"}
    values: dict[str, Any] = field(default_factory=lambda: {"title": "Renamed"})
    setup: Callable[[Any], None] = lambda m: None
    plain: Callable[[Any], list[tuple]] = lambda m: []
    steps: tuple[str, ...] = ("create", "update", "delete")


PRACTICES: list[Practice] = []


def practice(**options: Any):
    def add(declare):
        PRACTICES.append(Practice(declare.__name__, declare, **options))
        return declare

    return add


def log(m, text):
    m.Log.objects.create(side=m.prefix, text=text)


@practice(
    row=lambda m, n: {"title": f"Title {n // 3}"},
    values={
        "title": (Concat(F("title"), Value(" again")), lambda row: f"{row.title} again"),
    },
)
def unique_slug(m):
    def make_slug(sender, instance, **kwargs):
        base = slugify(instance.title)
        slug, number = base, 1
        while sender.objects.filter(slug=slug).exclude(pk=instance.pk).exists():
            number += 1
            slug = f"{base}-{number}"
        instance.slug = slug

    return [(pre_save, m.Article, make_slug)]


@practice(steps=("create", "update"))
def position_at_the_end(m):
    def place(sender, instance, **kwargs):
        if not instance.position:
            instance.position = sender.objects.count() + 1

    return [(pre_save, m.Article, place)]


@practice(
    row=lambda m, n: {"title": "x", "email": f" Some{n}@Example.COM ", "phone": f"+1 (555) {n:03}"},
    values={"email": " New@Example.COM", "phone": "00-11"},
)
def normalised_email_and_phone(m):
    def normalise(sender, instance, **kwargs):
        instance.email = instance.email.strip().lower()
        instance.phone = re.sub(r"[^0-9+]", "", instance.phone)

    return [(pre_save, m.Article, normalise)]


@practice(values={"status": "published"})
def compared_with_the_old_row(m):
    def compare(sender, instance, **kwargs):
        if instance.pk is None:
            return
        old = sender.objects.get(pk=instance.pk)
        if old.status != instance.status:
            instance.changes += 1
            log(m, f"{old.status} -> {instance.status}")

    return [(pre_save, m.Article, compare)]


@practice(values={"status": "published"})
def old_status_left_for_post_save(m):
    def remember(sender, instance, **kwargs):
        found = sender.objects.filter(pk=instance.pk).first()
        instance._old_status = found.status if found else None

    def use(sender, instance, created, **kwargs):
        if instance._old_status != instance.status:
            log(m, f"{created}: {instance._old_status} -> {instance.status}")

    return [(pre_save, m.Article, remember), (post_save, m.Article, use)]


@practice()
def version_plus_one(m):
    def count(sender, instance, **kwargs):
        instance.version += 1

    return [(pre_save, m.Article, count)]


@practice(row=lambda m, n: {"title": f"User {n}"}, steps=("create", "update"))
def profile_created_with_its_user(m):
    def make(sender, instance, created, **kwargs):
        if created:
            m.Shelf.objects.create(name=instance.title)

    return [(post_save, m.Article, make)]


@practice(values={"status": "published", "amount": 3})
def audit_log_through_a_helper(m):
    class Auditor:
        def entry(self, action, instance):
            log(m, f"{action} {instance.title} {instance.status} {instance.amount}")

        def saved(self, sender, instance, created, **kwargs):
            self.entry("created" if created else "changed", instance)

        def deleted(self, sender, instance, **kwargs):
            self.entry("deleted", instance)

    auditor = Auditor()
    return [(post_save, m.Article, auditor.saved), (post_delete, m.Article, auditor.deleted)]


def two_shelves(m):
    m.Shelf.objects.create(name="a")
    m.Shelf.objects.create(name="b")


def book_row(m, n):
    return {"title": f"Book {n}", "pages": n, "shelf": m.Shelf.objects.order_by("pk")[n % 2]}


@practice(model="Book", setup=two_shelves, row=book_row, values={"pages": 7})
def totals_of_the_parent(m):
    def update(sender, instance, **kwargs):
        if instance.shelf is not None:
            instance.shelf.update_totals()

    return [(post_save, m.Book, update), (post_delete, m.Book, update)]


@practice(model="Book", setup=two_shelves, row=book_row, values={"pages": 7})
def counter_of_a_cached_parent(m):
    def add(sender, instance, created, **kwargs):
        if created:
            instance.shelf.books = F("books") + 1
            instance.shelf.save()

    def take(sender, instance, **kwargs):
        m.Shelf.objects.filter(pk=instance.shelf_id).update(books=F("books") - 1)

    return [(post_save, m.Book, add), (post_delete, m.Book, take)]


@practice(
    model="Book",
    row=lambda m, n: {"title": f"Tag {n % 4}"},
    setup=lambda m: [m.Tag.objects.create(name=f"Tag {n}") for n in range(4)],
    values={"pages": 1},
)
def orphaned_tag_deleted(m):
    def clean(sender, instance, **kwargs):
        if not sender.objects.filter(title=instance.title).exists():
            m.Tag.objects.filter(name=instance.title).delete()

    return [(post_delete, m.Book, clean)]


@practice(row=lambda m, n: {"title": f"Admin {n}", "published": True}, values={"amount": 1})
def last_admin_stays(m):
    def keep(sender, instance, **kwargs):
        if not sender.objects.filter(published=True).exclude(pk=instance.pk).exists():
            raise ValidationError("The last admin stays.")

    return [(pre_delete, m.Article, keep)]


@practice(row=lambda m, n: {"title": f"Document {n}", "status": "closed" if n else "open"})
def closed_documents_do_not_change(m):
    def refuse(sender, instance, **kwargs):
        if instance.pk and sender.objects.filter(pk=instance.pk, status="closed").exists():
            raise ValidationError("A closed document does not change.")

    return [(pre_save, m.Article, refuse)]


def snapshots(m):
    def keep(sender, instance, **kwargs):
        instance._was = instance.__dict__.get("status")

    return [(post_init, m.Article, keep)]


@practice(plain=snapshots, values={"status": "published"})
def tracker_of_transitions(m):
    allowed = {("draft", "published"), ("draft", "draft"), ("published", "published")}

    def check(sender, instance, **kwargs):
        if not instance._state.adding and (instance._was, instance.status) not in allowed:
            raise ValidationError(f"{instance._was} -> {instance.status}")

    def moved(sender, instance, **kwargs):
        log(m, f"{instance._was} -> {instance.status}")

    return [(pre_save, m.Article, check), (post_save, m.Article, moved)]


@practice(plain=snapshots, values={"status": "thrown away"})
def tracker_refuses_a_transition(m):
    def check(sender, instance, **kwargs):
        if not instance._state.adding and instance._was != instance.status:
            raise ValidationError(f"{instance._was} -> {instance.status}")

    return [(pre_save, m.Article, check)]


@practice()
def raw_and_update_fields(m):
    def note(sender, instance, raw=False, update_fields=None, **kwargs):
        if raw:
            return
        if update_fields and "amount" in update_fields:
            return
        log(m, f"{instance.title}")

    return [(post_save, m.Article, note)]


@practice()
def swallowed_exception(m):
    def try_it(sender, instance, **kwargs):
        try:
            raise RuntimeError(instance.title)
        except RuntimeError as error:
            log(m, f"failed: {error}")

    return [(post_save, m.Article, try_it)]


@practice(steps=("create",))
def first_one_is_special(m):
    def first(sender, instance, created, **kwargs):
        if created and sender.objects.count() == 1:
            log(m, f"first: {instance.title}")

    return [(post_save, m.Article, first, {"row_by_row": True})]


@practice(row=lambda m, n: {"title": f"{n}", "is_default": n % 3 == 0}, steps=("create",))
def other_defaults_unset(m):
    def unset(sender, instance, **kwargs):
        if instance.is_default:
            sender.objects.exclude(pk=instance.pk).filter(is_default=True).update(is_default=False)

    return [(post_save, m.Article, unset, {"row_by_row": True})]


@practice(row=lambda m, n: {"title": f"Row {n}", "amount": n})
def archive_of_deleted_rows(m):
    def keep(sender, instance, **kwargs):
        m.Tag.objects.create(name=instance.title, used=instance.amount)

    return [(pre_delete, m.Article, keep)]


@practice(
    model="Book",
    setup=lambda m: [m.Tag.objects.create(name=name) for name in ("even", "odd")],
    row=lambda m, n: {"title": f"Book {n}", "pages": n},
    values={"pages": 3},
)
def many_to_many_in_step(m):
    def sync(sender, instance, **kwargs):
        name = "odd" if instance.pages % 2 else "even"
        instance.tags.set(m.Tag.objects.filter(name=name))

    def count(sender, instance, action, pk_set, **kwargs):
        if action in {"post_add", "post_remove"}:
            step = 1 if action == "post_add" else -1
            m.Tag.objects.filter(pk__in=pk_set).update(used=F("used") + step)

    return [
        (post_save, m.Book, sync),
        (m2m_changed, m.Book.tags.through, count),
    ]


@practice(values={"status": "published"})
def state_machine_with_effects(m):
    def enter(sender, instance, created, **kwargs):
        if instance.status == "published" and not instance.published:
            instance.published = True
            instance.save(update_fields=["published"])
            log(m, f"published {instance.title}")

    return [(post_save, m.Article, enter)]


@practice(
    row=lambda m, n: {"title": "x", "upload": f"uploads/2026/file {n}.TXT"},
    values={"upload": "elsewhere/new.PDF"},
)
def name_of_an_upload(m):
    def name(sender, instance, **kwargs):
        if instance.upload:
            instance.upload_name = instance.upload.rpartition("/")[2].lower()

    return [(pre_save, m.Article, name)]


@practice(
    values={"amount": (F("amount") + 5, lambda row: row.amount + 5)},
    row=lambda m, n: {"title": "x", "amount": n},
)
def total_from_a_counter(m):
    def total(sender, instance, **kwargs):
        if isinstance(instance.amount, int):
            instance.total = instance.amount * 2

    return [(post_save, m.Article, lambda **kw: None), (pre_save, m.Article, total)]


@practice(row=lambda m, n: {"title": f"T{n}", "data": {"seen": [n]}}, values={"amount": 2})
def json_changed_in_place(m):
    def add(sender, instance, **kwargs):
        instance.data["amount"] = instance.amount
        instance.data["seen"].append("again")

    return [(pre_save, m.Article, add)]


@practice(values={"title": "two"}, row=lambda m, n: {"title": "one"})
def receiver_that_updates_its_own_row(m):
    def mark(sender, instance, **kwargs):
        sender.objects.filter(pk=instance.pk).update(notes=f"seen as {instance.title}")

    return [(post_save, m.Article, mark)]


@practice(values={"title": "two"}, row=lambda m, n: {"title": "one"})
def receiver_with_a_guard_flag(m):
    def mark(sender, instance, **kwargs):
        if getattr(instance, "_guard", False):
            return
        instance._guard = True
        instance.notes = f"{instance.notes}+{instance.title}"
        instance.save()
        del instance._guard

    return [(post_save, m.Article, mark)]


@practice(values={"title": "two"}, row=lambda m, n: {"title": "one"})
def receiver_that_disconnects_itself(m):
    def mark(sender, instance, **kwargs):
        post_save.disconnect(mark, sender=sender)
        try:
            instance.notes = f"{instance.notes}+{instance.title}"
            instance.save()
        finally:
            reconnect()

    def reconnect():
        declared = m.reconnect
        declared(post_save, m.Article, mark)

    return [(post_save, m.Article, mark)]


@practice(
    model="Node",
    row=lambda m, n: {
        "name": f"n{n}",
        "parent": m.Node.objects.order_by("pk").first() if n % 2 else None,
    },
    setup=lambda m: m.Node.objects.create(
        name="leaf",
        parent=m.Node.objects.create(name="branch", parent=m.Node.objects.create(name="root")),
    ),
    values={"name": "renamed"},
    steps=("create", "update"),
)
def paths_of_a_tree(m):
    def own_path(sender, instance, **kwargs):
        parent = instance.parent
        instance.path = f"{parent.path if parent else ''}/{instance.name}"

    def children(sender, instance, **kwargs):
        for child in instance.children.all():
            before = child.path
            child.save()
            assert child.path != before or child.path

    return [(pre_save, m.Node, own_path), (post_save, m.Node, children)]


@practice(row=lambda m, n: {"title": f"Row {n}", "amount": n}, values={"amount": -1})
def refusal_after_the_write(m):
    def refuse(sender, instance, **kwargs):
        if instance.amount < 0:
            raise ValidationError("Negative.")

    return [(post_save, m.Article, refuse)]


@practice(row=lambda m, n: {"title": f"Row {n}", "price": f"{n}.50"}, values={"price": "7.25"})
def decimal_rounding(m):
    def round_up(sender, instance, **kwargs):
        instance.total = int(float(instance.price) + 0.5)

    return [(pre_save, m.Article, round_up)]
