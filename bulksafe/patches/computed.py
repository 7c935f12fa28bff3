"""Patches for computed fields: set the values computed by the database on instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import Model
from django.db.models.options import Options

from bulksafe import compat, object_state
from bulksafe.declarations import declared
from bulksafe.declarations.compute import computed_fields
from bulksafe.patches.patching import Patch, extend_cached_property

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from django.db.models import Field, QuerySet

    from bulksafe.patches.patching import Original


def _db_returning_fields(
    original: Original[list[Field[Any, Any]]], meta: Options[Any]
) -> list[Field[Any, Any]]:
    returning = original(meta)
    return [*returning, *(f for f in computed_fields(meta.model) if f not in returning)]


def _do_update(  # noqa: PLR0917  (Django's own signature)
    original: Original[object],
    self: Model,
    base_qs: QuerySet[Any],
    using: str,
    pk_val: object,
    values: Collection[compat.Assignment],
    *rest: Any,
) -> object:
    computed = computed_fields(base_qs.model)
    if not computed or not values:
        return original(self, base_qs, using, pk_val, values, *rest)
    if compat.UPDATE_RETURNS_FIELDS:
        returning = rest[-1]
        returning += [field for field in computed if field not in returning]
        return original(self, base_qs, using, pk_val, values, *rest)
    filtered = base_qs.filter(pk=pk_val)
    rows = compat.update_returning(filtered, values, computed)
    for field, value in zip(computed, rows[0] if rows else (), strict=False):
        setattr(self, field.attname, value)
    # With select_on_save, a row whose UPDATE a BEFORE trigger skipped is not missing.
    is_forced = bool(rest[-1])
    return bool(rows) or (self._meta.select_on_save and not is_forced and filtered.exists())


def forget_returning_fields() -> None:
    """Clear the cached property if it was computed before the patch."""
    for item in declared():
        object_state.forget_returning_fields(item.model)


_READ_BACK_BATCH = 5000


def read_back(queryset: QuerySet[Any], instances: Sequence[Model]) -> None:
    """Set the stored computed values on ``instances``, with one query per batch.

    ``bulk_update()`` returns no columns, nor does ``bulk_create(ignore_conflicts=True)``.
    """
    tables = (queryset.model, *queryset.model._meta.get_parent_list())
    names = [field.attname for table in tables for field in computed_fields(table)]
    if not names:
        return
    pk_names = [field.attname for field in queryset.model._meta.pk_fields]
    for start in range(0, len(instances), _READ_BACK_BATCH):
        batch = [(_key(instance), instance) for instance in instances[start:][:_READ_BACK_BATCH]]
        keys = [instance.pk for key, instance in batch if None not in key]
        rows = queryset.model._base_manager.using(queryset.db).filter(pk__in=keys)
        listed = rows.values_list(*pk_names, *names) if keys else ()
        stored = {row[: len(pk_names)]: row[len(pk_names) :] for row in listed}
        for key, instance in batch:
            values = stored.get(key, (None,) * len(names))
            for name, value in zip(names, values, strict=True):
                # Not into __dict__: assignment makes a foreign key drop its cached object.
                setattr(instance, name, value)


def _key(instance: Model) -> tuple[Any, ...]:
    """The primary key as returned by a query: it may have been set as text."""
    return tuple(
        field.to_python(getattr(instance, field.attname)) for field in instance._meta.pk_fields
    )


EARLY = (
    Patch(
        Model,
        "_do_update",
        _do_update,
        "The UPDATE of a save() returns the computed columns, so that the instance is not stale.",
    ),
)

LATE = (
    Patch(
        Options,
        "db_returning_fields",
        _db_returning_fields,
        "An INSERT returns the computed columns, as it does for database defaults. No public API "
        "can add to this cached property.",
        extend_cached_property,
    ),
)
