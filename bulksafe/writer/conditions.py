"""Evaluates ``when=`` before a write, for rows that are not in the database yet."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from django.db import connections

from bulksafe.own_cursor import own_cursor
from bulksafe.planning.capture import condition_of
from bulksafe.rendering import quoting
from bulksafe.writer.storing import batches, placeholder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import Field, Model

    from bulksafe.declarations import Receiver

#: The column for the position of the instance: no field can have this name.
_PLACE = '"bulksafe place"'


def meeting(receiver: Receiver, instances: Sequence[Model], operation: str, using: str) -> set[int]:
    """The instances that would meet ``when=`` if they were stored as they are.

    Args:
        instances: of one model.

    Returns:
        their ``id()``. Includes instances whose condition depends on an expression, since its value
        is only known when it is stored.
    """
    model: Any = type(instances[0])._meta.concrete_model
    condition = condition_of(receiver, model, operation) or "true"
    fields = model._meta.local_concrete_fields
    met: set[int] = set()
    groups: dict[tuple[Field[Any, Any], ...], list[Model]] = defaultdict(list)
    for instance in instances:
        unknown = {
            field for field in model._meta.local_concrete_fields if _is_unknown(instance, field)
        }
        if any(f'"new".{quoting.identifier(field.column)}' in condition for field in unknown):
            met.add(id(instance))
        else:
            fields = model._meta.local_concrete_fields
            groups[tuple(field for field in fields if field not in unknown)].append(instance)
    for known, group in groups.items():
        for batch in batches(group, len(known) + 1):
            met |= {id(batch[place]) for place in _places(condition, model, known, batch, using)}
    return met


def _is_unknown(instance: Model, field: Field[Any, Any]) -> bool:
    return bool(field.generated) or hasattr(getattr(instance, field.attname), "resolve_expression")


def _places(
    condition: str,
    model: type[Model],
    fields: Sequence[Field[Any, Any]],
    instances: Sequence[Model],
    using: str,
) -> list[int]:
    """The positions of instances that meet a condition over the rows ``new`` and ``old``."""
    connection = connections[using]
    texts, params = [], []
    for place, instance in enumerate(instances):
        values = [getattr(instance, field.attname) for field in fields]
        pairs = list(zip(fields, values, strict=True))
        texts.append(
            f"({', '.join([str(place), *(placeholder(f, v, connection) for f, v in pairs)])})"
        )
        params += [f.get_db_prep_save(v, connection) for f, v in pairs]
    columns = [quoting.identifier(str(field.column)) for field in fields]
    keys = [quoting.identifier(str(key.column)) for key in model._meta.pk_fields]
    # An instance without a key is not stored.
    is_same = " AND ".join(f'"old".{key} = "new".{key}' for key in keys)
    on = is_same if set(keys) <= set(columns) else "false"
    relation = quoting.relation(model._meta.db_table)
    head, tail = (
        text.replace("%", "%%")
        for text in (
            f'SELECT "new".{_PLACE} FROM (VALUES ',  # noqa: S608
            f') AS "new" ({", ".join([_PLACE, *columns])}) '
            f'LEFT JOIN {relation} AS "old" ON {on} WHERE ({condition})',
        )
    )
    with own_cursor(connection) as cursor:
        cursor.execute(f"{head}{', '.join(texts)}{tail}", params)
        return [place for (place,) in cursor.fetchall()]
