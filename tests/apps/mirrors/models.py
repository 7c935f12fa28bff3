"""A small library in two copies, for the state machine of receivers in the writer's transaction.

The rows of the one are written one by one and have Django's own receivers; those of the other are
written in bulk and have critical ones. Shelves and tags have numbers that both sides agree on;
entries are numbered by the database, and known by ``number``.
"""

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
