"""``bulksafe replay``: a receiver is called for rows that exist already."""

from __future__ import annotations

import io
from contextlib import nullcontext

import pgtrigger
import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Q
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.dispatch import Signal
from hypothesis import given

import bulksafe
from bulksafe import testing
from bulksafe.declarations import Emit
from bulksafe.outbox.events import Replay
from tests.apps.columns.models import (
    TYPED,
    Cell,
    InSchema,
    NamedLikeSQL,
    Nullable,
    OddlyNamed,
)
from tests.apps.columns.trying import examples, undone
from tests.apps.edges.models import Low, Stamped, Top
from tests.apps.invoices.models import Invoice, InvoiceProxy
from tests.apps.twins.models import Memo, Parcel, Report
from tests.integration import reception
from tests.integration.test_column_types import attributes, pairs, targets  # noqa: F401

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with reception.only_these():
        yield


def replay(*arguments, code=0):
    """What the command prints; its exit code is checked."""
    out = io.StringIO()
    ended = pytest.raises(SystemExit, match=f"^{code}$") if code else nullcontext()
    with ended:
        call_command("bulksafe", "replay", *arguments, stdout=out)
    return out.getvalue()


def refusal(*arguments):
    with pytest.raises(CommandError) as refused:
        replay(*arguments)
    assert refused.value.returncode == 2
    return str(refused.value)


def execute(text, params=None):
    with connection.cursor() as cursor:
        cursor.execute(text, params)
        return cursor.fetchall() if cursor.description else []


def numbers(calls):
    return [call["instance"].n for call in calls.delivered()]


@pytest.fixture
def rows(db):
    return Nullable.objects.bulk_create(Nullable(n=n, t=f"t {n}") for n in range(5))


# The receiver's arguments.


def test_the_call_equals_that_of_a_save_without_changes(rows):
    calls = reception.declare(post_save, Nullable)

    said = replay("calls")
    received = calls.delivered()

    assert "columns.Nullable: 5 rows, 5 events for the queue 'default'" in said
    assert f"last key {rows[-1].pk}." in said
    assert [call["instance"] for call in received] == rows
    for call, row in zip(received, rows, strict=True):
        assert call["created"] is False
        assert call["update_fields"] == call["changed"] == frozenset()
        assert call["context"] == {"replay": True}
        assert call["instance"].t == call["old"].t == row.t
        assert call["sender"] is Nullable
    assert len({call["event_id"] for call in received}) == 5


def test_the_arguments_are_those_of_an_update_that_changes_nothing(rows):
    calls = reception.listen(post_save, Nullable)
    execute("UPDATE columns_nullable SET n = n")
    updated = calls.delivered()
    replay("calls")
    replayed = calls.delivered()

    for one, other in zip(updated, replayed, strict=True):
        for name in one.keys() - {"event_id", "context", "instance", "old"}:
            assert one[name] == other[name]


def test_no_other_receiver_sees_a_replayed_row(rows):
    wanted = reception.declare(post_save, Nullable, "wanted")
    others = [
        reception.declare(post_save, Nullable, "other"),
        reception.declare(post_save, Nullable, "condition", when=Q(n__gte=0)),
        reception.declare(post_save, Nullable, "queue", queue="search"),
        reception.declare(post_save, Nullable, "outside", atomic=False),
        reception.declare([post_save, post_delete], Nullable, "both"),
        reception.declare(
            post_save, Nullable, "handed", run="in_transaction", otherwise="after_commit"
        ),
    ]
    reception.capture(Nullable)

    replay("wanted")
    testing.deliver()

    assert len(wanted) == 5
    assert others == [[]] * 6


def test_a_receiver_in_the_transaction_that_the_listener_may_run(rows):
    calls = reception.declare(post_save, Nullable, run="in_transaction", otherwise="after_commit")
    replay("calls")
    assert numbers(calls) == [0, 1, 2, 3, 4]


