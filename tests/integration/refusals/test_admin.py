"""The admin shows a message where a rule or a receiver refuses a write."""

import logging
from html import unescape

import pgtrigger
import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.db.models import Q
from django.forms import modelform_factory
from django.test import RequestFactory
from django.urls import reverse
from django.utils import timezone

from bulksafe import Check
from bulksafe.admin import RefusalMessagesMixin
from examples.shop.admin import OrderAdmin
from examples.shop.models import Customer, Order, OrderLine, Product, Refund
from tests.integration.refusals.conftest import write_with_the_driver

pytestmark = pytest.mark.django_db

DISCOUNT = "A discount lies between zero and the amount."
ONLY_DRAFTS = "Only a draft can be deleted; cancel the order instead."
AT_THE_COMMIT = Check(Q(amount__lte=100), name="at_most_100", message="At most 100.", deferred=True)


@pytest.fixture
def staff(client, user):
    client.force_login(user)
    return client


def url(model, page, *args):
    return reverse(f"admin:shop_{model._meta.model_name}_{page}", args=args)


def values(order, *lines, **changes):
    """What the change form of an order sends."""
    form = {
        "number": order.number,
        "customer": order.customer_id,
        "status": order.status,
        "amount": order.amount,
        "discount": order.discount,
        "placed_at_0": "2026-01-01",
        "placed_at_1": "10:00",
        "lines-TOTAL_FORMS": len(lines),
        "lines-INITIAL_FORMS": sum("id" in line for line in lines),
        **{f"lines-{n}-{name}": one for n, line in enumerate(lines) for name, one in line.items()},
    }
    return form | changes


def text(response):
    return unescape(response.content.decode())


def shown(response):
    return [str(message) for message in get_messages(response.wsgi_request)]


@pytest.fixture
def refuses(shop, staff):
    """The response to a POST that stores nothing, not even a line in the history."""

    def post(path, data, status=200):
        before = shop.stored()
        response = staff.post(path, data)
        assert response.status_code == status
        assert shop.stored() == before
        assert not LogEntry.objects.exists()
        return response

    return post


CHANGES = {
    "check": ({"discount": "11"}, DISCOUNT, None),
    "immutable": ({"number": "B-1"}, "“number” cannot be changed.", "number"),
    "transition": (
        {"status": "shipped", "shipped_at_0": "2026-01-01", "shipped_at_1": "10:00"},
        "“status” cannot change from “Draft” to “Shipped”.",
        "status",
    ),
}


