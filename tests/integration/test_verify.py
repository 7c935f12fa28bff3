"""``bulksafe verify`` finds the rows that break an invariant, and no others."""

import datetime as dt
import json
from decimal import Decimal
from io import StringIO

import pgtrigger
import pytest
from django.contrib.auth.models import Group, User
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, models
from django.db.models import F, Func, Q, Value
from django.test.utils import isolate_apps
from hypothesis import given
from hypothesis import strategies as st

import bulksafe
from bulksafe.adoption import keys, verifying
from bulksafe.adoption.tables import table_of
from bulksafe.adoption.verifying import verify
from bulksafe.declarations import Check, Compute, Declared, declared
from tests.apps.columns.models import (
    KINDS,
    TYPED,
    Cell,
    Guarded,
    InSchema,
    Measure,
    NamedLikeSQL,
    Nullable,
    OddlyNamed,
)
from tests.apps.columns.trying import accepted, examples, undone
from tests.apps.twins.models import Document as Base
from tests.apps.twins.models import Entry, Memo, Parcel, Report
from tests.integration.test_column_types import (
    attributes,
    computed_as_orm,
    each_type,
    pairs,
    targets,  # noqa: F401  (a fixture)
)
from tests.integration.test_conditions import CONDITIONS, rows

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def quiet(*progress):
    """Show no progress."""


def look(*invariants, model, batch=1000, first=1000):
    items = [Declared(model, invariant) for invariant in invariants]
    return verify(items, "default", batch=batch, first=first, progress=quiet)


def command(*arguments, code=0, database="default"):
    """Run the command; returns its output."""
    out = StringIO()
    if database is not None:
        arguments = (*arguments, "--database", database)
    if code:
        with pytest.raises(SystemExit) as raised:
            call_command("bulksafe", "verify", *arguments, stdout=out)
        assert raised.value.code == code
    else:
        call_command("bulksafe", "verify", *arguments, stdout=out)
    return out.getvalue()


def report(*arguments, code=0):
    """The same with ``--json``, by label."""
    listed = json.loads(command("--json", *arguments, code=code))["invariants"]
    return {result["invariant"]: result for result in listed}


# The oracle is the ORM.


@examples(60)
@given(CONDITIONS)
@undone
def test_any_condition_finds_the_rows_that_the_orm_does_not_accept(condition):
    check = Check(condition, name="drawn")
    Nullable.objects.bulk_create(rows())
    (result,) = look(check, model=Nullable, batch=7)
    if result.error is not None:
        # An empty drawn list removes the other conditions.
        assert "E042" in result.error
        return
    everything = set(Nullable.objects.values_list("pk", flat=True))
    assert set(result.first) == everything - accepted(Nullable.objects, condition)
    assert result.violations == len(result.first)
    assert rows_of_sql(result) == result.first
    assert set(rows_of_orm(result)) == set(result.first)


def rows_of_sql(result):
    with connection.cursor() as cursor:
        cursor.execute(result.sql)
        return [row[0] for row in cursor.fetchall()]


def rows_of_orm(result):
    """The keys of the query that a user would paste into a shell."""
    *imports, query = result.orm.split("\n")
    names = {}
    exec("\n".join(imports), names)
    return eval(query, names).values_list("pk", flat=True)


@each_type
def test_a_check_of_each_type_is_the_orms(name):
    kind, model = KINDS[name], TYPED[name]

    @examples(10)
    @given(pairs(name))
    @undone
    def agree(pair):
        with bulksafe.muted(label(model, "rule")):
            row = model.objects.create(**attributes(model, a=pair[0], b=pair[1]))
        (result,) = look(Check(kind.rule, name="rule"), model=model)
        expected = [] if accepted(model.objects, kind.rule) else [row.pk]
        assert (result.error, result.failures, result.first) == (None, [], expected)
        assert rows_of_sql(result) == list(rows_of_orm(result)) == expected

    agree()


