"""``full_clean()`` raises the errors that the database would raise."""

import datetime
import pickle
from decimal import Decimal

import pgtrigger
import pytest
from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import connection, models, transaction
from django.db.models import Count, F, Q
from django.db.models.functions import Coalesce, Lower, Now
from django.test import RequestFactory
from django.utils import translation
from django.utils.translation import gettext_lazy

import bulksafe
from bulksafe import Check, Compute, Immutable, InvariantViolation, Transition, muted
from bulksafe.validation import constraints_of
from tests.unit.declaring import declare, isolated, registered, tables

pytestmark = pytest.mark.django_db


def money(**kwargs):
    return models.DecimalField(max_digits=9, decimal_places=2, **kwargs)


WITHIN = Check(
    Q(discount__lte=F("amount")), name="discount_within_amount", message="Too much discount."
)


@pytest.fixture
def using_models():
    """Declares models that are known to this test only."""
    with isolated():
        yield declare


@pytest.fixture
def order(using_models):
    model = using_models(
        WITHIN,
        Compute("net", F("amount") - F("discount")),
        Check(Q(net__lte=100), name="net_at_most_100", message="Too expensive."),
        Immutable("number"),
        Transition("status", {"draft": ["paid"], "paid": ["shipped"]}, initial=["draft"]),
        number=models.CharField(max_length=9, default="A1"),
        amount=money(null=True),
        discount=money(default=0),
        net=money(null=True, editable=False),
        status=models.CharField(max_length=9, default="draft"),
    )
    with tables(model):
        yield model


def errors(instance, **kwargs):
    """The messages of full_clean(), by field; none where it passes."""
    try:
        instance.full_clean(**kwargs)
    except ValidationError as error:
        return error.message_dict
    return {}


def refused(instance):
    """The message with which the database refuses the instance, or None."""
    try:
        with transaction.atomic():
            instance.save()
    except InvariantViolation as violation:
        return violation.message
    return None


def same_as_the_database(instance):
    """full_clean() and save() agree; returns the message, or None."""
    said = errors(instance)
    stored = refused(instance)
    assert (said.get(NON_FIELD_ERRORS) or [None])[0] == stored, (said, stored)
    return stored


# Check.


def test_a_check_shows_its_message(order):
    instance = order(amount=5, discount=6)

    assert errors(instance) == {NON_FIELD_ERRORS: ["Too much discount."]}


def test_the_error_has_the_name_of_the_invariant_for_its_code(order):
    with pytest.raises(ValidationError) as raised:
        order(amount=5, discount=6).validate_constraints()

    assert raised.value.error_dict[NON_FIELD_ERRORS][0].code == "discount_within_amount"


def test_a_valid_row_passes(order):
    assert errors(order(amount=6, discount=6)) == {}


def test_unknown_passes(order):
    assert same_as_the_database(order(amount=None, discount=6)) is None


@pytest.mark.parametrize(("amount", "discount"), [("5", "6"), (5, "6.00"), (5.0, 6), ("5.001", 5)])
def test_values_that_are_not_of_the_fields_type_yet(order, amount, discount):
    """validate_constraints() may come without clean_fields(), and so without to_python()."""
    instance = order(amount=amount, discount=discount)
    said = None
    try:
        instance.validate_constraints()
    except ValidationError as error:
        said = error.messages[0]

    assert said == refused(instance)


def test_a_value_that_does_not_convert_is_left_to_its_field(order):
    assert list(errors(order(amount="lots", discount=6))) == ["amount"]

    order(amount="lots", discount=6).validate_constraints()


def test_an_expression_on_the_instance_is_left_to_the_database(order):
    stored = order.objects.create(amount=5, discount=2)
    stored.discount = F("amount") + 1

    stored.validate_constraints()
    assert refused(stored) == "Too much discount."


def test_an_excluded_field_leaves_the_rule_to_the_database(order):
    assert errors(order(amount=5, discount=6), exclude={"discount"}) == {}


def test_deferred_fields_are_judged_as_they_are_stored(order):
    stored = order.objects.create(amount=5, discount=2)
    partial = order.objects.only("discount").get(pk=stored.pk)
    partial.discount = 6

    assert same_as_the_database(partial) == "Too much discount."


def test_a_check_over_a_computed_field_computes_it_first(order):
    assert same_as_the_database(order(amount=150, discount=10)) == "Too expensive."
    assert same_as_the_database(order(amount=150, discount=50)) is None


