"""Instances of rows that are not stored yet."""

from __future__ import annotations

import copy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import AutoField

from bulksafe.caching import forever, per_model
from bulksafe.declarations.compute import computed_fields
from bulksafe.dispatch.assigning import assign

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.db.models import Model

    from bulksafe.writer.changes import InlineChange


def as_before_the_insert(instance: Model, *, has_key: bool = False) -> None:
    """Clear a generated key before the insert, as before a ``save()``.

    Args:
        has_key: whether the write gives it a key.
    """
    if has_new_key(type(instance)) and not has_key:
        for key in instance._meta.pk_fields:
            setattr(instance, key.attname, None)
    instance._state.adding = True
    instance._state.db = None


def take_over(change: InlineChange) -> None:
    """Set generated values on the instance of a change: keys, defaults, computed values."""
    image, table = change.new_image, change.table
    if image is None:
        return
    values = dict(zip(table.attnames, table.converted(image.values), strict=True))
    wanted = [field.attname for field in change.model._meta.db_returning_fields]
    wanted += [field.attname for field in computed_fields(change.model)]
    assign(change.instance, {name: values[name] for name in wanted if name in values})


#: The most frequent classes of values that cannot be changed in place.
STEADY = frozenset(
    {
        *(int, str, bool, float, bytes, Decimal, UUID, NoneType),
        *(date, datetime, time, timedelta),
    }
)

#: Mutable field and attribute values.
_MUTABLE = (dict, list, set, bytearray)


def copied(value: Any) -> Any:
    """A copy that receivers cannot change through the instance."""
    return copy.deepcopy(value) if isinstance(value, _MUTABLE) else value


def copied_values(instance: Model, names: Iterable[str]) -> dict[str, Any]:
    """Copies of those attributes that the instance has loaded."""
    values = instance.__dict__
    return _copies({name: values[name] for name in names if name in values})


def copied_state(instance: Model) -> dict[str, Any]:
    """Copies of all attributes but ``_state``."""
    values = instance.__dict__.copy()
    del values["_state"]
    return _copies(values)


def _copies(values: dict[str, Any]) -> dict[str, Any]:
    # A hot path: mostly all values are of these types.
    if STEADY.issuperset(map(type, values.values())):
        return values
    return {name: copied(value) for name, value in values.items()}


@per_model(forever)
def has_new_key(model: type[Model]) -> bool:
    """Whether the database generates the keys of the model, or of a parent."""
    return any(is_numbered(key) for key in model._meta.pk_fields)


def is_numbered(key: Any) -> bool:
    """Whether the database generates the values of a key."""
    while key.is_relation:
        key = key.target_field
    return isinstance(key, AutoField) or key.has_db_default()
