"""The shop's API, if Django REST framework is installed: ``pip install djangorestframework``.

``REST_FRAMEWORK`` in the settings names bulksafe's exception handler, so a refused write is
answered with status 400 and the message of the rule or receiver.
"""

from rest_framework import decorators, response, routers, serializers, viewsets

from examples.shop.models import Order, OrderLine, Product, Refund


class BulkList(serializers.ListSerializer):
    """A list in the body is stored in one bulk write."""

    def create(self, validated_data):
        model = self.child.Meta.model
        return model.objects.bulk_create([model(**values) for values in validated_data])


def serializer(model, *fields):
    options = {"model": model, "fields": ["id", *fields], "list_serializer_class": BulkList}
    meta = type("Meta", (), options)
    return type(f"{model.__name__}Serializer", (serializers.ModelSerializer,), {"Meta": meta})


class OrderViewSet(viewsets.ModelViewSet):
    queryset = Order.objects.order_by("pk")
    serializer_class = serializer(
        Order, "number", "customer", "status", "amount", "discount", "net", "shipped_at"
    )

    def get_serializer(self, *args, **kwargs):
        many = isinstance(kwargs.get("data"), list)
        return super().get_serializer(*args, **({"many": True} if many else {}), **kwargs)

    @decorators.action(methods=["post"], detail=False)
    def pay(self, request):
        """A bulk update, which signal receivers never see."""
        orders = self.get_queryset().filter(pk__in=request.data["orders"])
        return response.Response({"paid": orders.update(status=Order.Status.PAID)})


class OrderLineViewSet(viewsets.ModelViewSet):
    queryset = OrderLine.objects.order_by("pk")
    serializer_class = serializer(OrderLine, "order", "product", "quantity", "unit_price", "total")


class ProductViewSet(viewsets.ModelViewSet):
    queryset = Product.objects.order_by("pk")
    serializer_class = serializer(Product, "sku", "name", "price", "stock")


class RefundViewSet(viewsets.ModelViewSet):
    queryset = Refund.objects.order_by("pk")
    serializer_class = serializer(Refund, "number", "order", "amount", "reason", "approved")


router = routers.SimpleRouter()
router.register("orders", OrderViewSet)
router.register("lines", OrderLineViewSet)
router.register("products", ProductViewSet)
router.register("refunds", RefundViewSet)
