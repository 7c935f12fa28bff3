"""Fields as columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

import psycopg
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db import models
from django.db.models.constants import LOOKUP_SEP

from bulksafe.planning import offline
from bulksafe.planning.problems import Refused, did_you_mean, shown
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    Field: TypeAlias = models.Field[Any, Any]


def column_field(model: type[models.Model], name: object) -> Field:
    """The field ``name``, if it is a column of the model's own table.

    Raises:
        Refused: it is not such a column.
    """
    label = model._meta.label
    if not isinstance(name, str) or not name:
        raise Refused(
            "E029", f"{shown(name)} is not a field name.", "Write the field's name as a string."
        )
    try:
        field = model._meta.pk if name == "pk" else model._meta.get_field(name)
    except FieldDoesNotExist:
        known = [f.name for f in model._meta.local_concrete_fields]
        listed = f"{label} has: {', '.join(known)}."
        raise Refused(
            "E020", f"{label} has no field “{name}”.", did_you_mean(name, known, listed)
        ) from None
    if field.many_to_many:
        raise Refused(
            "E033",
            f"“{name}” is many-to-many: its values are rows of another table.",
            "Declare the invariant on the through model: "
            f"bulksafe.register({model.__name__}.{name}.through, …).",
        )
    if not getattr(field, "concrete", False) or getattr(field, "column", None) is None:
        raise no_column(model, name)
    if field not in model._meta.local_concrete_fields and field not in _own_fields(model):
        raise Refused(
            "E034",
            f"“{name}” is a column of “{field.model._meta.db_table}”, the table of a parent model.",
            f"Declare the invariant on {field.model._meta.label}. If it is in the Meta of an "
            f"abstract base, give {model.__name__} a class Meta of its own: without one, it "
            "inherits the base's.",
        )
    return field  # type: ignore[return-value]


def no_column(model: type[models.Model], name: str) -> Refused:
    return Refused(
        "E036",
        f"“{name}” of {model._meta.label} has no column of its own.",
        "Name its columns instead.",
    )


def has_field(model: type[models.Model], name: str) -> bool:
    try:
        model._meta.get_field(name)
    except FieldDoesNotExist:
        return False
    return True


def names_of(model: type[models.Model]) -> set[str]:
    """The names by which an expression can refer to a field."""
    names = {field.name for field in model._meta.get_fields()}
    return names | {field.attname for field in model._meta.concrete_fields}


def row_named(model: type[models.Model], path: str) -> str:
    """The row that a lookup path names, ``"old"`` or ``"new"``; empty for none.

    A model may have a field of such a name: ``old__gte`` is a lookup of it.
    """
    first, *rest = path.split(LOOKUP_SEP)
    if first not in ("old", "new") or not rest:
        return ""
    is_path = rest[0] == "pk" or rest[0] in names_of(model)
    return first if is_path or not has_field(model, first) else ""


def _own_fields(model: type[models.Model]) -> list[Field]:
    concrete = model._meta.concrete_model
    return list(concrete._meta.local_concrete_fields) if concrete else []


def primary_key_columns(model: type[models.Model]) -> list[str]:
    return [str(field.column) for field in model._meta.pk_fields]


def column(row: str, field: Field) -> str:
    return f"{quoting.identifier(row)}.{quoting.identifier(str(field.column))}"


#: Types whose ``=`` treats different values as equal, or that have no ``=``.
_COMPARED_AS_TEXT = frozenset("citext json xml point line lseg box path polygon circle".split())


def identity(row: str, field: Field) -> str:
    """SQL for the exact value of the column, independent of its type's ``=`` and its collation.

    ``citext`` and nondeterministic collations treat ``a`` and ``A`` as equal; Python does not.
    """
    text = column(row, field)
    element, brackets, _ = type_of(field).partition("[")
    # The type's name may include its schema.
    if element.rpartition(".")[2].strip('"') in _COMPARED_AS_TEXT:
        return f'{text}::text{"[]" if brackets else ""} COLLATE "C"'
    return f'{text} COLLATE "C"' if collation(field) else text


def collation(field: Field) -> str | None:
    """The explicit collation of the column, or of its array elements."""
    base = getattr(field, "base_field", None)
    if base is not None:
        return collation(base)
    return field.db_parameters(offline.connection()).get("collation")


def value(field: Field, given: object) -> str:
    """``given`` as a literal of the column's type.

    Raises:
        Refused: the column cannot hold it.
    """
    refuse_odd_value(field, given)
    try:
        converted = field.to_python(given)
        prepared = field.get_db_prep_value(converted, offline.connection())
        literal = quoting.literal(prepared)
    except (ValueError, TypeError, ValidationError, psycopg.DataError) as error:
        reason = "; ".join(error.messages) if isinstance(error, ValidationError) else str(error)
        raise _no_value(field, given, reason) from error
    if isinstance(given, float | Decimal) and isinstance(converted, int) and converted != given:
        raise _no_value(field, given, "it is not a whole number")
    if field.max_length and isinstance(converted, str) and len(converted) > field.max_length:
        raise _no_value(field, given, f"it has more than {field.max_length} characters")
    return literal


def is_one_of(column: str, field: Field, values: Iterable[object]) -> str:
    """SQL that is true or false, never unknown: whether the column has one of ``values``.

    Args:
        column: SQL for the exact value of the column, from ``identity``.
    """
    listed = list(values)
    tests = []
    literals = [value(field, given) for given in listed if given is not None]
    if literals:
        tests.append(f"COALESCE({column} IN ({', '.join(literals)}), false)")
    if None in listed:
        tests.append(f"{column} IS NULL")
    return f"({' OR '.join(tests)})" if tests else "false"


def plain(given: object) -> object:
    """The value of an enum member, for messages."""
    return given.value if isinstance(given, Enum) else given


def refuse_odd_value(field: Field, given: object) -> None:
    """Refuse a value that a text column would store as unintended text, like ``<User: …>``."""
    if family(field) != "text" or isinstance(given, str):
        return
    if isinstance(given, Enum) and not isinstance(given, models.Choices):
        raise Refused(
            "E028",
            f"{shown(given)} is not a value for “{field.name}”: Django stores it as "
            f"{str(given)!r}.",
            f"Write its value, {given.value!r}, or make it a member of a TextChoices.",
        )
    if callable(given) or isinstance(given, _NOT_TEXT):
        raise _no_value(field, given, "it is not text")


_NOT_TEXT = (bytes, bytearray, dict, list, tuple, set, frozenset, models.Model)


def _no_value(field: Field, given: object, reason: str) -> Refused:
    return Refused(
        "E028",
        f"{shown(given)} is not a value for “{field.name}”: {reason.rstrip('.')}.",
        "Write a value of the column's type.",
    )


#: Types that PostgreSQL neither compares with each other nor converts on assignment.
_FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "AutoField BigAutoField SmallAutoField IntegerField BigIntegerField SmallIntegerField "
            "PositiveIntegerField PositiveBigIntegerField PositiveSmallIntegerField DecimalField "
            "FloatField"
        ).split(),
        "number",
    ),
    **dict.fromkeys(
        "CharField TextField SlugField FilePathField FileField URLField EmailField".split(), "text"
    ),
    "BooleanField": "boolean",
    "DateField": "date",
    "DateTimeField": "date",
    "TimeField": "time",
    "DurationField": "duration",
    "UUIDField": "uuid",
    "JSONField": "json",
    "BinaryField": "bytes",
    "GenericIPAddressField": "address",
    "HStoreField": "hstore",
}


def family(field: Field) -> str | None:
    """The kind of the column's values, if known."""
    if field.is_relation:
        target = getattr(field, "target_field", None)
        return family(target) if target is not None else None
    base = getattr(field, "base_field", None)
    if base is None:
        return _FAMILIES.get(field.get_internal_type())
    inner = family(base)
    kind = "range" if field.get_internal_type().endswith("RangeField") else "array"
    return inner and f"{kind} of {inner}"


def type_of(field: Field) -> str:
    """The column's type, for comparison between two states of a project."""
    return field.db_parameters(offline.connection())["type"] or ""


def cast_type(field: Field) -> str:
    """The column's type for a cast."""
    return field.cast_db_type(offline.connection()) or ""