def test_a_batch_receiver_gets_all_rows_of_a_batch(rows):
    calls = reception.declare(post_save, Nullable, batch=True)
    replay("calls", "--batch", "2")
    (call,) = calls.delivered()
    assert call["instances"] == rows


def test_a_later_change_is_delivered_after_the_replayed_row(rows):
    calls = reception.listen(post_save, Nullable)
    replay("calls", "--where", "n=3")
    Nullable.objects.filter(n=3).update(n=30)
    assert numbers(calls) == [3, 30]


ODD_SETTINGS = """
    SET LOCAL timezone = 'Asia/Tokyo'; SET LOCAL datestyle = 'SQL, DMY';
    SET LOCAL intervalstyle = 'iso_8601'; SET LOCAL bytea_output = 'escape';
    SET LOCAL extra_float_digits = -2
"""


@pytest.mark.parametrize("name", TYPED)
def test_an_image_is_that_of_a_capture(name):
    """Whatever the settings of the session that replays."""
    model = TYPED[name]
    reception.declare(post_save, model)
    reception.capture(model)

    @examples(5)
    @given(pairs(name))
    @undone
    def agree(pair):
        with bulksafe.muted(f"{model._meta.label}:rule"):
            model.objects.bulk_create([model(**attributes(model, a=pair[0], b=pair[1]))])
        execute(ODD_SETTINGS)
        replay("calls", "-v", "0")
        execute("SET LOCAL extra_float_digits = 1")
        captured, replayed = execute(
            "SELECT key, bucket, source,"
            f" jsonb_populate_record(NULL::{model._meta.db_table}, new)::text FROM bulksafe_outbox"
            " WHERE xid = pg_current_xact_id() ORDER BY seq DESC LIMIT 2"
        )
        assert captured == replayed

    agree()


# Which rows.


def test_a_condition_over_the_new_row_selects_the_rows(rows):
    calls = reception.declare(post_save, Nullable, when=Q(new__n__gte=3) | Q(t="t 0"))
    assert "5 rows, 3 events" in replay("calls")
    assert numbers(calls) == [0, 3, 4]
    assert "3 rows would be replayed" in replay("calls", "--dry-run")


def test_a_condition_on_the_old_row_is_refused_unless_it_is_ignored(rows):
    calls = reception.declare(post_save, Nullable, when=Q(new__n=1) & ~Q(old__n=1))
    assert "compares with the row before the change (old__…)" in refusal("calls")
    replay("calls", "--ignore-when")
    assert numbers(calls) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--where", "n=3"], [3]),
        (["--where", "n__gte=1", "--where", "n__lt=3"], [1, 2]),
        (["--where", "n__in=[0, 4]"], [0, 4]),
        (["--where", "t=t 2"], [2]),
        (["--where", 't="t 2"'], [2]),
        (["--where", "m__isnull=true", "--where", "n=1"], [1]),
        (["--where", '{"n__lte": 1, "t__startswith": "t"}'], [0, 1]),
        (["--where", "t__contains=%", "--where", "n=1"], []),
        (["--where", "n__in=[]"], []),
    ],
)
def test_lookups(rows, arguments, expected):
    calls = reception.declare(post_save, Nullable)
    assert f": {len(expected)} rows would" in replay(
        "calls", "--dry-run", *arguments, code=0 if expected else 1
    )
    replay("calls", *arguments, code=0 if expected else 1)
    assert numbers(calls) == expected


def test_lookups_through_relations_find_a_row_once():
    calls = reception.declare(post_save, User)
    ann, _ = User.objects.bulk_create([User(username="ann"), User(username="bob")])
    ann.groups.set(Group.objects.bulk_create(Group(name=f"group {name}") for name in "abc"))
    replay("calls", "--where", "groups__name__startswith=group", "--batch", "1")
    assert [call["instance"] for call in calls.delivered()] == [ann]