def test_a_stale_computed_value_on_the_instance_does_not_count(order):
    stored = order.objects.create(amount=100, discount=0)
    stored.amount, stored.net = 150, 5

    assert same_as_the_database(stored) == "Too expensive."


def test_excluding_what_a_computed_field_reads_leaves_the_rule_to_the_database(order):
    assert errors(order(amount=150), exclude={"amount"}) == {}


def test_excluding_the_computed_field_itself_does_not(order):
    assert errors(order(amount=150), exclude={"net"}) == {NON_FIELD_ERRORS: ["Too expensive."]}


def test_chained_and_generated_values(using_models):
    model = using_models(
        Compute("net", F("amount") - F("discount")),
        Compute("gross", F("double") + 1),
        Check(Q(gross__lte=F("ceiling")), name="gross_within", message="Too much."),
        amount=models.IntegerField(),
        discount=models.IntegerField(default=0),
        net=models.IntegerField(null=True, editable=False),
        double=models.GeneratedField(
            expression=F("net") * 2, output_field=models.IntegerField(), db_persist=True
        ),
        gross=models.IntegerField(null=True, editable=False),
        ceiling=models.IntegerField(default=11),
    )
    with tables(model):
        assert same_as_the_database(model(amount=7, discount=2)) is None
        assert same_as_the_database(model(amount=8, discount=2)) == "Too much."
        stored = model.objects.create(amount=1)
        stored.amount = 6
        assert same_as_the_database(stored) == "Too much."


def test_decimals_are_rounded_as_they_are_stored(using_models):
    model = using_models(
        Compute("third", F("amount") / 3),
        Check(Q(third__lte=Decimal("3.33")), name="third_small", message="Too much."),
        amount=money(),
        third=money(null=True, editable=False),
    )
    with tables(model):
        assert same_as_the_database(model(amount=10)) is None
        assert same_as_the_database(model(amount=Decimal("10.02"))) == "Too much."


def test_floats_are_added_as_the_column_adds_them(using_models):
    model = using_models(
        Check(Q(total=F("a") + F("b")), name="adds_up", message="Does not add up."),
        a=models.FloatField(),
        b=models.FloatField(),
        total=models.FloatField(),
    )
    with tables(model):
        assert same_as_the_database(model(a=0.1, b=0.2, total=0.3)) == "Does not add up."
        assert same_as_the_database(model(a=0.1, b=0.2, total=0.1 + 0.2)) is None
        assert same_as_the_database(model(a=0.1, b=0.2, total=float("nan"))) == "Does not add up."


def test_json_text_dates_and_percent_signs(using_models):
    model = using_models(
        Check(~Q(data__kind="50%"), name="no_half", message="50% is not allowed: {x} \\ ' %s"),
        Check(Q(code__startswith="A") | Q(code=""), name="code_a", message="Starts with A."),
        Check(Q(start__lte=F("stop")), name="in_order", message="Wrong order."),
        data=models.JSONField(default=dict, blank=True),
        code=models.CharField(max_length=3, blank=True),
        start=models.DateField(default=datetime.date(2024, 1, 1)),
        stop=models.DateField(default=datetime.date(2024, 1, 2)),
    )
    with tables(model):
        assert same_as_the_database(model()) is None
        message = same_as_the_database(model(data={"kind": "50%"}))
        assert message == "50% is not allowed: {x} \\ ' %s"
        assert same_as_the_database(model(code="B'\\")) == "Starts with A."
        assert same_as_the_database(model(start="2024-01-03")) == "Wrong order."


def test_annotations_and_functions(using_models):
    model = using_models(
        Check(
            Q(key=Lower("name")) & ~Q(shorter=""),
            name="key_is_lower",
            message="Not lower.",
            shorter=Coalesce("key", "name"),
        ),
        key=models.CharField(max_length=9),
        name=models.CharField(max_length=9),
    )
    with tables(model):
        assert same_as_the_database(model(name="Ab", key="ab")) is None
        assert same_as_the_database(model(name="Ab", key="Ab")) == "Not lower."


def test_a_database_default_is_unknown_before_the_write(using_models):
    model = using_models(
        Check(Q(level__lte=3), name="low", message="Too high."),
        level=models.IntegerField(db_default=5),
    )
    with tables(model):
        assert errors(model()) == {}
        assert errors(model(level=4)) == {NON_FIELD_ERRORS: ["Too high."]}


