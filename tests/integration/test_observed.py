"""``mode="observe"``: violations are recorded and let pass."""

import json
import re
from io import StringIO

import pgtrigger
import psycopg
import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, models, transaction
from django.db.models import F, Q
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bulksafe
from bulksafe import Check, Compute, Immutable, Transition
from bulksafe.outbox import violations
from bulksafe.outbox.store import Store
from tests.acceptance.committed import _django_db_helper, committed  # noqa: F401
from tests.integration.observing import committed_table, count, limit, query, records, session
from tests.unit.declaring import declare, isolated

pytestmark = pytest.mark.django_db(transaction=True)

LABEL = "unit.Order:within"
BAD = "INSERT INTO unit_order (amount, discount, debit, status, note) VALUES (1, 5, 0, 'new', '')"


@pytest.fixture
def order():
    with isolated():
        model = declare(
            Check(Q(discount__lte=F("amount")), name="within", mode="observe"),
            Check(Q(debit=0), name="balanced", mode="observe", deferred=True),
            Check(Q(status="new"), name="only_new", operation=pgtrigger.Delete, mode="observe"),
            Immutable("status", mode="observe"),
            amount=models.IntegerField(default=10),
            discount=models.IntegerField(default=0),
            debit=models.IntegerField(default=0),
            status=models.CharField(max_length=9, default="new"),
            note=models.TextField(default=""),
        )
        with committed_table(model):
            yield model


def test_a_record_says_what_was_written_and_by_whom(order):
    row = order.objects.create()
    with bulksafe.context(user=7), transaction.atomic():
        order.objects.filter(pk=row.pk).update(discount=50)

    ((operation, key, source, kind, old, new, who, context, text),) = records(
        "operation, key, source::text, kind, old, new, login || '/' || role, context, query"
    )
    assert (operation, key, source, kind) == ("U", f"id={row.pk}", "unit_order", "rule")
    old, new = json.loads(old), json.loads(new)
    assert (old["discount"], new["discount"], new["amount"]) == (0, 50, 10)
    user = connection.settings_dict["USER"]
    assert who == f"{user}/{user}"
    assert json.loads(context)["user"] == 7
    assert text.startswith("UPDATE")
    assert order.objects.get().discount == 50


def test_the_statement_is_cut(order):
    query(f"/* {'x' * 500} */ {BAD}")

    ((text,),) = records("query")
    assert len(text) == 200


def test_records_vanish_with_their_transaction(order):
    with transaction.atomic():
        query(BAD)
        transaction.set_rollback(True)
    assert count() == 0

    with transaction.atomic():
        with transaction.atomic():
            query(BAD)
            transaction.set_rollback(True)
        query(BAD)
    assert records() == [("I", f"id={order.objects.get().pk}")]


def test_a_full_table_in_a_savepoint_is_not_full_after_its_rollback(order):
    with limit(2), transaction.atomic():
        with transaction.atomic():
            for _ in range(3):
                query(BAD)
            transaction.set_rollback(True)
        query(BAD)
    assert count() == 1


def test_a_muted_rule_records_nothing(order):
    with bulksafe.muted(LABEL):
        query(BAD)
    with pgtrigger.ignore("unit.Order:within"):
        query(BAD)
    assert (count(), order.objects.count()) == (0, 2)


def test_the_limit_holds_for_one_statement_and_for_many(order):
    with limit(10):
        order.objects.bulk_create(order() for _ in range(25))
        order.objects.update(discount=50)
        assert count() == 10
        for _ in range(3):
            query(BAD)
        assert count() == 10
        order.objects.update(status="old")
        assert len(records(invariant="unit.Order:immutable_status")) == 10
        assert violations.delete(Store("default"), LABEL) == 10
        query(BAD)
        assert len(records(invariant=LABEL)) == 1