@each_type
def test_a_computed_value_of_each_type_is_the_one_of_the_trigger(name):
    """A row is found if writing it again changes the computed column."""
    kind, model = KINDS[name], TYPED[name]

    @examples(10)
    @given(st.tuples(pairs(name), pairs(name)))
    @undone
    def agree(values):
        (a, b), (c, _) = values
        with bulksafe.muted(label(model, "rule"), label(model, "compute_c")):
            model.objects.create(**attributes(model, a=a, b=b, c=c))
            (result,) = look(Compute("c", kind.compute), model=model)
            assert (result.error, result.failures) == (None, [])
        before = texts_of(model)
        assert rows_of_sql(result) == result.first
        with bulksafe.muted(label(model, "rule")):
            model.objects.update(c=F("c"))
        assert result.first == [key for key, text in texts_of(model) if (key, text) not in before]
        assert look(Compute("c", kind.compute), model=model)[0].violations == 0
        assert not computed_as_orm(model).exists()

    agree()


def label(model, name):
    return f"{model._meta.label}:{name}"


def texts_of(model):
    """The key and the exact text of the computed column of each row."""
    with connection.cursor() as cursor:
        column = model._meta.get_field("c").column
        cursor.execute(f'SELECT id, "{column}"::text FROM "{model._meta.db_table}" ORDER BY id')
        return cursor.fetchall()


# Each kind of invariant.


def muted(*models):
    tables = {model._meta.db_table for model in models}
    return bulksafe.muted(*(i.label for i in declared() if i.model._meta.db_table in tables))


def test_each_kind_of_invariant():
    with muted(Guarded):
        good = Guarded.objects.create(lower="-draft")
        too_much = Guarded.objects.create(amount=10, lower="-draft")
        negative = Guarded.objects.create(amount=-1, lower="-draft")
        stale = Guarded.objects.create(label="Stale", lower="stale")
        lost = Guarded.objects.create(state="lost", lower="-lost")
    found = report("columns.Guarded", code=1)
    assert {name.partition(":")[2]: one["first"] for name, one in found.items()} == {
        "amount_below_limit": [too_much.pk],
        "amount_positive": [negative.pk],
        "compute_lower": [stale.pk],
        "immutable_label": [],
        "kept_stays": [],
        "transition_state": [lost.pk],
    }
    about_changes = [one for one in found.values() if not one["verifiable"]]
    assert {one["invariant"]: one["reason"] for one in about_changes} == {
        "columns.Guarded:immutable_label": (
            "It is a rule for each update: a stored row cannot break it."
        ),
        "columns.Guarded:kept_stays": (
            "It is a rule for each delete: a stored row cannot break it."
        ),
    }
    transition = found["columns.Guarded:transition_state"]
    assert transition["meaning"] == (
        "The value of “state” is no state of the Transition: no update can change it. "
        "Correct the rows, or list the state."
    )
    for one in found.values():
        if one["verifiable"]:
            assert rows_of_sql(_Shown(one)) == one["first"]
            assert list(rows_of_orm(_Shown(one))) == one["first"]
    assert good.pk not in {key for one in found.values() for key in one["first"]}


class _Shown:
    """A result of the JSON output, with attributes."""

    def __init__(self, values):
        self.sql, self.orm = values["sql"], values["orm"]


def test_the_text_names_the_rows_and_the_queries():
    with muted(Guarded):
        keys = [Guarded.objects.create(amount=-n, lower="-draft").pk for n in range(1, 13)]
    shown = command("columns.Guarded", "--first", "3", code=1)
    assert "columns.Guarded:amount_positive: 12 rows break it of 12\n" in shown
    assert f"  first keys: {keys[0]}, {keys[1]}, {keys[2]}\n" in shown
    assert '  psql:\n    SELECT "new".* FROM "columns_guarded" AS "new" WHERE NOT (' in shown
    assert "models.QuerySet(apps.get_model('columns.Guarded'), using='default')" in shown
    assert "columns.Guarded:kept_stays: nothing to verify. It is a rule for each delete" in shown
    assert (
        "Invariants verified: 4, with rows that break them: 1, with nothing to verify: 2." in shown
    )


def test_a_condition_over_annotations():
    twice = Check(Q(twice__lte=F("m")), name="drawn", twice=F("n") * 2)
    Nullable.objects.bulk_create(Nullable(n=n, m=4) for n in (1, 2, 3, None))
    (result,) = look(twice, model=Nullable)
    assert result.first == [Nullable.objects.get(n=3).pk]
    assert list(rows_of_orm(result)) == result.first


