"""Roles with few rights, hostile schemas, the functions that are left behind, and muting."""

from contextlib import contextmanager

import pgtrigger
import pytest
from django.db import DatabaseError, ProgrammingError, connection, connections, transaction
from django.db.models import Case, Func, JSONField, Q, Value, When
from django.db.models.functions import Concat
from django.db.models.lookups import Exact

import bulksafe
from tests.apps.columns.models import TYPED, Guarded, InSchema
from tests.apps.columns.trying import check_constraints, install, refused

pytestmark = pytest.mark.django_db

INSERT = """
    INSERT INTO {} (label, amount, "limit", lower, state, data)
    VALUES ('Li', {}, 10, '', 'draft', '{{}}')
"""
TABLE = Guarded._meta.db_table
#: One function in place of all: it says that it was called, for which the statement fails.
EVIL = """
    CREATE FUNCTION {schema}.{name}({arguments}) RETURNS {result} LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'hijacked by {name}'; END $$
"""
SHADOWS = [
    ("lower", "text", "text"),
    ("lower", "varchar", "text"),
    ("upper", "varchar", "text"),
    ("concat", "text, text", "text"),
    ("concat", "text, text, text, text, text, text, text", "text"),
    ("concat", "VARIADIC text[]", "text"),
    ("to_jsonb", "anyelement", "jsonb"),
    ("to_jsonb", "ROW", "jsonb"),
    ("to_jsonb", "hstore", "jsonb"),
    ("current_setting", "text, boolean", "text"),
    ("current_setting", "varchar, boolean", "text"),
    ("format", "text, text", "text"),
    ("format", "text, regclass, name, text, text, text, text, text", "text"),
    ("format", "text, regclass, name, text, text, text, text, text, text", "text"),
    ("format", "text, regclass, name, text, text, text, text, text, text, text", "text"),
    ("set_config", "text, text, boolean", "text"),
    ("quote_ident", "text", "text"),
    ("eq", "integer, integer", "boolean"),
    ("eq", "bigint, bigint", "boolean"),
    ("eq", "text, text", "boolean"),
    ("eq", "varchar, varchar", "boolean"),
    ("eq", "jsonb, jsonb", "boolean"),
    ("le", "integer, integer", "boolean"),
    ("le", "varchar, varchar", "boolean"),
    ("like", "varchar, varchar", "boolean"),
    ("like", "text, text", "boolean"),
    ("minus", "integer, integer", "integer"),
    ("arrow", "jsonb, jsonb", "text"),
    ("arrow", "jsonb, text", "text"),
    ("cat", "varchar, varchar", "text"),
    ("cat", "text, text", "text"),
    ("overlap", "text[], text[]", "boolean"),
]
OPERATORS = {
    "eq": "=",
    "le": "<=",
    "like": "~~",
    "minus": "-",
    "arrow": "->>",
    "cat": "||",
    "overlap": "&&",
}
TYPES = "text jsonb int4 varchar name regclass boolean bigint".split()


