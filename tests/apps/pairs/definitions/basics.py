"""The models of the cases that are no practices."""

from __future__ import annotations

from typing import Any

from django.db import models


class SaveCount(models.IntegerField):
    """Grows by one whenever ``pre_save()`` runs: an ``auto_now`` whose values can be compared."""

    def pre_save(self, instance: Any, add: bool) -> int:
        value = 0 if add else (getattr(instance, self.attname) or 0) + 1
        setattr(instance, self.attname, value)
        return value


def define(label: str) -> None:

    class Group(models.Model):
        """A parent: what its items add up to, and how many more it takes."""

        name = models.CharField(max_length=40)
        count = models.IntegerField(default=0)
        total = models.IntegerField(default=0)
        stock = models.IntegerField(default=1_000)
        note = models.CharField(max_length=200, default="")

        class Meta:
            app_label = label

    class Tag(models.Model):
        name = models.CharField(max_length=40)
        used = models.IntegerField(default=0)

        class Meta:
            app_label = label

    class Item(models.Model):
        code = models.IntegerField(unique=True, null=True)
        name = models.CharField(max_length=60, default="")
        slug = models.CharField(max_length=60, unique=True, null=True)
        group = models.ForeignKey(Group, models.CASCADE, null=True, related_name="items")
        is_default = models.BooleanField(default=False)
        position = models.IntegerField(default=0)
        hits = models.IntegerField(default=0)
        state = models.CharField(max_length=20, default="draft")
        price = models.IntegerField(default=0)
        quantity = models.IntegerField(default=1)
        total = models.IntegerField(default=0)
        note = models.CharField(max_length=200, default="")
        data = models.JSONField(default=dict)
        is_active = models.BooleanField(default=True)
        saves = SaveCount(default=0)
        tags = models.ManyToManyField(Tag, through="Tagging", related_name="items")

        class Meta:
            app_label = label

    class Tagging(models.Model):
        """A through model of its own, which Django's managers may create all the same."""

        item = models.ForeignKey(Item, models.CASCADE, related_name="taggings")
        tag = models.ForeignKey(Tag, models.CASCADE, related_name="taggings")
        weight = models.IntegerField(default=0)

        class Meta:
            app_label = label

    class Part(models.Model):
        """References without a constraint: a test adds one of the database's cascades."""

        name = models.CharField(max_length=40)
        item = models.ForeignKey(
            Item, models.DO_NOTHING, null=True, db_constraint=False, related_name="parts"
        )
        code = models.IntegerField(null=True)
        parent = models.ForeignKey("self", models.DO_NOTHING, null=True, db_constraint=False)

        class Meta:
            app_label = label

    class Step(models.Model):
        name = models.CharField(max_length=40)
        group = models.ForeignKey(Group, models.CASCADE, related_name="steps")

        class Meta:
            app_label = label
            order_with_respect_to = "group"

    class Place(models.Model):
        """The parent table of two children."""

        name = models.CharField(max_length=40)
        visits = models.IntegerField(default=0)
        note = models.CharField(max_length=200, default="")

        class Meta:
            app_label = label

    class Restaurant(Place):
        stars = models.IntegerField(default=0)

        class Meta:
            app_label = label

    class Bar(Place):
        taps = models.IntegerField(default=0)

        class Meta:
            app_label = label

    class Log(models.Model):
        """What receivers note. No side has receivers for it."""

        text = models.CharField(max_length=400)

        class Meta:
            app_label = label
