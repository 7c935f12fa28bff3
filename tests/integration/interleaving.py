"""Two sessions whose steps interleave, on a table with critical receivers and on its plain twin.

Import ``seen_calls`` and ``opened_sessions`` (the fixtures ``seen`` and ``sessions``) into the test
module, and the fixtures of ``inline_committed``. The sessions wait for conditions of the server,
never for time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from psycopg import IsolationLevel

from examples.server import database_url
from tests.apps.practice import models
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import clean, execute  # noqa: F401
from tests.operation.processes import wait_until

PATIENCE = 60


# The sides: their tables, and the ways to write to them.


def side(name: str) -> SimpleNamespace:
    return SimpleNamespace(
        name=name,
        Article=getattr(models, f"{name}Article"),
        Shelf=getattr(models, f"{name}Shelf"),
        Book=getattr(models, f"{name}Book"),
        articles=getattr(models, f"{name}Article")._meta.db_table,
        shelves=getattr(models, f"{name}Shelf")._meta.db_table,
        books=getattr(models, f"{name}Book")._meta.db_table,
    )


Side = SimpleNamespace
PLAIN, CRITICAL = side("Plain"), side("Critical")
ROWS = range(1, 7)

#: The columns of an article that a statement does not set, with a value for each.
_COLUMNS = {
    field.column: "'{}'" if field.name == "data" else f"'{field.get_default()}'"
    for field in models.PlainArticle._meta.local_concrete_fields
    if field.name not in {"id", "total"}
}
NAMES, VALUES = ", ".join(_COLUMNS), ", ".join(_COLUMNS.values())


def fill(m: Side) -> None:
    """Articles 1 to 6, whose total is their number, and as many shelves."""
    m.Article.objects.bulk_create(m.Article(pk=n, total=n) for n in ROWS)
    m.Shelf.objects.bulk_create(m.Shelf(pk=n, pages=10 * n) for n in ROWS)


def returned(text: str) -> Callable[[Side], Any]:
    """What a statement returns, or else how many rows it says that it has written."""

    def run(m: Side) -> Any:
        with connection.cursor() as cursor:
            cursor.execute(text.format(**vars(m), names=NAMES, values=VALUES))
            return sorted(cursor.fetchall()) if cursor.description else cursor.rowcount

    return run


@dataclass(frozen=True)
class Way:
    """One way to write.

    Attributes:
        write: gets a side; returns what the caller gets to see.
        is_staged: whether it is staged.
    """

    write: Callable[[Side], Any]
    is_staged: bool = True


def ways(listed: dict[str, Way], *, only_staged: bool = False) -> Any:
    chosen = {title: way for title, way in listed.items() if way.is_staged or not only_staged}
    return pytest.mark.parametrize("way", chosen.values(), ids=chosen)


#: Count up the totals of the first two articles, unless they are a hundred or more.
UPDATES = {
    "update()": Way(
        lambda m: m.Article.objects.filter(pk__lt=3, total__lt=100).update(total=F("total") + 1)
    ),
    "UPDATE": Way(
        returned(
            "UPDATE {articles} SET total = total + 1 WHERE id < 3 AND total < 100 "
            "RETURNING id, total"
        )
    ),
    "MERGE": Way(
        returned(
            "MERGE INTO {articles} AS a USING (VALUES (1), (2)) AS given (id) ON a.id = given.id "
            "WHEN MATCHED AND a.total < 100 THEN UPDATE SET total = a.total + 1"
        )
    ),
    "WITH": Way(
        returned(
            "WITH given (id) AS (VALUES (1), (2)) UPDATE {articles} AS a SET total = a.total + 1 "
            "FROM given WHERE a.id = given.id AND a.total < 100 RETURNING a.id, a.total"
        ),
        is_staged=False,
    ),
    "several statements": Way(
        returned(
            "UPDATE {articles} SET total = total + 1 WHERE id = 1 AND total < 100; "
            "UPDATE {articles} SET total = total + 1 WHERE id = 2 AND total < 100"
        ),
        is_staged=False,
    ),
    "ON CONFLICT": Way(
        returned(
            "INSERT INTO {articles} AS a (id, total, {names}) VALUES (1, 0, {values}), "
            "(2, 0, {values}) ON CONFLICT (id) DO UPDATE SET total = a.total + 1 "
            "WHERE a.total < 100 RETURNING id, total"
        ),
        is_staged=False,
    ),
}

#: Delete the first two articles, unless their totals are a hundred or more.
DELETIONS = {
    "DELETE": Way(
        returned("DELETE FROM {articles} WHERE id < 3 AND total < 100 RETURNING id, total")
    ),
    "MERGE, DELETE": Way(
        returned(
            "MERGE INTO {articles} AS a USING (VALUES (1), (2)) AS given (id) ON a.id = given.id "
            "WHEN MATCHED AND a.total < 100 THEN DELETE"
        )
    ),
    "WITH, DELETE": Way(
        returned(
            "WITH given (id) AS (VALUES (1), (2)) DELETE FROM {articles} AS a USING given "
            "WHERE a.id = given.id AND a.total < 100 RETURNING a.id, a.total"
        ),
        is_staged=False,
    ),
    "several statements, DELETE": Way(
        returned(
            "DELETE FROM {articles} WHERE id = 1 AND total < 100; "
            "DELETE FROM {articles} WHERE id = 2 AND total < 100"
        ),
        is_staged=False,
    ),
}

CHANGES = UPDATES | DELETIONS


class Seen:
    """Receivers before and after the write of an article; those before it look at the database.

    Attributes:
        rows: key, and the total before and after, as the receivers after the write have got them.
        early: key and total, as the receivers before the write have got them.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.early: list[tuple[Any, ...]] = []
        self.between: Callable[[], None] | None = None
        inline.critical(pre_save, CRITICAL.Article, self._before)
        inline.critical(pre_delete, CRITICAL.Article, self._before)
        inline.critical(post_save, CRITICAL.Article, self._saved)
        inline.critical(post_delete, CRITICAL.Article, self._deleted)

    def _before(self, instance: Any, **kwargs: Any) -> None:
        # A first execution is rolled back before this, and its rows are locked again.
        models.Log.objects.filter(text="never").exists()
        if self.between is not None:
            between, self.between = self.between, None
            between()
        self.early.append((instance.pk, instance.total))

    def _saved(self, instance: Any, old: Any, **kwargs: Any) -> None:
        self.rows.append((instance.pk, old and old.total, instance.total))

    def _deleted(self, instance: Any, **kwargs: Any) -> None:
        self.rows.append((instance.pk, instance.total, None))


