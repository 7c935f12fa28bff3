"""The arguments of receivers before a write of instances in hand."""

from __future__ import annotations

import math
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models.signals import pre_delete

from bulksafe.declarations.signals import DELETE, INSERT, UPDATE
from bulksafe.hidden import hidden
from bulksafe.writer.changes import key_of_instance
from bulksafe.writer.conditions import meeting
from bulksafe.writer.storing import batches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.models import Model

    from bulksafe.declarations import Receiver


def early_arguments(
    receiver: Receiver, instances: Sequence[Model], using: str
) -> dict[int, dict[str, Any]]:
    """``old`` and ``changed``, if the receiver names them, for its instances.

    Args:
        instances: of one model, as they are about to be written.

    Returns:
        keyword arguments by the ``id()`` of the instance; one that does not meet ``when`` is
        missing.
    """
    wanted = receiver.extras & {"old", "changed"}
    if receiver.when is None and not wanted:
        return {id(instance): {} for instance in instances}
    is_deletion = receiver.signal is pre_delete
    stored = _stored(instances, using)
    met = _met(receiver, instances, stored, using)
    found = {}
    for instance in instances:
        if id(instance) in met:
            known = _of(instance, stored.get(key_of_instance(instance)), is_deletion)
            found[id(instance)] = {name: known[name] for name in wanted}
    return found


def _of(instance: Model, old: Model | None, is_deletion: bool) -> dict[str, Any]:
    if is_deletion:
        return {"old": old, "changed": frozenset()}
    changed = {
        one.name
        for one in instance._meta.concrete_fields
        # A deferred field is not written.
        if old is None
        or (
            one.attname not in instance.get_deferred_fields()
            and is_another(one, getattr(old, one.attname), getattr(instance, one.attname))
        )
    }
    return {"old": old, "changed": frozenset(changed)}


def is_another(field: Any, value: Any, other: Any) -> bool:
    """Whether two values of a field differ, after conversion by the field."""
    if value == other:
        return False
    if hasattr(value, "resolve_expression") or hasattr(other, "resolve_expression"):
        return True
    try:
        one, two = field.to_python(value), field.to_python(other)
        # PostgreSQL takes NaN for equal to itself, unlike Python.
        return bool(one != two) and not (_is_nan(one) and _is_nan(two))
    except (ValidationError, TypeError, ValueError):
        return True


def _is_nan(value: object) -> bool:
    return isinstance(value, (float, Decimal)) and math.isnan(value)


def assigned_since(instance: Model, before: Mapping[str, Any]) -> set[str]:
    """The attributes of concrete fields whose values have changed.

    Args:
        before: values by attribute.
    """
    now, meta = instance.__dict__, instance._meta
    return {
        name
        for name, value in before.items()
        if name in now
        and now[name] is not value
        and now[name] != value
        # A descriptor may have converted it to an object on reading.
        and is_another(meta.get_field(name), value, now[name])
    }


def _stored(instances: Sequence[Model], using: str) -> dict[Any, Model]:
    """The stored rows, by primary key."""
    keys = [key for one in instances if _is_whole(key := key_of_instance(one))]
    if not keys:
        return {}
    model: Any = type(instances[0])._meta.concrete_model
    manager = model._base_manager.using(using)
    listed = batches(keys, len(model._meta.pk_fields))
    with hidden(connections[using]):
        return {row.pk: row for batch in listed for row in manager.filter(pk__in=batch)}


def _is_whole(key: Any) -> bool:
    return key is not None and not (isinstance(key, tuple) and None in key)


def _met(
    receiver: Receiver, instances: Sequence[Model], stored: dict[Any, Model], using: str
) -> set[int]:
    if receiver.when is None:
        return {id(instance) for instance in instances}
    met: set[int] = set()
    by_operation: dict[str, list[Model]] = defaultdict(list)
    for instance in instances:
        operation = UPDATE if key_of_instance(instance) in stored else INSERT
        by_operation[DELETE if receiver.signal is pre_delete else operation].append(instance)
    for operation, listed in by_operation.items():
        met |= meeting(receiver, listed, operation, using)
    return met
