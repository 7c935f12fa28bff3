"""What a user of the shop's admin sees in a browser when a write is refused."""

import pytest
from django.conf import settings
from django.db import connection
from django.db.models import Q

from bulksafe import Check
from examples.shop.models import Order, Refund
from tests import browser

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        browser.programs() is None, reason="no chromium with a chromedriver is installed"
    ),
]

SAVE = "[name=_save]"
ERRORS = ".errorlist"
MESSAGES = ".messagelist"


@pytest.fixture(scope="module")
def chromium():
    with browser.start() as page:
        yield page


@pytest.fixture
def page(chromium, live_server, client, user):
    """The browser, with a logged-in user; ``visit(path)`` opens a page of the shop."""
    client.force_login(user)
    chromium.open(live_server.url + "/admin/login/")
    chromium.add_cookie(
        settings.SESSION_COOKIE_NAME, client.cookies[settings.SESSION_COOKIE_NAME].value
    )
    chromium.visit = lambda path: chromium.open(f"{live_server.url}/admin/shop/{path}")
    return chromium


def change(page, order, **values):
    page.visit(f"order/{order.pk}/change/")
    for name, value in values.items():
        page.fill(name, value)
    page.click(SAVE)


def test_a_check(page, shop, unforeseen):
    change(page, shop.draft, discount="11")
    assert page.text(ERRORS) == "A discount lies between zero and the amount."
    assert page.value("discount") == "11"


def test_an_immutable_field(page, shop, unforeseen):
    change(page, shop.draft, number="B-1")
    assert page.text(ERRORS) == "“number” cannot be changed."


def test_a_transition(page, shop, unforeseen):
    change(page, shop.paid, status="Draft")
    assert page.text(ERRORS) == "“status” cannot change from “Paid” to “Draft”."


def test_a_computed_column(page, shop, disturbed_net):
    change(page, shop.draft, amount="11")
    assert "“net” is computed, and a BEFORE trigger that fires later" in page.text(ERRORS)


def test_a_check_at_the_commit(page, shop, with_rule):
    rule = Check(Q(amount__lte=100), name="at_most_100", message="At most 100.", deferred=True)
    with_rule(Order, rule)
    change(page, shop.draft, amount="200")
    assert page.text(ERRORS) == "At most 100."
    assert Order.objects.get(pk=shop.draft.pk).amount == 10


def test_a_check_on_deletion(page, shop):
    Refund.objects.update(approved=False)
    Refund.objects.all().delete()
    page.visit(f"order/{shop.paid.pk}/delete/")
    page.click("#content [type=submit]")
    expected = "Only a draft can be deleted; cancel the order instead. "
    expected += "(order “A-2”, rule “only_drafts_deleted”)"
    assert page.text(MESSAGES) == expected


def test_an_action(page, shop):
    Order.objects.filter(pk=shop.draft.pk).update(status="cancelled")
    page.visit("order/?status__exact=cancelled")
    page.click("[name=_selected_action]")
    page.fill("action", "Mark the selected orders as paid")
    page.click("[name=index]")
    expected = "“status” cannot change from “Cancelled” to “Paid”. "
    assert page.text(MESSAGES) == expected + "(order “A-1”, rule “transition_status”)"


def test_a_receiver(page, shop):
    page.visit(f"refund/{shop.refund.pk}/change/")
    page.fill("amount", "6")
    page.click(SAVE)
    assert page.text(ERRORS) == "An approved refund does not change."


def test_receivers_that_have_not_run(page, shop, bypassing):
    change(page, shop.draft, amount="11")
    expected = "The change was not saved: it bypassed code that has to run with it."
    assert page.text(ERRORS) == expected


def test_a_change_that_nothing_refuses(page, shop):
    change(page, shop.draft, amount="11")
    assert "was changed successfully" in page.text(MESSAGES)
    assert Order.objects.get(pk=shop.draft.pk).amount == 11
    assert not connection.in_atomic_block
