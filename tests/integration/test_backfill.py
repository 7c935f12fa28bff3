"""``bulksafe backfill`` repairs computed columns, and writes nothing else."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.db.models import F
from django.db.models.signals import post_save, pre_save
from hypothesis import given
from hypothesis import strategies as st

import bulksafe
from bulksafe.adoption import backfilling
from bulksafe.adoption.backfilling import Backfill, Options
from bulksafe.adoption.errors import Unusable
from bulksafe.adoption.repairing import UNCHANGED
from bulksafe.declarations import Compute, Declared, declared
from tests.apps.columns.models import (
    TYPED,
    Cell,
    InSchema,
    Measure,
    NamedLikeSQL,
    Nullable,
    OddlyNamed,
)
from tests.apps.columns.trying import examples, undone
from tests.apps.twins.models import Document as Base
from tests.apps.twins.models import Entry, Memo, Parcel, Report
from tests.integration import inline, reception
from tests.integration.test_column_types import (
    attributes,
    computed_as_orm,
    each_type,
    pairs,
    targets,  # noqa: F401  (a fixture)
)

pytestmark = pytest.mark.django_db


def computes(model):
    return [
        item for item in declared() if item.model is model and isinstance(item.invariant, Compute)
    ]


def backfill(model, *invariants, **options):
    """The report of a backfill of the model's own computed columns, or of the given ones."""
    items = [Declared(model, one) for one in invariants] or computes(model)
    run = Backfill(items, "default", Options(**options))
    for _ in run.run():
        pass
    return run.report


def messages(report):
    return {row.key: row.message for row in report.remaining.values()}


def muted(model):
    """All rules of the model's table are muted in the block."""
    table = model._meta.db_table
    parents = {parent._meta.db_table for parent in model._meta.all_parents}
    tables = {table, *parents}
    return bulksafe.muted(*(i.label for i in declared() if i.model._meta.db_table in tables))


def versions(model):
    """Which version of each row is stored; a write makes a new one."""
    table = model._meta.db_table if '"' in model._meta.db_table else f'"{model._meta.db_table}"'
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT ctid::text FROM {table} ORDER BY 1".replace("%", "%%"))
        return {row[0] for row in cursor.fetchall()}


def entries(model, count, wrong=lambda key: False, **values):
    """Rows with these keys, some of which have a wrong ``net``."""
    first = model.objects.count()
    with muted(model):
        for key in range(first, first + count):
            model.objects.create(key=key, net=1, double_net=2, **values)
    keys = [key for key in range(first, first + count) if not wrong(key)]
    # A write repairs the row.
    model.objects.filter(key__in=keys).update(seen=True)


def is_right(model):
    return not model.objects.exclude(net=F("amount") - F("discount")).exists() and not (
        model.objects.exclude(double_net=F("net") * 2).exists()
    )


@pytest.mark.parametrize("model", [Entry, Parcel, Base, Report])
@pytest.mark.parametrize("triggers", [True, False], ids=["with triggers", "without triggers"])
def test_a_chain_of_computed_columns_is_repaired_and_right_rows_are_not_written(model, triggers):
    entries(model, 30, wrong=lambda key: key % 3 == 0)
    if not triggers:
        drop_triggers(model, "net", "double_net")
    before = versions(model)
    report = backfill(model, without_triggers=not triggers)
    assert is_right(model)
    label = model._meta.label
    # double_net agrees with the wrong net: it is wrong only as soon as net is right.
    assert report.repaired[f"{label}:compute_net"] == report.written == 10
    assert (report.remaining, report.is_complete, report.rows) == ({}, True, 30)
    assert len(before & versions(model)) == 20
    assert backfill(model, without_triggers=not triggers).written == 0


def drop_triggers(model, *fields):
    with connection.cursor() as cursor:
        for item in computes(model):
            if item.invariant.field in fields:
                cursor.execute(item.invariant.compile(model).uninstall_sql)


def test_rows_of_a_child_table_are_repaired_through_the_parent():
    with muted(Memo):
        for key in range(3):
            Memo.objects.create(key=key, net=1, double_net=1)
    assert backfill(Base).written == 3
    assert is_right(Memo)


@each_type
@pytest.mark.parametrize("triggers", [True, False], ids=["with triggers", "without triggers"])
def test_columns_of_each_type_are_repaired(name, triggers):
    model = TYPED[name]
    label = model._meta.label
    if not triggers:
        drop_triggers(model, "c")

    @examples(5)
    @given(st.tuples(pairs(name), pairs(name)))
    @undone
    def repaired(values):
        (a, b), (c, _) = values
        with bulksafe.muted(f"{label}:rule", f"{label}:compute_c"):
            model.objects.create(**attributes(model, a=a, b=b, c=c))
        with bulksafe.muted(f"{label}:rule"):
            report = backfill(model, without_triggers=not triggers)
            assert report.remaining == {}
            assert not computed_as_orm(model).exists()
            assert backfill(model, without_triggers=not triggers).written == 0

    repaired()


