"""Products: stock, ratings, prices, and what may not be deleted."""

from decimal import Decimal

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Avg, Count, F, ProtectedError
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save
from django.utils import timezone

from tests.acceptance.pairs.case import CREATE, DELETE, UPDATE, practice
from tests.acceptance.pairs.practices.invoices import OF_LINES, two_invoices

OF_PRODUCTS = {
    "model": "Product",
    "row": lambda m, n: {"name": f"Product {n}", "price": Decimal("1.25") * n, "stock": n},
    "values": {"price": F("price") + 1},
    "new": lambda n: {"price": Decimal("2.50") * (n % 3)},
}


def _stock(m):
    def reserve(sender, instance, created, **kwargs):
        if not created:
            return
        in_stock = m.Product.objects.filter(pk=instance.product_id, stock__gte=instance.quantity)
        if not in_stock.update(stock=F("stock") - instance.quantity):
            raise ValidationError(f"{instance.product.name} is out of stock.")

    def release(sender, instance, **kwargs):
        m.Product.objects.filter(pk=instance.product_id).update(
            stock=F("stock") + instance.quantity
        )

    return [(post_save, m.Line, reserve), (post_delete, m.Line, release)]


@practice(
    "stock is reserved, or the line is refused",
    **OF_LINES
    | {
        "row": lambda m, n: {"invoice_id": 101, "product_id": 101 + n % 2, "quantity": 1 + n // 4},
        "new": lambda n: {"quantity": 1 + n},
        "kinds": (CREATE,),
    },
)
def reserved(m):
    return _stock(m)


@practice(
    "stock is released with a deleted line",
    **OF_LINES
    | {
        "row": lambda m, n: {"invoice_id": 101, "product_id": 101 + n % 2, "quantity": 1 + n // 6},
        "kinds": (DELETE,),
    },
)
def released(m):
    return _stock(m)


@practice("stock follows the difference of a quantity", **OF_LINES)
def difference(m):
    def lock(sender, instance, **kwargs):
        old = type(instance).objects.select_for_update().filter(pk=instance.pk).first()
        instance._difference = instance.quantity - (old.quantity if old else 0)

    def take(sender, instance, **kwargs):
        with transaction.atomic():
            product = m.Product.objects.select_for_update().get(pk=instance.product_id)
            product.stock -= instance._difference
            product.save(update_fields=["stock"])

    return [(pre_save, m.Line, lock), (post_save, m.Line, take)]


def reviewed(m):
    two_invoices(m)
    for n in range(1, 9):
        m.Account.objects.create(pk=200 + n, username=f"reviewer {n}")


@practice(
    "the average of the reviews",
    model="Review",
    setup=reviewed,
    row=lambda m, n: {"product_id": 101 + n % 2, "account_id": 201 + n, "stars": 1 + n % 5},
    values={"stars": 3},
    new=lambda n: {"stars": 1 + n % 4},
)
def rating(m):
    def recount(sender, instance, **kwargs):
        found = sender.objects.filter(product=instance.product).aggregate(
            rating=Avg("stars"), reviews_count=Count("pk")
        )
        if found["rating"] is not None:
            found["rating"] = round(Decimal(found["rating"]), 2)
        m.Product.objects.filter(pk=instance.product_id).update(**found)

    return [(post_save, m.Review, recount), (post_delete, m.Review, recount)]


@practice("one price for each day", **OF_PRODUCTS)
def price_of_the_day(m):
    def note(sender, instance, **kwargs):
        instance.refresh_from_db(fields=["price"])
        m.PriceChange.objects.update_or_create(
            product=instance, day=timezone.now().date(), defaults={"price": instance.price}
        )

    return [(post_save, m.Product, note)]


@practice("the product with the new price is reported once", **OF_PRODUCTS)
def price_change(m):
    def compare(sender, instance, **kwargs):
        last = m.PriceChange.objects.filter(product_id=instance.pk).order_by("-pk").first()
        instance.price_changed = last is None or last.price != instance.price

    def add(sender, instance, **kwargs):
        if instance.price_changed:
            instance.price_changes.create(day=timezone.now().date(), price=instance.price)
            transaction.on_commit(lambda: m.calls.append(("index", instance.name)))

    return [(pre_save, m.Product, compare), (post_save, m.Product, add)]


@practice(
    "an alert when stock runs low",
    **OF_PRODUCTS
    | {
        "kinds": (UPDATE,),
        "values": {"stock": F("stock") - 3},
        "new": lambda n: {"stock": n % 4},
    },
)
def low_stock(m):
    def remember(sender, instance, **kwargs):
        instance._old = sender.objects.get(pk=instance.pk) if instance.pk else None

    def alert(sender, instance, created, **kwargs):
        if not created and instance.stock < 2 <= instance._old.stock:
            transaction.on_commit(lambda: m.calls.append(("low", instance.name)))
        if instance.stock < 0:
            sender.objects.filter(pk=instance.pk).update(is_active=False)

    return [(pre_save, m.Product, remember), (post_save, m.Product, alert)]


@practice("a sold product stays, by PermissionDenied", **OF_PRODUCTS | {"kinds": (DELETE,)})
def sold(m):
    def sell(sender, instance, created, **kwargs):
        if created and instance.stock == 4:
            m.PriceChange.objects.create(product=instance, day=timezone.now().date(), price=1)

    def refuse(sender, instance, **kwargs):
        if instance.price_changes.exists():
            raise PermissionDenied(f"{instance.name} was sold.")

    return [(post_save, m.Product, sell), (pre_delete, m.Product, refuse)]


@practice("a product in stock stays, by ProtectedError", **OF_PRODUCTS | {"kinds": (DELETE,)})
def in_stock(m):
    def refuse(sender, instance, **kwargs):
        if instance.stock > 2:
            raise ProtectedError("It is in stock.", {instance})

    return [(pre_delete, m.Product, refuse)]


@practice(
    "names of active products are unique",
    **OF_PRODUCTS
    | {
        "kinds": (UPDATE,),
        "row": lambda m, n: {"name": f"Product {n % 3}", "is_active": n < 3},
        "values": {"is_active": True},
        "new": lambda n: {"is_active": n != 2},
    },
)
def unique_names(m):
    def retire_others(sender, instance, **kwargs):
        others = sender.objects.filter(name=instance.name, is_active=True).exclude(pk=instance.pk)
        if instance.is_active and others.exists():
            others.update(is_active=False)
            m.log(f"{instance.name} is replaced")

    return [(pre_save, m.Product, retire_others)]


@practice("save(update_fields) with the receiver disconnected", **OF_PRODUCTS)
def disconnected(m):
    def number(sender, instance, **kwargs):
        post_save.disconnect(number, sender=sender)
        instance.reviews_count += 1
        instance.save(update_fields=["reviews_count"])
        m.reconnect(post_save, sender, number)

    return [(post_save, m.Product, number)]
