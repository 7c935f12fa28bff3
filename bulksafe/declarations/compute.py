"""``Compute``: a column that always has the value of an expression."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from django.db.models import F

from bulksafe.declarations.base import Invariant
from bulksafe.rendering import names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.db import models


class Compute(Invariant):
    """For every row, ``field`` equals ``Model.objects.annotate(x=expression)``.

    The value is made when the row is written, converted to the column's type as PostgreSQL
    converts on assignment. Whatever else is written to the field is overruled.

    Args:
        field: the name of a concrete field of the model.
        expression: a Django expression over the other columns of the row.
        name: defaults to ``compute_<field>``.
    """

    def __init__(self, field: str = "", expression: Any = None, *, name: str | None = None) -> None:
        super().__init__(name=f"compute_{field}" if name is None else name)
        self.field = field
        self.expression = expression

    def get_pgid(self, model: type[models.Model]) -> str:
        """PostgreSQL fires triggers by name: these late, and in dependency order."""
        rank = len(self.inputs_first(model)) - 1
        return names.identifier(f"pgtrigger_zz{rank:02}_", self.name, self.get_uri(model))

    def register(self, *models: type[models.Model]) -> Any:
        super().register(*models)
        computed_fields.cache_clear()
        for model in models:
            for other in (model, model._meta.concrete_model):
                other._meta.__dict__.pop("db_returning_fields", None)  # type: ignore[union-attr]

    def default_message(self, label: str) -> str:
        return (
            f"“{self.field}” is computed, and a BEFORE trigger that fires later changed it or "
            "a column that it is computed from."
        )

    def inputs_first(self, model: type[models.Model]) -> list[str]:
        """The longest chain of computed fields that ends in this one, inputs first.

        A cycle is cut where it closes; ``cycle`` finds it.
        """
        return _longest_chain(self.field, computes_of(model), ())

    def cycle(self, model: type[models.Model]) -> list[str]:
        """The fields of a cycle through this field, or an empty list."""
        return _cycle(self.field, self.field, computes_of(model), ())


@cache
def computed_fields(model: type[models.Model]) -> tuple[models.Field[Any, Any], ...]:
    """The computed columns of the model's own table, as fields of ``model``."""
    computed = computes_of(model)
    return tuple(
        field
        for field in model._meta.concrete_fields
        if field.name in computed and field.model._meta.concrete_model is model._meta.concrete_model
    )


def computes_of(model: type[models.Model]) -> dict[str, Compute]:
    """The computes on the table of ``model``, by field: its own and those of its proxies."""
    concrete = model._meta.concrete_model
    return {
        trigger.field: trigger
        for other in model._meta.apps.get_models(include_auto_created=True)
        if other._meta.concrete_model is concrete
        for trigger in getattr(other._meta, "triggers", None) or ()
        if isinstance(trigger, Compute)
    }


def referenced_names(expression: Any) -> Iterator[str]:
    """The names that ``F()`` and ``Q`` mention anywhere in an unresolved expression."""
    if isinstance(expression, F):
        yield expression.name  # type: ignore[attr-defined]
    elif isinstance(expression, tuple | list):
        if (
            isinstance(expression, tuple)
            and len(expression) == 2
            and isinstance(expression[0], str)
        ):
            yield expression[0]
        for item in expression:
            yield from referenced_names(item)
    elif hasattr(expression, "children"):
        yield from referenced_names(list(expression.children))
    elif hasattr(expression, "get_source_expressions"):
        yield from referenced_names(list(expression.get_source_expressions()))


def _inputs(compute: Compute, computes: dict[str, Compute]) -> list[str]:
    """The computed fields that ``compute`` reads."""
    mentioned = {
        name.removeprefix("new__").split("__")[0] for name in referenced_names(compute.expression)
    }
    return sorted(name for name in mentioned if name in computes)


def _longest_chain(field: str, computes: dict[str, Compute], seen: tuple[str, ...]) -> list[str]:
    if field not in computes or field in seen:
        return []
    chains = [
        _longest_chain(name, computes, (*seen, field))
        for name in _inputs(computes[field], computes)
    ]
    return [*max(chains, key=len, default=[]), field]


def _cycle(field: str, goal: str, computes: dict[str, Compute], seen: tuple[str, ...]) -> list[str]:
    for name in _inputs(computes[field], computes) if field in computes else ():
        if name == goal:
            return [*seen, field, goal]
        if name not in seen and (found := _cycle(name, goal, computes, (*seen, field))):
            return found
    return []
