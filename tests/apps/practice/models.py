"""What public Django projects have receivers for, in two copies of each table.

The receivers of the one are plain ones and its rows are written one by one; those of the other are
critical ones. Both copies lie side by side, so that what is left in them can be compared.
"""

from django.db import models


class Article(models.Model):
    """A slug that is free, a normalised e-mail, a version, the time of publication."""

    title = models.CharField(max_length=80)
    slug = models.CharField(max_length=90, default="")
    email = models.CharField(max_length=80, default="")
    phone = models.CharField(max_length=40, default="")
    status = models.CharField(max_length=20, default="draft")
    version = models.IntegerField(default=0)
    position = models.IntegerField(default=0)
    published = models.BooleanField(default=False)
    changes = models.IntegerField(default=0)
    is_default = models.BooleanField(default=False)
    total = models.IntegerField(default=0)
    amount = models.IntegerField(default=0)
    data = models.JSONField(default=dict)
    upload = models.CharField(max_length=80, default="")
    upload_name = models.CharField(max_length=80, default="")
    notes = models.TextField(default="")
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)

    class Meta:
        abstract = True


class PlainArticle(Article):
    pass


class CriticalArticle(Article):
    pass


class Log(models.Model):
    """What receivers have noted."""

    side = models.CharField(max_length=10)
    text = models.TextField()


class Shelf(models.Model):
    """A parent with a count and a total that its books keep."""

    name = models.CharField(max_length=20)
    books = models.IntegerField(default=0)
    pages = models.IntegerField(default=0)

    class Meta:
        abstract = True

    def update_totals(self):
        found = self.book_set.aggregate(count=models.Count("pk"), pages=models.Sum("pages"))
        self.books, self.pages = found["count"], found["pages"] or 0
        self.save(update_fields=["books", "pages"])


class PlainShelf(Shelf):
    pass


class CriticalShelf(Shelf):
    pass


class PlainBook(models.Model):
    shelf = models.ForeignKey(PlainShelf, models.CASCADE, related_name="book_set", null=True)
    title = models.CharField(max_length=40)
    pages = models.IntegerField(default=0)
    tags = models.ManyToManyField("PlainTag")


class CriticalBook(models.Model):
    shelf = models.ForeignKey(CriticalShelf, models.CASCADE, related_name="book_set", null=True)
    title = models.CharField(max_length=40)
    pages = models.IntegerField(default=0)
    tags = models.ManyToManyField("CriticalTag")


class PlainTag(models.Model):
    name = models.CharField(max_length=40)
    used = models.IntegerField(default=0)


class CriticalTag(models.Model):
    name = models.CharField(max_length=40)
    used = models.IntegerField(default=0)


class Node(models.Model):
    """A tree: the path of a node is made of that of its parent."""

    name = models.CharField(max_length=20)
    path = models.TextField(default="")

    class Meta:
        abstract = True


class PlainNode(Node):
    parent = models.ForeignKey("self", models.CASCADE, null=True, related_name="children")


class CriticalNode(Node):
    parent = models.ForeignKey("self", models.CASCADE, null=True, related_name="children")