def test_the_value_of_auto_now_is_unknown_before_the_write(using_models):
    model = using_models(
        Check(Q(touched__gte=F("shipped")), name="touched_last", message="From the past."),
        touched=models.DateTimeField(auto_now=True),
        shipped=models.DateTimeField(db_default=Now()),
    )
    with tables(model):
        stored = model.objects.create(shipped=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC))
        stored.shipped = datetime.datetime.now(datetime.UTC) - datetime.timedelta(microseconds=1)

        assert same_as_the_database(stored) is None


def test_a_database_generated_primary_key_is_unknown_before_the_write(using_models):
    model = using_models(Check(Q(pk__isnull=False), name="has_key"), amount=money(default=0))
    with tables(model):
        assert same_as_the_database(model()) is None


def test_a_condition_that_cannot_be_evaluated_is_left_to_the_database(using_models, caplog):
    model = using_models(
        Check(Q(amount__lte=100 / F("discount")), name="ratio"),
        amount=models.IntegerField(),
        discount=models.IntegerField(),
    )
    with tables(model):
        model(amount=1, discount=0).validate_constraints()

        assert "division by zero" in caplog.text
        # The transaction continues.
        assert model.objects.count() == 0


def test_a_check_that_is_called_unique(using_models):
    """Django asks the constraint of an error with this code for its fields."""
    model = using_models(Check(Q(amount__lte=3), name="unique"), amount=models.IntegerField())
    with tables(model):
        assert NON_FIELD_ERRORS in errors(model(amount=4))


def test_rules_for_one_operation_only(using_models):
    model = using_models(
        Check(Q(amount__gte=5), name="insert", operation=pgtrigger.Insert, message="insert"),
        Check(Q(amount__gte=3), name="update", operation=pgtrigger.Update, message="update"),
        Check(Q(amount__gte=F("old__amount")), name="grows", message="It shrinks."),
        Check(Q(new__amount__lte=9), name="new", message="Too much."),
        Check(Q(old__amount__gte=99), name="delete", operation=pgtrigger.Delete),
        amount=models.IntegerField(),
    )
    with tables(model):
        assert same_as_the_database(model(amount=4)) == "insert"
        assert same_as_the_database(model(amount=10)) == "Too much."
        stored = model.objects.create(amount=5)
        stored.amount = 4
        assert same_as_the_database(stored) == "It shrinks."
        stored.amount = 6
        assert same_as_the_database(stored) is None


def test_old_and_new_with_paths_inside_a_value(using_models):
    model = using_models(
        Check(Q(new__data__n__gte=F("old__data__n")), name="n_grows", message="n shrinks."),
        data=models.JSONField(),
    )
    with tables(model):
        stored = model.objects.create(data={"n": 2})
        stored.data = {"n": 1}
        assert same_as_the_database(stored) == "n shrinks."
        stored.data = {"n": 3}
        assert same_as_the_database(stored) is None


def test_muted_invariants_are_muted_here_too(order):
    instance = order(amount=5, discount=6)

    with muted("unit.Order:discount_within_amount"):
        assert errors(instance) == {}
        instance.save()
    assert errors(instance) == {NON_FIELD_ERRORS: ["Too much discount."]}


def test_an_invalid_declaration_is_for_the_system_checks_to_report(using_models):
    model = using_models(
        Check(Q(amount__gte=Count("id")), name="bad"),
        Immutable("nothing"),
        Transition("amount", {"x": ["y"]}),
        Compute("amount", F("amount") + 1),
        Check(Q(amount__lte=5), name="reads_a_circle"),
        amount=models.IntegerField(),
    )
    with registered(model):
        assert errors(model(amount=6)) == {}


# Immutable.


def test_immutable_on_an_edit(order):
    stored = order.objects.create(number="A1", amount=1)
    stored.number = "A2"

    assert same_as_the_database(stored) == "“number” cannot be changed."


def test_immutable_lets_inserts_and_equal_values_pass(order):
    assert same_as_the_database(order(number="A1", amount=1)) is None
    assert same_as_the_database(order.objects.create(number="A1", amount=1)) is None


