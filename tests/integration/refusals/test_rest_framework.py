"""Django REST framework answers a refused write with status 400 and the message."""

import json
import logging
import subprocess
import sys

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django.test import AsyncClient, override_settings
from django.urls import include, path

from bulksafe import Check
from examples.shop.models import Order, Product, Refund

pytest.importorskip("rest_framework", reason="djangorestframework is not installed")

from rest_framework import generics, response, serializers, settings, test, views, viewsets

from bulksafe.rest_framework import exception_handler
from examples.shop.api import OrderViewSet, router
from tests.integration.refusals.conftest import write_with_the_driver

pytestmark = pytest.mark.django_db

DISCOUNT = "A discount lies between zero and the amount."
AT_THE_COMMIT = Check(Q(amount__lte=100), name="at_most_100", message="At most 100.", deferred=True)


class Renamed(generics.UpdateAPIView):
    queryset = Order.objects.all()

    class serializer_class(serializers.ModelSerializer):  # noqa: N801
        state = serializers.CharField(source="status")

        class Meta:
            model = Order
            fields = ["state"]


class ByExtraKwargs(serializers.ModelSerializer):
    class Meta:
        model = Order
        fields = ["state"]
        extra_kwargs = {"state": {"source": "status"}}


class Chosen(viewsets.ModelViewSet):
    """A view that chooses its queryset and serializer for each request, as most do."""

    permission_classes = []
    serializers = {"update": Renamed.serializer_class, "partial_update": ByExtraKwargs}

    def get_queryset(self):
        return Order.objects.all()

    def get_serializer_class(self):
        return self.serializers[self.action]


class Everything(views.APIView):
    """A view that knows no model."""

    permission_classes = []

    def post(self, request):
        WRITES[request.data["write"]]()
        return response.Response({})


def in_a_block():
    with transaction.atomic():
        Order.objects.update(amount=200)


def other_mistake():
    raise IntegrityError("no rule")


def fields_of_a_receiver():
    raise ValidationError({"amount": ["no"], "__all__": ["at all"]})


WRITES = {
    "status": lambda: Order.objects.filter(status="paid").update(status="draft"),
    "two columns": lambda: Order.objects.update(discount=11, amount=10),
    "a block": in_a_block,
    "amount": lambda: Order.objects.update(amount=200),
    "small amount": lambda: Order.objects.update(amount=30),
    "driver": lambda: write_with_the_driver("UPDATE shop_refund SET reason = 'late'"),
    "other mistake": other_mistake,
    "fields": fields_of_a_receiver,
    "receiver": lambda: Refund.objects.update(amount=6),
}

urlpatterns = [
    path("api/", include(router.urls)),
    path("renamed/<int:pk>/", Renamed.as_view()),
    path("everything/", Everything.as_view()),
    path(
        "chosen/<int:pk>/",
        Chosen.as_view({"put": "update", "patch": "partial_update", "delete": "destroy"}),
    ),
]


@pytest.fixture(autouse=True)
def urls():
    with override_settings(ROOT_URLCONF=__name__):
        yield


@pytest.fixture
def atomic_requests(monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)


@pytest.fixture
def api(user):
    client = test.APIClient(raise_request_exception=False)
    client.force_authenticate(user)
    return client


@pytest.fixture
def refuses(shop, api):
    """The body of the 400 that a request is answered with, when it has stored nothing."""

    def send(method, address, data=None):
        before = shop.stored()
        answer = getattr(api, method)(address, data, format="json")
        assert answer.status_code == 400, answer.content
        assert shop.stored() == before
        return answer.json()

    return send


def codes(api, method, address, data):
    answer = getattr(api, method)(address, data, format="json")
    return {field: [error.code for error in errors] for field, errors in answer.data.items()}


