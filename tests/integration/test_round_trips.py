"""Commands in front of statements, and rows after them: only the server sees them."""

import psycopg
import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q
from django.db.models.signals import post_delete, post_save, pre_save
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from bulksafe.exceptions import BrokenTransaction
from tests.acceptance.sending import assign, see, see_old
from tests.acceptance.wire import traced
from tests.apps.practice.models import CriticalTag as Tag
from tests.apps.practice.models import Log
from tests.integration import inline_committed as inline
from tests.integration.inline_committed import (  # noqa: F401
    _django_db_helper,
    clean,
    committed,
)

pytestmark = pytest.mark.django_db(transaction=True)

TAGS = Tag._meta.db_table


def tag(name="tag"):
    return Tag.objects.create(name=name, used=1)


def names():
    return sorted(Tag.objects.values_list("name", flat=True))


def sent(write):
    """What reaches the server."""
    connection.ensure_connection()
    with traced(connection.connection) as lines:
        write()
    return lines


def in_block(first, second, block=None):
    with block or transaction.atomic():
        first()
        second()


def refuse(instance, **kwargs):
    if instance.name == "refused":
        raise ValidationError("refused")


# What is sent.


def test_an_error_before_the_first_statement_sends_nothing():
    inline.critical(pre_save, Tag, refuse)
    tag()

    def write():
        with pytest.raises(ValidationError):
            tag("refused")

    assert sent(write) == []
    with transaction.atomic():
        assert sent(write) == []
        tag("later")
    assert names() == ["later", "tag"]


def test_a_savepoint_is_released_with_the_next_statement():
    inline.critical(post_save, Tag, see)
    tag()
    with transaction.atomic():
        tag("a")
        lines = sent(lambda: tag("b"))
    assert [line.split(" INTO")[0] for line in lines] == [
        "RELEASE SAVEPOINT s1; SAVEPOINT s2; INSERT"
    ]
    assert names() == ["a", "b", "tag"]


def test_a_refusal_that_is_caught_undoes_its_write_alone():
    inline.critical(post_save, Tag, refuse)
    tag()
    with transaction.atomic():
        tag("a")
        with pytest.raises(ValidationError):
            tag("refused")
        tag("b")
        with pytest.raises(ValidationError):
            in_block(lambda: tag("c"), lambda: tag("refused"))
    assert names() == ["a", "b", "tag"]


def test_savepoints_of_others_stay_in_order():
    inline.critical(post_save, Tag, see)
    tag()
    with transaction.atomic():
        tag("a")
        outer = connection.savepoint()
        tag("b")
        with connection.connection.transaction():
            tag("c")
        connection.savepoint_rollback(outer)
        tag("d")
        with pytest.raises(ZeroDivisionError):
            in_block(lambda: tag("e"), lambda: 1 / 0, connection.connection.transaction())
    assert names() == ["a", "d", "tag"]


def test_a_command_of_the_driver_s_comes_after_those_that_wait():
    """COPY, VACUUM and the like cannot share a message with others."""
    inline.critical(post_delete, Tag, see)
    first = tag()
    with transaction.atomic(), connection.cursor() as cursor:
        first.delete()
        with cursor.copy(f"COPY {Log._meta.db_table} TO STDOUT") as rows:
            assert list(rows) == []
        cursor.execute("LOCK TABLE " + TAGS)
        cursor.executemany(f"INSERT INTO {TAGS} (name, used) VALUES (%s, 1)", [("a",), ("b",)])
        with connection.connection.pipeline():
            cursor.execute("SELECT 2")
            assert cursor.fetchall() == [(2,)]
        assert list(cursor.stream("SELECT 1")) == [(1,)]
    assert names() == ["a", "b"]


# Errors.


@pytest.mark.parametrize("sql", ["SELECT 1,\n  nothing", "SELECT 1 FROM nowhere", "SELECT )"])
def test_an_error_has_its_position_in_the_statement(sql):
    def errors():
        for _ in range(2):
            with pytest.raises(DatabaseError) as caught:
                in_block(tag, lambda: inline.execute(sql))
            error = caught.value.__cause__
            yield str(error), error.diag.statement_position, error.diag.sqlstate

    plain = list(errors())
    inline.critical(post_save, Tag, see)
    assert list(errors()) == plain


def swallow_syntax_error(instance, **kwargs):
    with pytest.raises(DatabaseError):
        inline.execute("SELECT )")


