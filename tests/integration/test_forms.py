"""A ModelForm that lacks fields of a rule is validated with the instance's values."""

import pytest
from django import forms
from django.core.exceptions import NON_FIELD_ERRORS
from django.db import connection, models
from django.db.models import F, Q
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from bulksafe import Check, Compute, Immutable, InvariantViolation
from tests.unit.declaring import declare, isolated, tables

pytestmark = pytest.mark.django_db

MESSAGE = "Too much discount."


@pytest.fixture
def order():
    with isolated():
        model = declare(
            Check(Q(discount__lte=F("amount")), name="within_amount", message=MESSAGE),
            Check(Q(net__lte=90), name="cheap", message="Too expensive."),
            Compute("net", F("amount") - F("discount")),
            Immutable("number"),
            number=models.CharField(max_length=9, default="A1"),
            amount=models.IntegerField(default=10),
            discount=models.IntegerField(default=0),
            net=models.IntegerField(editable=False),
            at=models.DateTimeField(default=timezone.now),
        )
        with tables(model):
            yield model


def form_of(model, *fields, **attributes):
    meta = type("Meta", (), {"model": model, "fields": fields})
    return type("Form", (forms.ModelForm,), {"Meta": meta, **attributes})


def test_a_stored_instance(order):
    form = form_of(order, "discount")
    stored = order.objects.create(amount=10)

    assert form({"discount": 10}, instance=stored).is_valid()
    refused = form({"discount": 11}, instance=order.objects.get())
    assert refused.errors == {NON_FIELD_ERRORS: [MESSAGE]}
    assert refused.errors.as_data()[NON_FIELD_ERRORS][0].code == "within_amount"


def test_the_database_refuses_the_same(order):
    order.objects.create(amount=10)
    stored = order.objects.get()
    stored.discount = 11

    with pytest.raises(InvariantViolation, match=MESSAGE):
        stored.save()


def test_through_a_computed_field(order):
    stored = order.objects.create(amount=100, discount=20)

    refused = form_of(order, "discount")({"discount": 5}, instance=stored)
    assert refused.errors == {NON_FIELD_ERRORS: ["Too expensive."]}


def test_a_new_instance_with_a_value_of_its_own(order):
    form = form_of(order, "discount")

    assert form({"discount": 11}, instance=order(amount=11)).is_valid()
    assert form({"discount": 12}, instance=order(amount=11)).errors


def test_a_new_instance_whose_field_the_view_sets_later(order):
    form = form_of(order, "discount")({"discount": 50})

    assert form.is_valid()
    new = form.save(commit=False)
    new.amount = 60
    new.save()
    assert order.objects.get().net == 10


def test_a_field_without_a_default(order):
    with isolated():
        other = declare(
            Check(Q(low__lte=F("high")), name="ordered", message="The wrong way round."),
            class_name="Range",
            low=models.IntegerField(),
            high=models.IntegerField(),
        )
        with tables(other):
            form = form_of(other, "low")
            assert form({"low": 3}).is_valid()
            assert form({"low": 3}, instance=other(high=2)).errors
            assert form({"low": 2}, instance=other(high=2)).is_valid()


def test_a_field_with_an_error_does_not_count(order):
    """The instance still has the old value, which the user is about to replace."""
    stored = order.objects.create(amount=10)
    form = form_of(order, "amount", "discount")({"amount": "x", "discount": 50}, instance=stored)

    assert form.errors == {"amount": ["Enter a whole number."]}


def test_the_fields_of_another_instance_do_not_count(order):
    """A form may validate other objects on the way."""
    stored = order.objects.create(amount=10)

    def clean(self):
        order(amount=1, discount=2).full_clean(exclude={"amount"})
        return self.cleaned_data

    assert form_of(order, "discount", clean=clean)({"discount": 5}, instance=stored).is_valid()


def test_exclusions_outside_of_forms_are_as_before(order):
    stored = order.objects.create(amount=10)
    stored.discount = 11

    stored.validate_constraints(exclude={"amount"})


def test_no_query_for_other_rules_over_missing_fields(order):
    stored = order.objects.create(amount=10)
    form = form_of(order, "discount")({"discount": 1}, instance=stored)

    with CaptureQueriesContext(connection) as queries:
        assert form.is_valid()
    # One for each Check; Immutable("number") concerns a field that the form cannot change.
    asked = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
    assert len(asked) == 2
    assert not any("number" in sql for sql in asked)
