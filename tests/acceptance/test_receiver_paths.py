"""The write-path matrix in calls: every path calls receivers as ``save()`` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction

from bulksafe import testing
from tests.acceptance import twin_tables
from tests.acceptance.committed import _django_db_helper, committed  # noqa: F401
from tests.acceptance.data_changes import Change, Operation, new_row, stored_row
from tests.acceptance.performing import browser, fill, perform, psql, write  # noqa: F401
from tests.acceptance.write_paths import (
    PATHS,
    Path,
    SqlRefusal,
    Write,
    execute,
    insert_sql,
    operation_of_path,
)
from tests.apps.twins import receivers, signals
from tests.apps.twins.models import TWINS, Entry, Memo, Parcel
from tests.apps.twins.signals import Called

CELLS = [(path, change) for path in PATHS for change in path.changes()]

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def nothing_is_pending(committed) -> Iterator[None]:  # noqa: F811
    """What other modules wrote to the twins is none of this one's business."""
    testing.deliver()
    signals.of_critical.clear()
    signals.of_plain.clear()
    yield
    assert not testing.deliver()


_calls_on_the_twin: dict[str, Counter[Called]] = {}


def calls_on_the_twin(path: Path, change: Change) -> Counter[Called]:
    """The calls of plain signal receivers, if the change is made with one ``save()`` a row."""
    asked = repr((path.model, change, path.steps(change)))
    if asked not in _calls_on_the_twin:
        fill(path, change)
        signals.of_plain.clear()
        with receivers.whole_transaction():
            twin_tables.write_per_row(TWINS[path.model], path.steps(change))
        _calls_on_the_twin[asked] = Counter(signals.of_plain)
    return _calls_on_the_twin[asked]


def calls() -> Counter[Called]:
    """The calls that a listener would make now."""
    signals.of_critical.clear()
    testing.deliver()
    return Counter(signals.of_critical)


@pytest.mark.matrix(3, start=1, each=operation_of_path)
@pytest.mark.parametrize(
    ("path", "change"), [cell for cell in CELLS if not cell[1].refused], ids=str
)
def test_every_changed_row_reaches_the_receivers(path, change, write):  # noqa: F811
    attempt = write(path, change)
    expected = calls_on_the_twin(path, attempt.change)
    assert len(expected) >= len(attempt.change.keys)
    fill(path, attempt.change)

    perform(path, attempt)

    assert calls() == expected


def one_of_each(*, refused: bool) -> list[tuple[Path, Change]]:
    """One change for each path and operation."""
    chosen = {
        (path.title, change.operation): (path, change)
        for path, change in CELLS
        if change.refused is refused
    }
    return list(chosen.values())


@pytest.mark.parametrize(("path", "change"), one_of_each(refused=True), ids=str)
def test_a_refused_write_calls_no_receiver(path, change, write):  # noqa: F811
    attempt = write(path, change)
    fill(path, attempt.change)

    with pytest.raises((IntegrityError, psycopg.Error, SqlRefusal)):
        perform(path, attempt)

    assert not calls()


@contextmanager
def rolled_back_transaction() -> Iterator[None]:
    with transaction.atomic(durable=True):
        yield
        transaction.set_rollback(True)


@contextmanager
def rolled_back_savepoint() -> Iterator[None]:
    with transaction.atomic(durable=True):
        with transaction.atomic():
            yield
            transaction.set_rollback(True)
        Entry.objects.create(key=KEPT)


#: A row of the transaction that holds the savepoint.
KEPT = 77

TAKEN_BACK = {
    "transaction": (rolled_back_transaction, "BEGIN;\n{}ROLLBACK;\n", []),
    "savepoint": (
        rolled_back_savepoint,
        f"BEGIN;\nSAVEPOINT s;\n{{}}ROLLBACK TO s;\n"
        f"{insert_sql('twins_entry', [new_row(key=KEPT)])};\nCOMMIT;\n",
        [KEPT],
    ),
}


@pytest.mark.matrix(3, each=operation_of_path)
@pytest.mark.parametrize("how", TAKEN_BACK)
@pytest.mark.parametrize(("path", "change"), one_of_each(refused=False), ids=str)
def test_a_rolled_back_write_calls_no_receiver(how, path, change, write):  # noqa: F811
    block, script, kept = TAKEN_BACK[how]
    attempt = write(path, change)
    fill(path, attempt.change)

    if path.connects:
        run = attempt.psql
        path.run(replace(attempt, psql=lambda text: run(script.format(text))))
    else:
        with block():
            path.run(attempt)
            assert connection.in_atomic_block

    assert [call.key for call in calls()] == kept


@pytest.mark.parametrize("operation", Operation)
def test_the_matrix_notices_a_capture_that_is_off(operation):
    """Without this the matrix might be comparing nothing."""
    path = next(path for path in PATHS if path.title == "Raw SQL")
    change = next(c for c in path.changes() if c.operation is operation and not c.refused)
    expected = calls_on_the_twin(path, change)
    fill(path, change)

    with twin_tables.disabled(Entry, "bulksafe_capture"):
        perform(path, Write(Entry, change))

    assert expected
    assert not calls()


# Where receivers are called otherwise than by Django, on purpose.


def test_columns_of_both_tables_of_a_child_updated_in_autocommit_are_two_calls():
    """Django's ``update()`` is two statements then, and so two transactions."""
    values = {"discount": 15, "remark": "new"}
    twin_tables.fill(Memo, [stored_row(key=1)])
    Memo.objects.update(**values)
    assert sorted(sorted(call.changed) for call in calls()) == [
        ["discount", "double_net", "net"],
        ["remark"],
    ]

    twin_tables.fill(Memo, [stored_row(key=1)])
    with transaction.atomic():
        Memo.objects.update(**values)
    (call,) = calls()
    assert call.changed == {"discount", "double_net", "net", "remark"}
    assert dict(call.instance)["remark"] == "new"


def test_a_no_op_update_calls_receivers_like_a_save_without_changes():
    twin_tables.fill(Entry, [stored_row(key=1)])

    Entry.objects.update(seen=False)

    (call,) = calls()
    assert (call.created, call.changed) == (False, frozenset())
    assert call.instance == call.old


def test_a_move_to_another_partition_that_changes_the_primary_key_is_a_deletion_and_a_creation():
    """PostgreSQL reports it so, and no value is left that identifies the two as one row."""
    twin_tables.fill(Parcel, [stored_row(key=1)])

    execute("UPDATE twins_parcel SET key = 2001, seen = true WHERE key = 1")

    noted = sorted((call.signal, call.key, call.created) for call in calls())
    assert noted == [("post_delete", 1, None), ("post_save", 2001, True)]
