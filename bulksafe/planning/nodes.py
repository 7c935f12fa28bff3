"""Inspects expressions, most of them resolved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard

from django.core.exceptions import FieldError
from django.db.models import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db.models import Lookup
    from django.db.models.expressions import BaseExpression, CombinedExpression
    from django.db.models.sql import Query
    from django.db.models.sql.where import WhereNode

    from bulksafe.planning import fields

    Resolved: TypeAlias = BaseExpression | WhereNode

    class Resolvable(Protocol):
        """An ``F``, a ``Q`` or any other expression of Django's."""

        def resolve_expression(
            self, query: Query, allow_joins: bool, reuse: set[str] | None
        ) -> Resolved: ...


def is_expression(given: object) -> TypeGuard[Resolvable]:
    return hasattr(given, "resolve_expression") and not isinstance(given, type)


def walk(node: object) -> Iterator[Any]:
    """A resolved expression and all its nodes."""
    yield node
    if hasattr(node, "get_source_expressions"):
        for child in node.get_source_expressions():
            if child is not None:
                yield from walk(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from walk(child)


def output_field(node: object) -> fields.Field | None:
    """The type of a resolved expression's value, if Django can determine it."""
    try:
        return getattr(node, "_output_field_or_none", None) or getattr(node, "output_field", None)
    except (FieldError, AttributeError, TypeError):
        return None


def operands(node: Lookup[Any] | CombinedExpression) -> list[Any]:
    """The typed operands of a comparison or an operator; a literal takes the other's type."""
    sides = (node.lhs, node.rhs)
    return [s for s in sides if hasattr(s, "resolve_expression") and not isinstance(s, Value)]


def is_type(field: fields.Field | None, *internal_types: str) -> bool:
    return field is not None and field.get_internal_type() in internal_types