def test_a_syntax_error_leaves_the_transaction_usable():
    inline.critical(pre_save, Tag, swallow_syntax_error)
    for _ in range(2):
        with transaction.atomic():
            inline.execute("SELECT 1")
            with pytest.raises(BrokenTransaction, match="caught a database error"):
                tag("refused")
            inline.execute("SELECT 1")
    assert names() == []


def interval(instance, **kwargs):
    """One text: with a number it is a syntax error."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT INTERVAL %s", ["1 day" if instance.name == "tag" else 5])


def test_a_syntax_error_of_a_parameter_marks_the_block_for_rollback():
    """The savepoint was not set: going on would keep what the write has to undo."""
    inline.critical(pre_save, Tag, interval)
    tag()
    with transaction.atomic():
        Log.objects.exists()
        with pytest.raises(DatabaseError, match="syntax error"):
            tag("refused")
        with pytest.raises(TransactionManagementError):
            Log.objects.exists()
    assert names() == ["tag"]


# Results.


@pytest.mark.parametrize("function", [see, see_old])
@pytest.mark.parametrize(
    "sql",
    [
        f"UPDATE {TAGS} SET used = used + 1",
        f"UPDATE {TAGS} SET used = used + 1 -- more",
        f"UPDATE {TAGS} SET used = used + 1;",
        f"UPDATE {TAGS} SET used = used + 1 RETURNING name, used",
        f"INSERT INTO {TAGS} (name, used) VALUES ('new', 1) RETURNING name",
        f"DELETE FROM {TAGS} WHERE name = 'none'",
        f"UPDATE {TAGS} SET used = 5; SELECT 1, 2; DELETE FROM {TAGS} RETURNING name",
    ],
)
def test_a_cursor_has_the_results_of_its_statement_alone(sql, function):
    def results():
        for _ in range(3):
            Tag.objects.all()._raw_delete("default")
            tag("a")
            tag("b")
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(sql)
                has_next = True
                while has_next:
                    columns = [column.name for column in cursor.description or ()]
                    rows = cursor.fetchall() if cursor.description else []
                    yield columns, rows, cursor.rowcount, cursor.statusmessage
                    has_next = cursor.nextset()

    plain = list(results())
    inline.critical([post_save, post_delete], Tag, function)
    # The first write of a receiver may be staged, to observe it.
    list(results())
    assert list(results()) == plain


def test_rows_come_back_with_their_statement():
    seen = []

    def note(instance, old, changed, **kwargs):
        seen.append((old and old.used, instance.used, changed))

    inline.critical(post_save, Tag, note)
    one = tag()
    one.save()
    # The first update() is staged, to observe the receiver, and the second looks up its tables.
    for _ in range(2):
        Tag.objects.update(used=F("used") + 1)
    del seen[:]
    one.used = 7
    saved = sent(one.save)
    updated = sent(lambda: Tag.objects.update(used=F("used") + 1))
    assert (len(saved), len(updated)) == (2, 2), [x[:100] for x in updated]
    assert seen == [(3, 7, {"used"}), (7, 8, {"used"})]


def test_rows_that_came_back_go_with_a_rollback():
    calls = inline.critical(post_save, Tag, when=Q(new__used__gt=0))
    tag()
    tag()
    calls.clear()
    with pytest.raises(ZeroDivisionError):
        in_block(lambda: tag("gone"), lambda: 1 / 0)
    tag("kept")
    assert [call["instance"].name for call in calls] == ["gone", "kept"]


def test_a_role_that_may_not_take_the_rows_is_told_so():
    inline.critical(post_save, Tag, see_old)
    tag()
    tag()
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE no_taker")
        try:
            cursor.execute(f"GRANT ALL ON {TAGS} TO no_taker")
            cursor.execute(f"GRANT ALL ON SEQUENCE {TAGS}_id_seq TO no_taker")
            cursor.execute("SET ROLE no_taker")
            with pytest.raises(DatabaseError, match="WRITER_ROLES"):
                tag("refused")
        finally:
            cursor.execute("RESET ROLE")
            cursor.execute("DROP OWNED BY no_taker")
            cursor.execute("DROP ROLE no_taker")
    assert names() == ["tag", "tag"]


# Logs.

WRITES = {
    "save": lambda: Tag(name="new", used=1).save(),
    "save again": lambda: Tag.objects.order_by("pk").first().save(),
    "update_fields": lambda: Tag.objects.order_by("pk").first().save(update_fields=["used"]),
    "delete": lambda: Tag.objects.order_by("pk").first().delete(),
    "bulk_create": lambda: Tag.objects.bulk_create([Tag(name="new", used=1) for _ in range(3)]),
    "bulk_update": lambda: Tag.objects.bulk_update(Tag.objects.order_by("pk")[:2], ["used"]),
    "update": lambda: Tag.objects.update(used=F("used") + 1),
    "SQL": lambda: inline.execute(f"UPDATE {TAGS} SET used = used + 1"),
}


def watched(execute, sql, params, many, context):
    watched.seen.append((sql, params, many))
    return execute(sql, params, many, context)


def logged(write):
    """What Django's logs and a user's execute wrapper see of a write that was made before."""
    for _ in range(2):
        Tag.objects.all()._raw_delete("default")
        for number in range(3):
            Tag(pk=number + 1, name="tag", used=1).save(force_insert=True)
        connection.cursor().execute(f"ALTER SEQUENCE {TAGS}_id_seq RESTART WITH 100")
        watched.seen = []
        with CaptureQueriesContext(connection) as captured, connection.execute_wrapper(watched):
            write()
    return [query["sql"] for query in captured.captured_queries], watched.seen


@pytest.mark.parametrize("is_atomic", [False, True])
@pytest.mark.parametrize(
    "receivers",
    [
        [(post_save, see, {})],
        [(post_save, see_old, {})],
        [(post_save, see, {"when": Q(new__used__gt=0)})],
        [(post_delete, see, {})],
        [(pre_save, assign, {}), (post_save, see, {})],
        [(pre_save, see_old, {})],
    ],
)
def test_logs_have_what_django_sends(receivers, is_atomic):
    # The update() of a table with pre_save receivers is a different statement.
    is_early = any(signal is pre_save for signal, _, _ in receivers)
    writes = {name: w for name, w in WRITES.items() if not (is_early and name in {"update", "SQL"})}

    def all_logged():
        found = {}
        for name, write in writes.items():
            with transaction.atomic() if is_atomic else connection.cursor():
                found[name] = logged(write)
        return found

    plain = all_logged()
    for signal, function, options in receivers:
        inline.critical(signal, Tag, function, **options)
    found = all_logged()
    if any(function is assign for _, function, _ in receivers):
        plain, found = ({n: [len(x) for x in one] for n, one in f.items()} for f in (plain, found))
    assert found == plain


def comment(execute, sql, params, many, context):
    """As packages do that name the request in the database's log."""
    context["cursor"].cursor.execute("SET LOCAL application_name = 'shop'")
    return execute(f"/* before */ {sql} /* after */", params, many, context)