def execute(sql, params=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


def make_hostile(schema, row_type=TABLE):
    """Fill ``schema`` with all that an expression or a function of ours could be led astray by."""
    for name, listed, result in SHADOWS:
        arguments = listed.replace("ROW", row_type)
        execute(EVIL.format(schema=schema, name=name, arguments=arguments, result=result))
        if name in OPERATORS:
            left, right = arguments.split(", ")
            execute(
                f"CREATE OPERATOR {schema}.{OPERATORS[name]} "
                f"(FUNCTION = {schema}.{name}, LEFTARG = {left}, RIGHTARG = {right})"
            )


def make_hostile_types(schema):
    for name in TYPES:
        execute(f'CREATE DOMAIN {schema}."{name}" AS pg_catalog.int4 CHECK (VALUE > 0)')


@contextmanager
def search_path(value):
    execute("SELECT pg_catalog.set_config('search_path', %s, true)", [value])
    yield
    execute('SET LOCAL search_path = "$user", public')


@pytest.fixture
def hostile(db):
    """A schema before pg_catalog, which would also redirect Django's own queries."""
    execute("CREATE SCHEMA hostile")
    make_hostile("hostile")
    make_hostile_types("hostile")
    return "hostile, pg_catalog, public"


def sqlstate(sql):
    """What the server says to a statement: an SQLSTATE and a message, or None twice."""
    try:
        with transaction.atomic():
            execute(sql)
    except DatabaseError as error:
        diag = error.__cause__.diag
        return diag.sqlstate, diag.message_primary
    return None, None


def the_rules_hold(table):
    """Every kind of invariant does its work, by statements in which nothing can be shadowed."""
    assert sqlstate(INSERT.format(table, 9)) == (None, None)
    assert sqlstate(INSERT.format(table, 10)) == ("23514", "Too much.")
    assert sqlstate(f"UPDATE {table} SET label = 'x'")[0] == "23514"
    assert sqlstate(f"UPDATE {table} SET state = 'sent'")[0] == "23514"
    assert sqlstate(f"UPDATE {table} SET lower = 'x', state = 'kept'") == (None, None)
    assert sqlstate(f"DELETE FROM {table}")[0] == "23514"
    assert (
        sqlstate(f"UPDATE {table} SET amount = '-1'; SET CONSTRAINTS ALL IMMEDIATE")[0] == "23514"
    )


def reinstall(model, **changes):
    install(model, *model._meta.triggers)


def test_a_schema_in_front_changes_nothing_at_run_time(hostile):
    with search_path(hostile):
        the_rules_hold(f"public.{TABLE}")
        assert sqlstate(f"TRUNCATE public.{TABLE}")[0] == "23514"
    assert Guarded.objects.get().lower == "li-kept"


def test_a_schema_in_front_changes_nothing_at_migrate_time(hostile):
    with search_path(hostile):
        reinstall(Guarded)
    the_rules_hold(TABLE)
    with search_path(hostile):
        reinstall(Guarded)
    assert sqlstate(f"DELETE FROM {TABLE}")[0] == "23514"
    assert Guarded.objects.get().lower == "li-kept"


def test_better_matching_functions_in_public_change_nothing():
    """CVE-2018-1058: a varchar column prefers the attacker's lower(varchar), wherever it is."""
    make_hostile("public")
    reinstall(Guarded)
    the_rules_hold(TABLE)
    assert execute(f"SELECT pg_catalog.lower(lower) FROM {TABLE}") == [("li-kept",)]


def test_temporary_objects_change_nothing():
    make_hostile_types("pg_temp")
    execute(f"CREATE TEMP TABLE {TABLE} (id int)")
    with search_path("public, pg_temp"):
        reinstall(Guarded)
    the_rules_hold(f"public.{TABLE}")
    assert sqlstate(f"TRUNCATE public.{TABLE}")[0] == "23514"


def test_installing_leaves_the_search_path_alone():
    with search_path("hostile, public"):
        reinstall(Guarded)
        assert execute("SHOW search_path") == [("hostile, public",)]


@pytest.fixture
def clerk(db):
    """A role that may write to the tables and nothing else."""
    execute("CREATE ROLE clerk")
    execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
    reinstall(Guarded)
    reinstall(InSchema)
    execute(f"GRANT INSERT, UPDATE, DELETE ON {TABLE} TO clerk")
    execute(f"GRANT SELECT (label, state, amount) ON {TABLE} TO clerk")
    execute(f"GRANT USAGE ON SEQUENCE {TABLE}_id_seq TO clerk")


@contextmanager
def role(name):
    execute(f"SET LOCAL ROLE {name}")
    yield
    execute("RESET ROLE")


def test_a_role_that_may_only_write_is_held_to_the_rules(clerk):
    execute(f"REVOKE SELECT (label, state, amount) ON {TABLE} FROM clerk")
    with role("clerk"):
        assert sqlstate(f"SELECT label FROM {TABLE}")[0] == "42501"
        the_rules_hold(TABLE)
    assert Guarded.objects.get().lower == "li-kept"


def test_a_role_that_writes_through_a_view_needs_no_right_on_the_schema(clerk):
    execute('CREATE VIEW api AS SELECT number, double FROM "Side Schéma"."in schema"')
    execute("GRANT INSERT, UPDATE, DELETE ON api TO clerk")
    with role("clerk"):
        assert sqlstate("INSERT INTO api VALUES (2, 0)") == (None, None)
        assert sqlstate("UPDATE api SET number = '-1'")[0] == "23514"
        assert sqlstate("UPDATE api SET number = 11; SET CONSTRAINTS ALL IMMEDIATE")[0] == "23514"
    assert InSchema.objects.get().double == 4


def definers():
    """Our functions that run with the rights of who made them."""
    return [
        name
        for (name,) in execute(
            "SELECT p.oid::regprocedure::text FROM pg_proc AS p "
            "WHERE p.prosecdef AND p.prosrc LIKE %s",
            ["%Invariant %"],
        )
    ]


def test_functions_with_the_rights_of_their_owner_are_for_their_own_triggers_only():
    """Attached to the attacker's view, they would run the view's functions with those rights."""
    assert definers()
    execute("CREATE ROLE mallory")
    execute("GRANT CREATE ON SCHEMA public TO mallory")
    with role("mallory"):
        execute("CREATE VIEW mine AS SELECT 1 AS id, 0 AS amount")
        for name in definers():
            assert sqlstate(f"SELECT {name}")[0] in ("0A000", "42501")
            trigger = (
                f"CREATE TRIGGER t INSTEAD OF INSERT ON mine FOR EACH ROW EXECUTE FUNCTION {name}"
            )
            assert sqlstate(trigger)[0] == "42501"


def test_other_roles_may_not_create_triggers_with_our_functions():
    callable_by_all = execute(
        """
        SELECT p.proname
        FROM pg_proc AS p, aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) AS a
        WHERE p.prorettype = 'trigger'::regtype AND a.grantee = 0
            AND (starts_with(p.proname, 'bulksafe_') OR starts_with(p.proname, 'pgtrigger_'))
        """
    )
    assert callable_by_all == []


def test_functions_run_with_a_path_and_sight_of_their_own():
    paths = execute(
        "SELECT DISTINCT p.proconfig FROM pg_proc AS p "
        "WHERE p.proname LIKE 'pgtrigger_%%' AND p.prosrc LIKE '%%RAISE EXCEPTION%%'"
    )
    assert paths == [(["search_path=pg_catalog, pg_temp", "row_security=off"],)]


@pytest.fixture
def mallory(db):
    """A role that may create objects in the schema that a column type, hstore, lives in."""
    execute("CREATE ROLE mallory")
    execute("GRANT CREATE ON SCHEMA public TO mallory")
    table = TYPED["HStore"]._meta.db_table
    with role("mallory"):
        make_hostile("public", row_type=table)


def test_rights_on_the_schema_of_a_type_give_nothing_at_run_time(mallory):
    model = TYPED["HStore"]
    model.objects.create(fixed={"k": "v"}, a={"free": None})
    assert model.objects.get().c == {"free": None}
    assert refused(lambda: model.objects.update(fixed={}))
    assert refused(lambda: model.objects.update(a={"k": "v"}, b={"k": "v"}))


def test_rights_on_the_schema_of_a_type_give_nothing_from_queries(db):
    """The functions that make queries at run time have the rights of who installed them."""
    model = TYPED["HStore"]
    install(
        model,
        bulksafe.Check(~Q(a__k="x"), name="at_commit", deferred=True),
        bulksafe.Check(~Q(a__k="kept"), name="kept", operation=pgtrigger.Delete),
    )
    execute("CREATE ROLE mallory")
    execute("GRANT CREATE ON SCHEMA public TO mallory")
    with role("mallory"):
        make_hostile("public", row_type=model._meta.db_table)
    model.objects.create(a={"k": "x"})
    assert refused(check_constraints)
    model.objects.update(a={"k": "kept"})
    check_constraints()
    assert refused(lambda: execute(f"TRUNCATE {model._meta.db_table}"))


AS_JSON = Func("a", function="to_jsonb", output_field=JSONField())


@pytest.mark.parametrize(
    "invariant",
    [
        bulksafe.Check(Q(json__k="x"), name="check", json=AS_JSON),
        bulksafe.Check(Q(json__k="x"), name="deferred", deferred=True, json=AS_JSON),
        bulksafe.Compute("b", Case(When(Exact(AS_JSON, Value({}, JSONField())), then="a"))),
    ],
    ids=lambda invariant: invariant.name,
)
def test_an_invariant_that_would_use_objects_of_another_role_is_not_installed(mallory, invariant):
    with pytest.raises(ProgrammingError, match="which belongs to mallory"), transaction.atomic():
        install(TYPED["HStore"], invariant)


def test_objects_of_another_role_are_used_if_the_settings_trust_their_schema(mallory, settings):
    settings.BULKSAFE = {"SEARCH_PATH": ["public"]}
    install(TYPED["HStore"], bulksafe.Immutable("a"))


# Muting: what it disables, and where it ends.

LIMIT = "columns.Guarded:amount_below_limit"
LABEL = "columns.Guarded:immutable_label"


def too_much():
    Guarded.objects.create(amount=50)


def rename():
    Guarded.objects.update(label=Concat("label", Value("x")))


def muted_now(alias="default"):
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT current_setting('bulksafe.muted', true)")
        return cursor.fetchone()[0] or ""


def test_muted_disables_only_the_rules_that_it_names():
    with bulksafe.muted(LIMIT):
        too_much()
        assert refused(rename)
    assert refused(too_much)
    assert Guarded.objects.filter(amount=50).count() == 1


def test_muted_blocks_nest_and_end_one_by_one():
    with bulksafe.muted(LIMIT):
        with bulksafe.muted(LABEL):
            too_much()
            rename()
        assert refused(rename)
        too_much()
        with bulksafe.muted(LIMIT):
            too_much()
        too_much()
    assert refused(too_much)
    assert muted_now() == ""


def test_muted_as_a_decorator_can_be_called_again_and_inside_itself():
    @bulksafe.muted(LIMIT)
    def repair(times):
        too_much()
        if times:
            repair(times - 1)
            too_much()

    repair(2)
    assert refused(too_much)
    repair(0)
    assert refused(too_much)


def test_muted_does_not_decorate_what_would_run_after_it():
    async def coroutine():
        too_much()

    def generator():
        yield too_much()

    for function in (coroutine, generator):
        with pytest.raises(TypeError, match=r"with bulksafe\.muted"):
            bulksafe.muted(LIMIT)(function)


@pytest.mark.parametrize("error", [ValueError, DatabaseError])
def test_muted_ends_with_an_exception(error):
    @bulksafe.muted(LIMIT)
    def fail():
        too_much()
        if error is DatabaseError:
            execute("SELECT 1/0")
        raise error

    with pytest.raises(error):
        fail()
    assert not Guarded.objects.exists()
    assert refused(too_much)


def test_muted_ends_where_an_error_is_caught_inside():
    with bulksafe.muted(LIMIT):
        with pytest.raises(DatabaseError), transaction.atomic():
            execute("SELECT 1/0")
        too_much()
    assert refused(too_much)


def test_muted_ends_with_a_requested_rollback():
    with transaction.atomic():
        with bulksafe.muted(LIMIT):
            too_much()
            transaction.set_rollback(True)
        transaction.set_rollback(False)
        assert not Guarded.objects.exists()
        assert refused(too_much)


def test_muted_is_as_it_was_after_a_rollback_to_a_savepoint():
    with bulksafe.muted(LIMIT):
        with pytest.raises(ValueError, match="undo"), bulksafe.muted(LABEL):
            raise ValueError("undo")
        too_much()
        assert refused(rename)


def test_muted_does_not_outlive_its_block_in_an_outer_transaction():
    with transaction.atomic():
        with bulksafe.muted(LIMIT):
            too_much()
        assert refused(too_much)


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_muted_reaches_no_other_connection_and_no_later_transaction():
    with bulksafe.muted(LIMIT):
        too_much()
        other = connection.copy()
        try:
            with other.cursor() as cursor, pytest.raises(bulksafe.InvariantViolation):
                cursor.execute(INSERT.format(TABLE, 50))
        finally:
            other.close()
        with pytest.raises(bulksafe.InvariantViolation):
            Guarded.objects.using("other").create(amount=50)
    assert muted_now() == muted_now("other") == ""
    assert refused(too_much)


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_muted_for_another_database():
    with bulksafe.muted(LIMIT, using="other"):
        Guarded.objects.using("other").create(amount=50)
        assert refused(too_much)
    with pytest.raises(bulksafe.InvariantViolation):
        Guarded.objects.using("other").create(amount=50)


def test_a_deferred_rule_is_muted_where_the_row_is_written():
    with bulksafe.muted("columns.Guarded:amount_positive"):
        Guarded.objects.create(amount=-1)
    check_constraints()
    Guarded.objects.update(amount=-2)
    with pytest.raises(bulksafe.InvariantViolation), transaction.atomic():
        check_constraints()
    Guarded.objects.update(amount=1)
    check_constraints()


def test_a_muted_rule_on_deletion_lets_truncate_pass():
    Guarded.objects.create(state="kept")
    truncate = lambda: execute(f"TRUNCATE {TABLE}")  # noqa: E731
    check_constraints()
    assert refused(truncate)
    with bulksafe.muted("columns.Guarded:kept_stays"):
        truncate()


def test_a_muted_compute_leaves_what_is_written():
    with bulksafe.muted("columns.Guarded:compute_lower"):
        Guarded.objects.create(lower="mine", label="L")
    assert Guarded.objects.get().lower == "mine"
    Guarded.objects.update(amount=1)
    assert Guarded.objects.get().lower == "l-draft"


@pytest.mark.parametrize(
    ("label", "hint"),
    [
        (
            "columns.Guarded:amount_below_limits",
            "Did you mean 'columns.Guarded:amount_below_limit'?",
        ),
        ("nothing.like:it_at_all_xyz", "Declared are: "),
    ],
)
def test_an_unknown_label_is_refused_before_anything_is_done(label, hint):
    with pytest.raises(LookupError) as raised, bulksafe.muted(LIMIT, label):
        pytest.fail("entered")
    assert label in str(raised.value)
    assert hint in str(raised.value)
    assert muted_now() == ""


def test_muting_nothing_is_refused():
    with pytest.raises(LookupError), bulksafe.muted():
        pytest.fail("entered")


def test_pgtrigger_ignore_still_works():
    with pgtrigger.ignore("columns.Guarded:amount_below_limit"):
        too_much()
        assert refused(rename)
    assert refused(too_much)


def test_pgtrigger_ignore_of_all_reaches_invariants():
    with transaction.atomic():
        with pgtrigger.ignore():
            too_much()
            rename()
        assert refused(too_much)


def test_muted_and_pgtrigger_ignore_together():
    with bulksafe.muted(LIMIT), pgtrigger.ignore(LABEL):
        too_much()
        rename()
        with bulksafe.muted(LABEL):
            rename()
        rename()
    assert refused(too_much)
    with pgtrigger.ignore(LIMIT), bulksafe.muted(LABEL):
        too_much()
        rename()
    assert refused(too_much)


def test_a_setting_that_is_no_list_mutes_nothing():
    """It may contain anything; an unreadable value refuses the write."""
    execute("SELECT set_config('bulksafe.muted', 'columns.Guarded:amount_below_limit', true)")
    with pytest.raises(DatabaseError), transaction.atomic():
        too_much()
    execute("SELECT set_config('bulksafe.muted', '', true)")
    assert refused(too_much)


# The error message for a role that may not read the row.


@pytest.fixture
def writer(clerk):
    """May change amounts, and read the columns that the test grants."""
    execute(f"REVOKE SELECT (label, state, amount) ON {TABLE} FROM clerk")
    Guarded.objects.create(amount=1)
    return Guarded.objects.get().pk


def detail(sql):
    try:
        with transaction.atomic():
            execute(sql)
    except DatabaseError as error:
        return error.__cause__.diag.message_detail
    return None


TOO_MUCH = f"UPDATE {TABLE} SET amount = 50"
AT_COMMIT = f"UPDATE {TABLE} SET amount = -1; SET CONSTRAINTS ALL IMMEDIATE"
UNSEEN = "UPDATE of a row."


@pytest.mark.parametrize("write", [TOO_MUCH, AT_COMMIT])
def test_a_refusal_names_the_key_to_roles_that_may_read_it(write, writer):
    with role("clerk"):
        assert detail(write).endswith(UNSEEN)
    execute(f"GRANT SELECT (amount) ON {TABLE} TO clerk")
    with role("clerk"):
        assert detail(write).endswith(UNSEEN)
    execute(f"GRANT SELECT (id) ON {TABLE} TO clerk")
    with role("clerk"):
        assert detail(write).endswith(f"UPDATE of the row with id={writer}.")
    assert detail(write).endswith(f"UPDATE of the row with id={writer}.")


def test_a_refusal_under_row_level_security_names_no_row(writer):
    execute(f"GRANT SELECT ON {TABLE} TO clerk")
    execute(f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
    execute(f"CREATE POLICY all_rows ON {TABLE} USING (true)")
    with role("clerk"):
        assert detail(TOO_MUCH).endswith(UNSEEN)
    execute("ALTER ROLE clerk BYPASSRLS")
    with role("clerk"):
        assert detail(TOO_MUCH).endswith(f"UPDATE of the row with id={writer}.")


def test_no_function_combines_its_owner_s_rights_with_the_writer_s_path():
    """Captures, rules and computes of all test apps, and bulksafe's own functions."""
    found = execute(
        "SELECT p.oid::regprocedure::text, COALESCE(array_to_string(p.proconfig, ' '), '') "
        "FROM pg_proc AS p WHERE p.prosecdef AND p.pronamespace <> 'pg_catalog'::regnamespace"
    )
    assert len(found) > 20
    assert [name for name, config in found if "search_path=pg_catalog, " not in config] == []


FUNCTION_OF_OURS = """
    CREATE SCHEMA tools;
    CREATE FUNCTION tools.slugify(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
    $$ BEGIN RETURN replace(lower($1), ' ', '-'); END $$;
    GRANT USAGE ON SCHEMA tools TO PUBLIC;
"""


@pytest.mark.parametrize("is_schema_open", [True, False])
def test_a_function_that_a_compute_calls_is_not_redirected(is_schema_open, settings):
    """Neither by the writer's path, nor with the rights of the table's owner."""
    settings.BULKSAFE = {"SEARCH_PATH": ["tools"]}
    execute(FUNCTION_OF_OURS)
    if not is_schema_open:
        execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    slug = Func("label", function="slugify", output_field=Guarded._meta.get_field("lower"))
    install(Guarded, bulksafe.Compute("lower", slug))
    execute("CREATE ROLE mallory; CREATE SCHEMA hers AUTHORIZATION mallory")
    execute(f"GRANT INSERT ON {TABLE} TO mallory")
    execute(f"GRANT USAGE ON SEQUENCE {TABLE}_id_seq TO mallory")
    execute("GRANT USAGE ON SCHEMA public TO mallory")
    with role("mallory"):
        for name, arguments in (("replace", "text, text, text"), ("lower", "text")):
            execute(EVIL.format(schema="hers", name=name, arguments=arguments, result="text"))
        execute("SELECT pg_catalog.set_config('search_path', 'hers, pg_catalog, public', true)")
        execute(INSERT.format(f"public.{TABLE}", 5).replace("'Li'", "'A B'"))
    execute("SELECT pg_catalog.set_config('search_path', 'public', true)")
    assert execute(f"SELECT lower FROM {TABLE}") == [("a-b",)]
