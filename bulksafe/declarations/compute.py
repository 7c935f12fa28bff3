"""``Compute``: a column that always has the value of an expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe.caching import models_of, per_model
from bulksafe.compat import registered
from bulksafe.declarations.base import Invariant
from bulksafe.declarations.dependencies import Dependencies, field_name
from bulksafe.declarations.modes import ENFORCE, Mode
from bulksafe.object_state import forget_returning_fields
from bulksafe.rendering import names

if TYPE_CHECKING:
    from django.db import models


class Compute(Invariant):
    """For every row, ``field`` equals ``Model.objects.annotate(x=expression)``.

    The value is computed when the row is written, and converted to the column's type as in an
    assignment. It overrides any value that is written to the field.

    Args:
        field: the name of a concrete field of the model.
        expression: a Django expression over the other columns of the row.
        name: defaults to ``compute_<field>``.
        mode: ``"observe"`` stores what is written, and records it if it differs. With ``"new"`` a
            wrong value stays until the field or a column that the expression reads changes.
    """

    def __init__(
        self,
        field: str = "",
        expression: object = None,
        *,
        name: str | None = None,
        mode: Mode = ENFORCE,
    ) -> None:
        # If the arguments are swapped, the label still names the field.
        named = expression if isinstance(expression, str) else field
        self.default_name = f"compute_{named}"
        super().__init__(name=self.default_name if name is None else name, mode=mode)
        self.field = field
        self.expression = expression

    def get_pgid(self, model: type[models.Model]) -> str:
        """A name that sorts late, and in dependency order: PostgreSQL fires triggers by name."""
        chain = dependencies(model).longest_chain(field_name(model, self.field))
        rank = max(len(chain) - 1, 0)
        return names.identifier(f"pgtrigger_zz{rank:02}_", self.name, self.get_uri(model))

    def register(self, *models: type[models.Model]) -> None:
        global _registrations  # noqa: PLW0603
        super().register(*models)
        _registrations += 1
        for model in models:
            for other in (model, model._meta.concrete_model):
                forget_returning_fields(other)  # type: ignore[arg-type]

    def default_message(self, label: str) -> str:
        return (
            f"“{self.field}” is computed, and a BEFORE trigger that fires later changed it or "
            "a column that it is computed from."
        )

    def about(self, model: type[models.Model]) -> set[str]:
        return {field_name(model, self.field)}


_registrations = 0


@per_model(lambda: _registrations)
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
    found = [
        trigger
        for other in models_of(model._meta.apps, include_auto_created=True)
        if other._meta.concrete_model is concrete
        for trigger in getattr(other._meta, "triggers", None) or ()
    ]
    # Models of a migration state lack attached triggers in their Meta.
    found += [
        trigger
        for other, trigger in registered()
        if getattr(trigger, "is_attached", False) and other._meta.label == concrete._meta.label  # type: ignore[union-attr]
    ]
    return {field_name(model, t.field): t for t in found if isinstance(t, Compute)}


def dependencies(model: type[models.Model]) -> Dependencies:
    """How the computed fields on the table of ``model`` depend on each other."""
    expressions = {field: compute.expression for field, compute in computes_of(model).items()}
    return Dependencies(model, expressions)
