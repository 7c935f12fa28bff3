"""Invariants in ``Model.full_clean()``, so that a form shows the message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldError, ValidationError
from django.db.models import BooleanField, F, Model, Q, Value
from django.db.models.functions import Cast, Coalesce

from bulksafe import oracle
from bulksafe.declarations import Check, Compute, Declared, Immutable, Transition, declared
from bulksafe.declarations.compute import referenced_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


def constraints_of(model: type[Model]) -> list[tuple[type[Model], list[Validator]]]:
    """The invariants of ``model`` and its parents, as ``Model.get_constraints()`` lists them."""
    lineage = {m._meta.concrete_model for m in (model, *model._meta.all_parents)}
    found = [
        (item.model, [Validator(item)])
        for item in declared()
        if item.model._meta.concrete_model in lineage and not isinstance(item.invariant, Compute)
    ]
    return found


@dataclass(frozen=True)
class Validator:
    """Looks like a constraint to ``Model.validate_constraints``."""

    item: Declared

    @property
    def name(self) -> str:
        return self.item.invariant.name

    def validate(
        self,
        model: type[Model],
        instance: Model,
        exclude: Collection[str] | None = None,
        using: str = "default",
    ) -> None:
        """Raise ValidationError if saving ``instance`` would break the invariant.

        Like a ``CheckConstraint``, a rule is left to the database where a field that it reads is
        excluded from validation.
        """
        if not oracle.accepts(self.item, instance, set(exclude or ()), using):
            raise self.error()

    def error(self) -> ValidationError:
        invariant = self.item.invariant
        message = invariant.message or invariant.default_message(self.item.label)
        error = ValidationError(message, code=invariant.name)
        field = getattr(invariant, "field", None) if isinstance(invariant, Transition) else None
        if isinstance(invariant, Immutable) and len(invariant.fields) == 1:
            field = invariant.fields[0]
        return ValidationError({field: error}) if field else error
