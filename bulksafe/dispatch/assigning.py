"""Sets the values of a row on its instance, and finds code that reacts to the assignment."""

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
    """Set stored values on an instance as if they were assigned.

    A descriptor may refuse the assignment (state machines) or change other attributes (the width of
    an image). The attributes get the row's values anyway. Cached related objects of the previous
    values are dropped.

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
    """Whether loading and then assigning may give a different instance than loading the new row.

    It may if some code keeps the initial values of an instance: a field tracker,
    ``__init__()``, ``from_db()``, ``__setattr__()``, a descriptor or a receiver of ``post_init``.
    """
    # Asked for every event, and mostly post_init has no receiver at all.
    return keeps_values(model) or (bool(post_init.receivers) and post_init.has_listeners(model))


@per_model(forever)
def keeps_values(model: type[Model]) -> bool:
    """The same, judged by the model class alone."""
    return (
        model.__init__ is not Model.__init__
        or model.__new__ is not Model.__new__
        or model.from_db.__func__ is not Model.from_db.__func__  # type: ignore[attr-defined]
        or len(_plain_names(model)) != len(model._meta.concrete_fields)
    )


@per_model(forever)
def _plain_names(model: type[Model]) -> frozenset[str]:
    """The attributes whose assignment has no side effect.

    File fields count: only an image would be opened. Foreign keys count: ``assign()`` drops their
    related object.
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
    """Drop cached related objects whose columns change."""
    known = instance.__dict__
    changed = {name for name, value in values.items() if known.get(name) != value}
    for field, names in _relations(type(instance)):
        if not names.isdisjoint(changed) and field.is_cached(instance):
            field.delete_cached_value(instance)


@per_model(forever)
def _relations(model: type[Model]) -> list[tuple[Any, frozenset[str]]]:
    """The forward relations, each with the attributes that determine its related object.

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