def test_a_number_stays_text_for_a_text_column():
    calls = reception.declare(post_save, Stamped)
    Stamped.objects.bulk_create(Stamped(code=code) for code in ("007", "7", "1e5"))
    replay("calls", "--where", "code=007")
    replay("calls", "--where", "code=1e5")
    assert [call["instance"].code for call in calls.delivered()] == ["007", "1e5"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nn=3", "Cannot resolve keyword 'nn' into field"),
        ("n__great=3", "Unsupported lookup 'great' for IntegerField"),
        ("n=three", "Field 'n' expected a number but got 'three'"),
        ("day=soon", "“soon” value has an invalid date format"),
        ("n__isnull=3", "The QuerySet value for an isnull lookup must be True or False"),
    ],
)
def test_bad_lookups(rows, where, said):
    reception.declare(post_save, Nullable)
    assert said in refusal("calls", "--where", where)


def test_rows_after_a_key(rows):
    calls = reception.declare(post_save, Nullable)
    replay("calls", "--after", str(rows[2].pk), "--batch", "1")
    assert numbers(calls) == [3, 4]
    assert "invalid input syntax" in refusal("calls", "--after", "x' OR true")


def test_a_composite_key():
    calls = reception.declare(post_save, Cell)
    Cell.objects.bulk_create(Cell(sheet=s, place=p) for s in (1, 2) for p in ("%'a", "b"))
    said = replay("calls", "--batch", "1")
    assert 'last key ["2", "b"].' in said
    assert [call["instance"].pk for call in calls.delivered()] == [
        (1, "%'a"),
        (1, "b"),
        (2, "%'a"),
        (2, "b"),
    ]
    replay("calls", "--after", '["1", "b"]')
    assert [call["instance"].pk for call in calls.delivered()] == [(2, "%'a"), (2, "b")]
    replay("calls", "--after", '[2, "%\'a"]')
    assert [call["instance"].pk for call in calls.delivered()] == [(2, "b")]
    assert "not a JSON array" in refusal("calls", "--after", "1")
    assert "consists of sheet, place" in refusal("calls", "--after", "[1]")


# Tables.


def test_tables_and_columns_with_any_name():
    declared = {
        NamedLikeSQL: NamedLikeSQL(subject="%s"),
        OddlyNamed: OddlyNamed(),
        InSchema: InSchema(),
    }
    for model, row in declared.items():
        calls = reception.declare(post_save, model, model.__name__)
        row.save(force_insert=True)
        replay(model.__name__)
        assert [call["instance"] for call in calls.delivered()] == [row]


def test_a_child_in_multi_table_inheritance_has_all_its_columns():
    calls = reception.declare(post_save, Low)
    low = Low.objects.create(name="low", depth=3)
    Top.objects.create(name="top")
    replay("calls", "--where", "name=low")
    (call,) = calls.delivered()
    assert call["instance"] == call["old"] == low
    assert (call["instance"].name, call["instance"].depth) == ("low", 3)
    assert call["changed"] == frozenset()


def test_a_child_of_two_parents_and_one_with_a_condition():
    both = reception.declare(post_save, Report, "both")
    some = reception.declare(post_save, Report, "some", when=Q(new__amount__gte=500))
    for amount in (100, 900):
        Report.objects.create(title=f"report {amount}", amount=amount, key=amount)
    testing.deliver()
    both.clear()
    some.clear()
    replay("both")
    replay("some")
    testing.deliver()
    assert [call["instance"].title for call in both] == ["report 100", "report 900"]
    assert [call["instance"].title for call in some] == ["report 900"]


def test_a_parent_has_the_rows_of_its_children():
    calls = reception.declare(post_save, Top)
    low, top = Low.objects.create(name="low"), Top.objects.create(name="top")
    replay("calls")
    assert [call["instance"] for call in calls.delivered()] == [low.top_ptr, top]


