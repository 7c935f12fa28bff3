"""Driver errors are raised as Django's errors, and a broken invariant as bulksafe's."""

import ast
import pickle
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.db.models import Q
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save

import bulksafe
from bulksafe import InvariantViolation, ReceiversNotRun
from bulksafe.declarations.signals import signal_name
from bulksafe.writer.attaching import session_of
from tests.apps.columns.trying import install
from tests.apps.practice import models
from tests.apps.practice.models import CriticalBook as Book
from tests.apps.practice.models import CriticalTag as Tag
from tests.integration import inline
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
)

pytestmark = pytest.mark.django_db

TAGS = Tag._meta.db_table
PACKAGE = Path(bulksafe.__file__).parent

# Every place that uses the driver.

#: How the code names a connection of the driver's. The listener's own connections are not Django's.
DRIVERS = ("connection.connection", "driver", "_driver")
CURSORS = {"ClientCursor", "_OwnCursor"}
SENDS = {"cursor", "execute", "pipeline", "commit", "rollback", "transaction", "wait", "notifies"}


def uses_of_the_driver(path):
    """The lines that use the driver directly, and whether their errors are translated."""

    def visit(node, is_wrapped):
        if isinstance(node, ast.With):
            for item in node.items:
                yield from visit(item.context_expr, is_wrapped)
                is_wrapped = is_wrapped or ast.unparse(item.context_expr).endswith(
                    ".wrap_database_errors"
                )
            for inner in node.body:
                yield from visit(inner, is_wrapped)
            return
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if node.func.attr in SENDS and owner.endswith(DRIVERS) and owner != "self.connection":
                yield node.lineno, is_wrapped
        if isinstance(node, ast.Call) and ast.unparse(node.func) in CURSORS:
            yield node.lineno, is_wrapped
        for child in ast.iter_child_nodes(node):
            yield from visit(child, is_wrapped)

    return list(visit(ast.parse(path.read_text()), is_wrapped=False))


def test_every_use_of_the_driver_is_translated():
    found = {
        f"{path.relative_to(PACKAGE)}:{line}": is_wrapped
        for path in sorted(PACKAGE.rglob("*.py"))
        if "listener" not in path.parts
        for line, is_wrapped in uses_of_the_driver(path)
    }

    assert len(found) >= 3
    assert [place for place, is_wrapped in found.items() if not is_wrapped] == []


# An error at any statement.


class Injection:
    """Lets the statement of a number fail as PostgreSQL may let every statement fail."""

    def __init__(self):
        self.left = None
        self.text = ""
        self.has_failed = False

    def arm(self, number, text=""):
        """The nth statement that contains the text fails."""
        self.left, self.text, self.has_failed = number, text, False

    def disarm(self):
        self.left = None

    def step(self, statement):
        if self.left is None or self.has_failed or self.text not in statement:
            return
        self.left -= 1
        if self.left < 0:
            self.has_failed = True
            raise psycopg.errors.SerializationFailure("injected")


@pytest.fixture
def injection(monkeypatch):
    injected = Injection()
    for owner, name in ((psycopg.Cursor, "execute"), (psycopg.Connection, "commit")):
        original = getattr(owner, name)

        def failing(self, *args, _original=original, **kwargs):
            injected.step(str(args[0]) if args else "COMMIT")
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, failing)
    return injected


def note(sender, instance, old=None, changed=None, **kwargs):
    models.Log.objects.count()


def reconnect():
    """A new connection, and no rows that an earlier failure has left."""
    connection.close()
    connection.ensure_connection()
    with connection.connection.transaction():
        connection.connection.execute("SET LOCAL session_replication_role = replica")
        connection.connection.execute(f"DELETE FROM {TAGS}")


def save():
    tag = Tag(name="one")
    tag.save()
    tag.name = "two"
    tag.save()
    tag.delete()


def bulk():
    Tag.objects.bulk_create([Tag(name="one"), Tag(name="two")])
    Tag.objects.update(name="three")
    Tag.objects.all().delete()


def raw():
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {TAGS} (name, used) VALUES ('raw', 1), ('rare', 2)")
        cursor.execute(f"UPDATE {TAGS} SET name = 'changed'")
        cursor.execute(f"DELETE FROM {TAGS}")


def with_driver_cursor():
    with transaction.atomic():
        Tag.objects.count()
        with connection.wrap_database_errors:
            connection.connection.execute(f"INSERT INTO {TAGS} (name, used) VALUES ('past', 1)")


def in_a_context():
    with bulksafe.context(user=1):
        bulk()


def in_a_transaction():
    with transaction.atomic():
        save()
        bulk()


def fails(injection, work):
    """Whether the armed injection has failed the work; with Django's error, if so."""
    try:
        work()
    except Exception as error:
        raised = error
    else:
        raised = None
    injection.disarm()
    assert injection.has_failed is (raised is not None)
    if raised is not None and not isinstance(raised, OperationalError):
        raise raised
    return raised is not None


