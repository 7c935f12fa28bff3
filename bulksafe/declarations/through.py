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

    None if no many-to-many field uses the table. If several fields share it, the first by label and
    name decides.
    """
    concrete = through._meta.concrete_model
    found = [
        field
        for model in sorted(models_of(through._meta.apps), key=lambda m: m._meta.label)
        for field in model._meta.local_many_to_many
        # Some packages put custom fields there, which send signals differently.
        if isinstance(field, ManyToManyField) and _concrete(field) is concrete
    ]
    if not found:
        return None
    field = found[0]
    get: Any = through._meta.get_field
    return get(field.m2m_field_name()), get(field.m2m_reverse_field_name())


def _concrete(field: ManyToManyField[Any, Any]) -> type[Model] | None:
    """The through model of a many-to-many field, which may be an unresolved name."""
    meta = getattr(field.remote_field.through, "_meta", None)
    return meta and meta.concrete_model


def link_fields(through: type[Model]) -> tuple[Link, Link]:
    """The same, for a table that must be a through table.

    Raises:
        LookupError: it is not a through table.
    """
    found = links(through)
    if found is None:
        raise LookupError(f"{through._meta.label} is not a many-to-many through table.")
    return found