class TestTheChangeForm:
    @pytest.mark.parametrize("kind", CHANGES)
    def test_shows_what_the_database_refuses(self, kind, shop, refuses, unforeseen):
        changes, message, field = CHANGES[kind]
        path = url(Order, "change", shop.draft.pk)
        response = refuses(path, values(shop.draft, **changes))

        form = response.context["adminform"].form
        assert form.errors == {field or "__all__": [message]}
        assert message in text(response)
        # What the user typed in is still there.
        name, typed = next(iter(changes.items()))
        assert form[name].value() == typed
        assert shown(response) == []

    def test_shows_what_validation_finds(self, shop, refuses):
        response = refuses(url(Order, "change", shop.draft.pk), values(shop.draft, discount="11"))
        assert DISCOUNT in text(response)

    def test_a_computed_column(self, shop, refuses, disturbed_net):
        response = refuses(url(Order, "change", shop.draft.pk), values(shop.draft, amount="11"))
        assert "“net” is computed, and a BEFORE trigger" in text(response)

    def test_a_rule_at_the_commit(self, shop, refuses, with_rule):
        with_rule(Order, AT_THE_COMMIT)
        response = refuses(url(Order, "change", shop.draft.pk), values(shop.draft, amount="200"))
        assert "At most 100." in text(response)
        # The messages of the view that the commit undid are gone.
        assert shown(response) == []

    def test_a_receiver(self, shop, refuses):
        response = refuses(
            url(Refund, "change", shop.refund.pk),
            {"order": shop.paid.pk, "amount": "6", "reason": "late", "approved": "on"}
            | {"created_at_0": "2026-01-01", "created_at_1": "10:00"},
        )
        assert "An approved refund does not change." in text(response)

    def test_a_receiver_that_names_fields(self, shop, refuses, monkeypatch):
        def refuse(*args):
            raise ValidationError({"amount": ["no"], "net": ["never"]})

        monkeypatch.setattr(OrderAdmin, "save_model", refuse)
        response = refuses(url(Order, "change", shop.draft.pk), values(shop.draft))
        form = response.context["adminform"].form
        assert form.errors == {"amount": ["no"], "__all__": ["never"]}

    def test_a_rule_of_an_inline(self, shop, refuses, unforeseen):
        line = {"id": shop.line.pk, "order": shop.draft.pk, "product": shop.product.pk}
        response = refuses(
            url(Order, "change", shop.draft.pk),
            values(shop.draft, line | {"quantity": "0", "unit_price": "3"}),
        )
        said = "A line has a quantity. (order line “1 × TEA Tea”, rule “quantity_positive”)"
        assert said in text(response)

    def test_a_form_from_elsewhere(self, shop, refuses, unforeseen, monkeypatch):
        """The class does not call get_form() of the mixin."""
        form = modelform_factory(Order, fields=["discount"])
        monkeypatch.setattr(OrderAdmin, "get_form", lambda *args, **kwargs: form)
        monkeypatch.setattr(OrderAdmin, "fields", ["discount"], raising=False)
        path = url(Order, "change", shop.draft.pk)
        response = refuses(path, values(shop.draft, discount="11"), status=302)
        assert response["Location"] == path
        assert shown(response) == [f"{DISCOUNT} (order “A-1”, rule “discount_within_amount”)"]

    def test_an_upload_is_read_again(self, shop, staff, unforeseen):
        """The second validation starts at the beginning of the file."""
        seen = []

        class Upload(RefusalMessagesMixin, admin.ModelAdmin):
            fields = ["number", "discount"]

            def save_model(self, request, obj, form, change):
                seen.append(request.FILES["file"].read())
                super().save_model(request, obj, form, change)

            def get_form(self, request, *args, **kwargs):
                seen.append(request.FILES["file"].read())
                return super().get_form(request, *args, **kwargs)

        request = RequestFactory().post("/", {"number": "A-1", "discount": "11"})
        request.FILES["file"] = SimpleUploadedFile("a.txt", b"content")
        request._dont_enforce_csrf_checks = True
        request.user = staff.get(reverse("admin:index")).wsgi_request.user
        response = Upload(Order, admin.site).change_view(request, str(shop.draft.pk))

        assert response.context_data["errors"] == [[DISCOUNT]]
        assert [content for content in seen if content] == [b"content", b"content"]


class TestTheAddForm:
    def test_shows_the_message(self, shop, refuses, unforeseen):
        new = Order(number="A-3", customer=shop.customer, status="paid", amount=1)
        response = refuses(url(Order, "add"), values(new))
        form = response.context["adminform"].form
        assert form.errors == {"status": ["“status” cannot start with “Paid”."]}

    def test_a_new_line_of_a_new_order(self, shop, refuses, unforeseen):
        new = Order(number="A-3", customer=shop.customer, amount=1)
        line = {"product": shop.product.pk, "quantity": "0", "unit_price": "3"}
        response = refuses(url(Order, "add"), values(new, line))
        assert "A line has a quantity. (order line id=" in text(response)

    def test_stores_what_nothing_refuses(self, shop, staff):
        new = Order(number="A-3", customer=shop.customer, amount=1)
        response = staff.post(url(Order, "add"), values(new))

        assert response.status_code == 302
        assert Order.objects.filter(number="A-3").exists()
        assert LogEntry.objects.count() == 1
        assert "was added successfully" in shown(response)[0]


def list_values(*products, **changes):
    form = {"form-TOTAL_FORMS": len(products), "form-INITIAL_FORMS": len(products), "_save": "Save"}
    for n, product in enumerate(products):
        row = {"id": product.pk, "price": product.price, "stock": product.stock}
        form |= {f"form-{n}-{name}": value for name, value in row.items()}
    return form | changes


