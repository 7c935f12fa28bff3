"""Setting the values of a row on an instance of it, and what can notice that they are set."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from django.db.models import Model
from django.db.models.fields.files import FileDescriptor
from django.db.models.fields.related_descriptors import ForeignKeyDeferredAttribute
from django.db.models.query_utils import DeferredAttribute
from django.db.models.signals import post_init

from bulksafe.caching import forever, per_model

if TYPE_CHECKING:
    from collections.abc import Mapping


def assign(instance: Model, values: Mapping[str, Any]) -> None:
    """Set values that the row of an instance has got, as if they were assigned to it.

    A descriptor may refuse that, as those of state machines do, or change other attributes, as the
    one of an image sets the width. The values are the row's all the same. Related objects that
    belong to the values before are dropped.

    Args:
        values: by attribute.
    """
    if instance._state.fields_cache:
        _drop_stale_relations(instance, values)
    plain = _plain_names(type(instance))
    if plain.issuperset(values):
        instance.__dict__.update(values)
        return
    before = instance.__dict__.copy()
    for name, value in values.items():
        if name in plain:
            instance.__dict__[name] = value
            continue
        try:
            setattr(instance, name, value)
        except Exception:
            instance.__dict__[name] = value
    for one in instance._meta.concrete_fields:
        name = one.attname
        if name not in values and name in before:
            instance.__dict__[name] = before[name]


def notices_assignment(model: type[Model]) -> bool:
    """Whether an instance that is loaded and then assigned to may differ from one that is loaded.

    It may if something keeps the values that an instance begins with: a tracker of fields,
    ``__init__()``, ``from_db()``, ``__setattr__()``, a descriptor or a receiver of ``post_init``.
    """
    # Asked for every event, and mostly post_init has no receiver at all.
    return keeps_values(model) or (bool(post_init.receivers) and post_init.has_listeners(model))


@per_model(forever)
def keeps_values(model: type[Model]) -> bool:
    """The same, as far as the class of the model says."""
    return (
        model.__init__ is not Model.__init__
        or model.__new__ is not Model.__new__
        or model.from_db.__func__ is not Model.from_db.__func__  # type: ignore[attr-defined]
        or len(_plain_names(model)) != len(model._meta.concrete_fields)
    )


@per_model(forever)
def _plain_names(model: type[Model]) -> frozenset[str]:
    """The attributes whose assignment has no other effect.

    A file is one: an image would be opened. So is a foreign key, whose related object
    ``assign()`` drops.
    """
    if model.__setattr__ is not Model.__setattr__:
        return frozenset()
    return frozenset(
        one.attname
        for one in model._meta.concrete_fields
        if type(descriptor := inspect.getattr_static(model, one.attname)) in _PLAIN
        or isinstance(descriptor, FileDescriptor)
    )


_PLAIN = (DeferredAttribute, ForeignKeyDeferredAttribute)


def _drop_stale_relations(instance: Model, values: Mapping[str, Any]) -> None:
    """Drop the cached objects of relations whose columns change: they are of the row before."""
    known = instance.__dict__
    changed = {name for name, value in values.items() if known.get(name) != value}
    for field, names in _relations(type(instance)):
        if not names.isdisjoint(changed) and field.is_cached(instance):
            field.delete_cached_value(instance)


@per_model(forever)
def _relations(model: type[Model]) -> list[tuple[Any, frozenset[str]]]:
    """The forward relations, each with the attributes that its related object is made from.

    The object behind the link to a parent (multi-table inheritance) holds the parent's fields.
    """
    found = []
    for field in model._meta.fields:
        if field.remote_field is None:
            continue
        relation: Any = field
        names = {one.attname for one in relation.local_related_fields}
        if relation.remote_field.parent_link:
            names |= {one.attname for one in relation.related_model._meta.concrete_fields}
        found.append((relation, frozenset(names)))
    return found