@pytest.mark.usefixtures("atomic_requests")
class TestOneObject:
    def test_a_check_over_several_columns(self, shop, api, refuses):
        address = f"/api/orders/{shop.draft.pk}/"
        assert refuses("patch", address, {"discount": "11"}) == {"non_field_errors": [DISCOUNT]}
        expected = {"non_field_errors": ["discount_within_amount"]}
        assert codes(api, "patch", address, {"discount": "11"}) == expected

    def test_the_key_of_the_settings(self, shop, refuses, monkeypatch):
        monkeypatch.setattr(settings.api_settings, "NON_FIELD_ERRORS_KEY", "errors")
        answer = refuses("patch", f"/api/orders/{shop.draft.pk}/", {"discount": "11"})
        assert answer == {"errors": [DISCOUNT]}

    def test_a_check_over_one_column(self, shop, refuses):
        answer = refuses("patch", f"/api/products/{shop.product.pk}/", {"stock": -1})
        assert answer == {"stock": ["There are not that many in stock."]}

    def test_a_transition(self, shop, api, refuses):
        address = f"/api/orders/{shop.paid.pk}/"
        text = "“status” cannot change from “Paid” to “Draft”."
        assert refuses("patch", address, {"status": "draft"}) == {"status": [text]}
        expected = {"status": ["transition_status"]}
        assert codes(api, "patch", address, {"status": "draft"}) == expected

    def test_an_immutable_field(self, shop, refuses):
        data = {"number": "B", "customer": shop.customer.pk, "amount": "10"}
        answer = refuses("put", f"/api/orders/{shop.draft.pk}/", data)
        assert answer == {"number": ["“number” cannot be changed."]}

    def test_an_immutable_of_several_fields(self, shop, refuses):
        answer = refuses("patch", f"/api/lines/{shop.line.pk}/", {"order": shop.paid.pk})
        assert answer == {"non_field_errors": ["“order”, “product” cannot be changed."]}

    def test_a_computed_column(self, shop, refuses, disturbed_net):
        answer = refuses("patch", f"/api/orders/{shop.draft.pk}/", {"amount": "11"})
        assert list(answer) == ["net"]
        assert "a BEFORE trigger that fires later changed it" in answer["net"][0]

    def test_a_new_object(self, shop, refuses):
        data = {"number": "A-3", "customer": shop.customer.pk, "status": "paid"}
        assert refuses("post", "/api/orders/", data) == {
            "status": ["“status” cannot start with “Paid”."]
        }

    def test_a_deletion(self, shop, refuses):
        Refund.objects.update(approved=False)
        Refund.objects.all().delete()
        answer = refuses("delete", f"/api/orders/{shop.paid.pk}/")
        # It is about the column status, which the client has not sent.
        assert answer == {"status": ["Only a draft can be deleted; cancel the order instead."]}

    def test_a_receiver(self, shop, refuses):
        answer = refuses("patch", f"/api/refunds/{shop.refund.pk}/", {"amount": "6"})
        assert answer == {"non_field_errors": ["An approved refund does not change."]}

    def test_a_serializer_field_with_another_name(self, shop, refuses):
        answer = refuses("patch", f"/renamed/{shop.paid.pk}/", {"state": "draft"})
        assert list(answer) == ["state"]

    @pytest.mark.parametrize("method", ["put", "patch"])
    def test_a_serializer_that_the_view_chooses(self, shop, refuses, method):
        answer = refuses(method, f"/chosen/{shop.paid.pk}/", {"state": "draft"})
        assert list(answer) == ["state"]

    def test_a_rule_of_another_model_than_the_chosen_one(self, shop, refuses, monkeypatch):
        monkeypatch.setattr(
            Chosen, "perform_update", lambda *args: Product.objects.update(stock=-1)
        )
        answer = refuses("patch", f"/chosen/{shop.draft.pk}/", {"state": "draft"})
        assert answer == {"non_field_errors": ["There are not that many in stock."]}

    def test_an_action_that_the_view_has_no_serializer_for(self, shop, refuses):
        Refund.objects.update(approved=False)
        Refund.objects.all().delete()
        answer = refuses("delete", f"/chosen/{shop.paid.pk}/")
        assert answer == {"status": ["Only a draft can be deleted; cancel the order instead."]}

    def test_a_rule_of_another_model(self, shop, refuses, monkeypatch):
        """Its column is not a field of this resource."""
        monkeypatch.setattr(
            OrderViewSet, "perform_update", lambda *args: Product.objects.update(stock=-1)
        )
        answer = refuses("patch", f"/api/orders/{shop.draft.pk}/", {"amount": "11"})
        assert answer == {"non_field_errors": ["There are not that many in stock."]}

    def test_what_nothing_refuses(self, shop, api):
        answer = api.patch(f"/api/orders/{shop.draft.pk}/", {"amount": "11"}, format="json")
        assert (answer.status_code, answer.json()["amount"]) == (200, "11.00")