class TestTheList:
    def test_edited_in_place(self, shop, refuses, unforeseen):
        second = Product.objects.create(sku="JAM", name="Jam", price=4, stock=1)
        changes = {"form-0-stock": "7", "form-1-stock": "-1"}
        response = refuses(url(Product, "changelist"), list_values(shop.product, second, **changes))

        said = "There are not that many in stock. (product “JAM Jam”, rule “stock_not_negative”)"
        assert said in text(response)
        assert response.context["cl"].formset.forms[0]["stock"].value() == "7"

    def test_edited_in_place_with_success(self, shop, staff):
        path = url(Product, "changelist")
        response = staff.post(path, list_values(shop.product, **{"form-0-stock": "7"}))
        assert response.status_code == 302
        assert Product.objects.get().stock == 7

    def test_an_action_of_the_project(self, shop, refuses):
        Order.objects.filter(pk=shop.paid.pk).update(status="shipped", shipped_at=timezone.now())
        selected = [shop.draft.pk, shop.paid.pk]
        data = {"action": "mark_paid", "_selected_action": selected, "index": 0}
        response = refuses(url(Order, "changelist"), data, status=302)

        said = "“status” cannot change from “Shipped” to “Paid”."
        assert shown(response) == [f"{said} (order “A-2”, rule “transition_status”)"]
        assert response["Location"] == url(Order, "changelist")

    def test_an_action_that_has_written_before(self, shop, refuses, monkeypatch):
        def mark_paid(self, request, queryset):
            Customer.objects.update(name="changed")
            self.message_user(request, "done so far")
            queryset.update(discount=11)

        monkeypatch.setattr(OrderAdmin, "mark_paid", mark_paid)
        data = {"action": "mark_paid", "_selected_action": [shop.draft.pk], "index": 0}
        response = refuses(url(Order, "changelist"), data, status=302)
        assert shown(response) == [f"{DISCOUNT} (order “A-1”, rule “discount_within_amount”)"]

    def test_an_action_that_breaks_a_rule_at_the_commit(
        self, shop, refuses, monkeypatch, with_rule
    ):
        with_rule(Order, AT_THE_COMMIT)
        monkeypatch.setattr(OrderAdmin, "mark_paid", lambda *args: args[2].update(amount=200))
        data = {"action": "mark_paid", "_selected_action": [shop.draft.pk], "index": 0}
        response = refuses(url(Order, "changelist"), data, status=302)
        assert shown(response) == ["At most 100."]

    def test_an_action_that_bypasses_receivers(self, shop, refuses, monkeypatch):
        def mark_paid(*args):
            write_with_the_driver("UPDATE shop_refund SET reason = 'late'")

        monkeypatch.setattr(OrderAdmin, "mark_paid", mark_paid)
        data = {"action": "mark_paid", "_selected_action": [shop.draft.pk], "index": 0}
        response = refuses(url(Order, "changelist"), data, status=302)
        assert shown(response)[0].startswith("The change was not saved")

    def test_an_action_that_nothing_refuses(self, shop, staff):
        data = {"action": "mark_paid", "_selected_action": [shop.draft.pk], "index": 0}
        assert staff.post(url(Order, "changelist"), data).status_code == 302
        assert Order.objects.get(pk=shop.draft.pk).status == "paid"

    def test_an_action_with_a_mistake_is_still_an_error(self, shop, staff, monkeypatch):
        monkeypatch.setattr(OrderAdmin, "mark_paid", lambda *args: 1 / 0)
        data = {"action": "mark_paid", "_selected_action": [shop.draft.pk], "index": 0}
        with pytest.raises(ZeroDivisionError):
            staff.post(url(Order, "changelist"), data)


