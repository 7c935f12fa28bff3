"""Which receivers are called, in which order, with which changes of a row."""

from __future__ import annotations

import pgtrigger
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import IntegrityError, connection, models, transaction
from django.db.models import F, Q
from django.db.models.signals import post_delete, post_save
from django.dispatch import Signal

import bulksafe
from bulksafe import testing
from bulksafe.declarations import Emit, receivers
from tests.apps.columns.models import Cell, NamedLikeSQL, Nullable, Wide
from tests.apps.twins.models import Columns, Document, DocumentTwin, Entry, Memo, Paper, Report
from tests.integration import reception
from tests.unit.declaring import declare, isolated, tables

pytestmark = pytest.mark.django_db

SIGNALS = [post_save, post_delete]


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with reception.only_these():
        yield


def execute(text, params=None):
    with connection.cursor() as cursor:
        cursor.execute(text, params)


def seen(calls):
    """Each call as ``n`` before and after it."""
    return [
        (
            call["old"].n if call["old"] else None,
            call["instance"].n if call["signal"] is post_save else "gone",
        )
        for call in calls.delivered()
    ]


# Declaring.


def test_one_function_runs_for_each_of_its_signals():
    calls = reception.declare(SIGNALS, Nullable, "uid")
    assert [receiver.name for receiver in receivers.receivers] == [
        "uid.post_save",
        "uid.post_delete",
    ]
    reception.capture(Nullable)
    Nullable.objects.create(n=1).delete()
    assert seen(calls) == [(None, 1), (1, "gone")]


def test_one_function_for_several_senders_under_one_name_is_kept_for_each():
    """The system check reports the duplicate name; no receiver is dropped silently."""
    calls = reception.Calls()
    for sender in (Nullable, Wide, Nullable):
        bulksafe.critical(post_save, sender=sender, run="after_commit", dispatch_uid="uid")(calls)
    assert [receiver.senders for receiver in receivers.receivers] == [(Nullable,), (Wide,)]


def test_a_module_that_is_imported_twice_declares_once():
    def declare_it():
        @bulksafe.critical(post_save, sender=Nullable, run="after_commit")
        def receive(**kwargs):
            raise AssertionError

    declare_it()
    declare_it()
    assert len(receivers.receivers) == 1


def test_senders_of_every_kind():
    received = {
        name: reception.declare(post_save, sender, name)
        for name, sender in {
            "class": Nullable,
            "label": "columns.Nullable",
            "list": [Wide, "columns.nullable"],
            "tuple": (Wide, Nullable),
            "twice": [Nullable, "columns.Nullable"],
            "other": Wide,
        }.items()
    }
    reception.capture(Nullable)
    Nullable.objects.create(n=1)
    testing.deliver()

    assert {name: len(calls) for name, calls in received.items()} == {
        "class": 1,
        "label": 1,
        "list": 1,
        "tuple": 1,
        "twice": 1,
        "other": 0,
    }


def test_a_proxy_stands_for_its_table_and_the_sender_is_the_concrete_model():
    with isolated():
        thing = declare(class_name="Thing", n=models.IntegerField())
        proxy = declare(class_name="Special", bases=(thing,), meta={"proxy": True})
        with tables(thing):
            calls = reception.declare(SIGNALS, proxy)
            reception.capture(thing)
            thing.objects.create(n=1)
            proxy.objects.create(n=2)
            assert seen(calls) == [(None, 1), (None, 2)]
            assert {(call["sender"], type(call["instance"])) for call in calls} == {(thing, thing)}


def test_an_abstract_sender_stands_for_every_model_with_a_table():
    calls = reception.declare(post_save, Columns)
    (receiver,) = receivers.receivers
    assert {model._meta.object_name for model in receiver.models()} == {
        *("Entry", "Parcel", "Document", "Memo", "Report"),
        *(f"{name}Twin" for name in ("Entry", "Parcel", "Document", "Memo", "Report")),
    }
    reception.capture(DocumentTwin)
    with transaction.atomic():
        DocumentTwin.objects.bulk_create([DocumentTwin(key=1, net=1, double_net=2)])
    assert [call["sender"] for call in calls.delivered()] == [DocumentTwin]


def test_a_model_of_another_package():
    calls = reception.declare(post_save, "auth.User")
    reception.capture(User)
    User.objects.bulk_create([User(username="ann")])
    assert [call["instance"].username for call in calls.delivered()] == ["ann"]


# In which order.