def wrong_rows(model, rows):
    with muted(model):
        return model.objects.bulk_create(rows)


def test_composite_keys_and_names_that_need_quotes():
    wrong_rows(Cell, [Cell(sheet=s, place=p, value=1) for s in (-1, 5) for p in ("", "ż'\\", "b")])
    wrong_rows(OddlyNamed, [OddlyNamed(amount=8, half=n) for n in (1, 2, 3, 4)])
    wrong_rows(NamedLikeSQL, [NamedLikeSQL(subject=k, new=1, old=2) for k in ("", "%s", "'")])
    wrong_rows(InSchema, [InSchema(number=3), InSchema(number=4, double=8)])
    with bulksafe.muted("columns.Cell:value_in_sheet"):
        assert backfill(Cell, batch=2).written == 6
    assert not Cell.objects.exclude(triple=3).exists()
    assert backfill(OddlyNamed).written == 3
    assert set(OddlyNamed.objects.values_list("half", flat=True)) == {4}
    assert backfill(NamedLikeSQL).written == 3
    assert set(NamedLikeSQL.objects.values_list("broken", flat=True)) == {3}
    assert backfill(InSchema).written == 1
    assert not InSchema.objects.exclude(double=F("number") * 2).exists()


@pytest.mark.parametrize("triggers", [True, False], ids=["with triggers", "without triggers"])
def test_columns_that_are_computed_from_generated_columns(triggers):
    wrong_rows(Measure, [Measure(width=2, height=h, double=7) for h in (1, 2, None)])
    if not triggers:
        drop_triggers(Measure, "double")
    assert backfill(Measure, without_triggers=not triggers).written == 3
    assert list(Measure.objects.order_by("pk").values_list("double", flat=True)) == [4, 8, None]


def test_an_empty_table():
    report = backfill(Entry)
    assert (report.rows, report.written, report.is_complete) == (0, 0, True)


# Rows that are refused.


def test_rows_that_a_rule_or_a_constraint_refuses_are_listed_and_the_others_repaired(monkeypatch):
    entries(Entry, 40, wrong=lambda key: True)
    bad = list(
        Entry.objects.filter(key__in=(3, 17, 18)).order_by("key").values_list("pk", flat=True)
    )
    with muted(Entry):
        Entry.objects.filter(key=3).update(discount=500)
        Entry.objects.filter(key__in=(17, 18)).update(ceiling=1)
    report = backfill(Entry)
    assert messages(report) == {
        bad[0]: "Invariant “discount_within_amount” is violated",
        bad[1]: "Invariant “amount_within_ceiling” is violated",
        bad[2]: "Invariant “amount_within_ceiling” is violated",
    }
    assert report.repaired["twins.Entry:compute_net"] == 37
    assert report.is_complete
    assert Entry.objects.filter(net=1).count() == 3


def test_a_value_that_does_not_fit_refuses_its_row_only():
    model = TYPED["Char"]
    with bulksafe.muted("columns.CharColumns:compute_c"):
        model.objects.bulk_create(model(a=a, b="12345") for a in ("1234", "123456", "12"))
    report = backfill(model)
    (message,) = messages(report).values()
    assert message == "value too long for type character varying(10)"
    assert list(model.objects.filter(c=None).values_list("a", flat=True)) == ["123456"]


def test_an_expression_that_fails_for_a_row_refuses_that_row_only():
    share = Compute("n", 12 / F("m"), name="share")
    Nullable.objects.bulk_create(Nullable(m=m, n=0) for m in (1, 0, 2, None, 0, 3))
    zeros = list(Nullable.objects.filter(m=0).values_list("pk", flat=True))
    report = backfill(Nullable, share, without_triggers=True)
    assert messages(report) == dict.fromkeys(zeros, "division by zero")
    found = list(Nullable.objects.order_by("pk").values_list("n", flat=True))
    assert found == [12, 0, 6, None, 0, 4]


def test_a_trigger_that_keeps_the_row_from_being_written_is_reported():
    entries(Entry, 2, wrong=lambda key: True)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            "CREATE TRIGGER a_skip BEFORE UPDATE ON twins_entry FOR EACH ROW "
            "WHEN (old.key = 1) EXECUTE FUNCTION skip()"
        )
    report = backfill(Entry)
    assert list(messages(report).values()) == [UNCHANGED]
    assert report.repaired["twins.Entry:compute_net"] == 1


