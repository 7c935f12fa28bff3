"""Receivers get the row as a query returns it, for every type, name and session."""

import math

import pytest
from django.db import DataError, ProgrammingError, connection, models, transaction
from django.db.models import Q, Value
from django.db.models.signals import post_delete, post_save
from hypothesis import given

import bulksafe
from bulksafe import testing
from bulksafe.dispatch.images import Unreadable
from tests.apps.columns.models import (
    HOSTILE,
    TYPED,
    Cell,
    Document,
    Guarded,
    InSchema,
    LongestName,
    Measure,
    NamedLikeSQL,
    OddlyNamed,
)
from tests.apps.columns.trying import examples, undone
from tests.integration import inline, reception
from tests.integration.test_column_types import (  # noqa: F401
    attributes,
    each_type,
    pairs,
    readable,
    targets,
)
from tests.integration.test_security import EVIL, hostile  # noqa: F401
from tests.unit.declaring import declare, isolated, tables

pytestmark = pytest.mark.django_db

SIGNALS = [post_save, post_delete]

#: What another client's session may be set to, and the server's defaults with it.
ODD_SETTINGS = {
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "German, DMY",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "xmlbinary": "hex",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "transform_null_equals": "on",
    "default_transaction_deferrable": "on",
}


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with reception.only_these():
        yield


class Session:
    """Writes, perhaps with other settings than the reader's."""

    def __init__(self, settings):
        self.settings = settings

    def __enter__(self):
        with connection.cursor() as cursor:
            self.before = {}
            for name, value in self.settings.items():
                cursor.execute("SELECT current_setting(%s)", [name])
                self.before[name] = cursor.fetchone()[0]
                cursor.execute("SELECT set_config(%s, %s, true)", [name, value])

    def __exit__(self, *error):
        with connection.cursor() as cursor:
            for name, value in self.before.items():
                cursor.execute("SELECT set_config(%s, %s, true)", [name, value])


def values(instance):
    """Every column's value with its type, so that nothing that differs is equal."""
    found = []
    for field in type(instance)._meta.concrete_fields:
        value = readable(instance.__dict__[field.attname])
        found.append((field.attname, type(value), value))
    return found


def rules_of(model):
    return [f"{model._meta.label}:{rule.name}" for rule in model._meta.triggers]


def check_calls(calls, model, *writes):
    """Each write, made in turn, reaches the receiver with the row before it and after it."""
    before = None
    for write in writes:
        write()
        after = model._base_manager.first()
        (call,) = calls.delivered()
        instance, old = call["instance"], call["old"]
        assert call["signal"] is (post_save if after else post_delete)
        assert values(instance) == values(after or before)
        assert (old and values(old)) == (before and values(before))
        assert (instance._state.db, instance._state.adding) == ("default", False)
        if after and before:
            pairs = zip(values(before), values(after), strict=True)
            fields = model._meta.concrete_fields
            differing = {f.name for f, (a, b) in zip(fields, pairs, strict=True) if a != b}
            assert call["changed"] == differing
            assert call["update_fields"] == differing
        before = after


@pytest.mark.parametrize("settings", [{}, ODD_SETTINGS], ids=["plain", "odd"])
@each_type
def test_every_type_of_column(name, settings):
    model = TYPED[name]
    calls = reception.listen(SIGNALS, model)
    session = Session(settings)

    def given_columns(pair, other):
        return attributes(model, a=pair[0], b=pair[1], fixed=other[0], state=other[1])

    @examples(10)
    @given(pairs(name), pairs(name))
    @undone
    def agree(pair, other):
        def create():
            with session, bulksafe.muted(*rules_of(model)):
                model.objects.bulk_create([model(**given_columns(pair, other))])

        def update():
            with session, bulksafe.muted(*rules_of(model)):
                model.objects.update(**given_columns(other, pair))

        def delete():
            with session:
                model.objects.all()._raw_delete("default")

        check_calls(calls, model, create, update, delete)

    agree()


def update(model, **values):
    return lambda: model.objects.update(**values)


def delete(model):
    return lambda: model.objects.all()._raw_delete("default")


def create(model, **values):
    return lambda: model.objects.bulk_create([model(**values)])


# Names.


def execute(text):
    with connection.cursor() as cursor:
        cursor.execute(text)