WORKS = [save, bulk, raw, with_driver_cursor, in_a_context, in_a_transaction]
RECEIVERS = {
    "before": [pre_save, pre_delete],
    "after": [post_save, post_delete],
    "both": [pre_save, post_save, pre_delete, post_delete],
}


@pytest.mark.parametrize("signals", RECEIVERS)
@pytest.mark.parametrize("work", WORKS)
def test_an_error_at_any_statement_is_djangos(injection, work, signals):
    for signal in RECEIVERS[signals]:
        inline.critical(signal, Tag, note, dispatch_uid=signal_name(signal))
    failures = 0
    while True:
        reconnect()
        injection.arm(failures)
        if not fails(injection, work):
            break
        failures += 1

    assert failures >= 3


def test_an_error_at_any_statement_of_a_manager_is_djangos(injection):
    inline.critical(m2m_changed, Book.tags.through, note)
    book = Book.objects.create(title="one")
    tag = Tag.objects.create(name="one")
    failures = 0

    def link():
        book.tags.add(tag)
        book.tags.clear()

    while True:
        connection.close()
        injection.arm(failures)
        if not fails(injection, link):
            break
        failures += 1

    assert failures >= 3


def test_a_conflict_of_serializable_transactions_can_be_retried(injection):
    """The one that was reported: asking for the prefix of the events' ids."""
    inline.critical(post_save, Tag, note)

    connection.close()
    session_of(connections["default"]).buffer._prefix = ""
    injection.arm(0, "bulksafe_prefix")

    assert fails(injection, raw)


# A broken invariant.


@pytest.fixture
def rule():
    install(Tag, bulksafe.Check(Q(used__gte=0), name="used_not_negative", message="Not below 0."))


def copy(cursor):
    with cursor.copy(f"COPY {TAGS} (name, used) FROM STDIN") as rows:
        rows.write_row(("one", 1))
        rows.write_row(("two", -1))


def stream(cursor):
    list(cursor.stream(f"INSERT INTO {TAGS} (name, used) VALUES ('one', -1) RETURNING id"))


def execute(cursor):
    cursor.execute(f"INSERT INTO {TAGS} (name, used) VALUES ('one', -1)")


def executemany(cursor):
    text = f"INSERT INTO {TAGS} (name, used) VALUES (%s, %s)"
    cursor.executemany(text, [("one", 1), ("two", -1)])


STATEMENTS = [copy, stream, execute, executemany]
ENVIRONMENTS = {
    "in autocommit": nullcontext,
    "in a transaction": transaction.atomic,
    "with a context": lambda: bulksafe.context(user=1),
}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize("is_drivers", [False, True], ids=["django", "driver"])
def test_a_violation_raises_bulksafe_s_error_through_every_cursor(
    rule, statement, environment, is_drivers
):
    connection.ensure_connection()
    owner = connection.connection if is_drivers else connection

    with (
        pytest.raises(InvariantViolation, match="Not below 0") as caught,
        ENVIRONMENTS[environment](),
        owner.cursor() as cursor,
    ):
        statement(cursor)

    assert caught.value.invariant == "practice.CriticalTag:used_not_negative"
    assert caught.value.message == "Not below 0."
    assert isinstance(caught.value, IntegrityError)
    assert isinstance(caught.value.__cause__, psycopg.errors.CheckViolation)
    assert caught.value.__cause__.diag.constraint_name == "used_not_negative"
    assert type(pickle.loads(pickle.dumps(caught.value))) is InvariantViolation
    assert Tag.objects.count() == 0
    if is_drivers:
        # Code with the driver's cursors catches this class.
        assert isinstance(caught.value, psycopg.errors.CheckViolation)
        assert caught.value.diag.table_name == TAGS
        assert caught.value.sqlstate == "23514"


def test_receivers_that_have_not_run_with_a_cursor_of_the_drivers():
    """In autocommit the commit is the statement's."""
    inline.critical(post_save, Tag, note)
    connection.ensure_connection()

    with pytest.raises(ReceiversNotRun) as caught:
        connection.connection.execute(f"INSERT INTO {TAGS} (name, used) VALUES ('one', 1)")

    assert isinstance(caught.value, psycopg.IntegrityError)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), ReceiversNotRun)


def test_a_copy_raises_the_error_of_its_block(rule):

    def break_off():
        with (
            connection.cursor() as cursor,
            cursor.copy(f"COPY {TAGS} (name, used) FROM STDIN") as rows,
        ):
            rows.write_row(("two", -1))
            raise LookupError

    with pytest.raises(LookupError):
        break_off()

    assert Tag.objects.count() == 0


@pytest.mark.parametrize("is_drivers", [False, True], ids=["django", "driver"])
def test_other_errors_of_a_copy_stay_the_drivers(rule, is_drivers):
    """As in Django, whose cursor has no ``copy()`` of its own."""
    connection.ensure_connection()
    owner = connection.connection if is_drivers else connection
    with (
        pytest.raises(psycopg.errors.UniqueViolation),
        owner.cursor() as cursor,
        cursor.copy(f"COPY {TAGS} (id, name, used) FROM STDIN") as rows,
    ):
        rows.write(b"1\tone\t1\n1\ttwo\t1\n")