def test_an_error_that_is_about_no_row_ends_the_backfill():
    entries(Entry, 3, wrong=lambda key: True)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION lost() RETURNS trigger LANGUAGE plpgsql "
            "AS 'BEGIN PERFORM 1 FROM nowhere; RETURN NEW; END';"
            "CREATE TRIGGER a_lost BEFORE UPDATE ON twins_entry FOR EACH ROW "
            "EXECUTE FUNCTION lost()"
        )
    with pytest.raises(Exception, match='relation "nowhere" does not exist'):
        backfill(Entry)


def test_a_read_only_transaction_ends_the_backfill_and_refuses_no_row():
    entries(Entry, 3, wrong=lambda key: True)
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL transaction_read_only = on")
    with pytest.raises(DatabaseError, match="read-only transaction"):
        backfill(Entry)


def test_a_trigger_that_is_removed_meanwhile_ends_the_backfill(monkeypatch):
    monkeypatch.setattr(backfilling, "_SPAN", 2)
    entries(Entry, 6, wrong=lambda key: True)
    run = Backfill(computes(Entry), "default", Options(batch=1))
    reports = run.run()
    while next(reports).written < 2:
        pass
    drop_triggers(Entry, "net")
    with pytest.raises(Unusable, match="compute_net is missing in the database “default”"):
        list(reports)
    # Those that the missing trigger left wrong are not reported as done.
    done = Entry.objects.order_by("pk")[1]
    assert run.report.position == str(done.pk)
    assert run.report.repaired["twins.Entry:compute_net"] == 2


# Receivers.


@pytest.fixture
def only_these_receivers(db):
    with inline.only_these():
        yield


@pytest.mark.usefixtures("only_these_receivers")
@pytest.mark.parametrize("signals", [[post_save], [pre_save], [pre_save, post_save]])
def test_receivers_in_the_transaction_run_for_each_repaired_row(signals):
    entries(Entry, 6, wrong=lambda key: key % 2)
    seen = []

    def receiver(instance, old, changed, **kwargs):
        seen.append((instance.key, old.net, changed))

    calls = [inline.critical(signal, Entry, receiver) for signal in signals]
    report = backfill(Entry)
    assert (report.written, report.remaining, is_right(Entry)) == (3, {}, True)
    assert sorted(key for key, *_ in seen) == sorted([1, 3, 5] * len(calls))
    assert {net for _, net, _ in seen} == {1}
    if signals == [post_save]:
        assert {changed for *_, changed in seen} == {frozenset({"net", "double_net"})}


@pytest.mark.usefixtures("only_these_receivers")
def test_receivers_after_the_commit_get_each_repair_as_a_change():
    entries(Entry, 6, wrong=lambda key: key % 2)
    calls = reception.declare(post_save, Entry)
    reception.capture(Entry)
    calls.delivered()
    backfill(Entry)
    assert sorted((call["instance"].key, call["changed"]) for call in calls.delivered()) == [
        (key, {"net", "double_net"}) for key in (1, 3, 5)
    ]


@pytest.mark.usefixtures("only_these_receivers")
def test_rows_that_a_receiver_refuses_are_listed_and_the_others_repaired():
    entries(Entry, 10, wrong=lambda key: True)

    def refuse(instance, **kwargs):
        if instance.key in (2, 7):
            raise ValueError(f"not {instance.key}")

    inline.critical(post_save, Entry, refuse)
    report = backfill(Entry)
    assert sorted(messages(report).values()) == ["not 2", "not 7"]
    assert sorted(Entry.objects.filter(net=1).values_list("key", flat=True)) == [2, 7]


# Parts of a table.


def test_a_limit_and_going_on_after_a_key(monkeypatch):
    monkeypatch.setattr(backfilling, "_SPAN", 10)
    entries(Entry, 35, wrong=lambda key: True)
    first = backfill(Entry, limit=22)
    assert (first.written, first.is_complete, first.rows) == (22, False, 20)
    keys = list(Entry.objects.order_by("pk").values_list("pk", flat=True))
    assert first.position == str(keys[21])
    second = backfill(Entry, after=first.position)
    assert (second.written, second.is_complete, second.rows) == (13, True, 13)
    assert is_right(Entry)


def test_after_a_composite_key(monkeypatch):
    monkeypatch.setattr(backfilling, "_SPAN", 2)
    rows = [Cell(sheet=5, place=p, value=1, triple=0) for p in ("a", "b", "c", 'd"')]
    wrong_rows(Cell, rows)
    assert backfill(Cell, limit=2).position == '[5, "b"]'
    assert backfill(Cell, after='[5, "b"]').written == 2
    with pytest.raises(Unusable, match=r"'5' is not a key of \(sheet, place\)"):
        backfill(Cell, after="5")


def test_a_dry_run_writes_nothing():
    entries(Entry, 5, wrong=lambda key: key < 2)
    before = versions(Entry)
    report = backfill(Entry, dry_run=True)
    assert report.repaired["twins.Entry:compute_net"] == 2
    assert report.written == 0
    assert versions(Entry) == before