def rewrite(execute, sql, params, many, context):
    return execute(sql.replace("UPDATE ", "UPDATE  "), params, many, context)


@pytest.mark.parametrize("wrapper", [comment, rewrite])
@pytest.mark.parametrize("function", [see, see_old])
def test_execute_wrappers_of_users_may_change_statements(wrapper, function):
    calls = []

    def note(instance, **kwargs):
        calls.append((instance.name, instance.used))

    def note_old(instance, old, **kwargs):
        note(instance)

    inline.critical(post_save, Tag, note if function is see else note_old)
    for _ in range(2):
        tag()
        Tag.objects.update(used=2)
    calls.clear()
    with transaction.atomic(), connection.execute_wrapper(wrapper):
        one = tag("one")
        one.used = 5
        one.save()
        assert Tag.objects.update(used=F("used") + 1) == 3
    assert calls == [("one", 1), ("one", 5), ("tag", 3), ("tag", 3), ("one", 6)]


def test_bulksafe_s_own_queries_are_in_its_logger(caplog):
    inline.critical(post_save, Tag, see_old)
    with caplog.at_level("DEBUG", logger="bulksafe.sql"):
        tag()
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert "BEGIN" in text
    assert "bulksafe_take" in text


def test_psycopg_has_what_is_extended():
    """Private methods of psycopg's: a release without them fails here."""
    for owner, name in (
        (psycopg.ClientCursor, "_execute_send"),
        (psycopg.ClientCursor, "_check_results"),
        (psycopg.Connection, "_start_query"),
        (psycopg.Connection, "_exec_command"),
        (psycopg.Connection, "_get_tx_start_command"),
    ):
        assert callable(getattr(owner, name))
