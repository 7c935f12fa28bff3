"""Models as third-party packages make them, and relations that reach other rows."""

from decimal import Decimal

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.query_utils import DeferredAttribute


class Stamped(models.Model):
    code = models.CharField(max_length=20, unique=True)
    number = models.IntegerField(default=0)
    created = models.DateTimeField(auto_now_add=True)


class Top(models.Model):
    """A parent in multi-table inheritance."""

    name = models.CharField(max_length=20)


class Low(Top):
    depth = models.IntegerField(default=0)


class Beside(Top):
    """Another child: a row of the parent may be one of each."""

    width = models.IntegerField(default=0)


class Owner(models.Model):
    name = models.CharField(max_length=20)


class Pet(models.Model):
    name = models.CharField(max_length=20)
    owner = models.ForeignKey(Owner, models.SET_DEFAULT, null=True, default=None)


class Line(models.Model):
    """The database deletes it along with its owner, where a test says so."""

    name = models.CharField(max_length=20)
    owner = models.ForeignKey(Owner, models.DO_NOTHING, db_constraint=False)


class Pair(models.Model):
    pk = models.CompositePrimaryKey("first", "second")
    first = models.IntegerField()
    second = models.IntegerField()
    note = models.CharField(max_length=20, default="")


def wrapped(model):
    """Wrap ``save_base()`` when the class is created, as field trackers do."""
    inner = model.save_base

    def save_base(self, *args, **kwargs):
        result = inner(self, *args, **kwargs)
        self.saved = getattr(self, "saved", 0) + 1
        return result

    model.save_base = save_base
    return model


@wrapped
class Tracked(models.Model):
    number = models.IntegerField(default=0)


class _Protected(DeferredAttribute):
    """Refuses what has a value already, as the field of a state machine does."""

    def __set__(self, instance, value):
        if self.field.attname in instance.__dict__:
            raise AttributeError("Direct state modification is not allowed")
        instance.__dict__[self.field.attname] = value


class StateField(models.CharField):
    descriptor_class = _Protected


class Money:
    """An amount with a currency; equal to no number."""

    def __init__(self, amount):
        self.amount = amount

    def __eq__(self, other):
        return isinstance(other, Money) and self.amount == other.amount

    __hash__ = None


class _AsMoney(DeferredAttribute):
    """Returns the value as ``Money``."""

    def __get__(self, instance, owner=None):
        value = super().__get__(instance, owner)
        if isinstance(value, Decimal):
            value = instance.__dict__[self.field.attname] = Money(value)
        return value

    def __set__(self, instance, value):
        instance.__dict__[self.field.attname] = value


class MoneyField(models.DecimalField):
    descriptor_class = _AsMoney

    def to_python(self, value):
        return super().to_python(value.amount if isinstance(value, Money) else value)

    def get_db_prep_save(self, value, connection):
        return super().get_db_prep_save(self.to_python(value), connection)


class _Widening(DeferredAttribute):
    """Also sets a second attribute, as an image field sets its dimensions."""

    def __set__(self, instance, value):
        if self.field.attname in instance.__dict__:
            instance.width = len(value)
        instance.__dict__[self.field.attname] = value


class PictureField(models.CharField):
    descriptor_class = _Widening


class Thing(models.Model):
    state = StateField(max_length=20, default="new")
    price = MoneyField(max_digits=12, decimal_places=2, default=0)
    picture = PictureField(max_length=20, default="")
    width = models.IntegerField(default=0)
    number = models.IntegerField(default=0)


class LowerField(models.CharField):
    """Stores text in lower case; the attribute keeps what was assigned."""

    def get_prep_value(self, value):
        value = super().get_prep_value(value)
        return value.lower() if isinstance(value, str) else value


class BackwardsField(models.CharField):
    """Stores text backwards."""

    def from_db_value(self, value, expression, connection):
        return value if value is None else value[::-1]

    def get_db_prep_save(self, value, connection):
        value = super().get_db_prep_save(value, connection)
        return value[::-1] if isinstance(value, str) else value


class Keyed(models.Model):
    """Unique columns whose values the database compares in its own way."""

    name = models.CharField(max_length=20, default="")
    number = models.IntegerField(default=0)
    words = ArrayField(models.CharField(max_length=20), null=True, unique=True)
    price = models.DecimalField(max_digits=8, decimal_places=2, null=True, unique=True)
    blob = models.BinaryField(null=True, unique=True)
    lower = LowerField(max_length=20, null=True, unique=True)
    folded = models.CharField(max_length=20, null=True, unique=True, db_collation="no_case")
    backwards = BackwardsField(max_length=20, null=True, unique=True)


class Placed(models.Model):
    """Two rows without a place are in the same place."""

    name = models.CharField(max_length=20, default="")
    number = models.IntegerField(default=0)
    area = models.IntegerField(null=True)
    shelf = models.IntegerField(null=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(
                fields=["area", "shelf"], name="placed_once", nulls_distinct=False
            ),
        )
