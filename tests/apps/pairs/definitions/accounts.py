"""Users and what belongs to them."""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone


def now() -> Any:
    """Look the clock up in each call: tests stop it."""
    return timezone.now()


def define(label: str) -> None:
    class Team(models.Model):
        name = models.CharField(max_length=40, unique=True)
        size = models.IntegerField(default=0)
        rights = ArrayField(models.CharField(max_length=40), default=list)
        defaults = models.JSONField(default=dict)

        class Meta:
            app_label = label

    class Account(models.Model):
        ROLES = [("member", "Member"), ("editor", "Editor"), ("admin", "Admin")]

        code = models.IntegerField(unique=True, null=True, blank=True)
        username = models.CharField(max_length=60, default="")
        email = models.EmailField(blank=True, default="")
        first_name = models.CharField(max_length=60, blank=True, default="")
        last_name = models.CharField(max_length=60, blank=True, default="")
        full_name = models.CharField(max_length=130, blank=True, default="")
        role = models.CharField(max_length=20, choices=ROLES, default="member")
        is_active = models.BooleanField(default=True)
        is_staff = models.BooleanField(default=False)
        is_confirmed = models.BooleanField(default=False)
        token = models.CharField(max_length=64, blank=True, default="")
        joined = models.DateTimeField(default=now)
        changed_by = models.CharField(max_length=60, blank=True, default="")
        balance = models.DecimalField(max_digits=12, decimal_places=2, default=0)
        points = models.PositiveIntegerField(default=0)
        referrer = models.ForeignKey(
            "self", models.SET_NULL, null=True, blank=True, related_name="referred"
        )
        teams = models.ManyToManyField(Team, related_name="members")

        class Meta:
            app_label = label

    class Profile(models.Model):
        account = models.OneToOneField(Account, models.CASCADE, related_name="profile")
        display_name = models.CharField(max_length=130, default="")
        visits = models.IntegerField(default=0)
        settings = models.JSONField(default=dict)

        class Meta:
            app_label = label

    class Setting(models.Model):
        account = models.ForeignKey(Account, models.CASCADE, related_name="settings")
        key = models.CharField(max_length=40)
        value = models.JSONField(null=True)

        class Meta:
            app_label = label
            unique_together = [("account", "key")]

    class Address(models.Model):
        code = models.IntegerField(unique=True, null=True)
        account = models.ForeignKey(Account, models.CASCADE, related_name="addresses")
        street = models.CharField(max_length=80)
        city = models.CharField(max_length=80, default="")
        is_default = models.BooleanField(default=False)

        class Meta:
            app_label = label

    class Notification(models.Model):
        account = models.ForeignKey(Account, models.CASCADE, related_name="notifications")
        text = models.CharField(max_length=200)
        is_read = models.BooleanField(default=False)

        class Meta:
            app_label = label

    class Activity(models.Model):
        """An entry of a stream about rows of any table."""

        verb = models.CharField(max_length=40)
        # Django creates tables without migrations first, so a constraint would find no table.
        content_type = models.ForeignKey(
            ContentType, models.CASCADE, related_name="+", db_constraint=False
        )
        object_id = models.CharField(max_length=40)
        target = GenericForeignKey()
        data = models.JSONField(default=dict)

        class Meta:
            app_label = label
