"""The write-path matrix for receivers in the writer's transaction.

Every write through Django calls the receivers as per-row saves call plain ones, before and after
the write. A write that bypasses Django is refused at the commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext

import psycopg
import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

import bulksafe
from bulksafe.declarations import Capture, receivers
from bulksafe.patches.signals import connect_critical, disconnect_critical
from tests.acceptance import twin_tables
from tests.acceptance.committed import _django_db_helper, committed  # noqa: F401
from tests.acceptance.data_changes import COMPUTED, Operation
from tests.acceptance.performing import browser, fill, perform, psql, write  # noqa: F401
from tests.acceptance.test_receiver_paths import CELLS, one_of_each
from tests.acceptance.write_paths import PATHS, SqlRefusal, Write, operation_of_path
from tests.apps.columns.trying import install
from tests.apps.twins import receivers as rules
from tests.apps.twins import signals
from tests.apps.twins.models import TWINS, Entry
from tests.integration import reception

pytestmark = pytest.mark.django_db(transaction=True)

#: What was called, on either side, as (signal, …): see ``before`` and ``after``.
calls: list[tuple] = []

TICKET = "bulksafe_ticket_open"


class RefusedError(Exception):
    """What a receiver raises."""


#: Which call of which receiver raises, as ("pre_save", 2).
refusing: set[tuple[str, int]] = set()


def refuse(name):
    if (name, [call[0] for call in calls].count(name)) in refusing:
        raise RefusedError(name)


def row_of(instance):
    """Without what only the database computes."""
    row = signals.row_of(instance)
    return row and tuple(pair for pair in row if pair[0] not in COMPUTED)


def before(signal, sender, instance, **kwargs):
    """A receiver that comes before the write notes the row beside the one that is stored."""
    name = "pre_save" if signal is pre_save else "pre_delete"
    stored = sender.objects.filter(key=instance.key).first()
    label = sender.__name__.removesuffix("Twin")
    calls.append((name, label, row_of(instance), signals.row_of(stored)))
    refuse(name)


def after(signal, sender, instance, created=None, **kwargs):
    """One that comes after it notes the row that it got and the one that is stored by then."""
    name = "post_save" if signal is post_save else "post_delete"
    stored = sender.objects.filter(key=instance.key).first()
    label = sender.__name__.removesuffix("Twin")
    calls.append((name, label, created, signals.row_of(instance), signals.row_of(stored)))
    refuse(name)


@pytest.fixture(scope="module", autouse=True)
def critical_receivers(committed) -> Iterator[None]:  # noqa: F811
    """Replaces the installed captures with captures for receivers in the transaction."""
    plain = [
        (signal, function, twin)
        for twin in TWINS.values()
        for signals_, function in (
            ((pre_save, pre_delete), before),
            ((post_save, post_delete), after),
        )
        for signal in signals_
    ]
    for signal, function, twin in plain:
        signal.connect(function, sender=twin)
    with reception.only_these():
        for signal, function in (
            ([pre_save, pre_delete], before),
            ([post_save, post_delete], after),
        ):
            uid = f"inline.{function.__name__}"
            bulksafe.critical(signal, sender=list(TWINS), dispatch_uid=uid)(function)
        declared = list(receivers.receivers)
        for receiver in declared:
            connect_critical(receiver)
        for table in _tables():
            install(table, Capture())
        yield
        for receiver in declared:
            disconnect_critical(receiver)
    for signal, function, twin in plain:
        signal.disconnect(function, sender=twin)
    for table in _tables():
        install(table, Capture())


def _tables():
    found = {}
    for model in TWINS:
        for table in (model, *model._meta.get_parent_list()):
            found[table] = None
    return list(found)


@pytest.fixture(autouse=True)
def nothing_noted() -> Iterator[None]:
    calls.clear()
    yield
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM bulksafe_buffer")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT count(*) FROM bulksafe_ticket")
        assert cursor.fetchone() == (0,)


_on_the_twin: dict[str, Counter] = {}


def on_the_twin(path, change) -> Counter:
    """The calls of plain receivers, if the change is made with one ``save()`` a row."""
    asked = repr((path.model, change, path.steps(change)))
    if asked not in _on_the_twin:
        fill(path, change)
        calls.clear()
        with rules.whole_transaction():
            twin_tables.write_per_row(TWINS[path.model], path.steps(change))
        _on_the_twin[asked] = Counter(calls)
    calls.clear()
    return _on_the_twin[asked]


#: Ways to write that pass Django's cursors by, in a transaction of their own.
def bypasses_django(path) -> bool:
    return bool(path.connects) or path.title.startswith("`COPY")


@pytest.mark.matrix(3, start=2, each=operation_of_path)
@pytest.mark.parametrize(
    ("path", "change"), [cell for cell in CELLS if not cell[1].refused], ids=str
)
def test_every_changed_row_reaches_the_receivers_or_the_writer_is_refused(
    path,
    change,
    write,  # noqa: F811
):
    attempt = write(path, change)
    expected = on_the_twin(path, attempt.change)
    fill(path, attempt.change)

    if bypasses_django(path):
        before_it = twin_tables.snapshot(path.model)
        with pytest.raises((psycopg.IntegrityError, SqlRefusal)) as refusal:
            perform(path, attempt)
        error = refusal.value
        constraint = (
            error.constraint if isinstance(error, SqlRefusal) else error.diag.constraint_name
        )
        assert constraint == TICKET
        assert not calls
        assert twin_tables.snapshot(path.model) == before_it
        return
    perform(path, attempt)

    assert delivered(path, expected) == expected


def delivered(path, expected: Counter) -> Counter:
    """The calls, without those before the write for objects that it then leaves out."""
    found = Counter(calls)
    if path.title.startswith("`bulk_create(ignore_conflicts"):
        left_out = found - expected
        assert all(call[0] == "pre_save" for call in left_out)
        found -= left_out
    return found


def first_call(parameters):
    """Not every change makes a second one."""
    return operation_of_path(parameters) if parameters["nth"] == 1 else None


@pytest.mark.matrix(3, each=first_call)
@pytest.mark.parametrize("when", ["pre", "post"])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize(("path", "change"), one_of_each(refused=False), ids=str)
def test_a_receiver_s_error_propagates_and_nothing_is_stored(
    nth,
    when,
    path,
    change,
    write,  # noqa: F811
):
    if bypasses_django(path):
        pytest.skip("It is refused as it is.")
    attempt = write(path, change)
    kind = "delete" if change.operation is Operation.DELETE else "save"
    name = f"{when}_{kind}"
    expected = on_the_twin(path, attempt.change)
    if sum(number for call, number in expected.items() if call[0] == name) < nth:
        pytest.skip("There are not that many calls.")
    fill(path, attempt.change)
    before_it = twin_tables.snapshot(path.model)
    refusing.add((name, nth))
    try:
        with pytest.raises(RefusedError, match=name):
            perform(path, attempt)
    finally:
        refusing.clear()

    assert twin_tables.snapshot(path.model) == before_it


@pytest.mark.parametrize(("path", "change"), one_of_each(refused=True), ids=str)
def test_a_write_that_the_database_refuses_leaves_nothing(
    path,
    change,
    write,  # noqa: F811
):
    attempt = write(path, change)
    fill(path, attempt.change)
    before_it = twin_tables.snapshot(path.model)

    with pytest.raises((IntegrityError, psycopg.Error, SqlRefusal)):
        perform(path, attempt)

    assert twin_tables.snapshot(path.model) == before_it


@pytest.mark.matrix(3, each=operation_of_path)
@pytest.mark.parametrize("how", ["transaction", "savepoint"])
@pytest.mark.parametrize(("path", "change"), one_of_each(refused=False), ids=str)
def test_a_rolled_back_write_leaves_nothing_to_deliver(
    how,
    path,
    change,
    write,  # noqa: F811
):
    if path.connects:
        pytest.skip("It is refused as it is.")
    attempt = write(path, change)
    expected = on_the_twin(path, attempt.change)
    fill(path, attempt.change)
    before_it = twin_tables.snapshot(path.model)

    inner = transaction.atomic() if how == "savepoint" else nullcontext()
    with transaction.atomic(durable=True), inner:
        path.run(attempt)
        transaction.set_rollback(True)

    if not bypasses_django(path):
        assert delivered(path, expected) == expected
    assert twin_tables.snapshot(path.model) == before_it


@pytest.mark.parametrize("operation", Operation)
def test_the_matrix_notices_a_capture_that_is_off(operation):
    """Without this the matrix might be comparing nothing."""
    path = next(path for path in PATHS if path.title == "Raw SQL")
    change = next(c for c in path.changes() if c.operation is operation and not c.refused)
    expected = on_the_twin(path, change)
    fill(path, change)

    with bulksafe.muted("twins.Entry:bulksafe_capture"):
        perform(path, Write(Entry, change))

    assert expected
    assert not calls
