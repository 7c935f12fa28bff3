"""Fields as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import models

from bulksafe.planning import offline
from bulksafe.planning.problems import Refused, did_you_mean
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    Field: TypeAlias = models.Field[Any, Any]


def column_field(model: type[models.Model], name: object) -> Field:
    """The field ``name``, if it is a column of the model's own table.

    Raises:
        Refused: it is not.
    """
    label = model._meta.label
    if not isinstance(name, str) or not name:
        raise Refused("E029", f"{name!r} is no field name.", "Write the field's name as a string.")
    try:
        field = model._meta.pk if name == "pk" else model._meta.get_field(name)
    except FieldDoesNotExist:
        known = [f.name for f in model._meta.local_concrete_fields]
        listed = f"{label} has: {', '.join(known)}."
        raise Refused(
            "E020", f"{label} has no field “{name}”.", did_you_mean(name, known, listed)
        ) from None
    if field.many_to_many:  # type: ignore[union-attr]
        raise Refused(
            "E033",
            f"“{name}” is many-to-many: its values are rows of another table.",
            f"Declare the invariant on the through model: bulksafe.register({label}.{name}.through, …).",
        )
    if not getattr(field, "concrete", False) or getattr(field, "column", None) is None:
        raise Refused(
            "E036",
            f"“{name}” of {label} has no column of its own.",
            "Name the columns that it is made of.",
        )
    if field not in model._meta.local_concrete_fields and field not in _own_fields(model):
        raise Refused(
            "E034",
            f"“{name}” is a column of “{field.model._meta.db_table}”, the table of a parent model.",  # type: ignore[union-attr]
            f"Declare the invariant on {field.model._meta.label}.",  # type: ignore[union-attr]
        )
    return field  # type: ignore[return-value]


def _own_fields(model: type[models.Model]) -> list[Field]:
    concrete = model._meta.concrete_model
    return list(concrete._meta.local_concrete_fields) if concrete else []


def primary_key_columns(model: type[models.Model]) -> list[str]:
    return [field.column for field in model._meta.pk_fields]


def column(row: str, field: Field) -> str:
    return f"{quoting.identifier(row)}.{quoting.identifier(field.column)}"


def identity(row: str, field: Field) -> str:
    """The column as a value of its own, not as its collation sees it.

    A nondeterministic collation takes ``a`` and ``A`` for equal, Python does not.
    """
    text = column(row, field)
    return f'{text} COLLATE "C"' if _collation(field) else text


def _collation(field: Field) -> str | None:
    base = getattr(field, "base_field", None)
    if base is not None:
        return _collation(base)
    return field.db_parameters(offline.connection()).get("collation")


def value(field: Field, given: Any) -> str:
    """``given`` as a literal of the column's type.

    Raises:
        Refused: the column cannot hold it.
    """
    try:
        prepared = field.get_db_prep_value(field.to_python(given), offline.connection())
    except (ValueError, TypeError, ValidationError) as error:
        reason = "; ".join(error.messages) if isinstance(error, ValidationError) else str(error)
        raise Refused(
            "E028",
            f"{given!r} is no value for “{field.name}”: {reason}",
            "Write a value of the column's type.",
        ) from error
    return quoting.literal(prepared)


def type_of(field: Field) -> str:
    """The column's type, for comparison between two states of a project."""
    return field.db_parameters(offline.connection())["type"] or ""