@pytest.mark.parametrize("settings", [{}, ODD_SETTINGS], ids=["plain", "odd"])
@pytest.mark.parametrize(
    ("model", "first", "second"),
    [
        (NamedLikeSQL, {"subject": "'"}, {"old": 5, "new": 4, "row": 3, "select": 2}),
        (OddlyNamed, {"amount": 3}, {"amount": 5, "kind": HOSTILE}),
        (LongestName, {"number": 1}, {"number": 2}),
        (InSchema, {"number": 1}, {"number": 2}),
        (Measure, {"height": 3}, {"height": None}),
        (Document, {"title": "Running dogs", "body": "x"}, {"title": "Cats", "body": None}),
        (Cell, {"sheet": 9, "place": 'ż",\\'}, {"value": 4, "state": "locked"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_odd_names(model, first, second, settings):
    calls = reception.listen(SIGNALS, model)
    session = Session(settings)

    def in_session(write):
        def run():
            with session, bulksafe.muted(*rules_of(model)):
                write()

        return run

    writes = [create(model, **first), update(model, **second), delete(model)]
    check_calls(calls, model, *map(in_session, writes))


#: What the function of a capture calls its own things, and SQL its.
NAMES = [
    "bulksafe",
    "bulksafe#",
    "bulksafe_new",
    "bulksafe_old",
    "slot",
    "source",
    "part",
    "part 1",
    "new part",
    "old part",
    "depth",
    "context",
    "captured",
    "k",
    "key",
    "matched",
    "operation",
    "seq",
    "xid",
    "bucket",
    "new",
    "old",
    "row",
    "v",
    "tg_op",
    "tg_relid",
    "tg_level",
    "e",
    "f",
    "order",
    "user",
    ":'key' :key",
    "Größe",
    "'\\ -- /*",
    "g" * 63,
]


@pytest.fixture
def odd(db):
    """A table with a column for each of these names, and its model."""
    columns = {
        f"column_{number}": models.IntegerField(default=number, db_column=name)
        for number, name in enumerate(NAMES)
    }
    with (
        isolated(),
        tables(model := declare(class_name="Odd", meta={"db_table": "old {new} 'x'"}, **columns)),
    ):
        yield model


def test_columns_named_like_anything_that_the_function_uses(odd):
    changed = {f"column_{number}": 1000 + number for number in range(len(NAMES))}
    for when in (None, Q(new__column_0__gte=0) | Q(old__column_1__gte=0)):
        with reception.only_these():
            calls = reception.listen(SIGNALS, odd, when=when)
            check_calls(calls, odd, create(odd), update(odd, **changed), delete(odd))


def wide(number):
    """A model with so many columns beside its primary key."""
    columns = {f"c{n}": models.BooleanField(null=True) for n in range(number)}
    return declare(class_name="Broad", **columns)


def check_wide(model, called):
    """An INSERT and two UPDATEs by SQL; ``called`` returns the calls of a receiver for c5."""
    table = model._meta.db_table
    execute(f"INSERT INTO {table} (c1) VALUES (true)")
    execute(f"UPDATE {table} SET c5 = true")
    execute(f"UPDATE {table} SET c5 = true, c6 = true")
    (first, second) = called()
    assert (first["old"].c5, first["instance"].c5, first["changed"]) == (None, True, {"c5"})
    assert (second["old"].c6, second["instance"].c6, second["changed"]) == (None, True, {"c6"})


@pytest.mark.parametrize("number", [900, 1_590])
def test_more_columns_than_half_of_what_a_query_may_have(db, number):
    with isolated(), tables(model := wide(number)):
        calls = reception.listen(post_save, model, when=Q(new__c5=True))
        check_wide(model, calls.delivered)


@pytest.mark.parametrize("number", [900, 1_590])
def test_the_same_number_of_columns_in_the_transaction(db, number):
    with isolated(), tables(model := wide(number)), inline.only_these():
        calls = []

        def note(sender, instance, old, changed, **kwargs):
            calls.append({"instance": instance, "old": old, "changed": changed})

        inline.critical(post_save, model, note, when=Q(new__c5=True))
        check_wide(model, lambda: calls)


def test_percent_signs_which_djangos_own_queries_do_not_bear():
    share = models.IntegerField(db_column="50% %s %(x)s")
    with isolated(), tables(model := declare(share=share, meta={"db_table": "% of %s"})):
        calls = reception.listen(SIGNALS, model)
        execute('INSERT INTO "% of %s" ("50% %s %(x)s") VALUES (1)')
        execute('UPDATE "% of %s" SET "50% %s %(x)s" = 2')
        (created, updated) = calls.delivered()

    assert (created["instance"].share, created["old"]) == (1, None)
    assert (updated["instance"].share, updated["old"].share) == (2, 1)
    assert updated["changed"] == {"share"}


# Who writes, and where.

GRANTS = "GRANT SELECT, INSERT, UPDATE, DELETE ON columns_guarded TO writer"
RAW = [
    """
    INSERT INTO public.columns_guarded (label, amount, "limit", lower, state, data)
    VALUES ('Li', 1, 10, '', 'draft', '{}')
    """,
    "UPDATE public.columns_guarded SET state = 'paid'",
    "DELETE FROM public.columns_guarded",
]


def raw(text, *before):
    def run():
        for statement in (*before, text):
            execute(statement)
        execute("RESET ROLE")
        execute('SET LOCAL search_path = "$user", public')

    return run


def test_a_writer_without_any_right_on_the_tables_of_bulksafe():
    calls = reception.listen(SIGNALS, Guarded, when=Q(new__amount=1) | Q(old__amount=1))
    execute("CREATE ROLE writer")
    execute(GRANTS)
    execute("GRANT USAGE ON SEQUENCE columns_guarded_id_seq TO writer")
    for table in ("bulksafe_outbox", "bulksafe_outbox_0", "bulksafe_cursor", "bulksafe_parked"):
        execute("SET LOCAL ROLE writer")
        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
            execute(f"SELECT FROM {table}")
        execute("RESET ROLE")

    check_calls(calls, Guarded, *(raw(text, "SET LOCAL ROLE writer") for text in RAW))


def test_a_hostile_search_path_of_the_writer(hostile):  # noqa: F811
    make_shadows_of_the_capture("hostile")
    calls = reception.listen(SIGNALS, Guarded, when=Q(new__label="Li") | Q(old__amount__lte=1))
    with bulksafe.muted(*rules_of(Guarded)):
        check_calls(
            calls, Guarded, *(raw(text, f"SET LOCAL search_path = {hostile}") for text in RAW)
        )


def make_shadows_of_the_capture(schema):
    """What the function of a capture calls, in the types that it calls it with."""
    for name, arguments, result in [
        ("hashtextextended", "text, integer", "bigint"),
        ("to_regclass", "text", "regclass"),
        ("array_remove", "text[], text", "text[]"),
        ("pg_partition_root", "oid", "regclass"),
        ("pg_trigger_depth", "", "integer"),
        ("pg_try_advisory_xact_lock_shared", "integer, integer", "boolean"),
        ("pg_current_xact_id", "", "xid8"),
        ("clock_timestamp", "", "timestamptz"),
    ]:
        execute(EVIL.format(schema=schema, name=name, arguments=arguments, result=result))


def test_a_hostile_function_in_the_schema_of_the_tables():
    """It takes the very types that the capture calls its like in pg_catalog with."""
    make_shadows_of_the_capture("public")
    calls = reception.listen(SIGNALS, Guarded, when=Q(new__label="Li") | Q(old__amount__lte=1))

    check_calls(calls, Guarded, *map(raw, RAW))


# Values that are their own.


def test_a_nan_that_stays_is_no_change():
    model = TYPED["Float"]
    calls = reception.listen(SIGNALS, model)
    with bulksafe.muted(*rules_of(model)):
        model.objects.create(a=math.nan, b=1)
        model.objects.update(a=math.nan, b=math.nan)
        model.objects.update(a=1)

    assert [sorted(call["changed"]) for call in calls.delivered()[1:]] == [["b"], ["a"]]


def test_json_null_and_sql_null_are_none_in_instances_and_no_change_to_each_other():
    """Their images are equal, and Django's queries also return None for both."""
    model = TYPED["JSON"]
    calls = reception.listen(SIGNALS, model)
    with bulksafe.muted(*rules_of(model)):
        model.objects.create(a=None, b=Value(None, models.JSONField()))
        model.objects.update(a=Value(None, models.JSONField()), b=None)
        model.objects.update(a=[None, {"x": None}])

    created, swapped, filled = calls.delivered()
    assert (created["instance"].a, created["instance"].b) == (None, None)
    assert swapped["changed"] == set()
    assert filled["changed"] == {"a"}
    assert filled["instance"].a == [None, {"x": None}]


def test_a_row_that_python_cannot_hold_fails_as_it_does_in_a_query():
    model = TYPED["DateTime"]
    reception.listen(SIGNALS, model)
    execute(f"INSERT INTO {model._meta.db_table} (a) VALUES ('infinity')")

    with pytest.raises(DataError, match="timestamp too large"):
        list(model.objects.all())
    with pytest.raises(Unreadable, match="timestamp too large"):
        testing.deliver()


def test_a_row_that_a_receiver_makes_unreadable_fails_for_other_receivers():
    model = TYPED["DateTime"]

    def leave(instance, **kwargs):
        execute(f"UPDATE {model._meta.db_table} SET a = 'infinity' WHERE id = {instance.pk}")

    bulksafe.critical(post_save, sender=model, run="after_commit", dispatch_uid="leave")(leave)
    reception.listen(post_save, model)
    model.objects.create()

    with pytest.raises(Unreadable, match="timestamp too large"):
        testing.deliver()


def test_an_array_with_bounds_and_dimensions_of_its_own():
    model = TYPED["ArrayOfArray"]
    calls = reception.listen(SIGNALS, model)
    with bulksafe.muted(*rules_of(model)):
        check_calls(
            calls,
            model,
            lambda: execute(
                f"INSERT INTO {model._meta.db_table} (a, b) "
                "VALUES ('[2:3][-1:0]={{1,NULL},{3,4}}', '{}')"
            ),
            update(model, a=[[1]], b=[[1, 2], [3, None]]),
        )