@pytest.mark.parametrize("most", [1, 3, 8, 20])
def test_the_limit_holds_for_transactions_that_are_open_at_once(order, most):
    with limit(most):
        opened = [session() for _ in range(6)]
        others = [one.__enter__() for one in opened]
        for other in others:
            for _ in range(7):
                other.execute(BAD)
        for one in opened:
            one.__exit__(None, None, None)
        assert 0 < count() <= most
        for _ in range(most):
            query(BAD)
        assert count() == most
    assert order.objects.count() == 6 * 7 + most


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_writers_neither_wait_nor_fail(order, isolation):
    with session(isolation=isolation) as one, session(isolation=isolation) as two:
        for other in (one, two, one, two):
            other.execute(BAD)
        one.commit()
        two.execute(BAD)
    assert count() == 5


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_with_an_old_snapshot_records(order, isolation):
    with session(isolation=isolation) as old:
        old.execute("SELECT count(*) FROM unit_order")
        for _ in range(3):
            query(BAD)
        old.execute(BAD)
        old.execute(BAD)
    assert count() == 5


def test_the_limit_holds_for_an_old_snapshot(order):
    with limit(4), session(isolation="REPEATABLE READ") as old:
        old.execute("SELECT count(*) FROM unit_order")
        for _ in range(4):
            query(BAD)
        for _ in range(5):
            old.execute(BAD)
        old.commit()
        assert count() == 4


def test_deletion_waits_for_writers_and_writers_do_not_wait(order):
    query(BAD)
    with session() as writer:
        writer.execute(BAD)
        query("SET lock_timeout = '200ms'")
        with pytest.raises(OperationalError, match="lock timeout"):
            violations.delete(Store("default"), None)
        writer.execute(BAD)
    query("RESET lock_timeout")
    assert violations.delete(Store("default"), None) == 3


@pytest.fixture
def clerk(order):
    """A role that may write the user's table, and nothing else."""
    query("DROP ROLE IF EXISTS observed_clerk")
    query("CREATE ROLE observed_clerk LOGIN")
    query("GRANT INSERT, UPDATE, DELETE ON unit_order TO observed_clerk")
    query("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO observed_clerk")
    query("REVOKE ALL ON SEQUENCE bulksafe_violation_limit FROM observed_clerk")
    yield "observed_clerk"
    query("DROP OWNED BY observed_clerk; DROP ROLE observed_clerk")


@pytest.mark.parametrize("number", ["-20", "0", "x", "999999999", "9999999999", "8"])
def test_a_forged_number_makes_no_room(order, clerk, number):
    with limit(5), session(role=clerk) as other:
        for _ in range(20):
            other.execute(
                "SELECT set_config('bulksafe.recorded_' || md5(%s), %s, true)", [LABEL, number]
            )
            other.execute(BAD)
        other.commit()
        assert count() <= 5


def test_a_role_without_rights_gets_a_record_and_no_more_than_the_limit(order, clerk):
    with limit(5), session(role=clerk) as other:
        for _ in range(20):
            other.execute(BAD)
        other.commit()
        assert records("login::text, role::text") == [(clerk, clerk)] * 5


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM bulksafe_violation",
        "INSERT INTO bulksafe_violation DEFAULT VALUES",
        "DELETE FROM bulksafe_violation",
        "UPDATE bulksafe_violation SET login = 'x'",
        "SELECT setval('bulksafe_violation_limit', 1000000)",
        "SELECT bulksafe_record('x', 'rule', 'unit_order', 'I', 'id=1', NULL, NULL, NULL)",
        "SELECT bulksafe_record_image('{}')",
        "SELECT bulksafe_record_in_lane(NULL, 8, 1000)",
        "CREATE TEMP TABLE mine (LIKE unit_order); CREATE TRIGGER t AFTER INSERT ON mine "
        "FOR EACH ROW EXECUTE FUNCTION {function}()",
    ],
)
def test_a_role_without_rights_can_neither_read_nor_forge(order, clerk, statement):
    query(BAD)
    pgid = next(t for t in order._meta.triggers if t.name == "within").get_pgid(order)
    with session(role=clerk) as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
        other.execute(statement.format(function=pgid) if "{f" in statement else statement)
    assert count() == 1


