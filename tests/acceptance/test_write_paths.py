"""The write-path matrix: every path does what ``save()`` with signal receivers does on the twin.

A run takes each third cell, and ``test_receiver_paths`` and ``test_inline_paths`` take the others.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Model

import bulksafe
from bulksafe.declarations import label_of
from tests.acceptance import data_changes, twin_tables, write_path_table, write_paths
from tests.acceptance.committed import _django_db_helper, committed  # noqa: F401
from tests.acceptance.data_changes import (
    CHANGES,
    KINDS,
    Change,
    Kind,
    Operation,
    Row,
    Step,
)
from tests.acceptance.performing import browser, fill, perform, psql, write  # noqa: F401
from tests.acceptance.write_paths import PATHS, Path, SqlRefusal, Write, operation_of_path
from tests.apps.twins import receivers
from tests.apps.twins.models import TWINS, Document, Entry, Memo, Parcel

CELLS = [(path, change) for path in PATHS for change in path.changes()]


pytestmark = pytest.mark.django_db(transaction=True)


@dataclass(frozen=True)
class Outcome:
    """What became of a change: the rule that refused it, if one did, and the rows."""

    refused_by: str | None
    rows: list[Row]


_outcomes: dict[str, Outcome] = {}


def outcome_on_the_twin(path: Path, change: Change) -> Outcome:
    """Do the change row by row on the twin. Many paths ask for the same: it is done once."""
    asked = repr((path.model, change, path.steps(change)))
    if asked not in _outcomes:
        fill(path, change)
        _outcomes[asked] = do_on_the_twin(TWINS[path.model], path.steps(change))
    return _outcomes[asked]


def do_on_the_twin(twin: type[Model], steps: list[Step]) -> Outcome:
    refused_by = None
    try:
        with receivers.whole_transaction():
            twin_tables.write_per_row(twin, steps)
    except receivers.RefusedError as refused:
        refused_by = str(refused)
    return Outcome(refused_by, twin_tables.snapshot(twin))


def check_refusal(path: Path, kind: Kind, error: Exception) -> None:
    """The error names the invariant, in the way of the client that got it."""
    carrier = Document if path.model is Memo else path.model
    invariant = next(t for t in carrier._meta.triggers if t.name == kind.rule)
    # Rows lie in partitions. It is the second row that is refused, and that one has a low key.
    table = "twins_parcel_low" if path.model is Parcel else carrier._meta.db_table
    if path.in_django:
        assert isinstance(error, bulksafe.InvariantViolation)
        assert error.invariant == label_of(carrier, invariant)
        error = error.__cause__
    if isinstance(error, psycopg.Error):
        error = SqlRefusal(error.sqlstate, error.diag.table_name, error.diag.constraint_name)
    assert isinstance(error, SqlRefusal)
    assert error.args == ("23514", table, kind.rule)


def check_cell(path: Path, change: Change, attempt: Write) -> None:
    """The path does what the twin does."""
    expected = outcome_on_the_twin(path, attempt.change)
    assert expected.refused_by == (change.kind.rule if change.refused else None)
    fill(path, attempt.change)
    before = twin_tables.snapshot(path.model)

    if expected.refused_by:
        with pytest.raises((bulksafe.InvariantViolation, psycopg.Error, SqlRefusal)) as caught:
            perform(path, attempt)
        check_refusal(path, change.kind, caught.value)
        assert expected.rows == before
    else:
        twin_tables.check_instances(perform(path, attempt), path.model)
        assert expected.rows != before
    assert twin_tables.snapshot(path.model) == expected.rows


@pytest.mark.matrix(3, start=0, each=operation_of_path)
@pytest.mark.parametrize(("path", "change"), CELLS, ids=str)
def test_write_path(path, change, write):  # noqa: F811
    check_cell(path, change, write(path, change))


def test_the_page_is_up_to_date():
    stored = write_path_table.PAGE.read_text()

    assert stored == write_path_table.page(), "run python -m tests.acceptance.write_path_table"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)
def test_the_matrix_notices_a_trigger_that_is_off(kind):
    """Without this the matrix might be comparing nothing."""
    path = next(path for path in PATHS if path.title == "Raw SQL")
    changes = [change for change in path.changes() if change.kind is kind and change.illegal]

    for change in changes:
        with (
            twin_tables.disabled(Entry, kind.rule),
            pytest.raises((AssertionError, IntegrityError, pytest.fail.Exception)),
        ):
            check_cell(path, change, Write(Entry, change))
    assert changes


def test_a_deferred_check_lets_a_row_be_mended():
    twin_tables.fill(Entry, [])

    with transaction.atomic():
        Entry.objects.bulk_create(Entry(key=key, debit=5) for key in (1, 2))
        Entry.objects.filter(key=1).update(credit=5)
        Entry.objects.filter(key=2).delete()

    assert Entry.objects.get().credit == 5


def test_copy_on_the_connection_of_django_can_raise_the_error_of_django():
    twin_tables.fill(Entry, [])
    change = next(c for c in CHANGES if c.operation is Operation.INSERT and c.refused)

    with pytest.raises(bulksafe.InvariantViolation), connection.wrap_database_errors:
        write_paths.copy_from(Write(Entry, change))


@pytest.mark.parametrize("locked", [False, True])
def test_truncate_is_a_delete_of_all_rows(locked):
    twin_tables.fill(Entry, [data_changes.stored_row(key=1, locked=locked)])

    with (
        pytest.raises(bulksafe.InvariantViolation, match="locked_is_kept")
        if locked
        else nullcontext(),
        bulksafe.muted("twins.Entry:bulksafe_capture"),
    ):
        write_paths.execute("TRUNCATE twins_entry")

    assert Entry.objects.count() == int(locked)


_MORE_THAN_SAVE = pytest.mark.xfail(
    strict=True, reason="PostgreSQL moves a row with DELETE and INSERT: it looks new, and deleted"
)


@pytest.mark.parametrize(
    ("before", "values", "refused"),
    [
        ({}, "price = 999", True),
        ({}, "number = 'M'", True),
        ({}, "state = 'shipped'", True),
        ({}, "seen = true", False),
        pytest.param({"state": "paid"}, "seen = true", False, marks=_MORE_THAN_SAVE),
        pytest.param({"locked": True}, "seen = true", False, marks=_MORE_THAN_SAVE),
    ],
)
def test_an_update_that_moves_a_row_to_another_partition(before, values, refused):
    """It is an update like any other; rules for inserts and deletes should have no say in it."""
    twin_tables.fill(Parcel, [data_changes.stored_row(key=1, **before)])

    with pytest.raises(bulksafe.InvariantViolation) if refused else nullcontext():
        write_paths.execute(f"UPDATE twins_parcel SET key = 2001, {values} WHERE key = 1")
