"""Invariants in ``Model.full_clean()``, so that a form shows the message.

PostgreSQL evaluates the future row with the trigger's own condition, so types, rounding, collations
and NULL behave the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import pgtrigger
from django.core.exceptions import ValidationError
from django.db import connections

from bulksafe import compiler, forms
from bulksafe.declarations import (
    Capture,
    Check,
    Compute,
    Declared,
    Immutable,
    Invariant,
    Transition,
    declared,
)
from bulksafe.declarations.modes import NEW as NEW_ROWS
from bulksafe.declarations.modes import OBSERVE
from bulksafe.exceptions import InvalidDeclaration
from bulksafe.future_row import FutureRow, Unknown
from bulksafe.planning import Refused, fields
from bulksafe.planning.expressions import NEW, OLD, compile_expression
from bulksafe.planning.rules import events_of
from bulksafe.rendering import templates

if TYPE_CHECKING:
    from collections.abc import Collection

    from django.db.models import Model


def constraints_of(model: type[Model]) -> list[tuple[type[Model], list[Validator]]]:
    """The invariants of ``model`` and its parents, in the form of ``Model.get_constraints()``."""
    lineage = {m._meta.concrete_model for m in (model, *model._meta.all_parents)}
    return [
        (item.model, [Validator(item)])
        for item in declared()
        if item.model._meta.concrete_model in lineage
    ]


@dataclass(frozen=True)
class Validator:
    """Implements the constraint interface of ``Model.validate_constraints``."""

    item: Declared
    #: Django asks a constraint for its fields when the error's code is "unique".
    fields: tuple[str, ...] = ()

    def validate(
        self,
        model: type[Model],
        instance: Model,
        exclude: Collection[str] | None = None,
        using: str = "default",
    ) -> None:
        """Raise ValidationError if saving ``instance`` would break the invariant.

        With ``mode="observe"`` nothing does.

        Like a ``CheckConstraint``, a rule is left to the database if one of its fields is excluded
        from validation, or has a value that only the database can compute. Unlike there, a Check
        is evaluated with the instance's values of the fields that a ModelForm lacks.
        """
        if self.item.invariant.mode == OBSERVE:
            return
        concrete = model._meta.concrete_model or model
        excluded = frozenset(exclude or ())
        if isinstance(self.item.invariant, Check):
            excluded -= forms.known_fields(instance)
        row = FutureRow(concrete, instance, excluded, using)
        if connections[using].vendor == "postgresql" and not passes(self.item, row):
            invariant = self.item.invariant
            message = invariant.message or default_message(self.item, row)
            raise ValidationError(message, code=invariant.name)


@dataclass(frozen=True)
class Rule:
    """A condition that a trigger refuses.

    Attributes:
        violated: SQL over the rows ``old`` and ``new``.
        reads: the columns of the new row that it needs.
        events: the operations of the rule.
        reads_old: whether it needs the old row.
        spares: SQL over the row ``old``: whether the rule spares a change of this stored row.
    """

    violated: str
    reads: frozenset[fields.Field]
    events: tuple[Any, ...]
    reads_old: bool
    spares: str = ""


@singledispatch
def rules_of(invariant: Invariant, model: type[Model]) -> list[Rule]:
    """The rules that can be evaluated before the row is stored."""
    raise NotImplementedError(f"no validation for {type(invariant).__name__}")


@rules_of.register(Compute)
@rules_of.register(Capture)
def _nothing(invariant: Invariant, model: type[Model]) -> list[Rule]:
    return []


@rules_of.register(Check)
def _check(check: Check, model: type[Model]) -> list[Rule]:
    events = tuple(events_of(check, model))
    if pgtrigger.Delete in events:
        return []
    condition = compile_expression(model, check.condition, annotations=check.annotations)
    reads = frozenset(field for row, field in condition.reads if row == NEW)
    reads_old = OLD in condition.rows()
    spares = ""
    if check.mode == NEW_ROWS and pgtrigger.Update in events and not reads_old:
        annotations = check.annotations
        stored = compile_expression(model, check.condition, annotations=annotations, before=True)
        spares = f"NOT ({stored.sql})"
    return [Rule(f"NOT ({condition.sql})", reads, events, reads_old, spares)]


@rules_of.register(Immutable)
def _immutable(immutable: Immutable, model: type[Model]) -> list[Rule]:
    rules = []
    for field in (fields.column_field(model, name) for name in immutable.fields):
        # One rule per field: an excluded field must not disable the others.
        alone = Immutable(field.name, name=immutable.name)
        rules += _triggers_as_rules(alone, field, model)
    return rules


@rules_of.register(Transition)
def _transition(transition: Transition, model: type[Model]) -> list[Rule]:
    field = fields.column_field(model, transition.field)
    return _triggers_as_rules(transition, field, model)


_EVENTS = {"INSERT": pgtrigger.Insert, "UPDATE": pgtrigger.Update}


def _triggers_as_rules(invariant: Invariant, field: fields.Field, model: type[Model]) -> list[Rule]:
    return [
        Rule(
            trigger["condition"],
            frozenset([field]),
            (_EVENTS[trigger["events"]],),
            trigger["events"] == "UPDATE",
        )
        for trigger in invariant.compile(model).triggers
        if trigger["template"] == "row_trigger"
    ]


def passes(item: Declared, row: FutureRow) -> bool:
    """Whether the invariant allows the row, as far as it can be checked before the write."""
    try:
        rules = rules_of(item.invariant, row.model)
    except (Refused, InvalidDeclaration):
        # The system checks report it; there is no trigger.
        return True
    return not any(_is_broken(rule, item, row) for rule in rules)


def default_message(item: Declared, row: FutureRow) -> str:
    """The message of a violation that declares none, as the database would raise it."""
    invariant = item.invariant
    if not isinstance(invariant, Transition):
        return invariant.default_message(item.label)
    before, after, is_new = row.states(fields.column_field(row.model, invariant.field))
    return invariant.displayed(invariant.states_message(before, after, is_new=is_new), row.model)


def _is_broken(rule: Rule, item: Declared, row: FutureRow) -> bool:
    try:
        new = f'({row.select(rule.reads)}) AS "new"'
        if rule.reads_old:
            rows = f'{new} CROSS JOIN ({row.stored()}) AS "old"'
            return row.may_exist() and row.is_true(f"{_violated(rule, item)} FROM {rows}")
        if len(rule.events) == 1 and row.is_stored() is (pgtrigger.Insert in rule.events):
            return False
        broken = row.is_true(f"{_violated(rule, item)} FROM {new}")
        return broken and not (rule.spares and row.may_exist() and _is_spared(rule, row))
    except Unknown:
        return False


def _is_spared(rule: Rule, row: FutureRow) -> bool:
    """Whether the stored row breaks the rule already. Asked only for a row that breaks it."""
    return row.is_true(f'SELECT {rule.spares} FROM ({row.stored()}) AS "old"')  # noqa: S608


def _violated(rule: Rule, item: Declared) -> str:
    """The trigger's condition as an expression; muted invariants are never violated."""
    names = {"invariant": item.label, "pgid": item.invariant.get_pgid(item.model)}
    unmuted = templates.fill(compiler.VERSION, "unmuted", names)
    return f"SELECT ({rule.violated}) AND {unmuted}"