def test_a_proxy_stands_for_its_table():
    calls = reception.declare(post_save, InvoiceProxy)
    invoice = Invoice.objects.create(amount=1)
    replay("calls", "--model", "invoices.InvoiceProxy")
    assert [call["instance"] for call in calls.delivered()] == [invoice]


def test_a_partitioned_table():
    calls = reception.declare(post_save, Parcel)
    parcels = [Parcel.objects.create(key=key) for key in (1, 2, 3)]
    calls.delivered()
    replay("calls", "--batch", "2")
    assert [call["instance"] for call in calls.delivered()] == parcels


def test_several_models_one_after_the_other_or_one_of_them(rows):
    calls = reception.declare(post_save, [Nullable, Group])
    group = Group.objects.create(name="a")

    replay("calls", "--model", "auth.Group")
    assert [call["instance"] for call in calls.delivered()] == [group]
    replay("calls")
    assert [call["instance"] for call in calls.delivered()] == [*rows, group]
    assert "--after needs --model" in refusal("calls", "--after", "1")
    assert "Did you mean 'auth.Group'?" in refusal("calls", "--model", "auth.Grop")


def test_rows_of_a_many_to_many_table_are_replayed_as_post_add():
    calls = reception.declare(m2m_changed, User.groups.through)
    ann = User.objects.create(username="ann")
    groups = Group.objects.bulk_create(Group(name=name) for name in "ab")
    ann.groups.set(groups)
    replay("calls")
    (call,) = calls.delivered()
    assert (call["action"], call["instance"]) == ("post_add", ann)
    assert call["pk_set"] == {group.pk for group in groups}
    assert call["context"] == {"replay": True}


def test_an_emit_for_new_rows(rows):
    signal = Signal()
    received = []

    def receive(row, created, **kwargs):
        received.append((row.n, created))

    signal.connect(receive)
    when = Q(new__n__gte=3)
    emit = Emit(signal, when=when, name="large", argument="row", operation=pgtrigger.Insert)
    emit.register(Nullable)
    replay("columns.Nullable:large")
    testing.deliver()
    assert received == [(3, True), (4, True)]


# Receivers and rows that cannot be replayed.


@pytest.mark.parametrize(
    ("signal", "options", "said"),
    [
        (post_delete, {}, "is called for deletions only"),
        (post_save, {"run": "in_transaction"}, "runs in the writer's transaction"),
        (post_save, {"queue": "search"}, "The queue 'search' of 'calls' was never started"),
        (post_save, {"atomic": False}, "The queue 'default' of 'calls' was never started"),
        (post_save, {"when": Q(nn=1)}, "has no field “nn”"),
    ],
)
def test_receivers_that_cannot_be_replayed(rows, signal, options, said):
    reception.declare(signal, Nullable, **options)
    assert said in refusal("calls")


def test_an_unknown_receiver(rows):
    reception.declare(post_save, Nullable, "shop.index")
    assert "There is no receiver 'shop.idnex'. Did you mean 'shop.index'?" in refusal("shop.idnex")


def test_what_an_event_says():
    for receiver in ("shop.Order:paid", "replay:", "x@shop.Order.post_save", "otherwise"):
        for atomic in (True, False):
            one = Replay(receiver, "queue:with:colons", atomic)
            assert Replay.of(one.matched) == one
    assert Replay.of(["otherwise", "0123456789"]) is None
    assert Replay.of([]) is None


def test_rows_that_do_not_meet_the_condition_leave_nothing(rows):
    reception.declare(post_save, Nullable, when=Q(n__lt=0))
    assert "5 rows, 0 events" in replay("calls", code=1)
    assert "0 rows would be replayed" in replay("calls", "--dry-run", code=1)


def test_a_memo_whose_parent_is_guarded():
    calls = reception.declare(post_save, Memo)
    memo = Memo.objects.create(key=1, remark="%1$s :x")
    calls.delivered()
    replay("calls")
    assert [(call["instance"], call["instance"].remark) for call in calls.delivered()] == [
        (memo, "%1$s :x")
    ]
