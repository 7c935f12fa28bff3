"""Invariants in ``Model.full_clean()``, so that a form shows the message."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import pgtrigger
from django.core.exceptions import FieldError, ValidationError
from django.db.models import BooleanField, Model, Q
from django.db.models.functions import Cast, Coalesce

from bulksafe.declarations import (
    Check,
    Compute,
    Declared,
    Immutable,
    Invariant,
    Transition,
    declared,
)
from bulksafe.declarations.compute import computes_of, dependencies
from bulksafe.declarations.dependencies import referenced_names
from bulksafe.planning.rules import events_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_ROW_PREFIXES = ("old__", "new__")


def constraints_of(model: type[Model]) -> list[tuple[type[Model], list[Validator]]]:
    """The invariants of ``model`` and its parents, as ``Model.get_constraints()`` lists them."""
    lineage = {m._meta.concrete_model for m in (model, *model._meta.all_parents)}
    return [
        (item.model, [Validator(item)])
        for item in declared()
        if item.model._meta.concrete_model in lineage
    ]


@dataclass(frozen=True)
class Validator:
    """Looks like a constraint to ``Model.validate_constraints``."""

    item: Declared

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
        change = Change(model, instance, frozenset(exclude or ()), using)
        if not accepts(self.item.invariant, change):
            invariant = self.item.invariant
            message = invariant.message or invariant.default_message(self.item.label)
            raise ValidationError(message, code=invariant.name)


@dataclass(frozen=True)
class Change:
    """An instance that is about to be saved.

    Attributes:
        model: the model whose table is looked at: the instance's, or a parent of it.
        instance: the row to come.
        exclude: names of fields whose values are not to be judged.
        using: the database.
    """

    model: type[Model]
    instance: Model
    exclude: frozenset[str]
    using: str

    def old(self) -> Model | None:
        """The row as it is stored, or None if it is not."""
        if self.instance._state.adding or self.instance.pk is None:
            return None
        stored = (self.model._meta.concrete_model or self.model)._base_manager.using(self.using)
        return stored.filter(
            pk=getattr(self.instance, self.model._meta.pk.attname, self.instance.pk)
        ).first()

    def changed(self, old: Model, name: str) -> tuple[Any, Any]:
        """The field's value before and after."""
        attname = self.model._meta.get_field(name).attname  # type: ignore[union-attr]
        return getattr(old, attname), getattr(self.instance, attname)


@singledispatch
def accepts(invariant: Invariant, change: Change) -> bool:
    """Whether ``invariant`` lets the change pass, as far as that can be known before."""
    raise NotImplementedError(f"no validation for {type(invariant).__name__}")


@accepts.register(Compute)
def _compute(compute: Compute, change: Change) -> bool:
    return True


@accepts.register(Immutable)
def _immutable(immutable: Immutable, change: Change) -> bool:
    old = change.old()
    names = [name for name in immutable.fields if name not in change.exclude]
    return old is None or all(
        before == after for before, after in (change.changed(old, n) for n in names)
    )


@accepts.register(Transition)
def _transition(transition: Transition, change: Change) -> bool:
    if transition.field in change.exclude:
        return True
    old = change.old()
    if old is None:
        field = change.model._meta.get_field(transition.field)
        state = getattr(change.instance, field.attname)  # type: ignore[union-attr]
        return transition.initial is None or state in list(transition.initial)
    before, after = change.changed(old, transition.field)
    return before == after or after in transition.edges().get(before, ())


@accepts.register(Check)
def _check(check: Check, change: Change) -> bool:
    events = events_of(check)
    if pgtrigger.Delete in events:
        return True
    old = change.old()
    if (pgtrigger.Update if old is not None else pgtrigger.Insert) not in events:
        return True
    computed = _computed_values(change)
    mentioned = _mentioned((check.condition, *check.annotations.values()))
    if mentioned & (change.exclude - set(computed)):
        return True
    against = _values(change, computed, old) | check.annotations
    # Unknown passes.
    satisfied = Coalesce(check.condition, True, output_field=BooleanField())
    try:
        return Q(satisfied).check(against, using=change.using)
    except FieldError:
        # Reads something that is not at hand before the row is stored; the database judges it.
        return True


def _mentioned(expressions: Iterable[Any]) -> set[str]:
    names = set()
    for expression in expressions:
        for name in referenced_names(expression):
            for prefix in _ROW_PREFIXES:
                name = name.removeprefix(prefix)
            names.add(name.split("__")[0])
    return names


def _computed_values(change: Change) -> dict[str, Any]:
    """The expressions of the computed fields that can be judged, inputs first."""
    computes, graph = computes_of(change.model), dependencies(change.model)
    known: dict[str, Any] = {}
    for name in sorted(computes, key=lambda field: len(graph.longest_chain(field))):
        expression = computes[name].expression
        if not _mentioned([expression]) & (change.exclude - set(known)):
            known[name] = Cast(expression, change.model._meta.get_field(name))  # type: ignore[arg-type]
    return known


def _values(change: Change, computed: dict[str, Any], old: Model | None) -> dict[str, Any]:
    """What the names in a condition stand for."""
    meta = change.model._meta
    new = change.instance._get_field_expression_map(meta, change.exclude)  # type: ignore[attr-defined]
    new = {name: value for name, value in new.items() if name not in computed} | computed
    values = new | {f"new__{name}": value for name, value in new.items()}
    if old is not None:
        stored = old._get_field_expression_map(meta)  # type: ignore[attr-defined]
        values |= {f"old__{name}": value for name, value in stored.items()}
    return values
