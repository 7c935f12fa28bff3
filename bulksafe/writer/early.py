"""What receivers that run before a write are called with, where the instances are in hand."""

from __future__ import annotations

import dis
import inspect
from functools import lru_cache
from types import CodeType
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models.signals import pre_delete

from bulksafe.declarations.signals import DELETE, INSERT, UPDATE
from bulksafe.planning.capture import condition_of
from bulksafe.rendering import quoting
from bulksafe.writer.changes import key_of_instance
from bulksafe.writer.storing import batches, placeholder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import Model

    from bulksafe.declarations import Receiver

_EXTRA = ("old", "changed", "event_id", "context")
#: Functions through which the arguments may be reached by another name.
_REFLECTIVE = frozenset({"locals", "vars", "eval", "exec"})


def early_arguments(
    receiver: Receiver, instances: Sequence[Model], using: str
) -> dict[int, dict[str, Any]]:
    """``old`` and ``changed`` for those of the instances that the receiver is called for.

    Args:
        instances: of one model, as they are about to be written.

    Returns:
        keyword arguments by the ``id()`` of the instance; one that does not meet ``when`` is
        missing.
    """
    if receiver.when is None and not wants_extra(receiver.function):
        return {id(instance): {} for instance in instances}
    is_deletion = receiver.signal is pre_delete
    stored = _stored(instances, using)
    met = _met(receiver, instances, stored, using)
    return {
        id(instance): _of(instance, stored.get(key_of_instance(instance)), is_deletion)
        for instance in instances
        if id(instance) in met
    }


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
    """Whether two values of a field differ, as it understands what forms and descriptors make."""
    if value == other:
        return False
    if hasattr(value, "resolve_expression") or hasattr(other, "resolve_expression"):
        return True
    try:
        return bool(field.to_python(value) != field.to_python(other))
    except (ValidationError, TypeError, ValueError):
        return True


def _stored(instances: Sequence[Model], using: str) -> dict[Any, Model]:
    """The rows as they are, by primary key."""
    keys = [key for one in instances if _is_whole(key := key_of_instance(one))]
    if not keys:
        return {}
    model: Any = type(instances[0])._meta.concrete_model
    manager = model._base_manager.using(using)
    return {row.pk: row for batch in batches(keys) for row in manager.filter(pk__in=batch)}


def _is_whole(key: Any) -> bool:
    return key is not None and not (isinstance(key, tuple) and None in key)


def _met(
    receiver: Receiver, instances: Sequence[Model], stored: dict[Any, Model], using: str
) -> set[int]:
    if receiver.when is None:
        return {id(instance) for instance in instances}
    met = set()
    for instance in instances:
        operation = UPDATE if key_of_instance(instance) in stored else INSERT
        if receiver.signal is pre_delete:
            operation = DELETE
        if _meets(receiver, instance, operation, using):
            met.add(id(instance))
    return met


def _meets(receiver: Receiver, instance: Model, operation: str, using: str) -> bool:
    """Whether the instance would meet ``when`` if it were stored as it is."""
    model: Any = type(instance)._meta.concrete_model
    condition = condition_of(receiver, model, operation)
    connection = connections[using]
    text = condition or "true"
    columns, params = [], []
    for field in model._meta.local_concrete_fields:
        column = quoting.identifier(field.column)
        value = None if field.generated else getattr(instance, field.attname)
        if field.generated or hasattr(value, "resolve_expression"):
            if f'"new".{column}' in text:
                # Nobody can say before it is stored.
                return True
            continue
        columns.append(f"{placeholder(field, value, connection)} AS {column.replace('%', '%%')}")
        params.append(field.get_db_prep_save(value, connection))
    new = ", ".join(columns)
    relation = quoting.relation(model._meta.db_table).replace("%", "%%")
    on = " AND ".join(
        f'"old".{name} = "new".{name}'
        for name in (quoting.identifier(one.column) for one in model._meta.pk_fields)
    ).replace("%", "%%")
    text = text.replace("%", "%%")
    with connection.wrap_database_errors, connection.connection.cursor() as cursor:
        cursor.execute(
            f'SELECT COALESCE(({text}), false) FROM (SELECT {new}) AS "new" '  # noqa: S608
            f'LEFT JOIN {relation} AS "old" ON {on}',
            params,
        )
        return bool(cursor.fetchone()[0])


def wants_extra(function: Any) -> bool:
    """Whether a receiver can see more than Django's arguments, which costs a query before a save.

    A function that names none of that, and never looks at its ``**kwargs``, cannot.
    """
    if inspect.ismethod(function):
        function = function.__func__
    code = getattr(function, "__code__", None)
    if not inspect.isfunction(function) or not isinstance(code, CodeType):
        return True
    return _code_wants_extra(code)


@lru_cache(maxsize=1024)
def _code_wants_extra(code: CodeType) -> bool:
    count = code.co_argcount + code.co_kwonlyargcount
    if set(code.co_varnames[:count]) & set(_EXTRA):
        return True
    if not code.co_flags & inspect.CO_VARKEYWORDS:
        return False
    name = code.co_varnames[count + bool(code.co_flags & inspect.CO_VARARGS)]
    return name in code.co_cellvars or any(
        _looks_at(one, name) for one in dis.get_instructions(code)
    )


def _looks_at(instruction: dis.Instruction, name: str) -> bool:
    if not instruction.opname.startswith("LOAD"):
        return False
    # Python 3.13 has instructions that load two names.
    value: Any = instruction.argval
    names = value if isinstance(value, tuple) else (value,)
    return any(one == name or (isinstance(one, str) and one in _REFLECTIVE) for one in names)