@pytest.fixture(name="seen", autouse=True)
def seen_calls(clean) -> Seen:  # noqa: F811
    for m in (PLAIN, CRITICAL):
        fill(m)
    return Seen()


def totals(m: Side) -> dict[int, int]:
    return dict(m.Article.objects.order_by("pk").values_list("pk", "total"))


def changed(before: dict[int, int], after: dict[int, int]) -> list[tuple[Any, ...]]:
    """The rows that differ: key, total before and after."""
    keys = sorted({*before, *after})
    return [(k, before.get(k), after.get(k)) for k in keys if before.get(k) != after.get(k)]


# Sessions.


@contextmanager
def other_session() -> Iterator[psycopg.Connection]:
    """Another program's connection, past the triggers."""
    with psycopg.connect(database_url(connection.settings_dict), autocommit=True) as other:
        other.execute("SET session_replication_role = replica; SET lock_timeout = '5s'")
        yield other


class Session:
    """A thread with a connection of Django's own, which does one step after the other."""

    def __init__(self, level: IsolationLevel | None = None) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._blocks: list[transaction.Atomic] = []
        self.pid = self.run(partial(self._connect, level))

    @staticmethod
    def _connect(level: IsolationLevel | None) -> int:
        connection.ensure_connection()
        connection.connection.isolation_level = level
        return connection.connection.info.backend_pid

    def start(self, step: Callable[[], Any]) -> Future[Any]:
        return self._thread.submit(step)

    def run(self, step: Callable[[], Any]) -> Any:
        try:
            return self.start(step).result(PATIENCE)
        except TimeoutError as error:
            error.add_note(f"session {self.pid} does not end its step:\n{activity()}")
            raise

    def begin(self) -> None:
        """Begin a transaction, or set a savepoint."""
        block = transaction.atomic()
        self.run(block.__enter__)
        self._blocks.append(block)

    def end(self, *, is_rollback: bool = False) -> None:
        """Commit it, or release the savepoint; or roll back."""
        block = self._blocks.pop()
        if is_rollback:
            self.run(lambda: transaction.set_rollback(True))
        self.run(lambda: block.__exit__(None, None, None))

    def close(self) -> None:
        while self._blocks:
            self.end(is_rollback=True)
        self.run(_close)
        self._thread.shutdown()


def activity() -> str:
    """What each session of the database does and waits for."""
    with psycopg.connect(database_url(connection.settings_dict)) as other:
        rows = other.execute(
            "SELECT pid, pg_blocking_pids(pid), state, wait_event_type, wait_event, "
            "clock_timestamp() - query_start, query FROM pg_stat_activity "
            "WHERE datname = current_database()"
        )
        return "\n".join(" | ".join(map(str, row)) for row in rows)


def _close() -> None:
    """Close the connection of the thread that it runs in."""
    connection.close()


@pytest.fixture(name="sessions")
def opened_sessions() -> Iterator[Callable[..., Session]]:
    """Opens sessions, which end with the test."""
    opened: list[Session] = []

    def session(level: IsolationLevel | None = None) -> Session:
        opened.append(Session(level))
        return opened[-1]

    yield session
    for one in opened:
        one.close()


def waits_for(pid: int, blocker: int) -> bool:
    """Whether a session waits for a lock of another session."""
    return execute("SELECT %s = ANY (pg_blocking_pids(%s))", blocker, pid)[0][0]


def wait_until_blocked(pid: int, blocker: int, future: Future[Any]) -> None:
    """Wait until the session of a step waits for the blocker."""
    wait_until(lambda: waits_for(pid, blocker) or future.done())
    assert not future.done(), future.exception()


def outcome(step: Callable[[], Any]) -> Any:
    """What a step returns, or the SQLSTATE with which the database refuses it."""
    try:
        return step()
    except DatabaseError as error:
        return error.__cause__.sqlstate


def free(m: Side, strength: str = "UPDATE", table: str = "articles") -> set[int]:
    """The rows that another session could lock."""
    with other_session() as other:
        found = other.execute(
            f"SELECT id FROM {getattr(m, table)} FOR {strength} SKIP LOCKED"
        ).fetchall()
    return {key for (key,) in found}