def test_objects_in_front_on_the_path_are_not_used(order, clerk):
    query("GRANT CREATE ON SCHEMA public TO observed_clerk")
    with session(role=clerk) as other:
        other.execute("CREATE TEMP TABLE bulksafe_violation (invariant text)")
        other.execute(
            "CREATE FUNCTION pg_temp.md5(text) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$"
        )
        other.execute("SET search_path = pg_temp, public, pg_catalog")
        other.execute(BAD.replace("unit_order", "public.unit_order"))
    query("REVOKE CREATE ON SCHEMA public FROM observed_clerk")
    assert records("role::text") == [(clerk,)]


def test_large_values_are_cut(order):
    order.objects.create(discount=50, note="y" * 200_000, status="kept")

    ((new,),) = records("new")
    new = json.loads(new)
    assert (new["status"], len(new["note"])) == ("kept", 1001)


def test_a_deferred_rule_records_the_row_as_it_is_at_the_commit(order):
    with transaction.atomic():
        mended = order.objects.create(debit=1)
        left = order.objects.create(debit=1)
        deleted = order.objects.create(debit=1)
        order.objects.filter(pk=mended.pk).update(debit=0)
        order.objects.filter(pk=left.pk).update(debit=2)
        order.objects.filter(pk=left.pk).update(amount=11)
        deleted.delete()

    ((operation, key, new),) = records("operation, key, new")
    assert (operation, key) == ("U", f"id={left.pk}")
    assert (json.loads(new)["debit"], json.loads(new)["amount"]) == (2, 11)


def test_truncate_records_each_row(order):
    order.objects.bulk_create(order(status=status) for status in ("new", "a", "b"))

    query("TRUNCATE unit_order")

    found = records("operation, old ->> 'status', new", invariant="unit.Order:only_new")
    assert sorted(found) == [("T", "a", None), ("T", "b", None)]
    assert order.objects.count() == 0


def test_full_clean_passes(order):
    order(discount=50, note="n").full_clean()


def test_a_rule_over_an_observed_compute_is_validated_with_the_written_value():
    with isolated():
        model = declare(
            Compute("net", F("amount"), mode="observe"),
            Check(Q(net__lte=10), name="small"),
            amount=models.IntegerField(),
            net=models.IntegerField(),
        )
        with committed_table(model):
            model(amount=50, net=5).full_clean()
            with pytest.raises(ValidationError):
                model(amount=5, net=50).full_clean()
            row = model.objects.create(amount=50, net=5)
            assert (row.net, model.objects.get().net) == (5, 5)


def test_a_moved_row_is_recorded_once():
    with isolated():
        model = declare(
            Immutable("number", mode="observe"),
            Transition("state", {"a": ["b"]}, mode="observe"),
            part=models.IntegerField(),
            number=models.IntegerField(default=1),
            state=models.CharField(max_length=1, default="a"),
            meta={"managed": True},
        )
        query(
            "CREATE TABLE unit_order (id bigint GENERATED BY DEFAULT AS IDENTITY, part int, "
            "number int, state text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);"
            "CREATE TABLE unit_order_1 PARTITION OF unit_order FOR VALUES IN (1);"
            "CREATE TABLE unit_order_2 PARTITION OF unit_order FOR VALUES IN (2)"
        )
        try:
            for invariant in model._meta.triggers:
                query(invariant.compile(model).install_sql)
            query("INSERT INTO unit_order VALUES (1, 1, 1, 'a')")
            query("UPDATE unit_order SET part = 2, number = 2, state = 'x'")
            query("UPDATE unit_order SET number = 3")
            found = records("invariant, operation, source::text, old ->> 'number'")
            assert sorted(found) == [
                ("unit.Order:immutable_number", "U", "unit_order", "1"),
                ("unit.Order:immutable_number", "U", "unit_order", "2"),
                ("unit.Order:transition_state", "U", "unit_order", "1"),
            ]
        finally:
            query("DROP TABLE unit_order; DELETE FROM bulksafe_violation")
            for invariant in model._meta.triggers:
                query(invariant.compile(model).in_any_table().uninstall_sql)


