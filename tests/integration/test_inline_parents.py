"""A parent that a receiver fetches before the write is fetched again by receivers after it."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.models import F
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from tests.apps.practice.models import CriticalBook as Book
from tests.apps.practice.models import CriticalNode as Node
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.integration import inline

pytestmark = pytest.mark.django_db

BOOKS, COUNT = Book._meta.db_table, 3


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        yield


def execute(text, *params):
    with connection.cursor() as cursor:
        cursor.execute(text, params or None)


def fetch_parent(instance, **kwargs):
    assert instance.shelf.name == "shelf"


def assign_parent(instance, **kwargs):
    instance.shelf = Shelf.objects.get(name="shelf")


def move(instance, **kwargs):
    instance.shelf = Shelf.objects.get(name="other")


def count(instance, **kwargs):
    """Reads, adds and saves, as many counters do."""
    shelf = instance.shelf
    shelf.books += 1
    shelf.save()


def books(**values):
    return [Book(title=str(number), **values) for number in range(COUNT)]


def insert(shelf):
    rows = ", ".join(f"('{number}', 0, {shelf.pk})" for number in range(COUNT))
    execute(f"INSERT INTO {BOOKS} (title, pages, shelf_id) VALUES {rows}")


def bulk_update(shelf):
    listed = list(Book.objects.all())
    for book in listed:
        book.pages = 1
    Book.objects.bulk_update(listed, ["pages"])


UPDATES = {
    "update()": lambda shelf: Book.objects.update(pages=F("pages") + 1),
    "bulk_update()": bulk_update,
    "UPDATE": lambda shelf: execute(f"UPDATE {BOOKS} SET pages = 1"),
}
INSERTS = {
    "bulk_create()": lambda shelf: Book.objects.bulk_create(books(shelf_id=shelf.pk)),
    "bulk_create(ignore_conflicts=True)": lambda shelf: Book.objects.bulk_create(
        books(shelf_id=shelf.pk), ignore_conflicts=True
    ),
    "INSERT": insert,
}
WRITES = {**UPDATES, **INSERTS}


@pytest.mark.parametrize("before", [fetch_parent, assign_parent])
@pytest.mark.parametrize("name", WRITES)
def test_no_count_is_lost(name, before):
    shelf = Shelf.objects.create(name="shelf")
    if name in UPDATES:
        Book.objects.bulk_create(books(shelf=shelf))
    inline.critical(pre_save, Book, before)
    inline.critical(post_save, Book, count)

    WRITES[name](shelf)

    assert Shelf.objects.get().books == COUNT


@pytest.mark.parametrize("name", WRITES)
def test_no_count_of_a_parent_that_a_receiver_has_chosen_is_lost(name):
    shelf, other = (Shelf.objects.create(name=name) for name in ("shelf", "other"))
    if name in UPDATES:
        Book.objects.bulk_create(books(shelf=shelf))
    inline.critical(pre_save, Book, move)
    inline.critical(post_save, Book, count)

    if name == "bulk_update()":
        listed = list(Book.objects.all())
        Book.objects.bulk_update(listed, ["shelf"])
    else:
        WRITES[name](shelf)

    assert Shelf.objects.get(pk=other.pk).books == COUNT


def test_the_callers_own_parent_stays():
    """Receivers that add to an object which the caller has given share it, as row by row."""
    shelf = Shelf.objects.create(name="shelf")
    inline.critical(pre_save, Book, fetch_parent)
    inline.critical(post_save, Book, count)

    listed = Book.objects.bulk_create(books(shelf=shelf))

    assert all(book.shelf is shelf for book in listed)
    assert shelf.books == COUNT


def test_an_object_assigned_for_one_row_stays():
    """A single row is written between its own receivers, as by save()."""
    Shelf.objects.create(name="shelf")
    chosen, found = [], []

    def choose(instance, **kwargs):
        assign_parent(instance)
        chosen.append(instance.shelf)

    inline.critical(pre_save, Book, choose)
    inline.critical(post_save, Book, lambda instance, **kwargs: found.append(instance.shelf))
    Book.objects.bulk_create(books()[:1])

    assert found[0] is chosen[0]


def test_a_cascaded_parent_can_be_read_after_the_deletion():
    top = Node.objects.create(name="top")
    Node.objects.bulk_create(Node(name=str(number), parent=top) for number in range(2))
    inline.critical(pre_delete, Node, lambda instance, **kwargs: instance.parent)
    found = []

    def note(instance, **kwargs):
        found.append(instance.parent and instance.parent.name)

    inline.critical(post_delete, Node, note)
    Node.objects.all().delete()

    assert sorted(found, key=str) == [None, "top", "top"]


@pytest.mark.parametrize("row_by_row", [None, False, True])
def test_no_count_of_deleted_rows_is_lost(row_by_row):
    shelf = Shelf.objects.create(name="shelf")
    Book.objects.bulk_create(books(shelf=shelf))
    inline.critical(pre_delete, Book, fetch_parent)
    inline.critical(post_delete, Book, count, row_by_row=row_by_row)

    execute(f"DELETE FROM {BOOKS}")

    assert Shelf.objects.get().books == COUNT
