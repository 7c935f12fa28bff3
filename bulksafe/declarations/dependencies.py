"""Dependencies between computed fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.core.exceptions import FieldDoesNotExist
from django.db.models import F
from django.utils.functional import cached_property
from django.utils.tree import Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django.db import models


@dataclass(frozen=True)
class Dependencies:
    """The computed fields of one table.

    Attributes:
        model: any model of the table.
        expressions: the expression of each computed field, by the field's name.
    """

    model: type[models.Model]
    expressions: Mapping[str, object]

    def inputs(self, field: str) -> list[str]:
        """The computed fields that ``field`` is computed from, also through generated columns."""
        return self._edges.get(field, [])

    @cached_property
    def _edges(self) -> dict[str, list[str]]:
        return {
            field: sorted(set(self._computed_in(expression, ())))
            for field, expression in self.expressions.items()
        }

    def _computed_in(self, expression: object, seen: tuple[str, ...]) -> Iterator[str]:
        for path in referenced_names(expression):
            name = field_name(self.model, path.removeprefix("new__").split("__")[0])
            if name in self.expressions:
                yield name
            elif name not in seen and (generated := _generated_from(self.model, name)) is not None:
                yield from self._computed_in(generated, (*seen, name))

    def longest_chain(self, field: str, seen: tuple[str, ...] = ()) -> list[str]:
        """The longest chain of computed fields that ends in ``field``, inputs first.

        A cycle is cut where it closes; ``cycle`` finds it.
        """
        if field not in self.expressions or field in seen:
            return []
        chains = [self.longest_chain(name, (*seen, field)) for name in self.inputs(field)]
        return [*max(chains, key=len, default=[]), field]

    def cycle(self, field: str) -> list[str]:
        """The fields of a cycle through ``field``, which is first and last, or an empty list."""
        return self._path(field, field, ())

    def _path(self, field: str, goal: str, seen: tuple[str, ...]) -> list[str]:
        for name in self.inputs(field):
            if name == goal:
                return [*seen, field, goal]
            if name not in seen and (found := self._path(name, goal, (*seen, field))):
                return found
        return []


def field_name(model: type[models.Model], name: object) -> str:
    """The name of the field that ``name`` stands for: ``customer`` for ``customer_id``."""
    if not isinstance(name, str):
        return str(name)
    try:
        return model._meta.pk.name if name == "pk" else model._meta.get_field(name).name
    except FieldDoesNotExist:
        return name


def _generated_from(model: type[models.Model], name: str) -> object:
    try:
        return getattr(model._meta.get_field(name), "expression", None)
    except FieldDoesNotExist:
        return None


def referenced_names(expression: object) -> Iterator[str]:
    """The names that ``F()`` and ``Q`` mention anywhere in an unresolved expression."""
    if isinstance(expression, F):
        yield expression.name  # type: ignore[attr-defined]
    elif isinstance(expression, tuple) and len(expression) == 2 and isinstance(expression[0], str):
        # A lookup in a Q.
        yield expression[0]
        yield from referenced_names(expression[1])
    elif isinstance(expression, tuple | list):
        for item in expression:
            yield from referenced_names(item)
    elif isinstance(expression, Node):
        yield from referenced_names(expression.children)
    elif hasattr(expression, "get_source_expressions") and not isinstance(expression, type):
        yield from referenced_names(list(expression.get_source_expressions()))
