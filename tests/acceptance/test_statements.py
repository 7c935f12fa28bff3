"""What each write path sends to the server: ``golden/statements.md``.

``pytest tests/acceptance/test_statements.py --update-golden`` writes it again; read the difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import django
import psycopg
import pytest
from django.db import connection, transaction

from bulksafe.writer.conflicts import Conflicts
from examples.server import database_url
from tests.acceptance.sending import (
    LINK_PATHS,
    LINK_RECEIVERS,
    PATHS,
    RECEIVERS,
    TAGS,
    Links,
    Prepare,
    Receivers,
    new,
)
from tests.acceptance.wire import counted, traced
from tests.apps.practice.models import CriticalBook as Book
from tests.apps.practice.models import CriticalTag as Tag
from tests.integration import inline_committed as inline
from tests.integration.inline import only_these
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
)

pytestmark = pytest.mark.django_db(transaction=True)

GOLDEN = Path(__file__).with_name("golden") / "statements.md"

HEADER = """\
# What each write path sends

Written by `tests/acceptance/test_statements.py` from libpq's trace of the connection. The tables
have a row for each path and a column for each set of receivers. `1 / 3` means one round trip in
autocommit, and three where the write is all of an `atomic()` block, with its `BEGIN` and `COMMIT`.
Bulk writes have three rows; two of those of `bulk_create()` with conflicts, and of `MERGE`, are
stored already. Each write was made before, so that nothing is cached during it.

