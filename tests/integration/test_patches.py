"""The patches of Django, tested from outside: a release that moves their target fails here."""

import asyncio
import inspect
import pickle
import threading
import uuid
from contextlib import ExitStack, closing
from operator import is_

import pgtrigger.apps
import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.commands import makemigrations, migrate
from django.db import IntegrityError, connection, connections, models, transaction
from django.db.backends.utils import CursorWrapper
from django.db.migrations.state import ModelState, ProjectState
from django.db.models import F, Q

import bulksafe
from bulksafe import attached, contexts, patches
from bulksafe.compiler import Trigger
from bulksafe.patches.patching import APPLIED
from tests.apps.columns.models import TYPED, Target
from tests.apps.invoices.models import Invoice, InvoiceProxy, Receipt, Voucher
from tests.unit.declaring import declare, isolated, registered
from tests.unit.patch_finder import made_by_bulksafe

pytestmark = pytest.mark.django_db


@pytest.fixture
def queries(django_assert_num_queries):
    return django_assert_num_queries


def computed(instance):
    """What the instance carries, without a query."""
    return instance.__dict__["total"], instance.__dict__["double"]


class TestInstancesCarryComputedValues:
    def test_after_an_insert_in_one_query(self, queries):
        invoice = Invoice(amount=10, fee=1)
        with queries(1):
            invoice.save()
            assert computed(invoice) == (11, 22)

    def test_after_an_update_in_one_query(self, queries):
        invoice = Invoice.objects.create(amount=10)
        invoice.amount = 20
        with queries(1):
            invoice.save()
            assert computed(invoice) == (20, 40)

    def test_after_update_fields(self, queries):
        invoice = Invoice.objects.create(amount=10)
        invoice.amount = 20
        with queries(1):
            invoice.save(update_fields=["amount"])
            assert computed(invoice) == (20, 40)

    def test_after_an_expression_was_saved(self):
        invoice = Invoice.objects.create(amount=10)
        invoice.amount = F("amount") + 5
        invoice.save()
        assert computed(invoice) == (15, 30)

    def test_values_written_to_the_field_are_overruled_on_the_instance_too(self):
        invoice = Invoice(amount=10, total=999)
        invoice.save()
        assert computed(invoice) == (10, 20)

    def test_through_a_proxy_and_a_child(self, queries):
        proxy = InvoiceProxy.objects.create(amount=1)
        child = Receipt.objects.create(amount=2)
        assert computed(proxy) == (1, 2)
        assert computed(child) == (2, 4)
        child.amount = 3
        with queries(2):  # one for each table
            child.save(update_fields=["amount", "paid_by"])
        assert computed(child) == (3, 6)

    def test_after_bulk_create_without_another_query(self, queries):
        invoices = [Invoice(amount=n) for n in range(3)]
        with queries(1):
            Invoice.objects.bulk_create(invoices)
            assert [computed(i) for i in invoices] == [(0, 0), (1, 2), (2, 4)]

    def test_after_bulk_create_with_update_conflicts(self):
        first = Voucher.objects.create(code="a")
        again = Voucher(pk=first.pk, code="abc")
        Voucher.objects.bulk_create(
            [again], update_conflicts=True, update_fields=["code"], unique_fields=["id"]
        )
        assert again.__dict__["code_length"] == 3

    def test_after_bulk_create_with_ignore_conflicts(self):
        first = Voucher.objects.create(code="a")
        ignored, stored = Voucher(pk=first.pk, code="abc"), Voucher(code="abcd")
        Voucher.objects.bulk_create([ignored, stored], ignore_conflicts=True)
        assert ignored.__dict__["code_length"] == 1
        assert stored.__dict__["code_length"] == 4

    def test_ignore_conflicts_without_keys_leaves_nothing_stale(self):
        invoice = Invoice(amount=1, total=999)
        Invoice.objects.bulk_create([invoice], ignore_conflicts=True)
        assert computed(invoice) == (None, None)

    def test_after_bulk_update_with_one_more_query(self, queries):
        invoices = Invoice.objects.bulk_create([Invoice(amount=n) for n in range(3)])
        for invoice in invoices:
            invoice.amount += 10
        with queries(2):
            Invoice.objects.bulk_update((i for i in invoices), ["amount"])
        assert [computed(i) for i in invoices] == [(10, 20), (11, 22), (12, 24)]

    def test_select_on_save(self):
        voucher = Voucher.objects.create(code="a")
        voucher.code = "abc"
        voucher.save()
        assert voucher.__dict__["code_length"] == 3

    def test_select_on_save_with_a_trigger_that_leaves_the_row_as_it_is(self):
        voucher = Voucher.objects.create(code="a")
        with connection.cursor() as cursor:
            cursor.execute(
                """
                CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql
                AS 'BEGIN RETURN NULL; END';
                CREATE TRIGGER skip BEFORE UPDATE ON invoices_voucher
                FOR EACH ROW EXECUTE FUNCTION skip();
                """
            )
        voucher.code = "abc"
        voucher.save()
        assert Voucher.objects.get().code == "a"

    def test_after_bulk_writes_of_instances_whose_key_is_text(self):
        voucher = Voucher(pk=str(uuid.uuid4()), code="a")
        Voucher.objects.bulk_create([voucher], ignore_conflicts=True)
        assert voucher.__dict__["code_length"] == 1
        voucher.code = "abc"
        Voucher.objects.bulk_update([voucher], ["code"])
        assert voucher.__dict__["code_length"] == 3
        invoice = Invoice(pk=str(Invoice.objects.create(amount=1).pk), amount=10)
        Invoice.objects.bulk_update([invoice], ["amount"])
        assert computed(invoice) == (10, 20)

    def test_a_computed_foreign_key_forgets_the_object_that_it_had(self):
        first, second = (Target.objects.create(number=number) for number in (1, 2))
        pair = TYPED["ForeignKey"].objects.create(a=first)
        assert pair.c == first
        pair.a = second
        TYPED["ForeignKey"].objects.bulk_update([pair], ["a"])
        assert pair.c == second

    def test_an_update_of_a_missing_row_inserts(self):
        key = uuid.uuid4()
        voucher = Voucher(pk=key, code="abc")
        voucher._state.adding = False
        voucher.save()
        assert Voucher.objects.get(pk=key).code_length == voucher.__dict__["code_length"] == 3

    def test_a_later_save_still_saves_all_fields(self):
        """Computed fields must not be deferred: Django would turn save() into update_fields."""
        invoice = Invoice.objects.create(amount=1)
        Invoice.objects.bulk_update([invoice], ["amount"])
        assert invoice.get_deferred_fields() == set()

    def test_async_twins(self, transactional_db):
        invoices = [Invoice(amount=1)]

        async def create():
            await Invoice.objects.abulk_create(invoices)
            await sync_to_async(connections.close_all)()

        asyncio.run(create())
        assert computed(invoices[0]) == (1, 2)


