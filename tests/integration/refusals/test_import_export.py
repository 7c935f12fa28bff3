"""A row that a rule or a receiver refuses is an invalid row of the import, with the message."""

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models import Q
from django.db.models.signals import post_save

from bulksafe import Check, InvariantViolation
from examples.shop.models import Order, Product, Refund

pytest.importorskip("import_export", reason="django-import-export is not installed")

import tablib
from import_export import resources

from bulksafe.import_export import RefusalMessagesMixin

pytestmark = pytest.mark.django_db

STOCK = "There are not that many in stock."
AT_THE_COMMIT = Check(Q(amount__lte=100), name="at_most_100", message="At most 100.", deferred=True)


def resource(model, *columns, mixin=RefusalMessagesMixin, **options):
    meta = type("Meta", (), {"model": model, "fields": ["id", *columns], **options})
    bases = (mixin, resources.ModelResource) if mixin else (resources.ModelResource,)
    return type("Resource", bases, {"Meta": meta})()


def data(*rows, headers=("id", "stock")):
    return tablib.Dataset(*rows, headers=headers)


def errors(result):
    """The errors of the invalid rows, by line."""
    return {row.number: row.error.message_dict for row in result.invalid_rows}


@pytest.fixture
def products(shop):
    return [shop.product, Product.objects.create(sku="JAM", name="Jam", price=4, stock=1)]


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_row(products, dry_run):
    rows = [(products[0].pk, 7), (products[1].pk, -1)]
    result = resource(Product, "stock").import_data(data(*rows), dry_run=dry_run)

    assert not result.has_errors()
    assert errors(result) == {2: {"stock": [STOCK]}}
    error = result.invalid_rows[0].error.error_dict["stock"][0]
    assert error.code == "stock_not_negative"
    # As for other invalid rows, the valid ones are stored.
    stored = list(Product.objects.order_by("pk").values_list("stock", flat=True))
    assert stored == ([5, 1] if dry_run else [7, 1])


def test_without_the_mixin_the_row_shows_the_detail(products):
    """What the mixin is for."""
    rows = data((products[1].pk, -1))
    result = resource(Product, "stock", mixin=None).import_data(rows, dry_run=True)
    assert "DETAIL" in str(result.row_errors()[0][1][0].error)


def test_a_rule_about_several_columns(shop):
    rows = data((shop.draft.pk, 11), headers=["id", "discount"])
    result = resource(Order, "discount").import_data(rows)
    assert errors(result) == {1: {"__all__": ["A discount lies between zero and the amount."]}}


def test_a_transition(shop):
    rows = data((shop.paid.pk, "draft"), headers=["id", "status"])
    result = resource(Order, "status").import_data(rows)
    text = "“status” cannot change from “Paid” to “Draft”."
    assert errors(result) == {1: {"status": [text]}}


def test_a_new_row(shop):
    rows = data(("A-9", shop.customer.pk, "paid"), headers=["number", "customer", "status"])
    imported = resource(
        Order, "number", "customer", "status", import_id_fields=["number"], exclude=["id"]
    )
    assert errors(imported.import_data(rows)) == {
        1: {"status": ["“status” cannot start with “Paid”."]}
    }


def test_a_computed_column(shop, disturbed_net):
    rows = data((shop.draft.pk, 11), headers=["id", "amount"])
    assert list(errors(resource(Order, "amount").import_data(rows))[1]) == ["net"]


def test_a_receiver(shop):
    rows = data((shop.refund.pk, 6), headers=["id", "amount"])
    result = resource(Refund, "amount").import_data(rows)
    assert errors(result) == {1: {"__all__": ["An approved refund does not change."]}}
    shop.refund.refresh_from_db()
    assert shop.refund.amount == 5


@pytest.mark.parametrize("use_transactions", [True, False])
def test_a_receiver_that_refuses_after_the_write(shop, monkeypatch, use_transactions):
    def refuse(sender, instance, **kwargs):
        raise ValidationError({"reason": ["Not this one."]})

    rows = data((shop.refund.pk, "late"), headers=["id", "reason"])
    imported = resource(Refund, "reason", use_transactions=use_transactions)
    post_save.connect(refuse, sender=Refund)
    try:
        result = imported.import_data(rows)
    finally:
        post_save.disconnect(refuse, sender=Refund)

    assert errors(result) == {1: {"reason": ["Not this one."]}}
    shop.refund.refresh_from_db()
    assert shop.refund.reason == "returned"


def test_a_deletion(shop):
    Refund.objects.update(approved=False)
    Refund.objects.all().delete()
    deleting = resource(Order)
    deleting.for_delete = lambda row, instance: True
    result = deleting.import_data(data((shop.paid.pk,), headers=["id"]))
    text = "Only a draft can be deleted; cancel the order instead."
    assert errors(result) == {1: {"status": [text]}}
    assert Order.objects.filter(pk=shop.paid.pk).exists()


@pytest.mark.parametrize("use_bulk", [True, False])
def test_a_rule_at_the_commit(shop, with_rule, use_bulk):
    with_rule(Order, AT_THE_COMMIT)
    rows = data((shop.draft.pk, 200), headers=["id", "amount"])
    imported = resource(Order, "amount", use_bulk=use_bulk)
    result = imported.import_data(rows, dry_run=True)

    assert [str(error.error) for error in result.base_errors] == ["At most 100."]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("use_transactions", [True, False])
def test_a_rule_at_a_real_commit(shop, with_rule, use_transactions):
    with_rule(Order, AT_THE_COMMIT)
    rows = data((shop.draft.pk, 200), headers=["id", "amount"])
    imported = resource(Order, "amount", use_transactions=use_transactions)
    result = imported.import_data(rows)

    assert result.has_errors() != bool(result.invalid_rows)
    messages = [*errors(result).values(), *map(str, (e.error for e in result.base_errors))]
    assert messages == (["At most 100."] if use_transactions else [{"__all__": ["At most 100."]}])
    shop.draft.refresh_from_db()
    assert shop.draft.amount == 10
    assert not connection.in_atomic_block


@pytest.mark.parametrize("dry_run", [True, False])
def test_in_bulk(products, dry_run):
    rows = [(products[0].pk, 7), (products[1].pk, -1)]
    imported = resource(Product, "stock", use_bulk=True)
    result = imported.import_data(data(*rows), dry_run=dry_run)

    assert [str(error.error) for error in result.base_errors] == [STOCK]
    assert isinstance(result.base_errors[0].error.refusal, InvariantViolation)
    assert Product.objects.get(sku="TEA").stock == 5


def test_other_errors_are_left_alone(shop):
    rows = data((None, "TEA", "Tea", 3), headers=["id", "sku", "name", "price"])
    result = resource(Product, "sku", "name", "price").import_data(rows)
    assert not result.invalid_rows
    assert "duplicate key" in str(result.row_errors()[0][1][0].error)


def test_without_refusals(products):
    result = resource(Product, "stock").import_data(data((products[0].pk, 7)))
    assert not result.has_errors()
    assert not result.invalid_rows
    assert Product.objects.get(sku="TEA").stock == 7
