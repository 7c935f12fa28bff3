"""A small shop, and rules that a test adds to it."""

import pytest
from django.contrib.auth import get_user_model
from django.db import connection

from bulksafe import validation
from examples.shop.models import Customer, Order, OrderLine, Product, Refund


class Shop:
    """Its rows: a draft order with a line, and a paid order with an approved refund."""

    def __init__(self):
        self.customer = Customer.objects.create(name="Ann", email="a@example.com", credit_limit=100)
        self.product = Product.objects.create(sku="TEA", name="Tea", price=3, stock=5)
        self.draft = Order.objects.create(number="A-1", customer=self.customer, amount=10)
        self.line = OrderLine.objects.create(order=self.draft, product=self.product, unit_price=3)
        self.paid = Order.objects.create(number="A-2", customer=self.customer, amount=20)
        self.paid.status = "paid"
        self.paid.save()
        self.refund = Refund.objects.create(order=self.paid, amount=5, approved=True)

    def stored(self):
        """The values of all rows, for a comparison before and after a refusal."""
        return [
            list(model.objects.order_by("pk").values())
            for model in (Customer, Product, Order, OrderLine, Refund)
        ]


@pytest.fixture
def shop(db):
    return Shop()


@pytest.fixture
def user(db):
    return get_user_model().objects.create_superuser("ann", password="secret")


@pytest.fixture
def unforeseen(monkeypatch):
    """The database refuses what ``full_clean()`` let pass, as after a change by another user."""
    monkeypatch.setattr(validation, "passes", lambda item, row: True)


@pytest.fixture
def execute(db):
    def run(sql):
        with connection.cursor() as cursor:
            cursor.execute(sql)

    return run


@pytest.fixture
def disturbed_net(execute):
    """A trigger that changes a computed column after it was computed."""
    execute(
        "CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.net := 1000; RETURN NEW; END $$; "
        "CREATE TRIGGER zzzz_disturb BEFORE UPDATE ON shop_order "
        "FOR EACH ROW EXECUTE FUNCTION disturb()"
    )
    yield
    execute("DROP FUNCTION IF EXISTS disturb CASCADE")


@pytest.fixture
def bypassing(execute):
    """A trigger of another application that changes refunds at the commit of a changed order."""
    execute(
        "CREATE FUNCTION bypass() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN UPDATE shop_refund SET reason = 'late'; RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER bypass AFTER UPDATE ON shop_order "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION bypass()"
    )
    yield
    execute("DROP FUNCTION IF EXISTS bypass CASCADE")


@pytest.fixture
def with_rule(execute):
    """``with_rule(model, invariant)`` adds a rule that the model does not declare."""
    added = []

    def add(model, invariant):
        trigger = invariant.compile(model)
        execute(trigger.install_sql)
        added.append(trigger)

    yield add
    for trigger in added:
        execute(trigger.uninstall_sql)


def write_with_the_driver(sql):
    """A write that Django and bulksafe's receivers do not see."""
    connection.ensure_connection()
    connection.connection.execute(sql)