@pytest.mark.parametrize(
    ("check", "operations"),
    [
        (Check(Q(n__gte=0), name="c", operation=pgtrigger.Insert), "insert"),
        (Check(Q(n__gte=0), name="c", operation=pgtrigger.Update), "update"),
        (Check(Q(new__n__gte=F("old__n")), name="c"), "update"),
        (Check(Q(n__gte=0), name="c", operation=pgtrigger.Delete), "delete"),
    ],
)
def test_rules_about_changes_say_nothing_about_stored_rows(check, operations):
    Nullable.objects.create(n=-1)
    (result,) = look(check, model=Nullable)
    assert not result.verifiable
    assert result.reason.startswith(f"It is a rule for each {operations}:")
    assert (result.violations, result.rows) == (0, 0)


def test_a_check_over_the_new_row_alone_is_verified():
    Nullable.objects.bulk_create([Nullable(n=-1), Nullable(n=1), Nullable()])
    (result,) = look(Check(Q(new__n__gte=0), name="c"), model=Nullable)
    assert result.first == [Nullable.objects.get(n=-1).pk]
    # The ORM knows no new__.
    assert result.orm is None


@pytest.mark.parametrize("initial", [None, ["a"]])
def test_a_transition_finds_states_that_it_does_not_list(initial):
    moves = bulksafe.Transition("t", {"a": ["b"], "b": []}, initial=initial)
    rows = Nullable.objects.bulk_create(Nullable(t=t) for t in ("a", "b", "c", None))
    (result,) = look(moves, model=Nullable)
    assert result.first == [rows[2].pk, rows[3].pk]
    assert "(None stands for NULL)" in result.meaning
    with_null = bulksafe.Transition("t", {"a": ["b"], None: ["a"]})
    assert look(with_null, model=Nullable)[0].first == [rows[2].pk]


# Keys of any type, in ranges of any size.


KEYS = {
    "integer": (models.IntegerField(primary_key=True), st.integers(-(2**31), 2**31 - 1)),
    "uuid": (models.UUIDField(primary_key=True), st.uuids()),
    "text": (models.TextField(primary_key=True), st.text("aAäzZ_-'\\%\"{}, ", max_size=4)),
    "no case": (
        models.CharField(primary_key=True, max_length=9, db_collation="no_case"),
        st.text("abcxyz-' ", max_size=4),
    ),
    "decimal": (
        models.DecimalField(primary_key=True, max_digits=9, decimal_places=3),
        st.decimals(-999, 999, places=3).map(lambda d: d + Decimal("0.000")),
    ),
    "moment": (
        models.DateTimeField(primary_key=True),
        st.datetimes(timezones=st.just(dt.UTC)),
    ),
    "bytes": (models.BinaryField(primary_key=True), st.binary(max_size=3)),
    "float": (models.FloatField(primary_key=True), st.floats(allow_nan=False).map(lambda f: f + 0)),
}


@pytest.fixture
def keyed(request):
    """A table whose primary key has the type."""
    field, values = KEYS[request.param]
    with isolate_apps("tests.apps.columns"):
        attributes = {"__module__": "tests.apps.columns.models", "n": models.IntegerField()}
        model = type("Keyed", (models.Model,), {**attributes, "key": field.clone()})
    with connection.schema_editor() as editor:
        editor.create_model(model)
    return model, values


@pytest.mark.parametrize("keyed", KEYS, indirect=True)
def test_keys_of_any_type_are_paged_in_their_own_order(keyed):
    model, values = keyed

    @examples(10)
    @given(st.lists(values, max_size=9, unique=True), st.integers(1, 4))
    @undone
    def each_row_is_visited_once(drawn, batch):
        model.objects.bulk_create(model(key=key, n=-1) for key in drawn)
        (result,) = look(Check(Q(n__gte=0), name="c"), model=model, batch=batch)
        with connection.cursor() as cursor:
            cursor.execute("SELECT key::text FROM columns_keyed AS k ORDER BY k.key")
            stored = [text for (text,) in cursor.fetchall()]
        assert [str(key) for key in result.first] == stored
        assert result.rows == result.violations == len(drawn)
        table = table_of(model, "default")
        for text in stored:
            # What is shown can be given to --after.
            assert keys.parsed(table, keys.as_text(table, (text,))) == (text,)

    each_row_is_visited_once()


