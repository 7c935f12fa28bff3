"""The shop's columns, without its rules.

``examples.shop`` adds the rules as bulksafe invariants and ``examples.shop_signals`` as signal
receivers, so that the two differ in nothing else.
"""

from django.db import models
from django.utils import timezone


class CustomerTable(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField()
    email_key = models.CharField(max_length=254, db_index=True, editable=False, default="")
    credit_limit = models.DecimalField(max_digits=12, decimal_places=2)

    class Meta:
        abstract = True

    def __str__(self):
        return self.name


class ProductTable(models.Model):
    sku = models.CharField("SKU", max_length=20, unique=True)
    name = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=10, decimal_places=2)
    stock = models.IntegerField(default=0)

    class Meta:
        abstract = True

    def __str__(self):
        return f"{self.sku} {self.name}"


class OrderTable(models.Model):
    class Status(models.TextChoices):
        DRAFT = "draft"
        PAID = "paid"
        SHIPPED = "shipped"
        CANCELLED = "cancelled"

    number = models.CharField(max_length=20, unique=True)
    customer = models.ForeignKey("Customer", models.PROTECT, related_name="orders")
    status = models.CharField(max_length=10, choices=Status, default=Status.DRAFT)
    amount = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    discount = models.DecimalField(max_digits=12, decimal_places=2, default=0)
    net = models.DecimalField(max_digits=12, decimal_places=2, default=0, editable=False)
    placed_at = models.DateTimeField(default=timezone.now)
    shipped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True

    def __str__(self):
        return self.number


class OrderLineTable(models.Model):
    order = models.ForeignKey("Order", models.CASCADE, related_name="lines")
    product = models.ForeignKey("Product", models.PROTECT, related_name="lines")
    quantity = models.IntegerField(default=1)
    unit_price = models.DecimalField(max_digits=10, decimal_places=2)
    total = models.DecimalField(max_digits=12, decimal_places=2, default=0, editable=False)

    class Meta:
        abstract = True

    def __str__(self):
        return f"{self.quantity} × {self.product}"


class LedgerEntryTable(models.Model):
    class Kind(models.TextChoices):
        DEBIT = "debit"
        CREDIT = "credit"

    account = models.CharField(max_length=20)
    kind = models.CharField(max_length=6, choices=Kind)
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    signed_amount = models.DecimalField(max_digits=12, decimal_places=2, default=0, editable=False)
    reference = models.CharField(max_length=20)
    booked_at = models.DateTimeField(default=timezone.now)
    closed = models.BooleanField(default=False)

    class Meta:
        abstract = True
        verbose_name_plural = "ledger entries"

    def __str__(self):
        return f"{self.account} {self.kind} {self.amount}"


class RefundTable(models.Model):
    class Reason(models.TextChoices):
        DAMAGED = "damaged"
        LATE = "late"
        RETURNED = "returned"

    number = models.CharField(max_length=20, default="", editable=False)
    order = models.ForeignKey("Order", models.PROTECT, related_name="refunds")
    amount = models.DecimalField(max_digits=12, decimal_places=2)
    reason = models.CharField(max_length=10, choices=Reason, default=Reason.RETURNED)
    approved = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        abstract = True
        constraints = [
            models.UniqueConstraint(
                fields=["number"],
                condition=~models.Q(number=""),
                name="%(app_label)s_refund_number_once",
            ),
        ]

    def __str__(self):
        return self.number


class RefundTotalTable(models.Model):
    customer = models.OneToOneField("Customer", models.PROTECT, related_name="refunded")
    amount = models.DecimalField(max_digits=12, decimal_places=2, default=0)

    class Meta:
        abstract = True

    def __str__(self):
        return f"{self.customer} {self.amount}"


class AuditLogTable(models.Model):
    entity = models.CharField(max_length=50)
    entity_id = models.BigIntegerField()
    action = models.CharField(max_length=50)
    detail = models.JSONField(default=dict, blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        abstract = True
        verbose_name_plural = "audit log"

    def __str__(self):
        return f"{self.entity} {self.entity_id} {self.action}"
