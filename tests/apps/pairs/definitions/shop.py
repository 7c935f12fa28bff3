"""A shop: products, invoices with lines, payments, reviews."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

from django.db import models
from django.db.models import Sum

CENT = Decimal("0.01")


def define(label: str) -> None:
    class Stamped(models.Model):
        """An abstract base: receivers are declared for all its children."""

        code = models.IntegerField(unique=True, null=True)
        version = models.IntegerField(default=0)

        class Meta:
            app_label = label
            abstract = True

    class Product(models.Model):
        code = models.IntegerField(unique=True, null=True)
        name = models.CharField(max_length=60)
        price = models.DecimalField(max_digits=10, decimal_places=2, default=0)
        stock = models.IntegerField(default=0)
        rating = models.DecimalField(max_digits=4, decimal_places=2, null=True)
        reviews_count = models.IntegerField(default=0)
        is_active = models.BooleanField(default=True)

        class Meta:
            app_label = label

    class PriceChange(models.Model):
        product = models.ForeignKey(Product, models.CASCADE, related_name="price_changes")
        day = models.DateField()
        price = models.DecimalField(max_digits=10, decimal_places=2)

        class Meta:
            app_label = label

    class Invoice(Stamped):
        STATES = [("draft", "Draft"), ("sent", "Sent"), ("paid", "Paid"), ("void", "Void")]

        number = models.CharField(max_length=20, unique=True, null=True)
        account = models.ForeignKey("Account", models.PROTECT, null=True, related_name="invoices")
        day = models.DateField(default=datetime.date(2024, 5, 17))
        due = models.DateField(null=True)
        days_to_pay = models.IntegerField(default=14)
        status = models.CharField(max_length=20, choices=STATES, default="draft")
        net = models.DecimalField(max_digits=12, decimal_places=2, default=0)
        tax = models.DecimalField(max_digits=12, decimal_places=2, default=0)
        gross = models.DecimalField(max_digits=12, decimal_places=2, default=0)
        street = models.CharField(max_length=80, default="")
        city = models.CharField(max_length=80, default="")
        paid_at = models.DateTimeField(null=True)

        class Meta:
            app_label = label

        def save(self, *args: Any, **kwargs: Any) -> None:
            self.tax = (Decimal(self.net) * Decimal("0.19")).quantize(CENT)
            self.gross = Decimal(self.net) + self.tax
            super().save(*args, **kwargs)

        def add_up(self) -> None:
            self.net = self.lines.aggregate(net=Sum("amount"))["net"] or Decimal(0)
            self.save(update_fields=["net", "tax", "gross"])

    class Line(models.Model):
        code = models.IntegerField(unique=True, null=True)
        invoice = models.ForeignKey(Invoice, models.CASCADE, null=True, related_name="lines")
        product = models.ForeignKey(Product, models.PROTECT, null=True, related_name="lines")
        position = models.IntegerField(default=0)
        quantity = models.IntegerField(default=1)
        price = models.DecimalField(max_digits=10, decimal_places=2, null=True)
        amount = models.DecimalField(max_digits=12, decimal_places=2, default=0)

        class Meta:
            app_label = label
            ordering = ["position"]

    class Payment(Stamped):
        invoice = models.ForeignKey(Invoice, models.CASCADE, null=True, related_name="payments")
        amount = models.DecimalField(max_digits=10, decimal_places=2)
        is_settled = models.BooleanField(default=True)

        class Meta:
            app_label = label

    class Review(models.Model):
        code = models.IntegerField(unique=True, null=True)
        product = models.ForeignKey(Product, models.CASCADE, related_name="reviews")
        account = models.ForeignKey("Account", models.CASCADE, null=True, related_name="reviews")
        stars = models.PositiveSmallIntegerField(default=5)

        class Meta:
            app_label = label
            unique_together = [("product", "account")]
