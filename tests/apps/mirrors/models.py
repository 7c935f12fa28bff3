"""A small library in two copies, for the state machine of receivers in the writer's transaction.

The rows of the one are written one by one and have Django's own receivers; those of the other are
written in bulk and have critical ones. Shelves and tags have numbers that both sides agree on;
entries are numbered by the database, and known by ``number``.
"""

import uuid

from django.contrib.postgres.fields import ArrayField, DateRangeField
from django.contrib.postgres.functions import RandomUUID
from django.db import models


class Shelf(models.Model):
    """What its entries' receivers keep a count on."""

    number = models.IntegerField(primary_key=True)
    entries = models.IntegerField(default=0)
    amount = models.IntegerField(default=0)

    class Meta:
        abstract = True


class Tag(models.Model):
    number = models.IntegerField(primary_key=True)
    used = models.IntegerField(default=0)

    class Meta:
        abstract = True


class Stock(models.Model):
    """What is on a shelf, kept by a trigger of the project's own."""

    number = models.IntegerField(primary_key=True)
    entries = models.IntegerField(default=0)
    amount = models.IntegerField(default=0)

    class Meta:
        abstract = True


class Entry(models.Model):
    number = models.IntegerField(unique=True)
    name = models.CharField(max_length=40, default="")
    slug = models.CharField(max_length=60, default="")
    position = models.IntegerField(default=0)
    state = models.CharField(max_length=20, default="draft")
    amount = models.IntegerField(default=0)
    version = models.IntegerField(default=0)
    data = models.JSONField(default=dict)

    class Meta:
        abstract = True


class PlainShelf(Shelf):
    pass


class CriticalShelf(Shelf):
    pass


class PlainStock(Stock):
    pass


class CriticalStock(Stock):
    pass


class PlainTag(Tag):
    pass


class CriticalTag(Tag):
    pass


class PlainEntry(Entry):
    shelf = models.ForeignKey(PlainShelf, models.CASCADE, null=True)
    box = models.ForeignKey(PlainShelf, models.SET_NULL, null=True, related_name="+")
    tags = models.ManyToManyField(PlainTag)


class CriticalEntry(Entry):
    shelf = models.ForeignKey(CriticalShelf, models.CASCADE, null=True)
    box = models.ForeignKey(CriticalShelf, models.SET_NULL, null=True, related_name="+")
    tags = models.ManyToManyField(CriticalTag)


class Note(models.Model):
    """What receivers have noted, of either side."""

    side = models.CharField(max_length=10)
    text = models.TextField()


# Rows of other kinds, without a copy.


class Sample(models.Model):
    """Columns of many types under a key that Python makes."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=20, default="", db_column="Odd näme: 'x'")
    data = models.JSONField(null=True)
    numbers = ArrayField(models.IntegerField(), default=list)
    price = models.DecimalField(max_digits=8, decimal_places=2, null=True)
    rate = models.FloatField(null=True)
    day = models.DateField(null=True)
    moment = models.DateTimeField(null=True)
    clock = models.TimeField(null=True)
    span = models.DurationField(null=True)
    raw = models.BinaryField(null=True)
    address = models.GenericIPAddressField(null=True)
    period = DateRangeField(null=True)
    file = models.FileField(null=True)
    width = models.IntegerField(db_default=2)
    height = models.IntegerField(default=3)
    area = models.GeneratedField(
        expression=models.F("width") * models.F("height"),
        output_field=models.IntegerField(),
        db_persist=True,
    )
    parent = models.ForeignKey("self", models.CASCADE, null=True, related_name="children")
    friend = models.ForeignKey("self", models.SET_NULL, null=True, related_name="+")


class Token(models.Model):
    """Known by what the database makes up."""

    id = models.UUIDField(primary_key=True, db_default=RandomUUID())
    count = models.IntegerField(default=0)


class Ware(models.Model):
    """Known by a text."""

    code = models.CharField(max_length=20, primary_key=True)
    name = models.CharField(max_length=40, default="")
    count = models.IntegerField(default=0)


class Place(models.Model):
    """Known by two columns."""

    pk = models.CompositePrimaryKey("row", "column")
    row = models.IntegerField()
    column = models.CharField(max_length=5)
    name = models.CharField(max_length=40, default="")
    count = models.IntegerField(default=0)


class Work(models.Model):
    """The parent of what lies in two tables."""

    title = models.CharField(max_length=40, default="")
    count = models.IntegerField(default=0)


class Novel(Work):
    pages = models.IntegerField(default=0)


class ShortNovel(Novel):
    class Meta:
        proxy = True