def run(*arguments):
    out = StringIO()
    code = 0
    try:
        call_command("bulksafe", *arguments, stdout=out)
    except SystemExit as ended:
        code = ended.code
    return code, out.getvalue()


def test_the_commands_show_records(order):
    query(BAD)
    query(BAD)

    code, text = run("violations", "--invariant", LABEL, "--limit", "1")
    assert (code, "… and 1 more: --limit 2" in text) == (1, True)
    _, text = run("violations", "--json")
    first = json.loads(text)[0]
    assert first.keys() == {
        *("invariant", "kind", "at", "table", "operation", "key", "old", "new"),
        *("session_user", "current_user", "context", "query"),
    }
    assert (first["operation"], first["new"]["discount"], first["old"]) == ("INSERT", 5, None)
    _, text = run("status", "--json")
    ((found),) = json.loads(text)["violations"]
    assert (found["invariant"], found["count"], found["is_full"]) == (LABEL, 2, False)
    assert f"{LABEL}: 2 recorded violations, the last at" in run("status")[1]
    _, text = run("ls", "unit", "--json")
    assert {one["label"]: (one["mode"], one["violations"]) for one in json.loads(text)}[LABEL] == (
        "observe",
        2,
    )
    assert "violations" in run("ls", "unit")[1]
    assert run("violations", "--delete") == (0, "2 records were deleted.\n")
    assert run("violations", "--delete", "--json") == (0, '{"deleted": 0}\n')
    assert run("violations") == (0, "No violation is recorded.\n")
    assert run("violations", "--invariant", LABEL) == (0, f"{LABEL} has no recorded violation.\n")


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--delete"]])
def test_a_misspelt_name_is_refused(order, arguments):
    query(BAD)
    message = f"There is no invariant or receiver '{LABEL}s'. Did you mean '{LABEL}'?"
    with pytest.raises(CommandError, match=re.escape(message)):
        run("violations", "--invariant", f"{LABEL}s", *arguments)
    assert run("violations", "--invariant", LABEL)[0] == 1


def test_a_long_query_is_cut_visibly(order):
    query(BAD + " " * 10 + "/* " + "so much to say " * 10 + "*/")
    assert " …" in run("violations")[1].splitlines()[1]


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_that_hides_all_records_is_refused(order, limit):
    """The list would be empty, and with it the exit status the one of no record."""
    query(BAD)
    with pytest.raises(CommandError, match="is not a positive number"):
        run("violations", "--limit", limit)


def test_migrate_sets_the_limit(order, settings):
    settings.BULKSAFE = {"MAX_OBSERVED": 3}
    violations.limit(Store("default"))
    try:
        for _ in range(5):
            query(BAD)
        assert count() == 3
        assert (
            run("status")[1].count(
                "and no room for more (“bulksafe violations --delete” makes room)"
            )
            == 1
        )
    finally:
        settings.BULKSAFE = {}
        violations.limit(Store("default"))


rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 1)), min_size=1, max_size=8
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(before=rows, after=rows)
def test_what_is_recorded_is_what_the_orm_finds(order, before, after):
    query("TRUNCATE unit_order; DELETE FROM bulksafe_violation")

    def broken():
        return set(order.objects.exclude(discount__lte=F("amount")).values_list("pk", flat=True))

    made = order.objects.bulk_create(
        order(amount=amount, discount=discount) for amount, discount, _ in before
    )
    assert {key for (key,) in records("(new ->> 'id')::int", invariant=LABEL)} == broken()
    query("DELETE FROM bulksafe_violation")

    changed = made[: len(after)]
    for row, (amount, discount, debit) in zip(changed, after, strict=False):
        row.amount, row.discount, row.debit = amount, discount, debit
    with transaction.atomic():
        order.objects.bulk_update(changed, ["amount", "discount", "debit"])

    keys = {row.pk for row in changed}
    assert {key for (key,) in records("(new ->> 'id')::int", invariant=LABEL)} == broken() & keys
    unbalanced = set(order.objects.exclude(debit=0).values_list("pk", flat=True))
    found = records("(new ->> 'id')::int", invariant="unit.Order:balanced")
    assert {key for (key,) in found} == unbalanced