def test_composite_keys_and_names_that_need_quotes():
    with muted(Cell, NamedLikeSQL, OddlyNamed, InSchema):
        places = [(s, p) for s in (-1, 2) for p in ("", "a", "ż'\\", "%s")]
        Cell.objects.bulk_create(Cell(sheet=s, place=p, value=-5, triple=-15) for s, p in places)
        NamedLikeSQL.objects.create(subject="%s", row=1, broken=2)
        odd = OddlyNamed.objects.create(amount=20, limit=5, half=10, kind="x")
        InSchema.objects.create(number=-1, double=-2)
    (result,) = look(Cell._meta.triggers[1], model=Cell, batch=3)
    assert sorted(result.first) == sorted([s, p] for s, p in places)
    found = report("columns", "--batch", "2", code=1)
    broken = {name.partition(".")[2] for name, one in found.items() if one["violations"]}
    assert broken == {
        "Cell:value_positive",
        "NamedLikeSQL:row_up_to_old",
        "NamedLikeSQL:compute_broken",
        "OddlyNamed:Within-Limit",
        "OddlyNamed:transition_kind",
        "InSchema:number_positive",
    }
    assert found["columns.OddlyNamed:Within-Limit"]["first"] == [odd.pk]
    for one in found.values():
        if one["violations"] and "Cell" not in one["invariant"]:
            # For the ORM query, old__gte could be about the row before the change.
            if one["orm"] is not None:
                assert rows_of_orm(_Shown(one)).count() == one["violations"]
            with connection.cursor() as cursor:
                cursor.execute(one["sql"])
                assert len(cursor.fetchall()) == one["violations"]


# Tables of any form.


def test_an_empty_table_and_a_column_that_is_generated():
    assert look(*Measure._meta.triggers, model=Measure)[0].rows == 0
    with muted(Measure):
        wide = Measure.objects.create(width=50, height=3, double=300)
        flat = Measure.objects.create(width=0, height=3, double=5)
    assert {
        one["invariant"]: one["first"] for one in report("columns.Measure", code=1).values()
    } == {
        "columns.Measure:compute_double": [flat.pk],
        "columns.Measure:area_at_most_100": [wide.pk],
        "columns.Measure:area_positive": [flat.pk],
        "columns.Measure:immutable_area": [],
    }


def test_tables_of_inheritance_and_of_partitions():
    with muted(Entry, Parcel, Base, Report):
        for model in (Entry, Parcel, Memo, Report):
            model.objects.create(key=1, net=0, double_net=0)
    found = report("twins", code=1)
    broken = {name for name, one in found.items() if one["violations"]}
    assert broken == {
        f"twins.{model}:compute_net" for model in ("Entry", "Parcel", "Document", "Report")
    }


class Nothing(models.Manager):
    def get_queryset(self):
        return super().get_queryset().none()


def other_model(*bases, **attributes):
    """A model of the table of ``Nullable`` that no registry knows."""
    with isolate_apps("tests.apps.columns"):
        return type("Other", bases, {"__module__": Nullable.__module__, **attributes})


def test_rows_that_the_managers_hide_are_found():
    meta = type("Meta", (), {"db_table": "columns_nullable", "base_manager_name": "objects"})
    hiding = other_model(models.Model, n=models.IntegerField(), objects=Nothing(), Meta=meta)
    row = Nullable.objects.create(n=-1)
    assert not hiding._base_manager.exists()
    assert look(Check(Q(n__gte=0), name="c"), model=hiding)[0].first == [row.pk]