def test_immutable_with_one_field_excluded_checks_the_others(using_models):
    model = using_models(
        Immutable("a", "b", message="Frozen."), a=models.IntegerField(), b=models.IntegerField()
    )
    with tables(model):
        stored = model.objects.create(a=1, b=1)
        stored.a = 2

        assert errors(stored, exclude={"a"}) == {}
        assert errors(stored, exclude={"b"}) == {NON_FIELD_ERRORS: ["Frozen."]}


def test_immutable_compares_what_is_stored(using_models):
    model = using_models(
        Immutable("amount", "ratio", "customer_id", "at", message="Frozen."),
        amount=money(),
        ratio=models.FloatField(),
        customer=models.ForeignKey(get_user_model(), models.CASCADE, db_constraint=False),
        at=models.DateTimeField(),
    )
    at = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    with tables(model):
        stored = model.objects.create(amount=5, ratio=float("nan"), customer_id=7, at=at)
        stored.amount, stored.at = "5.00", "2024-01-01T01:00:00+01:00"
        stored.validate_constraints()
        stored.customer_id = 8
        with pytest.raises(ValidationError, match="Frozen"):
            stored.validate_constraints()
        stored.validate_constraints(exclude={"customer"})


def test_immutable_on_a_row_that_is_gone(order):
    stored = order.objects.create(number="A1", amount=1)
    order.objects.all().delete()
    stored.number = "A2"

    assert errors(stored) == {}


# Transition.


def test_transition_on_an_edit(order):
    stored = order.objects.create(amount=1)
    stored.status = "shipped"
    assert same_as_the_database(stored) == "“status” cannot change from “draft” to “shipped”."
    stored.status = "paid"
    assert same_as_the_database(stored) is None


def test_transition_on_an_insert(order):
    assert same_as_the_database(order(amount=1, status="paid")) is not None
    assert errors(order(amount=1, status="paid"), exclude={"status"}) == {}


def test_transition_with_texts_for_numbers(using_models):
    model = using_models(
        Transition("level", {"1": ["2"], 2: [3]}, initial=["1"]), level=models.IntegerField()
    )
    with tables(model):
        stored = model(level="1")
        stored.validate_constraints()
        stored.save()
        stored.level = "2"
        stored.validate_constraints()
        stored.level = "3"
        with pytest.raises(ValidationError):
            stored.validate_constraints()


# Inheritance, proxies, models of others.


def test_a_proxys_rules_hold_for_the_concrete_model_and_back():
    with isolated():
        concrete = declare(
            WITHIN, class_name="Order", amount=models.IntegerField(), discount=models.IntegerField()
        )
        proxy = declare(
            Check(Q(amount__lte=100), name="not_much", message="Too much."),
            class_name="Cheap",
            bases=(concrete,),
            meta={"proxy": True},
        )
        with tables(concrete, proxy):
            for model in (concrete, proxy):
                assert same_as_the_database(model(amount=5, discount=6)) == "Too much discount."
                assert same_as_the_database(model(amount=500, discount=6)) == "Too much."


def test_rules_that_were_registered_for_a_model_of_another_app(monkeypatch):
    user = get_user_model()
    monkeypatch.setattr(user._meta, "triggers", [], raising=False)
    with isolated():
        rule = Check(~Q(username="root"), name="no_root", message="Not root.")
        with tables():
            bulksafe.register(user, rule, app_label="invoices")
            with connection.cursor() as cursor:
                cursor.execute(rule.compile(user).install_sql)
            assert errors(user(username="root", password="x"))[NON_FIELD_ERRORS] == ["Not root."]
            assert errors(user(username="ann", password="x")) == {}


@pytest.fixture
def family():
    with isolated():
        parent = declare(
            WITHIN,
            Immutable("amount"),
            class_name="Parent",
            amount=models.IntegerField(),
            discount=models.IntegerField(default=0),
        )
        child = declare(
            Check(Q(size__lte=F("limit")), name="size", message="Too big."),
            class_name="Child",
            bases=(parent,),
            size=models.IntegerField(default=0),
            limit=models.IntegerField(default=9),
        )
        with tables(parent, child):
            yield parent, child


def test_parents_rules_hold_for_a_child(family):
    _, child = family
    assert same_as_the_database(child(amount=5, discount=6)) == "Too much discount."
    assert same_as_the_database(child(amount=5, size=10)) == "Too big."
    stored = child.objects.create(amount=5)
    stored.amount = 6
    assert same_as_the_database(stored) == "“amount” cannot be changed."


