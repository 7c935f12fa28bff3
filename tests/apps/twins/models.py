"""Twin tables: the same columns, guarded by bulksafe here and by signal receivers there.

Every guarded model has the same invariants, one of each kind, so that a write path is tried in the
same way on an ordinary table, on a partitioned one and on both tables of multi-table inheritance.
"""

import pgtrigger
from django.db import models
from django.db.models import F, Q

import bulksafe

TRANSITIONS = {"draft": ["paid", "cancelled"], "paid": ["shipped"]}
INITIAL = ["draft"]


class Columns(models.Model):
    """The columns of both twins. ``key`` identifies rows, since ids come from a sequence."""

    key = models.IntegerField(unique=True)
    amount = models.IntegerField(default=100)
    discount = models.IntegerField(default=10)
    ceiling = models.IntegerField(null=True)
    price = models.IntegerField(default=10)
    locked = models.BooleanField(default=False)
    debit = models.IntegerField(default=0)
    credit = models.IntegerField(default=0)
    net = models.IntegerField(editable=False)
    # Reads ``net`` and comes before it in the alphabet, by which PostgreSQL fires triggers.
    double_net = models.IntegerField(editable=False)
    number = models.CharField(max_length=20, default="N")
    state = models.CharField(max_length=10, default="draft")
    # Without a rule. Every update sets the first; SET column = F(…) uses the others.
    seen = models.BooleanField(default=False)
    step = models.IntegerField(default=0)
    wish = models.CharField(max_length=20, default="")

    class Meta:
        abstract = True

    def __str__(self):
        return f"{type(self).__name__} {self.key}"


class Guarded(Columns):
    class Meta:
        abstract = True
        triggers = [
            bulksafe.Check(Q(discount__lte=F("amount")), name="discount_within_amount"),
            bulksafe.Check(Q(amount__lte=F("ceiling")), name="amount_within_ceiling"),
            bulksafe.Check(Q(new__price__lte=F("old__price") * 2), name="price_at_most_doubles"),
            bulksafe.Check(Q(old__locked=False), operation=pgtrigger.Delete, name="locked_is_kept"),
            bulksafe.Check(Q(debit=F("credit")), deferred=True, name="balanced"),
            bulksafe.Compute("net", F("amount") - F("discount")),
            bulksafe.Compute("double_net", F("net") * 2),
            bulksafe.Immutable("number"),
            bulksafe.Transition("state", TRANSITIONS, initial=INITIAL),
        ]


class Folder(models.Model):
    """Django deletes its entries along with it."""

    def __str__(self):
        return f"{type(self).__name__} {self.pk}"


class FolderTwin(models.Model):
    def __str__(self):
        return f"{type(self).__name__} {self.pk}"


class Shelf(models.Model):
    """PostgreSQL deletes its entries along with it, see ``by_hand.sql``."""

    def __str__(self):
        return f"{type(self).__name__} {self.pk}"


class Entry(Guarded):
    folder = models.ForeignKey(Folder, models.CASCADE, null=True)
    shelf = models.ForeignKey(Shelf, models.DO_NOTHING, null=True, db_constraint=False)


class EntryTwin(Columns):
    folder = models.ForeignKey(FolderTwin, models.CASCADE, null=True)
    shelf = models.ForeignKey(Shelf, models.DO_NOTHING, null=True, db_constraint=False)


class Parcel(Guarded):
    """Partitioned by ``key``, see ``by_hand.sql``."""

    key = models.IntegerField(primary_key=True)


class ParcelTwin(Columns):
    key = models.IntegerField(primary_key=True)


class Document(Guarded):
    """The guarded parent of an unguarded child."""


class Memo(Document):
    remark = models.CharField(max_length=20, default="")

    class Meta:
        """Without one it inherits that of ``Guarded``, with rules on columns that it lacks."""


class DocumentTwin(Columns):
    pass


class MemoTwin(DocumentTwin):
    remark = models.CharField(max_length=20, default="")


class Paper(models.Model):
    """The unguarded parent of a guarded child."""

    title = models.CharField(max_length=20, default="")

    def __str__(self):
        return f"{type(self).__name__} {self.pk}"


class Report(Paper, Guarded):
    pass


class PaperTwin(models.Model):
    title = models.CharField(max_length=20, default="")

    def __str__(self):
        return f"{type(self).__name__} {self.pk}"


class ReportTwin(PaperTwin, Columns):
    pass


TWINS = {Entry: EntryTwin, Parcel: ParcelTwin, Memo: MemoTwin, Report: ReportTwin}
