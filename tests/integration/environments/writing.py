"""Ways to write an article, and receivers of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from django.db import (
    connection,
    connections,
    transaction,
)
from django.db.models.signals import (
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)

from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration import reception
from tests.integration.inline_committed import (
    execute,
    insert,
)

TABLE = Article._meta.db_table
EVERY_SIGNAL = [pre_save, post_save, pre_delete, post_delete]
INSERT_SELECT = insert("written").replace("VALUES (", "SELECT ").removesuffix(")")


def there(using="default") -> Article:
    """The article that a change is tried on."""
    return Article.objects.using(using).get(title="there")


def bulk_update(using):
    article = there(using)
    article.title = "written"
    Article.objects.using(using).bulk_update([article], ["title"])


def save_again(using):
    article = there(using)
    article.title = "written"
    article.save(using=using)


def upsert(using):
    article = there(using)
    article.title = "written"
    Article.objects.using(using).bulk_create(
        [article], update_conflicts=True, unique_fields=["id"], update_fields=["title"]
    )


def by_sql(statement):
    def write(using):
        execute(statement, using=using)

    return write


#: Ways to make or change an article, which has the title "written" then.
SAVING: dict[str, Callable[[str], Any]] = {
    "save": lambda using: Article(title="written").save(using=using),
    "create": lambda using: Article.objects.using(using).create(title="written"),
    "get_or_create": lambda using: Article.objects.using(using).get_or_create(title="written"),
    "bulk_create": lambda using: Article.objects.using(using).bulk_create(
        [Article(title="written")]
    ),
    "INSERT": by_sql(insert("written")),
    "INSERT SELECT": by_sql(INSERT_SELECT),
    "save again": save_again,
    "update": lambda using: (
        Article.objects.using(using).filter(title="there").update(title="written")
    ),
    "update_or_create": lambda using: Article.objects.using(using).update_or_create(
        {"title": "written"}, title="there"
    ),
    "bulk_update": bulk_update,
    "upsert": upsert,
    "UPDATE": by_sql(f"UPDATE {TABLE} SET title = 'written' WHERE title = 'there'"),
}

#: Ways to delete it.
DELETING: dict[str, Callable[[str], Any]] = {
    "delete": lambda using: there(using).delete(),
    "delete of a query": lambda using: Article.objects.using(using).filter(title="there").delete(),
    "raw delete": lambda using: (
        Article.objects.using(using).filter(title="there")._raw_delete(using)
    ),
    "DELETE": by_sql(f"DELETE FROM {TABLE} WHERE title = 'there'"),
}

EVERY = {**SAVING, **DELETING}

every_way = pytest.mark.parametrize("way", EVERY)
#: One of each kind, where the kind makes the difference.
some_ways = pytest.mark.parametrize(
    "way", ["save", "bulk_create", "update", "upsert", "UPDATE", "delete", "DELETE"]
)
some_saving_ways = pytest.mark.parametrize("way", ["save", "bulk_create", "update", "UPDATE"])
saving_ways = pytest.mark.parametrize("way", SAVING)

in_atomic_or_not = pytest.mark.parametrize("is_atomic", [False, True], ids=["autocommit", "atomic"])


def perhaps_atomic(is_atomic, using="default"):
    return transaction.atomic(using=using) if is_atomic else nullcontext()


def note(name):
    """A receiver that logs the title that it is called for."""

    def receiver(instance, using, **kwargs):
        Log.objects.using(using).create(side="", text=f"{name} {instance.title}")

    return receiver


def record_calls(signals, sees, name, sender=Article):
    """The calls of a receiver that names all there is, or no more than Django's own arguments."""
    found = reception.Calls()

    def little(signal, instance, using, **kwargs):
        found.append({"signal": signal, "instance": instance, "using": using})

    function = found.__call__ if sees == "all" else little
    inline.critical(signals, sender, function, dispatch_uid=name)
    return found


def refuse(**kwargs):
    raise ValueError("no")


def in_threads(count, work):
    """Run ``work(number)`` in threads that begin together; what one raises comes out."""
    barrier, errors = threading.Barrier(count), []

    def run(number):
        try:
            barrier.wait(30)
            work(number)
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


@contextmanager
def alias(name, **changes) -> Iterator[str]:
    """Another connection to the default database."""
    found = connection.settings_dict
    connections.settings[name] = {
        **found,
        **changes,
        "OPTIONS": {**found["OPTIONS"], **changes.get("OPTIONS", {})},
    }
    try:
        yield name
    finally:
        connections[name].close()
        if hasattr(connections[name], "close_pool"):
            connections[name].close_pool()
        del connections[name]
        del connections.settings[name]


def recreate_article(using):
    Article.objects.using(using).all().delete()
    Article.objects.using(using).create(title="there")