def test_a_rule_of_a_proxy_and_of_an_automatic_table():
    proxy = other_model(Nullable, Meta=type("Meta", (), {"proxy": True}))
    row = Nullable.objects.create(n=-1)
    assert look(Check(Q(n__gte=0), name="c"), model=proxy)[0].first == [row.pk]

    user = User.objects.create(username="u")
    user.groups.add(Group.objects.create(name="g"))
    through = User.groups.through
    (result,) = look(Check(Q(user_id__lt=0), name="c"), model=through)
    assert result.first == [through.objects.get().pk]
    assert list(rows_of_orm(result)) == result.first


def execute(statements):
    with connection.cursor() as cursor:
        cursor.execute(statements)
        return cursor.fetchall() if cursor.description else []


def test_policies_that_hide_rows_are_an_error():
    Nullable.objects.create(n=-1)
    execute(
        "CREATE ROLE bulksafe_reader; GRANT SELECT ON columns_nullable TO bulksafe_reader;"
        "ALTER TABLE columns_nullable ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY none ON columns_nullable USING (n > 0)"
    )
    rule = Check(Q(n__gte=0), name="c")
    assert look(rule, model=Nullable)[0].violations == 1
    execute("SET LOCAL ROLE bulksafe_reader")
    (result,) = look(rule, model=Nullable)
    assert result.error == (
        'Row-level security hides rows of "columns_nullable" from the role “bulksafe_reader”, '
        "and with them violations. Use a role with BYPASSRLS."
    )
    execute("RESET ROLE")


def test_a_role_without_the_right_to_read_is_an_error():
    execute("CREATE ROLE bulksafe_reader; SET LOCAL ROLE bulksafe_reader")
    (result,) = look(Check(Q(n__gte=0), name="c"), model=Nullable)
    assert result.error == "permission denied for table columns_nullable."
    execute("RESET ROLE")


# Before the migrations.


def test_a_missing_column_or_function_is_an_error_of_its_rule_and_the_others_go_on():
    Nullable.objects.create(n=-1, m=-1)
    execute("ALTER TABLE columns_nullable DROP COLUMN t")
    lost = Func("n", function="lost", output_field=models.IntegerField())
    results = look(
        Check(Q(n__gte=0), name="good"),
        Check(Q(t__gte="a"), name="column"),
        Compute("t", Value("x"), name="computed"),
        Compute("m", lost, name="function"),
        Check(Q(nothing=1), name="field"),
        model=Nullable,
    )
    assert [one.violations for one in results] == [1, 0, 0, 0, 0]
    found = [one.error for one in results]
    assert found[:4] == [
        None,
        "column new.t does not exist. If a migration is pending, run migrate first.",
        "The table has no column “t”. Run migrate first.",
        "function lost(integer) does not exist. If a migration is pending, run migrate first.",
    ]
    assert "columns.Nullable:field cannot be compiled" in found[4]
    assert "E020" in found[4]


def test_a_missing_table_is_an_error_and_the_other_tables_go_on():
    with muted(Guarded):
        Guarded.objects.create(amount=-1, lower="-draft")
    execute("DROP TABLE columns_cell CASCADE")
    found = report("columns.Guarded", "columns.Cell", code=2)
    assert found["columns.Cell:compute_triple"]["violations"] is None
    assert found["columns.Cell:compute_triple"]["error"] == (
        'The table "columns_cell" does not exist. Run migrate first.'
    )
    assert found["columns.Guarded:amount_positive"]["violations"] == 1
    shown = command("columns.Cell", code=2)
    assert "columns.Cell:compute_triple: not verified\n" in shown


def test_a_table_that_is_dropped_meanwhile_is_an_error_and_the_other_tables_go_on(monkeypatch):
    with muted(Guarded):
        Guarded.objects.create(amount=-1, lower="-draft")
    spans = keys.spans

    def dropping(table, size):
        execute("DROP TABLE IF EXISTS columns_cell CASCADE")
        return spans(table, size)

    monkeypatch.setattr(keys, "spans", dropping)
    found = report("columns.Guarded", "columns.Cell", code=2)
    assert found["columns.Cell:value_positive"]["error"] == (
        'relation "public.columns_cell" does not exist.'
    )
    assert found["columns.Guarded:amount_positive"]["violations"] == 1