Below, one line is one round trip. `?` is a value, and statements that bulksafe sends by itself
begin with its name. The lists are those of autocommit. Inside `atomic()`, a write that begins no
transaction of its own sends the same. Any other one has a savepoint, which is set in front of its
first statement, after the `BEGIN` of the block, and released in front of the statement that
follows, if there is one. Where something else differs inside `atomic()`, it has a list of its own.
The file is that of Django 6: before, `bulk_create()` without receivers in the transaction sends
`BEGIN` and `COMMIT`, too.
"""


@dataclass(frozen=True)
class Cell:
    """One path with one set of receivers: what it sends in autocommit, and inside atomic()."""

    alone: tuple[str, ...]
    inside: tuple[str, ...]

    def __str__(self) -> str:
        return " / ".join(_number(lines) for lines in (self.alone, self.inside))


def _number(lines: tuple[str, ...]) -> str:
    trips = [line for line in lines if not line.startswith("raises ")]
    return f"{len(trips):,}" + ("" if len(trips) == len(lines) else " refused")


@contextmanager
def resetting() -> Iterator[Callable[[], None]]:
    """A function that stores three tags and a book, past all triggers."""
    url = database_url(connection.settings_dict)
    sequences = [
        f"ALTER SEQUENCE {one._meta.db_table}_id_seq RESTART" for one in (Links, Book, Tag)
    ]
    script = [
        *(f"DELETE FROM {model._meta.db_table}" for model in (Links, Book, Tag)),
        "DELETE FROM bulksafe_outbox",
        *sequences,
        f"INSERT INTO {TAGS} (name, used) SELECT 'tag', 0 FROM generate_series(1, 3)",
        f"INSERT INTO {Book._meta.db_table} (title, pages) VALUES ('book', 1)",
    ]
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SET session_replication_role = replica")
        yield lambda: other.execute("; ".join(script)) and None


def sent(prepare: Prepare, reset: Callable[[], None], *, is_atomic: bool) -> tuple[str, ...]:
    """The statements of a write that was made before."""
    for _ in range(2):
        reset()
        write = prepare()
        with traced(connection.connection) as lines:
            raised = refusal(write, is_atomic=is_atomic)
    return (*lines, *raised)


def refusal(write: Callable[[], Any], *, is_atomic: bool) -> list[str]:
    try:
        with transaction.atomic() if is_atomic else nullcontext():
            write()
    except Exception as error:
        return [f"raises {type(error).__name__}"]
    return []


def cells(
    paths: dict[str, Prepare], columns: Iterable[Receivers], model: Any
) -> dict[str, dict[str, Cell]]:
    """By path, and by receivers."""
    found: dict[str, dict[str, Cell]] = {title: {} for title in paths}
    for column in columns:
        with declared(column, model), resetting() as reset:
            for title, prepare in paths.items():
                alone, inside = (sent(prepare, reset, is_atomic=one) for one in (False, True))
                if column.run != "in_transaction" or not column.signals:
                    alone = as_in_django_6(title, alone)
                found[title][column.title] = Cell(alone, inside)
    return found


def as_in_django_6(title: str, lines: tuple[str, ...]) -> tuple[str, ...]:
    """Before Django 6.0, ``bulk_create()`` begins a transaction also for a single INSERT."""
    if django.VERSION >= (6, 0) or "bulk_create" not in title:
        return lines
    assert (lines[0], lines[-1]) == ("BEGIN", "COMMIT")
    return lines[1:-1]


@contextmanager
def declared(column: Receivers, model: Any) -> Iterator[None]:
    """No receivers but those of a column."""
    with only_these():
        column.declare(model)
        yield
    inline.uninstall("default")


# The file.


def table(found: dict[str, dict[str, Cell]]) -> Iterator[str]:
    columns = list(next(iter(found.values())))
    yield f"| | {' | '.join(columns)} |"
    yield f"|---|{'---|' * len(columns)}"
    for title, row in found.items():
        yield f"| {title} | {' | '.join(map(str, row.values()))} |"
    yield ""


def sections(found: dict[str, dict[str, Cell]]) -> Iterator[str]:
    written: dict[str, dict[str, Cell]] = {}
    for title, row in found.items():
        same = next((other for other, known in written.items() if known == row), None)
        yield f"## {title}\n"
        if same is None:
            written[title] = row
            yield from lists(row)
        else:
            yield f"As {same}.\n"


def lists(row: dict[str, Cell]) -> Iterator[str]:
    """Each list of statements once, under all that send it."""
    by_lines: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for column, cell in row.items():
        by_lines.setdefault(cell.alone, {}).setdefault("", []).append(column)
        if cell.inside not in (cell.alone, within(cell.alone)):
            by_lines.setdefault(cell.inside, {}).setdefault("inside `atomic()`: ", []).append(
                column
            )
    for lines, places in by_lines.items():
        yield "; ".join(f"{where}{', '.join(columns)}" for where, columns in places.items())
        yield "\n".join(["", "```sql", *counted(list(lines)), "```", ""])


def within(alone: tuple[str, ...]) -> tuple[str, ...]:
    """What is sent inside ``atomic()`` if the write is the same there."""
    begin, _, first = alone[0].partition("; ")
    if begin != "BEGIN":
        return ("BEGIN", *alone, "COMMIT")
    # The savepoint is set where the transaction begins, and is the first.
    deeper = [re.sub(r"(?<=SAVEPOINT s)\d+", _next, one) for one in (first, *alone[1:])]
    return (f"BEGIN; SAVEPOINT s1; {deeper[0]}".removesuffix("; "), *deeper[1:])


def _next(number: re.Match[str]) -> str:
    return str(int(number[0]) + 1)


def many() -> Iterator[str]:
    """A bulk write of many objects whose receiver has a condition."""
    column = next(one for one in RECEIVERS if one.title == "`pre_save` with `when=`")

    def prepare() -> Callable[[], Any]:
        tags = new(1000)
        return lambda: Tag.objects.bulk_create(tags)

    with declared(column, Tag), resetting() as reset:
        lines = sent(prepare, reset, is_atomic=False)
    yield f"## `bulk_create()` of 1,000 objects, {column.title}: {_number(lines)} round trips\n"
    yield "\n".join(["```sql", *counted(list(lines)), "```", ""])


def test_the_trace_contains_statements_that_bypass_django():
    connection.ensure_connection()
    driver = connection.connection
    with traced(driver) as lines, transaction.atomic():
        driver.execute("SELECT 'a', %s", ["it's 2"])
        with driver.pipeline():
            driver.execute("SELECT 1")
            driver.execute("SELECT 2")

    assert lines == ["BEGIN", "SELECT ?, ?", "2 × SELECT ? (a pipeline)", "COMMIT"]


def test_statements(request, monkeypatch):
    # The first write of a process looks at its receivers row by row.
    monkeypatch.setattr(Conflicts, "has_unknown", False)
    rows = cells(PATHS, RECEIVERS, Tag)
    links = cells(LINK_PATHS, LINK_RECEIVERS, Links)
    parts = [HEADER, *table(rows), *table(links), *many(), *sections(rows), *sections(links)]
    text = "\n".join(parts)
    if request.config.getoption("--update-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")
