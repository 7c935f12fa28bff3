"""Write paths and receivers whose statements are listed in ``golden/statements.md``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import F, Q
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

from tests.apps.practice.models import CriticalBook as Book
from tests.apps.practice.models import CriticalTag as Tag
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline

Links = Book.tags.through
TAGS = Tag._meta.db_table

#: Makes what a write needs, and returns the write.
Prepare = Callable[[], Callable[[], Any]]

PATHS: dict[str, Prepare] = {}
LINK_PATHS: dict[str, Prepare] = {}


def path(title: str, listed: dict[str, Prepare] = PATHS) -> Callable[[Prepare], Prepare]:
    def add(prepare: Prepare) -> Prepare:
        listed[title] = prepare
        return prepare

    return add


# Objects.


@path("`save()` of a new object")
def save_new():
    return Tag(name="new", used=1).save


@path("`create()`")
def create():
    return lambda: Tag.objects.create(name="new", used=1)


@path("`save()` of a stored object")
def save_again():
    tag = Tag.objects.get(pk=1)
    tag.used = 7
    return tag.save


@path("`save(update_fields=…)`")
def save_fields():
    tag = Tag.objects.get(pk=1)
    tag.used = 7
    return lambda: tag.save(update_fields=["used"])


@path("`delete()` of an object")
def delete_one():
    return Tag.objects.get(pk=1).delete


# Bulk writes: three rows each.


def new(number=3):
    return [Tag(name=f"new {n}", used=1) for n in range(number)]


def known():
    """Two existing rows and one new row."""
    return [Tag(pk=pk, name="given", used=1) for pk in (2, 3, 9)]


@path("`bulk_create()`")
def bulk_create():
    tags = new()
    return lambda: Tag.objects.bulk_create(tags)


@path("`bulk_create(update_conflicts=True)`")
def upsert():
    tags, names = known(), ["name", "used"]
    return lambda: Tag.objects.bulk_create(
        tags, update_conflicts=True, unique_fields=["pk"], update_fields=names
    )


@path("`bulk_create(ignore_conflicts=True)`")
def insert_what_is_new():
    tags = known()
    return lambda: Tag.objects.bulk_create(tags, ignore_conflicts=True)


@path("`bulk_update()`")
def bulk_update():
    tags = list(Tag.objects.order_by("pk"))
    for tag in tags:
        tag.used = 7
    return lambda: Tag.objects.bulk_update(tags, ["used"])


@path("`update()`")
def update():
    return lambda: Tag.objects.update(used=F("used") + 7)


@path("`queryset.delete()`")
def delete_all():
    return Tag.objects.all().delete


# SQL.


def sql(title: str, text: str) -> None:
    path(title)(lambda: lambda: inline.execute(text))


sql("`INSERT`", f"INSERT INTO {TAGS} (name, used) VALUES ('a', 1), ('b', 2), ('c', 3)")
sql("`UPDATE`", f"UPDATE {TAGS} SET used = used + 7")
sql("`DELETE`", f"DELETE FROM {TAGS}")
sql(
    "`MERGE`",
    f"MERGE INTO {TAGS} AS t USING (VALUES (2), (3), (9)) AS s (id) ON t.id = s.id "
    "WHEN MATCHED THEN UPDATE SET used = 7 "
    "WHEN NOT MATCHED THEN INSERT (name, used) VALUES ('new', 7)",
)


@path("`executemany()`")
def executemany():
    def write():
        with connection.cursor() as cursor:
            text = f"UPDATE {TAGS} SET used = %s WHERE id = %s"
            cursor.executemany(text, [(7, pk) for pk in (1, 2, 3)])

    return write


@path("`copy()`")
def copy():
    def write():
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY {TAGS} (name, used) FROM STDIN") as rows,
        ):
            for number in range(3):
                rows.write_row((f"new {number}", 1))

    return write


# Links.


@path("`add()`", LINK_PATHS)
def add():
    book, tags = Book.objects.get(), list(Tag.objects.order_by("pk"))
    return lambda: book.tags.add(*tags)


@path("`set()`", LINK_PATHS)
def set_links():
    book, tags = Book.objects.get(), list(Tag.objects.filter(pk__gt=1).order_by("pk"))
    book.tags.add(1)
    return lambda: book.tags.set(tags)


@path("`clear()`", LINK_PATHS)
def clear():
    book = Book.objects.get()
    book.tags.add(1, 2, 3)
    return book.tags.clear


@path("`through.objects.bulk_create()`", LINK_PATHS)
def bulk_create_links():
    book = Book.objects.get()
    links = [Links(criticalbook=book, criticaltag_id=pk) for pk in (1, 2, 3)]
    return lambda: Links.objects.bulk_create(links)


# Receivers.


def see(instance, **kwargs):
    """Sees nothing but the instance."""


def see_old(instance, old, **kwargs):
    """Sees the row as it was, too."""


def assign(instance, **kwargs):
    instance.name = "assigned"


def look(instance, **kwargs):
    Log.objects.exists()


@dataclass(frozen=True)
class Receivers:
    """A column of the table."""

    title: str
    signals: tuple[Any, ...] = ()
    function: Callable[..., Any] = see
    when: Q | None = None
    run: str = "in_transaction"

    def declare(self, model: Any) -> None:
        for signal in self.signals:
            inline.critical(signal, model, self.function, when=self.when, run=self.run)


USED = Q(new__used__gt=0)

RECEIVERS = [
    Receivers("none"),
    Receivers("`post_save`", (post_save,)),
    Receivers("`post_save` with `old`", (post_save,), see_old),
    Receivers("`post_save` with `when=`", (post_save,), when=USED),
    Receivers("`pre_save` that assigns", (pre_save,), assign),
    Receivers("`pre_save` that reads another table", (pre_save,), look),
    Receivers("`pre_save` with `when=`", (pre_save,), when=USED),
    Receivers("`pre_delete` and `post_delete`", (pre_delete, post_delete)),
    Receivers("after the commit", (post_save, post_delete), run="after_commit"),
]
LINK_RECEIVERS = [
    Receivers("none"),
    Receivers("`m2m_changed`", (m2m_changed,)),
    Receivers("`m2m_changed` that reads another table", (m2m_changed,), look),
    Receivers("after the commit", (m2m_changed,), run="after_commit"),
]