@pytest.mark.usefixtures("atomic_requests")
class TestManyObjects:
    def test_a_list(self, shop, refuses):
        orders = [
            {"number": "A-3", "customer": shop.customer.pk},
            {"number": "A-4", "customer": shop.customer.pk, "discount": "1"},
        ]
        assert refuses("post", "/api/orders/", orders) == {"non_field_errors": [DISCOUNT]}

    def test_an_update(self, shop, refuses):
        Order.objects.filter(pk=shop.draft.pk).update(status="cancelled")
        answer = refuses("post", "/api/orders/pay/", {"orders": [shop.draft.pk]})
        assert answer == {"status": ["“status” cannot change from “Cancelled” to “Paid”."]}

    def test_a_list_that_nothing_refuses(self, shop, api):
        orders = [{"number": f"A-{n}", "customer": shop.customer.pk} for n in (3, 4)]
        assert api.post("/api/orders/", orders, format="json").status_code == 201


@pytest.mark.usefixtures("atomic_requests")
class TestAViewWithoutAModel:
    def test_a_rule_about_one_field(self, refuses):
        assert list(refuses("post", "/everything/", {"write": "status"})) == ["status"]

    def test_a_rule_about_two(self, refuses):
        answer = refuses("post", "/everything/", {"write": "two columns"})
        assert answer == {"non_field_errors": [DISCOUNT]}

    def test_a_receiver_that_names_fields(self, refuses):
        answer = refuses("post", "/everything/", {"write": "fields"})
        assert answer == {"amount": ["no"], "non_field_errors": ["at all"]}

    def test_other_errors_are_left_alone(self, shop, api):
        assert api.post("/everything/", {"write": "other mistake"}).status_code == 500


def test_fields_of_a_receiver_have_the_names_of_the_serializer():
    refusal = ValidationError({"status": ["no"], "amount": ["never"], "__all__": ["at all"]})

    answer = exception_handler(refusal, {"view": Renamed()})

    assert answer.status_code == 400
    assert answer.data == {"state": ["no"], "amount": ["never"], "non_field_errors": ["at all"]}


def test_a_handler_of_the_project_may_call_ours(shop, api, monkeypatch, atomic_requests):
    def handler(exc, context):
        answer = exception_handler(exc, context)
        if answer is not None:
            answer.data = {"errors": answer.data}
        return answer

    monkeypatch.setattr(settings.api_settings, "EXCEPTION_HANDLER", handler)
    answer = api.patch(f"/api/orders/{shop.draft.pk}/", {"discount": "11"}, format="json")
    assert answer.json() == {"errors": {"non_field_errors": [DISCOUNT]}}
    assert api.patch("/api/orders/0/", {}, format="json").json() == {
        "errors": {"detail": "No Order matches the given query."}
    }
    assert api.post("/everything/", {"write": "other mistake"}).status_code == 500


MIDDLEWARE = ["bulksafe.rest_framework.CommitErrorMiddleware"]


