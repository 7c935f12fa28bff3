"""Stores one row as it was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db.models import AutoField
from django.db.models.constants import OnConflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bulksafe.writer.changes import InlineChange
    from bulksafe.writer.through_rows import RecordedRow


def insert(row: RecordedRow, using: str, on_conflict: Mapping[str, Any]) -> None:
    """Store a new row without the fields' ``pre_save()``.

    Args:
        on_conflict: in the form of ``QuerySet._insert``: a concurrent transaction may have stored a
            conflicting row.
    """
    _keep_number(row)
    instance = row.instance
    meta = type(instance)._meta
    has_key = None not in [getattr(instance, key.attname) for key in meta.pk_fields]
    fields = [
        one
        for one in meta.local_concrete_fields
        if not one.generated and (has_key or not isinstance(one, AutoField))
    ]
    # An ignored row returns nothing, which Django does not expect.
    is_ignored = on_conflict.get("on_conflict") == OnConflict.IGNORE
    returning = [] if is_ignored else meta.db_returning_fields
    manager: Any = type(instance)._base_manager
    rows = manager._insert(
        [instance], fields=fields, returning_fields=returning, using=using, raw=True, **on_conflict
    )
    for one, value in zip(returning, rows[0] if rows else (), strict=False):
        setattr(instance, one.attname, value)


def _keep_number(row: RecordedRow) -> None:
    """Keep the generated number of the first execution for a new row: no other row will get it."""
    image = row.change.new_image
    assert image is not None  # noqa: S101
    values = dict(zip(image.table.attnames, image.table.converted(image.values), strict=True))
    for key in row.change.model._meta.pk_fields:
        if getattr(row.instance, key.attname) is None:
            setattr(row.instance, key.attname, values[key.attname])


def delete(change: InlineChange, using: str) -> None:
    rows: Any = change.model._base_manager.using(using).filter(pk=change.key(old=True))
    rows._raw_delete(using)