class TestViolations:
    def test_are_integrity_errors_with_name_and_message(self):
        with pytest.raises(bulksafe.InvariantViolation) as caught, transaction.atomic():
            Invoice.objects.bulk_create([Invoice(amount=1000)])
        violation = caught.value
        assert isinstance(violation, IntegrityError)
        assert violation.invariant == "invoices.Invoice:total_below_1000"
        assert violation.message == "Invariant “total_below_1000” is violated."
        assert violation.__cause__.sqlstate == "23514"
        assert violation.__cause__.diag.constraint_name == "total_below_1000"
        assert violation.__cause__.diag.table_name == "invoices_invoice"
        assert violation.as_validation_error().code == "total_below_1000"

    def test_come_out_of_the_commit(self, transactional_db):
        with (
            pytest.raises(bulksafe.InvariantViolation, match="amount_not_negative"),
            transaction.atomic(),
        ):
            Invoice.objects.create(amount=-1)
        assert not Invoice.objects.exists()

    def test_come_out_of_set_constraints(self):
        Invoice.objects.create(amount=-1)
        with pytest.raises(bulksafe.InvariantViolation), connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def test_other_errors_stay_what_they_are(self):
        Voucher.objects.create(code="a")
        with pytest.raises(IntegrityError) as caught, transaction.atomic():
            Voucher.objects.create(code="a")
        assert type(caught.value) is IntegrityError

    def test_survive_pickling(self):
        with pytest.raises(bulksafe.InvariantViolation) as caught, transaction.atomic():
            Invoice.objects.create(amount=1000)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (copy.invariant, copy.message, copy.args) == (
            caught.value.invariant,
            caught.value.message,
            caught.value.args,
        )

    def test_on_connections_of_other_threads(self, transactional_db):
        seen = []

        def write():
            try:
                Invoice.objects.create(amount=1000)
            except IntegrityError as error:
                seen.append(type(error))
            finally:
                connections.close_all()

        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        assert seen == [bulksafe.InvariantViolation]

    def test_after_a_reconnect(self, transactional_db):
        connection.close()
        with pytest.raises(bulksafe.InvariantViolation):
            Invoice.objects.create(amount=1000)