# The command.


def command(*arguments, code=0):
    out, err = StringIO(), StringIO()
    try:
        call_command("bulksafe", "backfill", *arguments, stdout=out, stderr=err)
        found = 0
    except SystemExit as error:
        found = error.code
    assert found == code, out.getvalue() + err.getvalue()
    return out.getvalue(), err.getvalue()


def test_the_command_repairs_and_says_so():
    entries(Entry, 5, wrong=lambda key: key < 2)
    with muted(Entry):
        Entry.objects.filter(key=4).update(net=0, ceiling=1)
    key = Entry.objects.get(key=4).pk
    out, err = command("twins.Entry", code=1)
    assert "twins.Entry:compute_net: 2 rows repaired\n" in out
    assert f"{key} (compute_net, compute_double_net): Invariant “amount_within_ceiling”" in out
    assert err == ""
    Entry.objects.filter(key=4).update(ceiling=None)
    assert "5 rows looked at, 0 written" in command("twins.Entry")[0]


def test_the_command_prints_json():
    entries(Entry, 5, wrong=lambda key: key < 2)
    out, _ = command("--json", "--limit", "1", "twins.entry:compute_net", code=1)
    (found,) = json.loads(out)["invariants"]
    assert found == {
        "invariant": "twins.Entry:compute_net",
        "database": "default",
        "repaired": 1,
        "remaining": [],
        "rows": 0,
        "complete": False,
        "after": str(Entry.objects.get(key=0).pk),
        "error": None,
    }
    out, _ = command("--json", "--dry-run", "twins.Entry", code=1)
    assert json.loads(out)["invariants"][0]["wrong"] == 1
    assert command("twins.Entry")[1] == ""


def test_json_says_what_was_repaired_before_an_error(monkeypatch):
    entries(Entry, 2, wrong=lambda key: True)
    run = Backfill.run

    def fail_for_parcels(self):
        if Parcel._meta.db_table in self.report.table:
            raise DatabaseError("the server is gone")
        yield from run(self)

    monkeypatch.setattr(Backfill, "run", fail_for_parcels)
    out = StringIO()
    with pytest.raises(CommandError, match="the server is gone"):
        call_command("bulksafe", "backfill", "--json", "twins", stdout=out)
    found = {one["invariant"]: one["repaired"] for one in json.loads(out.getvalue())["invariants"]}
    assert found["twins.Entry:compute_net"] == 2


def test_a_missing_trigger_is_refused_unless_asked_for():
    entries(Entry, 2, wrong=lambda key: True)
    drop_triggers(Entry, "net")
    out, err = command("--json", "twins.Entry:compute_net", code=2)
    assert "The trigger of twins.Entry:compute_net is missing" in err
    assert "--without-triggers" in json.loads(out)["invariants"][0]["error"]
    out, _ = command("--without-triggers", "twins.Entry:compute_net")
    assert "2 rows repaired" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["twins.Entry:balanced"], "is a Check, and backfill repairs a Compute only"),
        (
            ["twins.Entry:transition_state"],
            "bulksafe verify twins.Entry:transition_state",
        ),
        (["twins.Nothing"], "No invariant matches 'twins.Nothing'"),
        (["--after", "5"], "--after is a key of one table"),
        (["--database", "nowhere"], "There is no database 'nowhere'"),
        (["--database", "lite"], "is not PostgreSQL"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(CommandError, match=said) as raised:
        call_command("bulksafe", "backfill", *arguments)
    assert raised.value.returncode == 2


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("[1, null]", "each value is a text or a number"),
        ('[1, ["a"]]', "each value is a text or a number"),
        ('[1, "a\\u0000"]', "PostgreSQL text fields cannot contain NUL"),
        ('[true, "a"]', "invalid input syntax for type integer"),
    ],
)
def test_a_composite_key_that_is_none_is_refused(key, why):
    """Python converts no value to text: the result could be a key, such as "None"."""
    _, err = command("--after", key, "columns.Cell", code=2)
    assert err.startswith(f"{key!r} is not a key of (sheet, place): ")
    assert why in err


def test_a_database_without_computed_columns_says_so(settings):
    settings.DATABASE_ROUTERS = ["tests.integration.test_backfill.Nowhere"]
    out, err = command()
    assert (out, err) == (
        "",
        "No Compute is declared for the database 'default': nothing is to be done.\n",
    )


class Nowhere:
    """Keeps every table out of every database."""

    def allow_migrate(self, db, app_label, **hints):
        return False


def test_a_key_that_is_none_is_refused():
    _, err = command("--after", "x", "twins.Entry", code=2)
    assert err == "'x' is not a key of (id): invalid input syntax for type bigint: \"x\".\n"