@pytest.mark.django_db(transaction=True)
class TestTheCommit:
    @pytest.fixture(autouse=True)
    def rule(self, with_rule, shop):
        with_rule(Order, AT_THE_COMMIT)

    def test_of_a_block_in_the_view(self, refuses):
        answer = refuses("post", "/everything/", {"write": "a block"})
        assert answer == {"non_field_errors": ["At most 100."]}

    def test_of_a_statement(self, refuses):
        answer = refuses("post", "/everything/", {"write": "amount"})
        assert answer == {"non_field_errors": ["At most 100."]}

    def test_receivers_that_have_not_run(self, refuses, caplog):
        with caplog.at_level(logging.ERROR, "bulksafe"):
            answer = refuses("post", "/everything/", {"write": "driver"})
        assert answer["non_field_errors"][0].startswith("The change was not saved")
        assert "shop.refund_history" in caplog.text

    def test_a_refused_statement_rolls_the_request_back(self, shop, refuses, atomic_requests):
        refuses("post", "/everything/", {"write": "receiver"})
        assert not connection.in_atomic_block

    def test_of_the_request_is_too_late_for_the_handler(self, api, atomic_requests):
        assert api.post("/everything/", {"write": "amount"}).status_code == 500

    @pytest.mark.parametrize("write", ["amount", "a block"])
    def test_of_the_request_with_the_middleware(self, refuses, atomic_requests, write):
        with override_settings(MIDDLEWARE=MIDDLEWARE):
            answer = refuses("post", "/everything/", {"write": write})
        assert answer == {"non_field_errors": ["At most 100."]}

    def test_of_a_view_set_with_the_middleware(self, shop, refuses, atomic_requests):
        with override_settings(MIDDLEWARE=MIDDLEWARE):
            answer = refuses("patch", f"/api/orders/{shop.draft.pk}/", {"amount": "200"})
        assert answer == {"non_field_errors": ["At most 100."]}

    def test_with_the_middleware_receivers_that_have_not_run(
        self, refuses, atomic_requests, bypassing
    ):
        with override_settings(MIDDLEWARE=MIDDLEWARE):
            answer = refuses("post", "/everything/", {"write": "small amount"})
        assert answer["non_field_errors"][0].startswith("The change was not saved")

    def test_the_middleware_leaves_other_errors_alone(self, api, atomic_requests):
        with override_settings(MIDDLEWARE=MIDDLEWARE):
            assert api.post("/everything/", {"write": "other mistake"}).status_code == 500

    def test_the_middleware_leaves_a_project_alone_whose_handler_does(
        self, api, atomic_requests, monkeypatch
    ):
        monkeypatch.setattr(settings.api_settings, "EXCEPTION_HANDLER", views.exception_handler)
        with override_settings(MIDDLEWARE=MIDDLEWARE):
            assert api.post("/everything/", {"write": "amount"}).status_code == 500


def test_under_asgi(shop, user):
    from asgiref.sync import async_to_sync

    with override_settings(MIDDLEWARE=MIDDLEWARE):
        answer = async_to_sync(AsyncClient().post)(
            "/everything/",
            json.dumps({"write": "two columns"}),
            content_type="application/json",
        )
    assert (answer.status_code, answer.json()) == (400, {"non_field_errors": [DISCOUNT]})


@pytest.mark.parametrize(
    ("module", "package"),
    [("rest_framework", "djangorestframework"), ("import_export", "django-import-export")],
)
def test_without_the_package_the_error_says_what_to_install(module, package):
    code = (
        "import sys; import django; django.setup(); "
        f"sys.modules['{module}'] = None; import bulksafe.{module}"
    )
    # None in sys.modules makes an import fail as if the package were missing.
    done = subprocess.run(
        [sys.executable, "-c", code.replace("; ", "\n")],
        env={"DJANGO_SETTINGS_MODULE": "tests.integration.refusals.settings_bare"}
        | {"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"ImportError: bulksafe.{module} needs" in done.stderr
    assert f"Run: pip install {package}" in done.stderr