def test_after_orders_receivers_and_declaration_order_breaks_ties():
    order = []
    for name, after in [("d", ["b"]), ("a", []), ("c", ["d"]), ("b", []), ("e", [])]:

        def receive(instance, name=name, **kwargs):
            order.append((instance.n, name))

        bulksafe.critical(
            post_save,
            sender=Nullable,
            run="after_commit",
            dispatch_uid=name,
            after=after,
        )(receive)
    reception.capture(Nullable)
    Nullable.objects.bulk_create([Nullable(n=1), Nullable(n=2)])
    testing.deliver()

    assert order == [(n, name) for n in (1, 2) for name in "bdace"]


def test_a_batch_runs_once_and_receivers_after_it_run_next():
    order = []

    def receive(name):
        def function(instance=None, instances=(), events=(), **kwargs):
            order.append((name, instance.n if instance else [i.n for i in instances]))
            assert [event.instance for event in events] == list(instances)

        return function

    for name, options in [
        ("last", {"after": ["batch"]}),
        ("batch", {"batch": True}),
        ("first", {}),
    ]:
        bulksafe.critical(
            SIGNALS[0], sender=Nullable, run="after_commit", dispatch_uid=name, **options
        )(receive(name))
    reception.capture(Nullable)
    Nullable.objects.bulk_create([Nullable(n=1), Nullable(n=2)])
    testing.deliver()

    assert order == [
        ("first", 1),
        ("first", 2),
        ("batch", [1, 2]),
        ("last", 1),
        ("last", 2),
    ]


def test_a_batch_carries_the_arguments_of_every_call():
    calls = reception.listen(post_save, Nullable, batch=True)
    Nullable.objects.bulk_create([Nullable(n=1), Nullable(n=2)])
    Nullable.objects.update(n=F("n") + 10)

    (call,) = calls.delivered()

    assert set(call) == {"signal", "sender", "using", "instances", "events"}
    events = call["events"]
    assert [instance.n for instance in call["instances"]] == [1, 2, 11, 12]
    assert [event.created for event in events] == [True, True, False, False]
    assert [event.old and event.old.n for event in events] == [None, None, 1, 2]
    assert [event.changed for event in events][2:] == [{"n"}, {"n"}]
    assert len({event.event_id for event in events}) == 4


# Changes of one row.


def test_each_change_is_a_call_with_the_row_before_and_after_it():
    calls = reception.listen(SIGNALS, Nullable)
    row = Nullable.objects.create(n=1)
    for n in (2, 3, 3):
        row.n = n
        row.save()
    row.delete()

    assert seen(calls) == [(None, 1), (1, 2), (2, 3), (3, 3), (3, "gone")]


def test_a_row_that_one_statement_inserts_and_updates():
    calls = reception.listen(SIGNALS, Wide)
    execute(
        """
        WITH made AS (INSERT INTO columns_wide (t, n) VALUES ('a', 1), ('b', 1) RETURNING id)
        UPDATE columns_wide SET n = 2 WHERE id IN (SELECT id FROM made)
        """
    )
    # The UPDATE does not see the rows of the INSERT: that is SQL.
    assert [(call["created"], call["instance"].n) for call in calls.delivered()] == [(True, 1)] * 2


def test_coalesce_joins_the_changes_of_a_row():
    calls = reception.listen(SIGNALS[0], Nullable, coalesce=True)
    one, two = Nullable.objects.bulk_create([Nullable(n=1), Nullable(n=5)])
    Nullable.objects.update(n=F("n") + 1)
    Nullable.objects.filter(pk=one.pk).update(n=F("n") + 1, t="x")

    assert seen(calls) == [(None, 6), (None, 3)]
    assert [call["created"] for call in calls] == [True, True]

    Nullable.objects.filter(pk=two.pk).update(t="x")
    Nullable.objects.filter(pk=two.pk).update(n=9)
    assert seen(calls) == [(6, 9)]
    assert (calls[0]["created"], calls[0]["changed"]) == (False, {"n", "t"})


def test_coalesce_in_a_batch():
    calls = reception.listen(post_save, Nullable, coalesce=True, batch=True)
    Nullable.objects.bulk_create([Nullable(n=1), Nullable(n=5)])
    Nullable.objects.update(n=F("n") + 1)

    (call,) = calls.delivered()

    assert [instance.n for instance in call["instances"]] == [2, 6]
    assert [event.created for event in call["events"]] == [True, True]


