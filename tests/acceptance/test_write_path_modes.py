"""The write-path matrix for rules with ``mode="observe"`` and ``mode="new"``.

The twin's receivers have the same modes. What is recorded of an observed rule is compared with a
query for the rows that break it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from django.db import connection
from django.db.models import F

import bulksafe
from bulksafe.declarations import label_of
from tests.acceptance import twin_tables
from tests.acceptance.committed import _django_db_helper, committed  # noqa: F401
from tests.acceptance.data_changes import (
    BROKEN_BEFORE,
    CHAINED,
    CHANGES,
    CHECK,
    COMPUTE,
    DEFERRED,
    KEYS,
    KINDS,
    NULLABLE,
)
from tests.acceptance.performing import browser, fill, perform, psql, write  # noqa: F401
from tests.acceptance.test_write_paths import do_on_the_twin
from tests.acceptance.write_paths import PATHS, SqlRefusal, operation_of_path
from tests.apps.twins import receivers
from tests.apps.twins.models import (
    TWINS,
    Document,
    DocumentTwin,
    Entry,
    EntryTwin,
    Memo,
    Parcel,
    ParcelTwin,
    Report,
    ReportTwin,
)

pytestmark = pytest.mark.django_db(transaction=True)

GUARDED = (Entry, Parcel, Document, Report)

#: The rows that break a rule over the row itself.
BROKEN = {
    CHECK: lambda rows: rows.filter(discount__gt=F("amount")),
    NULLABLE: lambda rows: rows.filter(amount__gt=F("ceiling")),
    DEFERRED: lambda rows: rows.exclude(debit=F("credit")),
    COMPUTE: lambda rows: rows.exclude(net=F("amount") - F("discount")),
    CHAINED: lambda rows: rows.exclude(double_net=F("net") * 2),
}


class Switch:
    """Gives one rule of all guarded tables another mode. A switch takes long: tests are sorted."""

    def __init__(self):
        self.rule = ""
        self.mode = "enforce"

    def to(self, rule, mode):
        if (rule, mode) != (self.rule, self.mode):
            self._set("enforce")
            self.rule = rule
            self._set(mode)

    def _set(self, mode):
        self.mode = mode
        receivers.modes.clear()
        receivers.modes[self.rule] = mode
        for model in GUARDED if self.rule else ():
            invariant = invariant_of(model, self.rule)
            with connection.cursor() as cursor:
                cursor.execute(invariant.compile(model).uninstall_sql)
                before, invariant.mode = invariant.mode, mode
                cursor.execute(invariant.compile(model).install_sql)
                # The tables may share the object.
                invariant.mode = before
        for invariant in {invariant_of(model, self.rule) for model in GUARDED if self.rule}:
            invariant.mode = mode


def invariant_of(model, rule):
    return next(trigger for trigger in model._meta.triggers if trigger.name == rule)


@contextmanager
def with_defaults() -> Iterator[None]:
    """Computed columns that have a value, also where an observed Compute sets none."""
    columns = [
        model._meta.get_field(name)
        for model in (*GUARDED, EntryTwin, ParcelTwin, DocumentTwin, ReportTwin)
        for name in ("net", "double_net")
    ]

    def change(value, clause):
        with connection.cursor() as cursor:
            for column in columns:
                column.default = value
                column.__dict__.pop("_get_default", None)
                table = column.model._meta.db_table
                cursor.execute(f"ALTER TABLE {table} ALTER {column.column} {clause}")

    before = columns[0].default
    change(0, "SET DEFAULT 0")
    yield
    change(before, "DROP DEFAULT")


@pytest.fixture(scope="module")
def switch(committed):  # noqa: F811
    switch = Switch()
    with with_defaults():
        yield switch
        switch.to("", "enforce")
    receivers.modes.clear()
    forget()


def cells(changes):
    listed = [
        (path, change)
        for path in PATHS
        for change in changes
        if change.operation in path.operations
    ]
    return sorted(listed, key=lambda cell: KINDS.index(cell[1].kind))


def recorded(path, kind):
    """The keys of the rows of which a violation is recorded, with their operation."""
    carrier = Document if path.model is Memo else path.model
    label = label_of(carrier, invariant_of(carrier, kind.rule))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT COALESCE(new, old) ->> 'key', source::text FROM bulksafe_violation "
            "WHERE invariant = %s",
            [label],
        )
        found = cursor.fetchall()
    assert all(table == carrier._meta.db_table for _, table in found)
    return sorted(int(key) for key, _ in found)


def forget():
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM bulksafe_violation")


def expected_records(path, change):
    """The keys of the rows of which a violation should be recorded."""
    if change.kind in BROKEN:
        written = {step.key for step in path.steps(change)}
        rows = TWINS[path.model]._default_manager.filter(key__in=written)
        return sorted(BROKEN[change.kind](rows).values_list("key", flat=True))
    return [KEYS[1]] if change.illegal else []


@pytest.mark.matrix(4, start=1, each=operation_of_path)
@pytest.mark.parametrize(("path", "change"), cells(CHANGES), ids=str)
def test_an_observed_rule_lets_pass_and_records(path, change, write, switch):  # noqa: F811
    switch.to(change.kind.rule, "observe")
    attempt = write(path, change)
    fill(path, attempt.change)
    expected = do_on_the_twin(TWINS[path.model], path.steps(attempt.change))
    assert expected.refused_by is None
    records = expected_records(path, attempt.change)
    fill(path, attempt.change)
    forget()

    perform(path, attempt)

    assert twin_tables.snapshot(path.model) == expected.rows
    assert recorded(path, change.kind) == records
    if change.illegal:
        assert records


@pytest.mark.matrix(4, start=2, each=operation_of_path)
@pytest.mark.parametrize(("path", "change"), cells([*CHANGES, *BROKEN_BEFORE]), ids=str)
def test_a_rule_for_new_violations(path, change, write, switch):  # noqa: F811
    switch.to(change.kind.rule, "new")
    attempt = write(path, change)
    fill(path, attempt.change)
    expected = do_on_the_twin(TWINS[path.model], path.steps(attempt.change))
    assert (expected.refused_by is not None) == change.refused
    fill(path, attempt.change)
    before = twin_tables.snapshot(path.model)

    if change.refused:
        with pytest.raises((bulksafe.InvariantViolation, psycopg.Error, SqlRefusal)):
            perform(path, attempt)
        assert twin_tables.snapshot(path.model) == before
    else:
        perform(path, attempt)
        assert twin_tables.snapshot(path.model) == expected.rows