def test_a_new_child_of_an_existing_row_updates_the_parent(family):
    parent, child = family
    stored = parent.objects.create(amount=5)

    instance = child(parent_ptr=stored, amount=6)

    assert same_as_the_database(instance) == "“amount” cannot be changed."


def test_a_child_with_a_key_of_its_own():
    with isolated():
        parent = declare(
            Immutable("amount"), Check(Q(pk__lte=1000), name="low"), amount=models.IntegerField()
        )
        child = declare(
            class_name="Child",
            bases=(parent,),
            code=models.IntegerField(primary_key=True),
            parent=models.OneToOneField(parent, models.CASCADE, parent_link=True),
        )
        with tables(parent, child):
            parent.objects.create(amount=77)
            stored = child.objects.create(amount=5, code=5000)
            assert stored.pk != stored.parent_id
            assert same_as_the_database(stored) is None
            stored.amount = 6
            assert same_as_the_database(stored) == "“amount” cannot be changed."


@pytest.mark.django_db(databases=["default", "other"])
def test_the_query_goes_to_the_database_of_the_write():
    with isolated():
        model = declare(Immutable("amount", message="Frozen."), amount=models.IntegerField())
        with tables(model), tables(model, using="other"):
            stored = model.objects.using("other").create(amount=5)
            model(pk=stored.pk, amount=6).save(using="default", force_insert=True)
            stored.amount = 6

            with (
                connection.execute_wrapper(_no_queries),
                pytest.raises(ValidationError, match="Frozen"),
            ):
                stored.full_clean()


def _no_queries(execute, sql, params, many, context):
    raise AssertionError(f"the default database was asked: {sql}")


def test_a_database_that_is_not_postgresql_has_no_invariants(order):
    for _, validators in constraints_of(order):
        validators[0].validate(order, order(amount=5, discount=6), using="lite")


def test_one_query_for_each_rule_and_none_for_computes(order, django_assert_num_queries):
    instance = order(amount=5, discount=1)
    with django_assert_num_queries(3 * 3):
        # Two checks and the initial state, each in a savepoint, as Django's CheckConstraint.
        instance.validate_constraints()


# Forms and the admin.


def test_a_model_form_shows_the_message(order):
    form_class = forms.modelform_factory(order, fields=["amount", "discount"])

    form = form_class({"amount": "5", "discount": "6"})

    assert not form.is_valid()
    assert form.non_field_errors() == ["Too much discount."]


def test_a_model_form_shows_a_rule_over_a_computed_field(order):
    form_class = forms.modelform_factory(order, fields=["amount", "discount"])

    assert form_class({"amount": "150", "discount": "0"}).non_field_errors() == ["Too expensive."]


def test_the_admin_shows_the_message_on_the_page(order):
    stored = order.objects.create(amount=5)
    request = RequestFactory().post("/", {"number": "A2", "amount": "5", "discount": "0"})
    request.user = get_user_model()(is_superuser=True, is_active=True)
    form_class = admin.ModelAdmin(order, admin.AdminSite()).get_form(request, stored, change=True)

    form = form_class(request.POST | {"status": "draft"}, instance=stored)

    assert form.non_field_errors() == ["“number” cannot be changed."]


def test_translated_messages(using_models):
    # A text that Django itself has translations of.
    model = using_models(
        Check(Q(amount__lte=3), name="low", message=gettext_lazy("This field is required.")),
        amount=models.IntegerField(),
    )
    with tables(model), translation.override("de"):
        instance = model(amount=4)

        assert errors(instance)[NON_FIELD_ERRORS] == ["Dieses Feld ist zwingend erforderlich."]
        assert refused(instance) == "Dieses Feld ist zwingend erforderlich."


# InvariantViolation.


@pytest.fixture
def violation(order):
    with pytest.raises(InvariantViolation) as raised, transaction.atomic():
        order.objects.create(amount=5, discount=6)
    return raised.value


def test_a_violation_as_a_validation_error(violation):
    error = violation.as_validation_error()

    assert error.messages == ["Too much discount."]
    assert error.code == "discount_within_amount"


def test_a_violation_survives_pickling(violation):
    again = pickle.loads(pickle.dumps(violation))

    assert type(again) is bulksafe.InvariantViolation
    assert (again.invariant, again.message) == (violation.invariant, violation.message)
    assert again.args == violation.args
    assert again.invariant == "unit.Order:discount_within_amount"