def test_a_primary_key_that_changes_is_one_change():
    calls = reception.listen(SIGNALS, NamedLikeSQL)
    with bulksafe.muted("columns.NamedLikeSQL:immutable_tg_op_subject_user"):
        NamedLikeSQL.objects.bulk_create([NamedLikeSQL(subject="a"), NamedLikeSQL(subject="b")])
        calls.delivered()
        NamedLikeSQL.objects.filter(subject="a").update(subject="c")
        # Keys change places.
        execute("UPDATE \"table\" SET subject = subject || 'x'")

    keys = [(call["old"].pk, call["instance"].pk, call["changed"]) for call in calls.delivered()]
    assert sorted(keys) == [
        ("a", "c", {"subject"}),
        ("b", "bx", {"subject"}),
        ("c", "cx", {"subject"}),
    ]


def test_a_composite_primary_key_that_changes():
    calls = reception.listen(SIGNALS, Cell)
    Cell.objects.bulk_create([Cell(sheet=1, place="a"), Cell(sheet=1, place="b")])
    calls.delivered()
    with bulksafe.muted("columns.Cell:immutable_place"):
        Cell.objects.filter(place="a").update(sheet=2, place="ż,\"'")

    ((old, new),) = [(call["old"].pk, call["instance"].pk) for call in calls.delivered()]
    assert (old, new) == ((1, "a"), (2, "ż,\"'"))


AGAIN = """
    CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE columns_nullable SET n = {} WHERE id = NEW.id AND n < 100;
        RETURN NULL;
    END $$;
    CREATE TRIGGER again AFTER INSERT OR UPDATE ON columns_nullable
    FOR EACH ROW EXECUTE FUNCTION again()
"""


def test_a_trigger_that_writes_to_the_row_again():
    """Its change is captured first, and it is the later one."""
    calls = reception.listen(SIGNALS, Nullable)
    execute(AGAIN.format("n * 10"))
    row = Nullable.objects.create(n=1)
    Nullable.objects.create(n=200)
    assert seen(calls) == [(None, 1), (1, 10), (10, 100), (None, 200)]
    Nullable.objects.filter(pk=row.pk).update(n=5)
    Nullable.objects.filter(pk=row.pk).update(n=150)
    assert seen(calls) == [(100, 5), (5, 50), (50, 500), (500, 150)]


def test_a_trigger_that_puts_the_row_back():
    calls = reception.listen(SIGNALS, Nullable)
    Nullable.objects.create(n=100)
    execute(AGAIN.format(100))
    calls.delivered()
    Nullable.objects.update(n=5)
    assert seen(calls) == [(100, 5), (5, 100)]


def test_the_event_has_an_id_for_good():
    calls = reception.listen(post_save, Nullable)
    other = reception.declare(post_save, Nullable, "other")
    Nullable.objects.bulk_create([Nullable(n=1), Nullable(n=2)])
    testing.deliver()

    ids = [call["event_id"] for call in calls]
    assert ids == [call["event_id"] for call in other]
    assert len(set(ids)) == 2
    assert all(isinstance(event_id, str) for event_id in ids)


# Emit.


def emitted(model, signal, **options):
    Emit(signal, **{"name": "done", **options}).register(model)
    reception.capture(model)


def test_emit_sends_its_signal_when_a_row_makes_the_change():
    done, received = Signal(), []

    def receive(signal, sender, *, thing, old, changed, context, event_id, created, using):
        received.append((sender, thing.n, old and old.n, changed, created, using, signal))

    done.connect(receive)
    emitted(Nullable, done, when=Q(new__n=2) & ~Q(old__n=2), argument="thing")
    Nullable.objects.bulk_create([Nullable(n=1), Nullable(n=2)])
    Nullable.objects.update(n=2)
    Nullable.objects.all().delete()
    testing.deliver()

    names = {field.name for field in Nullable._meta.fields}
    assert received == [
        (Nullable, 2, None, names, True, "default", done),
        (Nullable, 2, 1, {"n"}, False, "default", done),
    ]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (pgtrigger.Insert, [(None, 1)]),
        (pgtrigger.Update, [(1, 2)]),
        (pgtrigger.Delete, [(2, 2)]),
        (pgtrigger.Insert | pgtrigger.Delete, [(None, 1), (2, 2)]),
        (None, [(None, 1), (1, 2)]),
    ],
)
def test_emit_is_for_the_operations_that_it_names(operation, expected):
    done, received = Signal(), []
    done.connect(
        lambda instance, old, **_: received.append((old and old.n, instance.n)), weak=False
    )
    emitted(Nullable, done, when=Q(n__gte=0), operation=operation)
    Nullable.objects.create(n=1)
    Nullable.objects.update(n=2)
    Nullable.objects.all().delete()
    testing.deliver()

    assert received == expected