def test_a_server_that_is_away_is_an_error_and_the_other_databases_are_verified(monkeypatch):
    table = verifying.table_of

    def unreachable(model, using):
        if using == "other":
            raise OperationalError("connection failed: connection refused\nIs it running?")
        return table(model, using)

    monkeypatch.setattr(verifying, "table_of", unreachable)
    with muted(Guarded):
        Guarded.objects.create(amount=-1, lower="-draft")
    label = "columns.Guarded:amount_positive"
    listed = json.loads(command("--json", label, code=2, database=None))["invariants"]
    assert [(one["database"], one["violations"], one["error"]) for one in listed] == [
        ("default", 1, None),
        ("other", None, "connection failed: connection refused."),
    ]


# Expressions that fail.


def test_rows_for_which_an_expression_fails_are_findings_of_their_own():
    rows = Nullable.objects.bulk_create(
        Nullable(n=n, m=m) for n, m in ((1, 1), (1, 0), (-1, 5), (9, 3), (2, 0))
    )
    share, positive = Check(Q(n__lte=12 / F("m")), name="share"), Check(Q(n__gte=0), name="n")
    results = look(share, positive, model=Nullable, batch=4)
    assert [one.failures for one in results] == [
        [(rows[1].pk, "division by zero"), (rows[4].pk, "division by zero")],
        [],
    ]
    assert [one.first for one in results] == [[rows[3].pk], [rows[2].pk]]
    assert [one.is_finding for one in results] == [True, True]


def test_an_expression_that_fails_for_many_rows_is_given_up(monkeypatch):
    monkeypatch.setattr(verifying, "MOST_FAILURES", 3)
    Nullable.objects.bulk_create(Nullable(n=-1, m=0) for _ in range(20))
    share, positive = Check(Q(n__lte=12 / F("m")), name="share"), Check(Q(n__gte=0), name="n")
    results = look(share, positive, model=Nullable, batch=4)
    assert results[0].error.startswith("Its expression fails for 3 rows, the last of them ")
    assert results[1].violations == 20


# Names.


def test_functions_of_other_schemas_take_no_part_and_the_session_is_as_before():
    with muted(Guarded):
        Guarded.objects.create(label="A", lower="a-draft")
    execute(
        "CREATE SCHEMA evil; CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql "
        "AS $$ SELECT 'x' $$; SET LOCAL search_path = evil, pg_catalog, public"
    )
    assert execute("SELECT lower('A'::text)") == [("x",)]
    (result,) = look(Guarded._meta.triggers[3], model=Guarded)
    assert result.violations == 0
    settings = "search_path", "transaction_read_only", "row_security"
    assert [execute(f"SHOW {name}") for name in settings] == [
        [("evil, pg_catalog, public",)],
        [("off",)],
        [("on",)],
    ]


# The command.


def test_labels_select_apps_models_and_invariants():
    chosen = report("twins.entry:BALANCED", "columns.Cell")
    assert {name.partition(":")[0] for name in chosen} == {"twins.Entry", "columns.Cell"}
    assert len(chosen) == 7
    with pytest.raises(CommandError, match=r"No invariant matches 'columns\.Nothing'") as raised:
        call_command("bulksafe", "verify", "columns.Nothing")
    assert raised.value.returncode == 2


def test_every_database_is_verified_unless_one_is_named():
    with bulksafe.muted("columns.Cell:value_positive", using="other"):
        Cell.objects.using("other").create(sheet=1, place="a", value=-1, triple=-3)
    label = "columns.Cell:value_positive"
    listed = json.loads(command("--json", label, code=1, database=None))["invariants"]
    assert [(one["database"], one["first"]) for one in listed] == [
        ("default", []),
        ("other", [[1, "a"]]),
    ]
    assert "Invariants verified: 1, with rows that break them: 0." in command(label)
    shown = command(label, code=1, database=None)
    assert f"{label} in the database “other”: 1 row breaks it of 1" in shown
    with pytest.raises(CommandError, match="'lite' is not PostgreSQL"):
        call_command("bulksafe", "verify", "--database", "lite")


def test_every_invariant_of_the_project_can_be_verified():
    """No declaration of any app stops the command."""
    assert not [one for one in report().values() if one["error"]]
