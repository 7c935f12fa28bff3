"""The models that the examples of the documentation use: the tutorial's shop, a little larger."""

from django.db import models


class Product(models.Model):
    name = models.CharField(max_length=100)
    slug = models.SlugField(max_length=100, default="")
    price = models.DecimalField(max_digits=10, decimal_places=2, default=1)


class Order(models.Model):
    number = models.CharField(max_length=20)
    status = models.CharField(max_length=10, default="draft")
    kind = models.CharField(max_length=10, default="sale")
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    discount = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    net = models.DecimalField(max_digits=10, decimal_places=2, default=0, editable=False)
    balance = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    closed = models.BooleanField(default=False)
    placed_at = models.DateTimeField(null=True)

    def __str__(self):
        return self.number


class OrderLine(models.Model):
    order = models.ForeignKey(Order, models.CASCADE, related_name="lines")
    price = models.DecimalField(max_digits=10, decimal_places=2)


class AuditLog(models.Model):
    entity = models.CharField(max_length=20, default="order")
    entity_id = models.BigIntegerField()
    action = models.CharField(max_length=20)
    detail = models.JSONField(default=dict)
    at = models.DateTimeField(auto_now_add=True)


class Tag(models.Model):
    name = models.CharField(max_length=50)


class Article(models.Model):
    title = models.CharField(max_length=100)
    tags = models.ManyToManyField(Tag)
