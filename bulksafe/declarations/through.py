"""The tables behind many-to-many fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from django.db.models import ManyToManyField

from bulksafe.caching import models_of

if TYPE_CHECKING:
    from django.db.models import ForeignKey, Model

    Link: TypeAlias = ForeignKey[Any, Any]


def links(through: type[Model]) -> tuple[Link, Link] | None:
    """The foreign keys of a through table: to the model with the many-to-many field, and the other.

    None if it is the table of no many-to-many field. Several fields can share one: the first by
    label and name decides.
    """
    concrete = through._meta.concrete_model
    found = [
        field
        for model in sorted(models_of(through._meta.apps), key=lambda m: m._meta.label)
        for field in model._meta.local_many_to_many
        # Some packages put fields of their own there, which send signals in ways of their own.
        if isinstance(field, ManyToManyField) and _concrete(field) is concrete
    ]
    if not found:
        return None
    field = found[0]
    get: Any = through._meta.get_field
    return get(field.m2m_field_name()), get(field.m2m_reverse_field_name())


def _concrete(field: ManyToManyField[Any, Any]) -> type[Model] | None:
    """The model of a many-to-many field's table; it may be a name that is not resolved yet."""
    meta = getattr(field.remote_field.through, "_meta", None)
    return meta and meta.concrete_model


def link_fields(through: type[Model]) -> tuple[Link, Link]:
    """The same of a table that is known to be one.

    Raises:
        LookupError: it is not.
    """
    found = links(through)
    if found is None:
        raise LookupError(f"{through._meta.label} is the through table of no many-to-many field.")
    return found