def test_full_clean_validates_the_invariants():
    with pytest.raises(ValidationError) as caught:
        Invoice(amount=2000).full_clean()
    assert [e.code for e in caught.value.error_dict["__all__"]] == ["total_below_1000"]


class TestFlush:
    def test_empties_tables_with_rules_on_deletion(self, transactional_db):
        Invoice.objects.create(amount=1, note="keep")
        with pytest.raises(bulksafe.InvariantViolation), transaction.atomic():
            Invoice.objects.all().delete()
        call_command("flush", interactive=False, verbosity=0)
        assert not Invoice.objects.exists()

    def test_mutes_for_itself_only(self, transactional_db):
        call_command("flush", interactive=False, verbosity=0)
        Invoice.objects.create(amount=1, note="keep")
        with (
            pytest.raises(bulksafe.InvariantViolation, match="Kept"),
            connection.cursor() as cursor,
        ):
            cursor.execute("TRUNCATE invoices_invoice CASCADE")


class TestConnectionsCarryContexts:
    def context_setting(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('bulksafe.context', true)")
            return cursor.fetchone()[0]

    def test_to_the_database_with_a_write(self):
        with bulksafe.context(user=7):
            Invoice.objects.create(amount=1)
            assert self.context_setting() == '{"user": 7}'

    def test_after_a_reconnect(self, transactional_db):
        connection.close()
        with bulksafe.context(user=7), transaction.atomic():
            Invoice.objects.create(amount=1)
            assert self.context_setting() == '{"user": 7}'

    @pytest.mark.parametrize("name", ["copy", "stream"])
    def test_driver_methods_that_django_passes_through(self, name):
        """Django has none of that name, which bulksafe would leave as it is."""
        assert isinstance(CursorWrapper.__dict__[name], property)
        with connection.cursor() as cursor:
            assert callable(getattr(cursor, name))
            assert callable(getattr(cursor.cursor, name))

    def test_by_one_wrapper_each(self):
        patches.apply()
        found = [w for w in connection.execute_wrappers if isinstance(w, contexts.Carrier)]
        assert len(found) == 1


def test_bulksafe_sets_only_its_own_attributes_on_a_connection():
    """See ``patches.connections``: the rest of it, and the driver's, is as Django makes it."""
    with closing(connections.create_connection("default")) as created:
        created.ensure_connection()
        assert made_by_bulksafe(created) == {"wrap_database_errors", "_bulksafe_watch"}
        assert made_by_bulksafe(created.connection) == {"cursor_factory"}


class TestSchemaEditor:
    @pytest.fixture
    def order(self):
        """A model whose table is made, with a rule."""
        with isolated():
            fields = {"amount": models.IntegerField(), "note": models.TextField()}
            model = declare(bulksafe.Check(Q(amount__gte=0), name="stays_positive"), **fields)
            with registered(model):
                with connection.schema_editor() as editor:
                    editor.create_model(model)
                yield model

    def functions(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT proname FROM pg_proc WHERE proname LIKE '%stays_positive%'")
            return cursor.fetchall()

    def test_alters_a_column_that_a_rule_uses(self, order):
        old, new = order._meta.get_field("amount"), models.BigIntegerField()
        new.set_attributes_from_name("amount")
        with connection.schema_editor() as editor:
            editor.alter_field(order, old, new)
        order.objects.create(amount=2**40, note="")
        with pytest.raises(bulksafe.InvariantViolation), transaction.atomic():
            order.objects.create(amount=-1, note="")

    def test_dropping_a_table_drops_its_functions(self, order):
        assert self.functions()
        # A migration's model has the triggers that AddTrigger stored.
        order._meta.triggers = [trigger.compile(order) for trigger in order._meta.triggers]
        with connection.schema_editor() as editor:
            editor.delete_model(order)
        assert self.functions() == []


class TestMigrationState:
    """What is attached to a model follows it, and every copy of a state has its own."""

    @pytest.fixture
    def state(self):
        key = [("id", models.AutoField(primary_key=True))]
        link = ("tags", models.ManyToManyField("shop.tag"))
        state = ProjectState()
        state.add_model(ModelState("shop", "Tag", key))
        state.add_model(ModelState("shop", "Order", [*key, link]))
        for name in ("order", "order_tags"):
            attached.of(state).put(("shop", name), attached.Attached("press", self.trigger))
        return state

    trigger = Trigger(
        name="a", invariant="shop.Order:a", pgid="a", version="v1", functions=[], triggers=[]
    )

    def held(self, state):
        return sorted(name for _, name in attached.of(state).by_model)

    def test_a_copy_has_its_own(self, state):
        assert attached.on_model(state.apps.get_model("shop", "Order")) == [self.trigger]
        copied = state.clone()
        copied.remove_model("shop", "order")
        assert self.held(copied) == []
        assert self.held(state) == ["order", "order_tags"]
        assert attached.on_model(state.apps.get_model("shop", "Order_tags")) == [self.trigger]

    def test_a_model_that_is_renamed(self, state):
        state.rename_model("shop", "Order", "Purchase")
        assert self.held(state) == ["purchase", "purchase_tags"]
        assert attached.locate(state, "shop.Order_tags") == ("shop", "purchase_tags")
        assert attached.on_model(state.apps.get_model("shop", "Purchase_tags")) == [self.trigger]

    def test_a_field_that_is_renamed(self, state):
        state.rename_field("shop", "order", "tags", "labels")
        assert self.held(state) == ["order", "order_labels"]
        assert attached.locate(state, "shop.order_tags") == ("shop", "order_labels")

    def test_a_field_that_is_removed(self, state):
        state.remove_field("shop", "order", "tags")
        assert self.held(state) == ["order"]
        assert attached.locate(state, "shop.order_tags") is None

    def test_a_reused_name(self, state):
        state.rename_model("shop", "Order", "Purchase")
        state.add_model(ModelState("shop", "Order", [("id", models.AutoField(primary_key=True))]))
        assert attached.locate(state, "shop.order") == ("shop", "order")


def test_errors_in_meta_do_not_stop_the_setup(monkeypatch):
    """pgtrigger's ``ready()`` asks for the function by its name, and so finds ours."""
    asked = []
    assert hasattr(pgtrigger.apps.register_triggers_from_meta, APPLIED)
    monkeypatch.setattr(pgtrigger.apps, "register_triggers_from_meta", lambda: asked.append(1))
    for name in ("patch_migrations", "patch_schema_editor"):
        monkeypatch.setattr(pgtrigger.apps, name, lambda: None)
    apps.get_app_config("pgtrigger").ready()
    assert asked == [1]


def test_both_commands_have_one_autodetector():
    assert makemigrations.Command.autodetector is migrate.Command.autodetector
    assert makemigrations.MigrationAutodetector is migrate.MigrationAutodetector


def test_applying_twice_changes_nothing():
    before = [inspect.getattr_static(patch.owner, patch.name) for patch in patches.PATCHES]
    patches.apply_early()
    patches.apply()
    after = [inspect.getattr_static(patch.owner, patch.name) for patch in patches.PATCHES]
    assert all(map(is_, before, after))


class TestStatementsBesideASettingOfPgtrigger:
    """A statement without parameters may have a “%” in it."""

    @pytest.fixture(params=["schema", "ignore", "both"])
    def within(self, request):
        with ExitStack() as stack:
            if request.param != "ignore":
                stack.enter_context(pgtrigger.schema("public"))
            if request.param != "schema":
                stack.enter_context(pgtrigger.ignore("invoices.Invoice:total_below_1000"))
            yield

    @pytest.mark.parametrize(
        ("statement", "params", "value"),
        [
            ("SELECT 'a%b'", None, "a%b"),
            ("SELECT format('%I', 'a b')", None, '"a b"'),
            ("SELECT '%%' || %s", ["x"], "%x"),
            ("SELECT 'a;b%%' || %s", ["%"], "a;b%%"),
            ("SELECT 'a; b%'", None, "a; b%"),
            ("SELECT '%s'", None, "%s"),
        ],
    )
    def test_the_statement_is_what_it_is_without(self, within, statement, params, value):
        with connection.cursor() as cursor:
            cursor.execute(statement, params)
            assert cursor.fetchone() == (value,)
