"""A model with fields of every kind, and assertions about what the checks report."""

import datetime  # noqa: F401  (for the examples in the docs)
import enum
import uuid

import pytest
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import (
    F,
)

from bulksafe import Check, InvalidDeclaration
from tests.unit.declaring import declare, findings, ids, isolated

User = get_user_model()


class Plain(enum.Enum):
    DRAFT = "draft"


class Status(models.TextChoices):
    DRAFT = "draft"
    PAID = "paid"
    SHIPPED = "shipped"


@pytest.fixture(autouse=True)
def _isolated():
    with isolated():
        yield


def money(**kwargs):
    return models.DecimalField(max_digits=9, decimal_places=2, **kwargs)


def order_with(*triggers, fields=None, **options):
    """A model with a bit of everything, which declares ``triggers``."""
    parent = declare(class_name="Parent", limit=models.IntegerField())
    tag = declare(class_name="Tag")
    columns = {
        "amount": money(),
        "discount": money(default=0),
        "net": money(editable=False),
        "gross": money(editable=False, default=0, db_default=0),
        "tax": money(editable=False),
        "quantity": models.IntegerField(),
        "status": models.CharField(max_length=9, choices=Status, default="draft"),
        "note": models.CharField(max_length=9, null=True, editable=False),
        "day": models.DateField(),
        "at": models.DateTimeField(),
        "touched": models.DateTimeField(auto_now=True),
        "flag": models.BooleanField(default=False),
        "data": models.JSONField(default=dict),
        "numbers": ArrayField(models.IntegerField(), default=list, editable=False),
        "uid": models.UUIDField(default=uuid.uuid4),
        "previous": models.ForeignKey("self", models.CASCADE, null=True, related_name="next"),
        "tags": models.ManyToManyField(tag),
        "kind": models.ForeignKey(ContentType, models.CASCADE, related_name="+"),
        "key": models.IntegerField(),
        "target": GenericForeignKey("kind", "key"),
        "double": models.GeneratedField(
            expression=F("quantity") * 2, output_field=models.IntegerField(), db_persist=True
        ),
    }
    return declare(*triggers, bases=(parent,), meta=options, **columns | (fields or {}))


def kinds(**declared):
    """Run the test for each kind of mistake: (declaration, part of the fact, part of the fix)."""
    return pytest.mark.parametrize(
        ("declaration", "fact", "fix"), list(declared.values()), ids=list(declared)
    )


def check(condition=None, /, **kwargs):
    return Check(condition, **{"name": "rule", **kwargs})


def reported(code, declaration, fact, fix):
    """The checks say this, and nothing else; makemigrations stops with the same."""
    model = order_with(declaration)
    found = findings(model)

    assert ids(found) == [code], found
    says(found[0], fact, fix)
    if code.startswith("E"):
        with pytest.raises(InvalidDeclaration, match=rf"bulksafe\.{code}"):
            declaration.compile(model)
    else:
        assert declaration.compile(model).install_sql


def says(message, fact, fix):
    assert fact in message.msg
    assert fix in message.hint
    for text in (message.msg, message.hint):
        assert text[-1] in ".?"
        assert " at 0x" not in text
        assert ".." not in text.replace("…", "")
