"""Invoices: computed columns in the places where Django hands instances back."""

import uuid

import pgtrigger
from django.db import models
from django.db.models import F, Q

import bulksafe


class Invoice(models.Model):
    amount = models.IntegerField()
    fee = models.IntegerField(default=0)
    total = models.IntegerField(editable=False)
    double = models.IntegerField(editable=False)
    note = models.TextField(default="", blank=True)

    class Meta:
        triggers = [
            bulksafe.Compute("double", F("total") * 2),
            bulksafe.Compute("total", F("amount") + F("fee")),
            bulksafe.Check(Q(total__lt=1000), name="total_below_1000"),
            bulksafe.Check(Q(amount__gte=0), name="amount_not_negative", deferred=True),
            bulksafe.Check(
                ~Q(note="keep"), operation=pgtrigger.Delete, name="kept_notes_stay", message="Kept."
            ),
        ]


class InvoiceProxy(Invoice):
    class Meta:
        proxy = True


class Receipt(Invoice):
    """A child with a table of its own, whose computed column is the parent's."""

    paid_by = models.CharField(max_length=20, default="")


class Voucher(models.Model):
    """Its key is known before it is stored, so that a conflict can be met."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    code = models.CharField(max_length=20, unique=True)
    code_length = models.IntegerField(editable=False)

    class Meta:
        triggers = [bulksafe.Compute("code_length", models.functions.Length("code"))]
        select_on_save = True