class TestDeletions:
    @pytest.fixture(autouse=True)
    def without_refunds(self, shop):
        Refund.objects.update(approved=False)
        Refund.objects.all().delete()

    def test_on_its_page(self, shop, refuses):
        response = refuses(url(Order, "delete", shop.paid.pk), {"post": "yes"}, status=302)

        assert response["Location"] == url(Order, "change", shop.paid.pk)
        said = f"{ONLY_DRAFTS} (order “A-2”, rule “only_drafts_deleted”)"
        assert shown(response) == [said]

    def test_in_a_popup_it_stays_one(self, shop, refuses):
        data = {"post": "yes", "_popup": "1"}
        response = refuses(url(Order, "delete", shop.paid.pk), data, status=302)
        assert response["Location"] == url(Order, "change", shop.paid.pk) + "?_popup=1"

    def test_by_a_user_who_may_not_see_the_order(self, shop, client, django_user_model):
        clerk = django_user_model.objects.create_user("clerk", is_staff=True)
        clerk.user_permissions.set(Permission.objects.filter(codename__startswith="delete_"))
        client.force_login(clerk)
        response = client.post(url(Order, "delete", shop.paid.pk), {"post": "yes"})
        assert response["Location"] == reverse("admin:index")

    def test_of_the_selected(self, shop, refuses):
        selected = [shop.draft.pk, shop.paid.pk]
        data = {"action": "delete_selected", "_selected_action": selected, "post": "yes"}
        response = refuses(url(Order, "changelist"), data, status=302)
        said = f"{ONLY_DRAFTS} (order “A-2”, rule “only_drafts_deleted”)"
        assert shown(response) == [said]

    def test_the_confirmation_pages_are_as_before(self, shop, staff):
        page = staff.get(url(Order, "delete", shop.paid.pk))
        assert "Are you sure" in text(page)
        data = {"action": "delete_selected", "_selected_action": [shop.paid.pk], "index": 0}
        assert "Are you sure" in text(staff.post(url(Order, "changelist"), data))

    def test_a_cascade(self, shop, refuses, with_rule):
        """The refused row is a child of the deleted object."""
        rule = Check(Q(quantity__gt=1), name="few", message="Kept.", operation=pgtrigger.Delete)
        with_rule(OrderLine, rule)
        path = url(Order, "delete", shop.draft.pk)
        assert shown(refuses(path, {"post": "yes"}, status=302)) == ["Kept."]

    def test_by_a_receiver(self, shop, refuses):
        refund = Refund.objects.create(order=shop.paid, amount=5, approved=True)
        response = refuses(url(Refund, "delete", refund.pk), {"post": "yes"}, status=302)
        assert shown(response) == ["An approved refund stays."]

    def test_that_nothing_refuses(self, shop, staff):
        response = staff.post(url(Order, "delete", shop.draft.pk), {"post": "yes"})
        assert response["Location"] == url(Order, "changelist")
        assert not Order.objects.filter(pk=shop.draft.pk).exists()
        assert LogEntry.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("atomic_requests", [False, True])
class TestRealCommits:
    @pytest.fixture(autouse=True)
    def requests(self, atomic_requests, monkeypatch):
        settings = connection.settings_dict
        monkeypatch.setitem(settings, "ATOMIC_REQUESTS", atomic_requests)

    def test_a_rule_at_the_commit(self, shop, refuses, with_rule):
        with_rule(Order, AT_THE_COMMIT)
        response = refuses(url(Order, "change", shop.draft.pk), values(shop.draft, amount="200"))
        assert "At most 100." in text(response)
        data = list_values(shop.product)
        assert refuses(url(Product, "changelist"), data, status=302)

    def test_a_deletion(self, shop, refuses):
        data = {"action": "delete_selected", "_selected_action": [shop.paid.pk], "post": "yes"}
        Refund.objects.update(approved=False)
        Refund.objects.all().delete()
        response = refuses(url(Order, "changelist"), data, status=302)
        assert ONLY_DRAFTS in shown(response)[0]


@pytest.mark.django_db(transaction=True)
def test_receivers_that_have_not_run(shop, refuses, bypassing, caplog):
    with caplog.at_level(logging.ERROR, "bulksafe"):
        response = refuses(url(Order, "change", shop.draft.pk), values(shop.draft, amount="11"))
    assert "The change was not saved: it bypassed code" in text(response)
    assert "shop.refund_history" not in text(response)
    # The log has what a developer needs.
    assert "shop.refund_history" in caplog.text