def test_every_receiver_of_an_emitted_signal_is_called_whatever_the_others_raise():
    done, received = Signal(), []

    def fail(**kwargs):
        raise ValueError("no")

    done.connect(fail)
    done.connect(lambda instance, **_: received.append(instance.n), weak=False)
    emitted(Nullable, done, when=Q(n=1))
    Nullable.objects.create(n=1)

    with pytest.raises(ExceptionGroup) as caught:
        testing.deliver()

    assert received == [1]
    assert [str(error) for error in caught.value.exceptions] == ["no"]


# Multi-table inheritance. Django calls receivers of the parent for deletions through a child only.


def test_a_parent_s_receiver_runs_for_rows_written_through_a_child():
    calls = reception.declare(SIGNALS, Document)
    reception.capture(Document, Memo)
    memo = Memo.objects.create(key=1, remark="x")
    memo.amount = 120
    memo.save()
    Memo.objects.update(amount=130)
    Memo.objects.update(remark="only the child's")
    memo.delete()

    received = [
        (call["signal"], type(call["instance"]), call["instance"].amount)
        for call in calls.delivered()
    ]
    assert received == [
        (post_save, Document, 100),
        (post_save, Document, 120),
        (post_save, Document, 130),
        (post_delete, Document, 130),
    ]


def test_a_child_s_receiver_gets_whole_rows():
    calls = reception.declare(SIGNALS, Report)
    reception.capture(Report, Paper)
    report = Report.objects.create(key=1, title="a")
    report.title, report.amount = "b", 150
    report.save()
    Paper.objects.update(title="c")
    report.delete()

    received = [
        (call["old"] and call["old"].title, call["instance"].title, call["instance"].amount)
        for call in calls.delivered()
    ]
    assert received == [(None, "a", 100), ("a", "b", 150), ("b", "c", 150), ("c", "c", 150)]
    assert calls[1]["changed"] == {"title", "amount", "net", "double_net"}


def test_a_parent_s_row_without_a_child_reaches_no_receiver_of_the_child():
    calls = reception.declare(SIGNALS, Report)
    reception.capture(Report, Paper)
    Paper.objects.create(title="a")
    Paper.objects.update(title="b")
    Paper.objects.all().delete()
    assert calls.delivered() == []


# TRUNCATE.


def test_truncate_is_refused_where_receivers_are_for_deletions():
    reception.listen(SIGNALS, Wide)
    Wide.objects.create()
    with pytest.raises(IntegrityError, match="TRUNCATE leaves no rows"), transaction.atomic():
        execute("TRUNCATE columns_wide")
    assert Wide.objects.exists()
    with bulksafe_muted("columns.Wide:bulksafe_capture"):
        execute("TRUNCATE columns_wide")
    assert not Wide.objects.exists()


def bulksafe_muted(label):
    """``bulksafe.muted`` for a capture that is in no registry."""
    execute("SELECT set_config('bulksafe.muted', %s, true)", [f"{{{label}}}"])
    return transaction.atomic()


def test_truncate_is_allowed_where_no_receiver_is_for_deletions():
    reception.listen(post_save, Wide)
    Wide.objects.create()
    execute("TRUNCATE columns_wide")
    assert not Wide.objects.exists()


def test_truncate_is_allowed_by_the_setting(settings):
    settings.BULKSAFE = {"TRUNCATE": "allow"}
    calls = reception.listen(SIGNALS, Wide)
    Wide.objects.create()
    calls.delivered()
    execute("TRUNCATE columns_wide")
    assert calls.delivered() == []


def test_a_muted_capture_keeps_nothing():
    calls = reception.listen(SIGNALS, Wide)
    with bulksafe_muted("columns.Wide:bulksafe_capture"):
        Wide.objects.create()
    execute("SELECT set_config('bulksafe.muted', '', true)")
    Wide.objects.create(t="x")
    assert [call["instance"].t for call in calls.delivered()] == ["x"]


@pytest.mark.django_db(transaction=True)
def test_a_flush_empties_tables_with_receivers_for_deletions_and_what_waits_for_them():
    """``Entry`` has a capture of its own, which is made with its table."""
    reception.declare(SIGNALS, Entry)
    Entry.objects.create(key=1)
    assert [call.changes[0].model for call in testing.pending()] == [Entry]
    call_command("flush", interactive=False, verbosity=0)
    assert testing.pending() == []
    assert not Entry.objects.exists()
