"""Writers side by side whose receivers look and assign: nothing is lost or delivered twice.

``BULKSAFE_TEST_TRANSACTIONS=20000`` makes as many transactions in place of two hundred.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter

import psycopg
import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.db.models.signals import post_save, pre_save
from psycopg import IsolationLevel

from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import (  # noqa: F401
    ARTICLES,
    _django_db_helper,
    clean,
    committed,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]

WRITERS, ROWS = 16, 12
TRANSACTIONS = int(os.environ.get("BULKSAFE_TEST_TRANSACTIONS", "192"))
LEVELS = (
    IsolationLevel.READ_COMMITTED,
    IsolationLevel.REPEATABLE_READ,
    IsolationLevel.SERIALIZABLE,
)

#: The errors after which a transaction is tried again.
AGAIN = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)


def staged(keys):
    return Article.objects.filter(pk__in=keys).update(changes=F("changes") + 1)


def staged_sql(keys):
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {ARTICLES} SET changes = changes + 1 WHERE id = ANY (%s) RETURNING id", [keys]
        )
        return len(cursor.fetchall())


def through(keys):
    """A statement that begins with WITH cannot be staged."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH wanted AS (SELECT unnest(%s::bigint[]) AS id) "
            f"UPDATE {ARTICLES} AS a SET changes = changes + 1 FROM wanted WHERE a.id = wanted.id",
            [keys],
        )
        return cursor.rowcount


def in_hand(keys):
    rows = list(Article.objects.select_for_update().filter(pk__in=keys).order_by("pk"))
    for row in rows:
        row.changes += 1
    return Article.objects.bulk_update(rows, ["changes", "amount"])


def recorded(keys):
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {ARTICLES} AS a SELECT * FROM {ARTICLES} WHERE id = ANY (%s) ORDER BY id "
            "ON CONFLICT (id) DO UPDATE SET changes = a.changes + 1 RETURNING id",
            [keys],
        )
        return len(cursor.fetchall())


WAYS = (staged, staged_sql, recorded, through, in_hand)


def look_and_assign(instance, **kwargs):
    Log.objects.filter(text="never").exists()
    instance.amount = instance.changes * 2


def note(instance, **kwargs):
    Log.objects.create(side="", text=f"{instance.pk} {instance.changes}")


class Writers:
    """Threads that change the same rows, and what came back to them."""

    def __init__(self, level: IsolationLevel, each: int) -> None:
        self.level = level
        self.each = each
        self.changed = 0
        self.claimed: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()

    def run(self) -> None:
        threads = [threading.Thread(target=self._work, args=(n,)) for n in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _work(self, number: int) -> None:
        chance = random.Random(number)
        try:
            connection.ensure_connection()
            connection.connection.isolation_level = self.level
            with connection.cursor() as cursor:
                # Writers of the same rows deadlock often, and would mostly wait for this.
                cursor.execute("SET deadlock_timeout = '10ms'")
            for _ in range(self.each):
                self._transaction(chance)
        except BaseException as error:
            self.errors.append(error)
        finally:
            connection.close()

    def _transaction(self, chance: random.Random) -> None:
        keys = sorted(chance.sample(range(1, ROWS + 1), 3))
        way, claimed = chance.choice(WAYS), keys[0]
        try:
            with transaction.atomic():
                changed = way(keys)
                mine = Article.objects.filter(pk=claimed, status="draft").update(status="claimed")
                if chance.random() < 0.3:
                    transaction.set_rollback(True)
                    changed = mine = 0
        except OperationalError as error:
            if not isinstance(error.__cause__, AGAIN):
                raise
            with self._lock:
                self.refused[type(error.__cause__).__name__] += 1
            return
        with self._lock:
            self.changed += changed + mine
            self.claimed[claimed] += mine


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_every_change_is_delivered_exactly_once(level, clean):  # noqa: F811
    Article.objects.bulk_create(Article(pk=n, title=str(n)) for n in range(1, ROWS + 1))
    inline.critical(pre_save, Article, look_and_assign)
    inline.critical(post_save, Article, note)
    writers = Writers(level, max(1, TRANSACTIONS // WRITERS // len(LEVELS)))
    writers.run()

    rows = list(Article.objects.all())
    claims = sum(writers.claimed.values())
    # No lost update: each row that was changed has counted it.
    assert sum(row.changes for row in rows) == writers.changed - claims
    # Receivers saw the stored values.
    assert all(row.amount == row.changes * 2 for row in rows)
    # A row that did not match any more was not written.
    assert max(writers.claimed.values()) <= 1
    assert {row.pk for row in rows if row.status == "claimed"} == set(+writers.claimed)
    # Each row that was changed was delivered once, and no other.
    assert Log.objects.count() == writers.changed
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM bulksafe_staged), (SELECT count(*) FROM bulksafe_buffer)"
        )
        assert cursor.fetchone() == (0, 0)
